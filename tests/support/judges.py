"""Judges and base models for tests that measure, by rules that a test can foresee."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from drpo.llm.base import Choice, Completion, Request, Usage
from drpo.llm.world.reading import take_apart

ASPECTS = ("helpfulness", "clarity", "factuality", "depth", "engagement")


def scores(value: object, aspects: Sequence[str] = ASPECTS) -> str:
    """A judge's reply that gives every aspect this score."""
    return json.dumps({name: {"reason": "as it is", "score": value} for name in aspects})


def verdict(preferred: str) -> str:
    """A judge's reply with this verdict."""
    return json.dumps({"reason": "it is better", "verdict": preferred})


class Ruled:
    """A model whose reply is a function of what stands in the fences of a request (a judge's), or of the
    last message (a base model's). `asked` are the requests so far."""

    def __init__(self, rule: Callable[[dict[str, str]], str], name: str = "ruled") -> None:
        self._rule, self.name = rule, name
        self.asked: list[Request] = []

    async def complete(self, request: Request) -> Completion:
        """One choice."""
        self.asked.append(request)
        parts = take_apart(request)
        texts = {name: parts.text(name, "test") for name in parts.fenced}
        if not texts:
            texts = {"system": request.messages[0].content, "user": request.messages[-1].content}
        return Completion((Choice(self._rule(texts)),), Usage(10, 5))
