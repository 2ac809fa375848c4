"""A model whose replies the test holds back, for what happens while a call is in the air."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from drpo.llm.base import Choice, Completion, Message, Request

Answer = Completion | BaseException


def question(text: str = "q", **fields: object) -> Request:
    """A chat request of one message."""
    return Request(**{"model": "m", "messages": (Message("user", text),), **fields})  # type: ignore[arg-type]


def reply(text: str, n: int = 1) -> Completion:
    """`n` choices with this text."""
    return Completion(tuple(Choice(text) for _ in range(n)))


def echo(request: Request) -> Answer:
    """One choice for each that is wanted, telling the question."""
    return reply(f"answer to {request.messages[-1].content}", request.n)


class GatedLLM:
    """Answers by `script` once `gate` is open. `requests` holds what was asked, in order."""

    def __init__(self, script: Callable[[Request], Answer] = echo, *, open_gate: bool = True) -> None:
        self.gate = asyncio.Event()
        if open_gate:
            self.gate.set()
        self.requests: list[Request] = []
        self._script = script

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        await self.gate.wait()
        answer = self._script(request)
        if isinstance(answer, BaseException):
            raise answer
        return answer
