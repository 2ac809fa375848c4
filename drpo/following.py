"""Whoever follows a run and has no part in it: the monitor with its file, the report, trackers, observers.

Nothing here can end a run or change it: what a follower cannot do costs what it would have shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from drpo.alignment import FILE_NAME, Alignment
from drpo.errors import BudgetSpent, Interrupted
from drpo.events import Event, LevelDone
from drpo.llm.ledger import Ledger
from drpo.llm.recorder import Record
from drpo.monitor import Monitor
from drpo.plan import Plan
from drpo.progress import PROGRESS_NAME, RunState, write_progress
from drpo.results import EXAMPLES_NAME, RESULT_NAME, ExamplesResult
from drpo.run_dir import RunDirectory
from drpo.run_file import RUN_NAME, read_run
from drpo.tracking import RunFacts, Trackers

if TYPE_CHECKING:
    from drpo.report import LiveReport

_KEPT = (FILE_NAME, RESULT_NAME, EXAMPLES_NAME, "report.html", RUN_NAME)
Observer = Callable[[Event], None]
EVERY_S = 1.0
"""How often progress.json is renewed: what somebody who looks at it takes for now."""
log = logging.getLogger("drpo")


class Following:
    """Everyone who hears of a run's events, for as long as the context is open.

    When it closes, the last state is written, and into run.json what was spent. `result` is for the report:
    what the run gave, or the best so far.
    """

    def __init__(
        self,
        directory: RunDirectory,
        plan: Plan,
        monitor: Monitor,
        ledger: Ledger,
        record: Record,
        trackers: Trackers,
        observers: Sequence[Observer],
    ) -> None:
        monitor.attach(ledger, record)
        self.result: Alignment | ExamplesResult | None = None
        self._directory, self._plan, self._monitor, self._ledger = directory, plan, monitor, ledger
        self._trackers, self._resumed = trackers, bool(len(record))
        self._report = self._live_report() if plan.config.report else None
        self._observers: list[Observer] = [monitor, *observers, trackers.event]
        if self._report is not None:
            self._observers.append(self._report)
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Following:
        path, identity = self._directory.path, self._plan.identity
        self._trackers.begin(
            RunFacts(
                name=path.name,
                path=path,
                command=identity["command"],
                models=identity["models"],
                settings=identity["settings"],
                digests=identity["digests"],
                simulated=self._plan.simulated,
                resumed=self._resumed,
                spent=self._ledger.total,
            )
        )
        self._ticking = asyncio.create_task(self._tick())
        return self

    def _live_report(self) -> LiveReport:
        from drpo.report import LiveReport

        inputs = self._plan.inputs
        run = read_run(self._directory.path)
        return LiveReport(
            self._directory.path, run, inputs.queries, inputs.examples.examples, lambda: self._ledger.spent
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
        state = self._monitor.state = _state_after(error)
        self._write()
        self._directory.note_spent(self._ledger.spent)
        if self._report is not None:
            alignment = self.result if isinstance(self.result, Alignment) else None
            improved = self.result if isinstance(self.result, ExamplesResult) else None
            self._report.finish(alignment, improved, state)
        files = [self._directory.path / name for name in _KEPT]
        await self._trackers.end(state, self._figures(), files)

    def tell(self, events: Sequence[Event]) -> None:
        """Events that have just happened."""
        for event in events:
            if isinstance(event, LevelDone):
                subject = "" if event.subject is None else f"example {event.subject + 1}, "
                log.info("%slevel %d done, limit %d", subject, event.level, event.limit)
            for observer in self._observers:
                observer(event)

    def _figures(self) -> dict[str, float]:
        """What the run came to, as numbers; what is not known is left out."""
        now = self._monitor.snapshot()
        figures = {
            "best": now.best,
            "start_reward": now.start_reward,
            "levels": now.levels,
            "nodes": now.nodes,
            "calls": now.calls,
            "usd": now.usd,
        }
        return {name: float(value) for name, value in figures.items() if value is not None}

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
