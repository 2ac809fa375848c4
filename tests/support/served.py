"""A mock server in a thread, for clients that are processes or that have an event loop of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from tests.support.mock_openai import Handler, MockServer, Reply, Seen, drpo_answers


class Served:
    """Serves while the context is open. `hold` lets requests arrive unanswered, until `release`."""

    def __init__(
        self,
        handler: Handler = drpo_answers,
        *,
        latency_s: Mapping[str, float] | None = None,
        hold: Callable[[str], bool] = lambda model: False,
    ) -> None:
        self._handler, self._hold = handler, hold
        self._server = MockServer(self._answer, latency_s=latency_s)
        self._arrived = threading.Condition()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._ready, self._held = threading.Event(), 0

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def requests(self) -> list[Seen]:
        """What arrived so far."""
        return list(self._server.requests)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The JSON bodies of what arrived so far."""
        return [seen.body for seen in self.requests]

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Return once `condition` holds; it is looked at whenever a request arrives."""
        with self._arrived:
            assert self._arrived.wait_for(condition, timeout_s), f"after {len(self.requests)} requests"

    def held(self) -> int:
        """How many requests wait for `release`."""
        return self._held

    def release(self) -> None:
        """Answer what is held, and hold no more."""
        self._loop.call_soon_threadsafe(self._released.set)

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._released, self._over = asyncio.Event(), asyncio.Event()
        async with self._server:
            self._ready.set()
            await self._over.wait()

    def _answer(self, model: str, body: dict[str, Any]) -> Any:
        answer = self._handler(model, body)
        holding = self._hold(model) and not self._released.is_set()
        with self._arrived:
            self._held += holding
            self._arrived.notify_all()
        return self._later(answer) if holding else answer

    async def _later(self, answer: Any) -> Reply | str:
        await self._released.wait()
        self._held -= 1
        return answer if isinstance(answer, (Reply, str)) else await answer
