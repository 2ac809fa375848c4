"""One typed question to a model: ask, read, ask once more saying what was wrong, else `Failed`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from drpo.errors import ParameterRefused
from drpo.llm.base import LLM, Choice, Completion, Message, Request
from drpo.parse import Unreadable
from drpo.templates import Templates
from drpo.types import Failed

T = TypeVar("T")
Reader = Callable[[str], "T | Unreadable"]

_NO_ANSWER = {
    "context_length": "the request is longer than the model's context",
    "content_filter": "the provider's content filter held the reply back",
}


@dataclass(frozen=True, slots=True)
class Asker:
    """A model, and how many repair turns an unreadable reply is given (1; the published runs: 0).

    structured: whether the schema of a reply is sent along, where there is one; repairs then have it too.
    whole: whether a reply that was cut at the limit of tokens is unreadable, whatever `read` makes of it:
    plain text does not show that its end is missing.
    """

    llm: LLM
    templates: Templates
    repairs: int = 1
    structured: bool = False
    whole: bool = False

    async def ask(self, request: Request, read: Reader[T], schema: str | None = None) -> T | Failed:
        """The reply to a request for one choice, read by `read`; `schema` is what `read` takes."""
        request = self._with_schema(request, schema)
        completion = await self.llm.complete(request)
        return await self._read(request, completion.choices[0], read)

    def sample(self, request: Request, read: Reader[T], schema: str | None = None) -> tuple[Sample[T], ...]:
        """`request.n` independent replies to one request, none waiting for another's repair.

        An endpoint that refuses or ignores n is asked for each missing choice by itself.
        """
        request = self._with_schema(request, schema)
        shared = _Once(lambda: self.llm.complete(request))
        return tuple(Sample(self, request, read, shared, index) for index in range(request.n))

    def _with_schema(self, request: Request, schema: str | None) -> Request:
        return replace(request, reply_schema=schema) if self.structured else request

    async def _read(self, request: Request, choice: Choice, read: Reader[T]) -> T | Failed:
        turns = request.messages
        for left in range(self.repairs, -1, -1):
            if choice.finish_reason in _NO_ANSWER and not choice.text:
                return Failed(_NO_ANSWER[choice.finish_reason])
            result = read(choice.text)
            if self.whole and choice.finish_reason == "length":
                result = Unreadable("the reply is not whole")
            if not isinstance(result, Unreadable):
                return result
            problem = _with_cut(result.problem, choice)
            if left == 0:
                break
            repair = self.templates.render("repair", problem=problem)
            # Some servers refuse an empty message, which would turn an unreadable reply into a failed run.
            said = choice.text if choice.text.strip() else "(nothing)"
            turns = (*turns, Message("assistant", said), Message("user", repair))
            again = replace(request, messages=turns, n=1)
            choice = (await self.llm.complete(again)).choices[0]
        return Failed(problem, choice.text)


class Sample(Generic[T]):
    """One choice of a request for several."""

    def __init__(
        self, asker: Asker, request: Request, read: Reader[T], shared: _Once[Completion], index: int
    ) -> None:
        self._asker, self._request, self._read, self._shared, self._index = (
            asker,
            request,
            read,
            shared,
            index,
        )

    async def value(self) -> T | Failed:
        """What the choice says, after its own repair where that was needed."""
        alone = self._request
        if alone.n > 1:
            alone = replace(alone, n=1, seed=derived_seed(alone.seed or 0, f"choice {self._index}"))
        return await self._asker._read(alone, await self._choice(alone), self._read)

    async def _choice(self, alone: Request) -> Choice:
        if self._request.n > 1:
            try:
                completion = await self._shared.get()
                if self._index < len(completion.choices):
                    return completion.choices[self._index]
            except ParameterRefused as refused:
                if refused.parameter != "n":
                    raise
        return (await self._asker.llm.complete(alone)).choices[0]


class _Once(Generic[T]):
    """One piece of work, begun by whoever needs it first."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work, self._task = work, None

    _task: asyncio.Future[T] | None

    async def get(self) -> T:
        if self._task is None:
            self._task = asyncio.ensure_future(self._work())
        return await asyncio.shield(self._task)


def derived_seed(seed: int, place: str) -> int:
    """A seed (31 bits) for one place, the same on every run: equal questions elsewhere are other samples."""
    digest = hashlib.sha256(f"{seed}:{place}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


def _with_cut(problem: str, choice: Choice) -> str:
    return (
        f"{problem}; it was cut off at the limit of tokens" if choice.finish_reason == "length" else problem
    )
