"""The model behind the server: asked again only where a connection was stale or a setting is not taken."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from drpo.choices import ModelChoice
from drpo.compose import TEXT_STOP, Sampling
from drpo.errors import ParameterRefused
from drpo.llm.adapt import without
from drpo.llm.base import LLM, Completion, Request
from drpo.llm.retry import Transient, Unconnected
from drpo.llm.streams import Streams
from drpo.llm.wire import Piece

T = TypeVar("T")


class Upstream:
    """An LLM that streams too. Overload is passed on: a client knows best how long it waits.

    A setting that the model does not take is left out where this server chose it, and from then on; where the
    client did, `ParameterRefused` is raised. sampling: what the server chooses. thinking_tokens: as of Adapt.
    """

    def __init__(
        self,
        choice: ModelChoice,
        client: LLM,
        streams: Streams,
        sampling: Sampling,
        thinking_tokens: int | None = None,
    ) -> None:
        self._client, self._streams = client, streams
        self._sampling, self._thinking_tokens = sampling, thinking_tokens
        self._refused = set(choice.entry.refuses) if choice.entry else set[str]()

    async def complete(self, request: Request) -> Completion:
        """The whole reply."""

        return await self._insist(request, self._client.complete)

    async def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        """The reply as it comes. What is tried again is tried before the first piece."""

        async def begin(form: Request) -> tuple[Piece, AsyncGenerator[Piece, None]]:
            coming = self._streams.stream(form)
            first = await anext(coming, None)
            if first is None:
                raise Transient(f"{form.role} model {form.model}: a stream without any text")
            return first, coming

        first, coming = await self._insist(request, begin)
        async with contextlib.aclosing(coming):
            yield first
            async for piece in coming:
                yield piece

    async def _insist(self, request: Request, ask: Callable[[Request], Awaitable[T]]) -> T:
        mended: set[str] = set()
        while True:
            form = self._form(request)
            try:
                return await ask(form)
            except ParameterRefused as refused:
                if refused.parameter in mended:
                    raise
                mended.add(refused.parameter)
                self._refused.add(refused.parameter)
            except Unconnected:
                # A connection that was kept open may be closed at the other end as it is used again.
                if "connection" in mended:
                    raise
                mended.add("connection")

    def _form(self, request: Request) -> Request:
        """What is left of a request without the settings that the model does not take."""
        if not self._refused:
            return request
        sampling = self._sampling
        chosen = {
            "temperature": request.temperature in (None, sampling.temperature),
            "top_p": request.top_p in (None, sampling.top_p),
            "stop": request.stop in ((), TEXT_STOP),
            "seed": request.seed is None,
            "n": request.n == 1,
        }
        for name in self._refused:
            if not chosen.get(name, True):
                raise ParameterRefused(name, f"{request.model} takes no {name}")
        own = request.max_tokens == sampling.max_tokens
        return without(request, self._refused, self._thinking_tokens if own else self._thinking_tokens or 0)
