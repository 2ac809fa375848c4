"""A time by which something must have happened, set anew with every request."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """Calls `late` once the time has passed that was set last.

    One timer serves until it fires: to make one for each request, and to cancel it, takes longer than all
    else that a connection does for it.
    """

    __slots__ = ("_at_s", "_fires_s", "_late", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, late: Callable[[], None]) -> None:
        self._loop, self._late = loop, late
        self._timer: asyncio.TimerHandle | None = None
        self._at_s = self._fires_s = math.inf

    def within(self, seconds: float) -> None:
        """Be late in that time from now."""
        self._at_s = self._loop.time() + seconds
        if self._timer is not None and self._at_s < self._fires_s:
            self.close()
        if self._timer is None:
            self._fires_s = self._at_s
            self._timer = self._loop.call_later(seconds, self._fire)

    def later(self, seconds: float) -> None:
        """As `within`, for less work, but never before what an earlier timer still waits for."""
        self._at_s = self._loop.time() + seconds

    def never(self) -> None:
        """Be late no more, until a time is set again."""
        self._at_s = math.inf

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if self._at_s == math.inf:
            return
        left_s = self._at_s - self._loop.time()
        if left_s > 0:
            self.within(left_s)
        else:
            self._late()
