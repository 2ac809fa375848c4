"""Where studies stand: cells and runs that are done, told line by line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from drpo.live import Notice
from drpo.llm.ledger import Spent
from drpo.measuring.plan import MeasuringPlan
from drpo.plan import RunPlan
from drpo.progress import RunState, Snapshot

_TOLD = ("search", "reward", "random_seed", "demo_seed")


class StudyProgress:
    """Counts the cells of all studies that are run together, and says when a run begins."""

    def __init__(
        self, folder: Path, cells: int, simulated: bool, tell: Notice, clock: Callable[[], float] = time.time
    ):
        self.state: RunState = "running"
        self._folder, self._cells, self._simulated, self._tell, self._clock = (
            folder,
            cells,
            simulated,
            tell,
            clock,
        )
        self._started_s = clock()
        self._done, self._failed, self._said = 0, 0, ""
        self._spent: dict[Path, Spent] = {}

    def run_begun(self, path: Path, plan: RunPlan, finished: bool) -> None:
        """Tell of a run, unless all of it is there already."""
        if finished:
            return
        settings = plan.identity["settings"]
        told = ", ".join(f"{name.replace('_', ' ')} {settings[name]}" for name in _TOLD if name in settings)
        if isinstance(plan, MeasuringPlan):
            subject = plan.sides[0].subject
            told = f"{Path(subject.name).name}, K = {subject.shots}"
        self._say(f"[{self._done}/{self._cells}] {plan.identity['command']} {path.name} ({told})")

    def run_ended(self, path: Path, spent: Spent) -> None:
        """Take in what it came to, earlier processes included."""
        self._spent[path] = spent

    def cell_done(self, *, failed: bool = False) -> None:
        """One more cell of the tables has its figures, or will have none."""
        self._done += 1
        self._failed += failed

    def snapshot(self) -> Snapshot:
        """Where it stands now; calls and dollars are those of the runs that have ended."""
        now_s, total = self._clock(), sum(self._spent.values(), Spent())
        return Snapshot(
            command="study",
            state=self.state,
            run=str(self._folder),
            pid=os.getpid(),
            started_s=self._started_s,
            updated_s=now_s,
            elapsed_s=now_s - self._started_s,
            levels=self._done,
            limit=self._cells,
            dropped=self._failed,
            calls=total.calls,
            usd=None if total.unpriced else total.usd,
            held_usd=total.held_usd,
            said=self._said,
            simulated=self._simulated,
        )

    def _say(self, said: str) -> None:
        self._said = said
        self._tell(said)
