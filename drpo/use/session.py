"""An alignment at its model for callers without an event loop: a thread of its own keeps what is open."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, TypeVar

from drpo.errors import InputError
from drpo.live import Notice
from drpo.types import Failed
from drpo.use.asking import Answer, Asked, Turns, Using, using
from drpo.use.plan import UsePlan

T = TypeVar("T")
_END = None


class Session:
    """Opened by the first question, closed by `close`. May be used from several threads at once."""

    def __init__(self, plan: UsePlan, environment: Mapping[str, str], notice: Notice) -> None:
        self._plan, self._environment, self._notice = plan, environment, notice
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stack: contextlib.AsyncExitStack | None = None
        self._using: Using | None = None

    def complete(self, query: str, before: Turns = ()) -> Answer:
        """The whole answer to `query`; before: earlier turns. Raises InputError where it does not fit."""

        async def work(ready: Using) -> Answer:
            return await ready.complete(await _asked(ready, query, before))

        ready = self._ready()
        return self._run(work(ready))

    def stream(self, query: str, before: Turns = ()) -> Iterator[str]:
        """The answer as it comes. Who stops reading ends it, also at the server."""
        ready = self._ready()
        assert self._loop is not None
        pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()

        async def work() -> None:
            try:
                asked = await _asked(ready, query, before)
                async with contextlib.aclosing(ready.stream(asked)) as coming:
                    async for piece in coming:
                        if piece.text:
                            pieces.put(piece.text)
                pieces.put(_END)
            except BaseException as error:
                pieces.put(error)
                raise

        future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            while (piece := pieces.get()) is not _END:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            future.cancel()

    def close(self) -> None:
        """Release connections, and end a server that was started for this. May be called twice."""
        with self._lock:
            loop, thread, stack = self._loop, self._thread, self._stack
            self._loop = self._thread = self._stack = self._using = None
        if loop is None or thread is None:
            return
        if stack is not None:
            asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _ready(self) -> Using:
        with self._lock:
            if self._using is None:
                if self._loop is None:
                    self._loop = asyncio.new_event_loop()
                    self._thread = threading.Thread(
                        target=self._loop.run_forever, name="drpo-session", daemon=True
                    )
                    self._thread.start()
                self._stack = contextlib.AsyncExitStack()
                opening = self._stack.enter_async_context(using(self._plan, self._environment, self._notice))
                self._using = asyncio.run_coroutine_threadsafe(opening, self._loop).result()
            return self._using

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _asked(ready: Using, query: str, before: Turns) -> Asked:
    asked = await ready.asked(query, before=before)
    if isinstance(asked, Failed):
        raise InputError(asked.reason)
    return asked
