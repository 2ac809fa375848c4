"""Pages made in a process of their own, so that a run never waits for one while it goes on.

A page of some hundred nodes takes a tenth of a second to make, the first one twice that: done in the run's
process, a thread included, each of them holds the run up.
"""

from __future__ import annotations

import contextvars
import logging
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from drpo.another_python import can_start, command_of
from drpo.events import Event
from drpo.report.files import REPORT_NAME, temporary_of
from drpo.report.growing import Wanted, event_bytes, run_line, wanted_line
from drpo.report.worker import MADE, READY

START_AFTER_S = 1.0
"""A run that is over before then is not worth the second of CPU time that another Python takes to start."""
REST = 20
"""How many times as long as the last page took none is made after it: 5 % of one core."""
LAST_S = 10.0
"""How long the last page is waited for; then the run makes it itself."""
_SEEN = {
    *("PATH", "HOME", "LANG", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("SYSTEMROOT", "WINDIR", "USERPROFILE", "APPDATA"),
}
_LATER = "%s: the process that makes it during the run has failed, the last page is made without it: %r"
log = logging.getLogger("drpo")


class Maker:
    """Keeps report.html in the run directory `path` by a process that a thread of this one starts and feeds.

    It is started `START_AFTER_S` after the beginning, where Python can be started at all. What goes wrong
    with it is never raised: `finish` then says that there is no last page.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._turn = threading.Condition()  # guards what follows
        self._told: list[Event] = []
        self._wanted: Wanted | None = None
        self._is_ending = self._is_killed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._has_last = False
        context = contextvars.copy_context()  # what is logged belongs to this run
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="drpo report", daemon=True
        )
        if can_start():
            with suppress(RuntimeError):  # no thread is to be had
                self._thread.start()

    @property
    def pid(self) -> int | None:
        """The process, None where there is none."""
        with self._turn:
            return None if self._process is None else self._process.pid

    def tell(self, events: Sequence[Event], wanted: Wanted) -> None:
        """What happened since the last time, and the wish for a page that shows it: the newest wish counts.
        Returns at once."""
        with self._turn:
            self._told += events
            self._wanted = wanted
            self._turn.notify()

    def finish(self, events: Sequence[Event], wanted: Wanted) -> bool:
        """Whether the last page is made. A process that is not ready by now is not waited for, and one that
        is `LAST_S` at most; it is gone afterwards."""
        if not self._thread.is_alive():
            return False
        with self._turn:
            self._told += events
            self._wanted, self._is_ending = wanted, True
            self._turn.notify()
            if not self._is_ready:
                self._kill()
        self._thread.join(LAST_S)
        if self._thread.is_alive():
            with self._turn:
                self._kill()
            self._thread.join()  # nothing that it waits for is left
        return self._has_last

    def _kill(self) -> None:
        self._is_killed = True
        if self._process is not None:
            self._process.kill()

    def _run(self) -> None:
        """The thread."""
        with self._turn:
            if self._turn.wait_for(lambda: self._is_ending, START_AFTER_S):
                return
            try:
                self._process = _start()
            except (OSError, ValueError) as error:
                log.info(_LATER, REPORT_NAME, error)
                return
        try:
            with self._process as process:
                try:
                    self._serve(process)
                finally:
                    process.kill()  # it has nothing to lose, and need not be waited for
        except Exception as error:  # noqa: BLE001 - what only looks on must not end a run, nor a thread of it
            if not self._is_killed:
                log.info(_LATER, REPORT_NAME, error)
        with suppress(OSError):
            temporary_of(self._path / REPORT_NAME, self._process.pid).unlink(missing_ok=True)

    def _serve(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        _send(process.stdin, [run_line(self._path)])
        _hear(process.stdout, READY)
        with self._turn:
            if self._is_ending:
                return
            self._is_ready = True
        is_last, rest_s = False, 0.0
        while not is_last:
            with self._turn:
                self._turn.wait_for(lambda: self._is_ending, rest_s)
                self._turn.wait_for(lambda: self._wanted is not None)
                events, wanted, is_last = self._told, self._wanted, self._is_ending
                self._told, self._wanted = [], None
            assert wanted is not None
            _send(process.stdin, [*map(event_bytes, events), wanted_line(wanted)])
            began_s = time.monotonic()
            _hear(process.stdout, MADE)
            rest_s = REST * (time.monotonic() - began_s)
        self._has_last = True


def _start() -> subprocess.Popen[bytes]:
    """The process. It holds no file of this one, and is in no group to which a terminal sends Ctrl-C."""
    return subprocess.Popen(
        command_of("drpo.report.worker"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=seen_by_it(os.environ),
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def seen_by_it(environment: Mapping[str, str]) -> dict[str, str]:
    """What a Python needs in order to start, and so no key."""
    return {
        name: value
        for name, value in environment.items()
        if name.upper() in _SEEN or name.startswith(("PYTHON", "LC_"))
    }


def _send(pipe: IO[bytes], lines: Sequence[bytes]) -> None:
    pipe.write(b"".join(lines))
    pipe.flush()


def _hear(pipe: IO[bytes], expected: bytes) -> None:
    said = pipe.readline()
    if said != expected:
        raise EOFError(f"expected {expected!r}, came {said!r}")
