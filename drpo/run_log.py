"""run.log of each run: what is said while it goes on, by the run itself and by no other of the process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

_NO_RUN = ""
_RUN: ContextVar[str | None] = ContextVar("drpo_run", default=None)
"""Of which run something is said: of the one in this directory, or `_NO_RUN`. None: that is not known."""
_LOG = logging.getLogger("drpo")


class RunLog:
    """The log of the run in `path`, open until `close`. What is said meanwhile in this context, and in the
    tasks that are begun in it, is said of this run."""

    def __init__(self, path: Path) -> None:
        self._run, self._before = str(path), _RUN.get()
        _RUN.set(self._run)
        self._file = _File(path)
        _LOG.addHandler(self._file)
        _LOG.setLevel(logging.INFO)

    def close(self) -> None:
        """Release the file. May be called twice."""
        _LOG.removeHandler(self._file)
        self._file.close()
        if _RUN.get() == self._run:
            _RUN.set(self._before)


@contextlib.contextmanager
def between_runs() -> Iterator[None]:
    """Meanwhile what is said in this context stands in the log of no run, but what a run says that is begun
    within it stands in its own."""
    before = _RUN.set(_NO_RUN)
    try:
        yield
    finally:
        _RUN.reset(before)


class _File(logging.FileHandler):
    """A log that costs nothing but itself where the disk refuses: what matters is said on stderr.

    Of several runs of one process each has its own lines. What comes from a context that belongs to none,
    such as a thread of a library, is told where there is only one run that it can be of.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path / "run.log", encoding="utf-8", delay=True)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._run = str(path)

    def emit(self, record: logging.LogRecord) -> None:
        said_of = _RUN.get()
        if said_of != self._run and (said_of is not None or not self._is_alone()):
            return
        with contextlib.suppress(OSError):
            super().emit(record)

    def _is_alone(self) -> bool:
        return sum(isinstance(handler, _File) for handler in _LOG.handlers) == 1

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing: logging would print a traceback."""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()
