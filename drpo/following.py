"""Whoever follows a run and has no part in it: the monitor with its file, the report, trackers, observers.

Nothing here can end a run or change it: what a follower cannot do costs what it would have shown. That holds
for bugs too: a follower that raises is told once, stands in run.log with its traceback, and is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from drpo.alignment import FILE_NAME, Alignment
from drpo.config import ExamplesConfig
from drpo.events import LEVELS_NAME, Event, LevelDone, LevelFile
from drpo.llm.ledger import Ledger
from drpo.llm.recorder import Record
from drpo.monitor import Monitor, state_after
from drpo.plan import Plan
from drpo.progress import PROGRESS_NAME, write_progress
from drpo.results import EXAMPLES_NAME, RESULT_NAME, ExamplesResult
from drpo.run_dir import RunDirectory
from drpo.run_file import RUN_NAME, read_run
from drpo.tracking import RunFacts, Trackers

if TYPE_CHECKING:
    from drpo.report import LiveReport

_REPORT = "report.html"
_KEPT = (FILE_NAME, RESULT_NAME, EXAMPLES_NAME, _REPORT, RUN_NAME)
Observer = Callable[[Event], None]
EVERY_S = 1.0
"""How often progress.json is renewed: what somebody who looks at it takes for now."""
log = logging.getLogger("drpo")


@dataclass(frozen=True, slots=True)
class Outside:
    """Who is outside of the run: `observers` of its events, `notice` for what a user wants to know, and
    `hurry`, which is set once nothing is to be waited for any more."""

    observers: Sequence[Observer]
    notice: Callable[[str], None]
    hurry: asyncio.Event


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
        outside: Outside,
    ) -> None:
        monitor.attach(ledger, record)
        self.result: Alignment | ExamplesResult | None = None
        self._directory, self._plan, self._monitor, self._ledger = directory, plan, monitor, ledger
        self._trackers, self._resumed, self._outside = trackers, bool(len(record)), outside
        self._failed: set[str] = set()
        self._levels: LevelFile | None = None
        if isinstance(plan.config, ExamplesConfig):  # whose events come to their file in order, and so late
            self._levels = LevelFile(directory.path / LEVELS_NAME)
        self._observers: list[tuple[str, Observer]] = [("the state of the run", monitor)]
        self._observers += [(f"the observer {_name_of(it)}", it) for it in outside.observers]
        self._observers.append(("tracking", trackers.event))
        self._report: LiveReport | None = None
        with self._guard(_REPORT):
            if plan.config.report:
                self._report = self._live_report()
                self._observers.append((_REPORT, self._report))
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Following:
        path, identity = self._directory.path, self._plan.identity
        with self._guard("tracking"):
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
        state = self._monitor.state = state_after(error)
        self._write()
        with self._guard("the note of what was spent, in run.json"):
            self._directory.note_spent(self._ledger.spent)
        if self._levels is not None and state == "finished":
            self._levels.remove()
        with self._guard(_REPORT):
            if self._report is not None:
                alignment = self.result if isinstance(self.result, Alignment) else None
                improved = self.result if isinstance(self.result, ExamplesResult) else None
                self._report.finish(alignment, improved, state)
        figures: Mapping[str, float] = {}
        with self._guard("the state of the run"):
            figures = self._figures()
        files = [self._directory.path / name for name in _KEPT]
        with self._guard("tracking"):
            await self._trackers.end(state, figures, files, self._outside.hurry)

    def tell(self, events: Sequence[Event]) -> None:
        """Events that have just happened."""
        for event in events:
            if isinstance(event, LevelDone):
                subject = "" if event.subject is None else f"example {event.subject + 1}, "
                log.info("%slevel %d done, limit %d", subject, event.level, event.limit)
            for follower in tuple(self._observers):
                name, observer = follower
                heard = False
                with self._guard(name):
                    observer(event)
                    heard = True
                if not heard:
                    self._observers.remove(follower)
        if self._levels is not None:
            self._levels.add(events)

    @contextlib.contextmanager
    def _guard(self, follower: str) -> Iterator[None]:
        """What a follower raises ends here."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a bug of who looks on must not end what is paid for
            self._note(follower, error)

    def _note(self, follower: str, error: Exception) -> None:
        """Log what a follower has raised, and tell it the first time."""
        log.error("%s has failed, the run goes on without it", follower, exc_info=error)
        if follower in self._failed:
            return
        self._failed.add(follower)
        said = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": .")
        with contextlib.suppress(Exception):
            self._outside.notice(f"{follower}: {said}. The run goes on without it; run.log says where")

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
            if PROGRESS_NAME in self._failed:
                return
            await asyncio.sleep(EVERY_S)

    def _write(self) -> None:
        with self._guard(PROGRESS_NAME):
            write_progress(self._directory.path / PROGRESS_NAME, self._monitor.snapshot())


def _name_of(observer: Observer) -> str:
    return str(getattr(observer, "__name__", type(observer).__name__))
