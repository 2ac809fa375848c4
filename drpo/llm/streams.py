"""Replies piece by piece, from whatever answers."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Protocol

from drpo.llm.base import LLM, Request
from drpo.llm.wire import Piece

_WORDS = re.compile(r"\S+\s*|\s+")


class Streams(Protocol):
    """Anything that gives a reply as it comes. Failures as of `LLM.complete`, also in the middle."""

    def stream(self, request: Request) -> AsyncGenerator[Piece, None]: ...


class WordByWord:
    """A model that only gives whole replies, which then come word by word at once."""

    def __init__(self, model: LLM) -> None:
        self._model = model

    async def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        """The words of the reply; the last piece has its reason and usage."""
        completion = await self._model.complete(request)
        choice = completion.choices[0]
        for word in _WORDS.findall(choice.text):
            yield Piece(word)
        yield Piece("", choice.finish_reason, completion.usage)
