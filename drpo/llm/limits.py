"""How many requests are in the air at an endpoint, who goes next, and how a run ends for all of them."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict

from drpo.errors import DrpoError, ParameterRefused, ProviderRefused, Stopped
from drpo.llm.base import LLM, Completion, Request
from drpo.llm.prefix import prefix_text
from drpo.llm.waiting import ByArrival, ByPrefix, Waiter


class Stop:
    """The end of a run, shared by everything that sends. The first cause stays; for one event loop."""

    def __init__(self) -> None:
        self._cause: DrpoError | None = None
        self._waiting: set[asyncio.Future[bool]] = set()

    @property
    def cause(self) -> DrpoError | None:
        """Why the run is ending; None while it is not."""
        return self._cause

    @property
    def is_set(self) -> bool:
        return self._cause is not None

    def set(self, cause: DrpoError) -> None:
        """End the run. The first cause stays; everyone who waits is woken."""
        if self._cause is not None:
            return
        self._cause = cause
        for future in self._waiting:
            if not future.done():
                future.set_result(False)
        self._waiting.clear()

    def check(self) -> None:
        """Raise `Stopped` when the run is ending."""
        if self._cause is not None:
            raise Stopped(f"not sent, the run is ending: {self._cause}")

    async def wait(self, timeout_s: float | None) -> bool:
        """True as soon as the run is ending, False when `timeout_s` passed before that (None: no limit)."""
        if self._cause is not None:
            return True
        loop = asyncio.get_running_loop()
        passed: asyncio.Future[bool] = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, _resolve, passed)
        self.wake(passed)
        try:
            return not await passed
        finally:
            if timer is not None:
                timer.cancel()

    def wake(self, future: asyncio.Future[bool]) -> None:
        """Have `future` resolved to False when the run ends before anything else resolves it."""
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)


class Slots:
    """The requests in the air at one endpoint: at most `concurrency`.

    Who waits is served lowest priority number first; equals in order of arrival, or `by_prefix` so that those
    with a common beginning follow each other. Until the endpoint has answered once, only one request is in
    the air; likewise until a model has answered once, only one for that model: a wrong key or a wrong name
    costs one request however many start together.
    """

    def __init__(self, concurrency: int, *, by_prefix: bool = False) -> None:
        self.concurrency = concurrency
        self.by_prefix = by_prefix
        self.in_air = 0
        self.most_in_air = 0
        self._proven: set[str] = set()  # models that answered; one of them proves the endpoint too
        self._trying: set[str] = set()  # models whose first request is in the air
        self._waiting = ByPrefix() if by_prefix else ByArrival()
        # Waiters of a model whose first request is in the air stand aside, or each freed slot would search
        # the line past all of them.
        self._aside: defaultdict[str, list[Waiter]] = defaultdict(list)
        self._arrivals = itertools.count()

    async def enter(self, model: str, priority: int, stop: Stop, prefix: str = "") -> None:
        """Wait for a slot, to be given back by `leave`. Raises `Stopped` when the run ends first.

        `prefix` is the text of the request, of use where slots are given `by_prefix`.
        """
        stop.check()
        if self._admits(model):
            self._take(model)
            self._waiting.sent(priority, model, prefix)
            return
        granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.push(Waiter(priority, next(self._arrivals), model, granted, prefix))
        stop.wake(granted)
        try:
            mine = await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.result():
                self.leave(model, answered=False)  # granted and cancelled in the same turn of the loop
            raise
        if not mine:
            stop.check()

    def leave(self, model: str, *, answered: bool) -> None:
        """Give the slot back; `answered` when the request reached the model."""
        self.in_air -= 1
        if model in self._trying:
            self._trying.discard(model)
            if answered:
                self._proven.add(model)
            for waiter in self._aside.pop(model, ()):
                self._waiting.push(waiter)
        self._grant()

    def _admits(self, model: str) -> bool:
        if self.in_air >= self.concurrency:
            return False
        if model in self._proven:
            return True
        if not self._proven:
            return self.in_air == 0
        return model not in self._trying

    def _take(self, model: str) -> None:
        self.in_air += 1
        if self.in_air > self.most_in_air:
            self.most_in_air = self.in_air
        if model not in self._proven:
            self._trying.add(model)

    def _grant(self) -> None:
        """Leave no free slot to which a waiter could be admitted."""
        while self._waiting and self.in_air < (self.concurrency if self._proven else 1):
            waiter = self._waiting.pop()
            if waiter.granted.done():  # cancelled, or the run is ending
                continue
            if self._admits(waiter.model):
                self._take(waiter.model)
                waiter.granted.set_result(True)
            else:
                self._aside[waiter.model].append(waiter)


class Limit:
    """An LLM that asks `inner` while it holds a slot. Raises `Stopped` instead once `stop` is set.

    A refusal for good sets `stop` here, before the slot goes on: the next waiter wakes sooner than the
    refusal reaches whoever is outside.
    """

    def __init__(self, inner: LLM, slots: Slots, stop: Stop) -> None:
        self._inner = inner
        self._slots = slots
        self._stop = stop

    @property
    def in_air(self) -> int:
        """Requests in the air at this endpoint now, those of other models at the same slots included."""
        return self._slots.in_air

    @property
    def most_in_air(self) -> int:
        """The highest `in_air` so far."""
        return self._slots.most_in_air

    async def complete(self, request: Request) -> Completion:
        prefix = prefix_text(request) if self._slots.by_prefix else ""
        await self._slots.enter(request.model, request.priority, self._stop, prefix)
        answered = False
        try:
            self._stop.check()
            completion = await self._inner.complete(request)
            answered = True
            return completion
        except ParameterRefused:
            answered = True
            raise
        except ProviderRefused as refused:
            self._stop.set(refused)
            raise
        finally:
            self._slots.leave(request.model, answered=answered)


def _resolve(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(True)
