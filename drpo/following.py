"""Whoever follows a run and has no part in it: the monitor with its file, the user's observers.

Nothing here can end a run or change it: what a follower cannot do costs what it would have shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from types import TracebackType

from drpo.errors import BudgetSpent, Interrupted
from drpo.events import Event, LevelDone
from drpo.llm.ledger import Ledger
from drpo.llm.recorder import Record
from drpo.monitor import Monitor
from drpo.progress import PROGRESS_NAME, RunState, write_progress
from drpo.run_dir import RunDirectory

Observer = Callable[[Event], None]
EVERY_S = 1.0
"""How often progress.json is renewed: what somebody who looks at it takes for now."""
log = logging.getLogger("drpo")


class Following:
    """Everyone who hears of a run's events, for as long as the context is open.

    When it closes, the last state is written, and into run.json what was spent.
    """

    def __init__(
        self,
        directory: RunDirectory,
        monitor: Monitor,
        ledger: Ledger,
        record: Record,
        observers: Sequence[Observer],
    ) -> None:
        monitor.attach(ledger, record)
        self._directory, self._monitor, self._ledger = directory, monitor, ledger
        self._observers: tuple[Observer, ...] = (monitor, *observers)
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Following:
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
        self._monitor.state = _state_after(error)
        self._write()
        self._directory.note_spent(self._ledger.spent)

    def tell(self, events: Sequence[Event]) -> None:
        """Events that have just happened."""
        for event in events:
            if isinstance(event, LevelDone):
                subject = "" if event.subject is None else f"example {event.subject + 1}, "
                log.info("%slevel %d done, limit %d", subject, event.level, event.limit)
            for observer in self._observers:
                observer(event)

    async def _tick(self) -> None:
        while True:
            self._write()
            await asyncio.sleep(EVERY_S)

    def _write(self) -> None:
        write_progress(self._directory.path / PROGRESS_NAME, self._monitor.snapshot())


def _state_after(error: BaseException | None) -> RunState:
    if error is None:
        return "finished"
    if isinstance(error, BudgetSpent):
        return "budget"
    return "interrupted" if isinstance(error, (Interrupted, asyncio.CancelledError)) else "failed"
