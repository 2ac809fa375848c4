"""Where a measurement stands, for the display, `drpo watch` and `drpo runs`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from drpo.llm.ledger import Ledger
from drpo.llm.recorder import Record
from drpo.monitor import spent_so_far, state_after
from drpo.plan import RunPlan
from drpo.progress import PROGRESS_NAME, RunState, Snapshot, write_progress

EVERY_S = 1.0


class Counting:
    """Counts what is done of a measurement. `of`: how many items or questions there are.

    best: the mean of the scores so far, 1 to 5, where there are any.
    """

    def __init__(self, plan: RunPlan, path: Path, of: int, clock: Callable[[], float] = time.time) -> None:
        self.state: RunState = "running"
        self.said = ""
        self._plan, self._path, self._of, self._clock = plan, path, of, clock
        self._started_s = clock()
        self._done, self._scores = 0, list[float]()
        self._ledger: Ledger | None = None
        self._record: Record | None = None
        self._live_since: tuple[float, int] | None = None

    def attach(self, ledger: Ledger, record: Record) -> None:
        """The books and the record of the run."""
        self._ledger, self._record = ledger, record

    def notice(self, said: str) -> None:
        """Keep what was told last."""
        self.said = said

    def count(self, score: float | None = None) -> None:
        """One more is done, with this mean score."""
        self._done += 1
        if score is not None:
            self._scores.append(score)

    def snapshot(self) -> Snapshot:
        """Where it stands now."""
        now_s = self._clock()
        if self._live_since is None and self._record is not None and self._record.sent:
            self._live_since = (now_s, self._done)
        return Snapshot(
            command=str(self._plan.identity["command"]),
            state=self.state,
            run=str(self._path),
            pid=os.getpid(),
            started_s=self._started_s,
            updated_s=now_s,
            elapsed_s=now_s - self._started_s,
            levels=self._done,
            limit=self._of,
            best=sum(self._scores) / len(self._scores) if self._scores else None,
            **spent_so_far(self._plan.config, self._ledger, self._record),
            left_s=self._left_s(now_s),
            said=self.said,
            simulated=self._plan.simulated,
        )

    def _left_s(self, now_s: float) -> float | None:
        if self._live_since is None or self._done <= self._live_since[1]:
            return None
        since_s, before = self._live_since
        return (now_s - since_s) / (self._done - before) * (self._of - self._done)


class KeptProgress:
    """Renews progress.json once a second for as long as the context is open, and once more at its end."""

    def __init__(self, path: Path, counting: Counting) -> None:
        self._file, self._counting = path / PROGRESS_NAME, counting
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> KeptProgress:
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
        self._counting.state = state_after(error)
        write_progress(self._file, self._counting.snapshot())

    async def _tick(self) -> None:
        while True:
            write_progress(self._file, self._counting.snapshot())
            await asyncio.sleep(EVERY_S)
