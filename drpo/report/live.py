"""The report of a run that goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drpo.alignment import Alignment
from drpo.events import Event, LevelDone, NodeMade, ProposalDropped, SearchDone
from drpo.llm.ledger import Spent
from drpo.progress import RunState
from drpo.report.files import REPORT_NAME, replace_file
from drpo.report.page import Page
from drpo.results import ExamplesResult
from drpo.run_view import RunView, Tree
from drpo.types import Example, Query

REST = 100
"""How many times as long as the last page took none is made after it: about 1 % of the time."""
AFTER_S = 0.01
"""So long after an event its page is made: the requests of the next level are on their way then, and the run
waits for models anyway. (A thread of its own would hold the run up by as much as it computes: Python gives
it whole slices of time, however little the run needs.)"""


@dataclass
class _Growing:
    """What a search has told so far."""

    nodes: list[NodeMade] = field(default_factory=list)
    dropped: list[ProposalDropped] = field(default_factory=list)
    levels: list[LevelDone] = field(default_factory=list)
    end: SearchDone | None = None

    def as_tree(self, subject: int | None) -> Tree:
        """As it is now."""
        return Tree(subject, tuple(self.nodes), tuple(self.dropped), tuple(self.levels), self.end)


class LiveReport:
    """Keeps report.html in the run directory `path` while the search goes on: call it with each event.

    After a level a new page is made on the event loop while the run waits for models, unless one was made
    just before (see `REST`); where no loop runs, at once. A run without a report gets one at the beginning,
    which says that no level is done. A disk that refuses costs the page and not the run.

    run: the content of run.json. spent: what the ledger says now. clock: seconds, by which the pauses are
    measured. now_s: seconds since 1970, for the page.
    """

    def __init__(
        self,
        path: Path,
        run: Mapping[str, Any],
        queries: Sequence[Query],
        examples: Sequence[Example],
        spent: Callable[[], dict[str, Spent]],
        clock: Callable[[], float] = time.monotonic,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._file = path / REPORT_NAME
        self._run, self._queries, self._examples = dict(run), tuple(queries), tuple(examples)
        self._spent, self._clock, self._now_s = spent, clock, now_s
        self._searches: dict[int | None, _Growing] = {}
        self._page = Page()
        self._next_s = clock()
        self._waiting: list[Callable[[], object]] = list(self._page.preparations())
        self._timer: asyncio.TimerHandle | None = None
        self._failure: Exception | None = None
        if not self._file.exists():
            self._waiting.append(self._make)
        self._go_on()

    def __call__(self, event: Event) -> None:
        """Take in what happened. Raises what making the page before has raised, which is a bug."""
        search = self._searches.setdefault(event.subject, _Growing())
        match event:
            case NodeMade():
                search.nodes.append(event)
                return
            case ProposalDropped():
                search.dropped.append(event)
                return
            case LevelDone():
                search.levels.append(event)
            case SearchDone():
                search.end = event
        self._raise()
        if self._make not in self._waiting and self._clock() >= self._next_s:
            self._waiting.append(self._make)
            self._go_on()

    def wait(self) -> None:
        """Make what is to be made now. Raises what its making raises."""
        while self._waiting:
            self._waiting.pop(0)()
        self._raise()

    def finish(
        self,
        alignment: Alignment | None,
        improved: ExamplesResult | None,
        state: RunState | None = None,
    ) -> None:
        """Write the last page, whenever the one before was. state: why a run ends that has not finished."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._raise()
        finally:  # what was wrong with the page before need not be wrong with this one
            self._waiting.clear()
            self._write(self._view(alignment, improved), state)

    def _go_on(self) -> None:
        """See to it that what waits is done, a piece at a time."""
        if not self._waiting or (self._timer is not None and not self._timer.cancelled()):
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.wait()
        else:
            self._timer = loop.call_later(AFTER_S, self._piece)

    def _piece(self) -> None:
        self._timer = None
        try:
            self._waiting.pop(0)()
        except Exception as error:  # noqa: BLE001 - told to whoever calls next, as its bug
            self._failure = error
        self._go_on()

    def _make(self) -> None:
        self._write(self._view(), "running")

    def _raise(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _write(self, view: RunView, state: RunState | None) -> None:
        began_s = self._clock()
        page = self._page.render(view, self._now_s(), state)
        with suppress(OSError):
            replace_file(self._file, page)
        ended_s = self._clock()
        self._next_s = ended_s + REST * (ended_s - began_s)

    def _view(self, alignment: Alignment | None = None, improved: ExamplesResult | None = None) -> RunView:
        subjects = sorted(self._searches, key=lambda subject: -1 if subject is None else subject)
        return RunView(
            path=self._file.parent,
            command=str(self._run["identity"]["command"]),
            run=self._run,
            queries=self._queries,
            examples=self._examples,
            trees=tuple(self._searches[subject].as_tree(subject) for subject in subjects),
            alignment=alignment,
            improved=improved,
            spent=self._spent(),
            progress=None,
        )
