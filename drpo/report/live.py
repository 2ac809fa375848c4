"""The report of a run that goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from drpo.alignment import Alignment
from drpo.events import Event, LevelDone, SearchDone
from drpo.llm.ledger import Spent
from drpo.progress import RunState
from drpo.report.files import REPORT_NAME, replace_file
from drpo.report.growing import Growing, ResultFile, Wanted
from drpo.report.maker import Maker
from drpo.report.page import Page
from drpo.results import ExamplesResult
from drpo.types import Example, Query


class LiveReport:
    """Keeps report.html in the run directory `path` while the search goes on: call it with each event.

    After a level a new page is made in another process (`Maker`), which the run does not wait for, unless one
    was made just before. A run without a report gets one before its first level, which says that none is
    done. Where there is no such process, also in a run that is over before it could be of use, the last page
    is the only one. A disk that refuses costs the page and not the run.

    run: the content of run.json. spent: what the ledger says now. now_s: seconds since 1970, for the page.
    """

    def __init__(
        self,
        path: Path,
        run: Mapping[str, Any],
        queries: Sequence[Query],
        examples: Sequence[Example],
        spent: Callable[[], dict[str, Spent]],
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._file, self._spent, self._now_s = path / REPORT_NAME, spent, now_s
        self._growing = Growing(path, run, queries, examples)
        self._untold: list[Event] = []
        self._maker = Maker(path)
        if not self._file.exists():
            self._maker.tell([], self._wanted("running"))

    @property
    def pid(self) -> int | None:
        """The process that makes the pages, None where there is none."""
        return self._maker.pid

    def __call__(self, event: Event) -> None:
        """Take in what happened."""
        self._growing.add([event])
        self._untold.append(event)
        if isinstance(event, (LevelDone, SearchDone)):  # a page shows whole levels
            untold, self._untold = self._untold, []
            self._maker.tell(untold, self._wanted("running"))

    def finish(
        self,
        alignment: Alignment | None,
        improved: ExamplesResult | None,
        state: RunState | None = None,
    ) -> None:
        """Write the last page, whenever the one before was. alignment, improved: the result, which is in the
        run directory already. state: how the run has ended. Raises what making the page raises, which is a
        bug."""
        result: ResultFile | None = "alignment" if alignment else "examples" if improved else None
        if self._maker.finish(self._untold, self._wanted(state, result)):
            return
        page = Page().render(self._growing.view(self._spent(), alignment, improved), self._now_s(), state)
        with suppress(OSError):
            replace_file(self._file, page)

    def _wanted(self, state: RunState | None, result: ResultFile | None = None) -> Wanted:
        return Wanted(state, self._spent(), self._now_s(), result)
