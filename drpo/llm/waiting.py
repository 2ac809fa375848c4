"""Who waits for a slot, and who of them goes next."""

from __future__ import annotations

import asyncio
import heapq
from typing import NamedTuple

JOINING = 256
"""How many may join a sweep under way: more than a level of any search sends (W·M = 80 at W=5, M=16), and few
enough that nobody waits for long while others keep coming."""


class Waiter(NamedTuple):
    """One request in line; `arrival` counts up. `granted` is True with the slot, False at the run's end."""

    priority: int
    arrival: int
    model: str
    granted: asyncio.Future[bool]
    prefix: str = ""


class ByArrival:
    """Lowest priority number first, in order of arrival among equals."""

    def __init__(self) -> None:
        self._heap: list[Waiter] = []

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, waiter: Waiter) -> None:
        """Take `waiter` into the line, whose `arrival` is unlike that of all others."""
        heapq.heappush(self._heap, waiter)

    def pop(self) -> Waiter:
        """Who goes next, no longer in line. IndexError when nobody waits."""
        return heapq.heappop(self._heap)

    def sent(self, priority: int, model: str, prefix: str) -> None:
        """Learn what was sent past the line; of no matter here."""


class ByPrefix:
    """Lowest priority number first; among equals, one sweep after the other through the texts in their order.

    So requests with a common beginning go one after the other, and what the server has computed for the first
    is still in its prefix cache for the next. As an elevator does, a sweep takes along who arrives ahead of
    it, at most `JOINING`, and everyone else goes with the next one: each waiter is sent in the sweep under
    way or in the next, whoever arrives later.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, str, str, int, Waiter]] = []
        self._sweeps: dict[int, _Sweep] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, waiter: Waiter) -> None:
        """Take `waiter` into the line, whose `arrival` is unlike that of all others."""
        priority, arrival, model, _, prefix = waiter
        sweep = self._sweep(priority)
        if not self._heap:
            sweep.begun, sweep.joined = False, 0  # nobody is there whom this one could overtake
        number = sweep.number
        if (model, prefix) < sweep.position or sweep.joined >= JOINING:
            number += 1
        elif sweep.begun:
            sweep.joined += 1
        heapq.heappush(self._heap, (priority, number, model, prefix, arrival, waiter))

    def pop(self) -> Waiter:
        """Who goes next, no longer in line. IndexError when nobody waits."""
        priority, number, model, prefix, _, waiter = heapq.heappop(self._heap)
        sweep = self._sweep(priority)
        if number != sweep.number:
            sweep.number, sweep.joined = number, 0
        sweep.position, sweep.begun = (model, prefix), True
        return waiter

    def sent(self, priority: int, model: str, prefix: str) -> None:
        """Learn what was sent past the line: the sweep goes on from there."""
        self._sweep(priority).position = (model, prefix)

    def _sweep(self, priority: int) -> _Sweep:
        if (sweep := self._sweeps.get(priority)) is None:
            sweep = self._sweeps[priority] = _Sweep()
        return sweep


class _Sweep:
    """Where the elevator of one priority is, whether it moves, and how many have joined it since."""

    def __init__(self) -> None:
        self.number = 0
        self.position = ("", "")
        self.begun = False
        self.joined = 0
