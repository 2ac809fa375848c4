"""Runs one server and ends everything it has started when drpo ends, however that happens.

    python guard.py COMMAND...

drpo holds the other end of the guard's standard input: the operating system closes it when drpo is gone, by
kill -9 too. The guard lives in a session of its own, where no Ctrl-C reaches it, and on Linux it inherits
whatever the server leaves behind: vLLM's engine is a process that can outlive its front end. The guard prints
the server's process id and ends with the server's exit code (128 + N for signal N), or 0 where it was told to
stop. It imports nothing of drpo: it is run as a file, so that the server's environment stays as it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import psutil

GRACE_S = 3.0  # between asking the server's processes to end and ending them
KILLED_S = 4.0  # how long processes that were killed are awaited, before more is looked for
_LOOK_S = 0.2
_PR_SET_CHILD_SUBREAPER = 36


class Guard:
    """One server and its descendants."""

    def __init__(self, command: list[str]) -> None:
        self._asked = threading.Event()
        self._parent = os.getppid()
        self._adopts = _adopt_orphans()
        self._seen: set[psutil.Process] = set()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._asked.set())
        threading.Thread(target=self._listen, daemon=True).start()
        self._server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
        )
        print(self._server.pid, flush=True)

    def run(self) -> int:
        """Wait for the server or for the end of drpo, then leave no process; the exit code."""
        code: int | None = None
        while code is None and not self._asked.wait(_LOOK_S) and os.getppid() == self._parent:
            code = self._server.poll()
            if not self._adopts:  # what loses its parent is lost to us: it has to be known before
                self._seen.update(_descendants())
        self._end_all()
        return 0 if code is None else code if code >= 0 else 128 - code

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            os.read(0, 1)
        self._asked.set()

    def _end_all(self) -> None:
        """Ask every process to end, then end it, then look again: some may have been started meanwhile."""
        self._seen.update(_descendants())
        self._signal(signal.SIGTERM)
        self._await(GRACE_S)
        for _ in range(3):
            self._seen.update(_descendants())
            if not any(_lives(process) for process in self._seen):
                return
            self._signal(signal.SIGKILL)
            self._await(KILLED_S)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._server.pid, number)
        for process in self._seen:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    def _await(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._server.poll()
            self._seen.update(_descendants())
            if not any(_lives(process) for process in self._seen):
                return
            time.sleep(_LOOK_S / 4)


def _descendants() -> list[psutil.Process]:
    try:
        return psutil.Process().children(recursive=True)
    except psutil.Error:
        return []


def _lives(process: psutil.Process) -> bool:
    """Whether it runs: a zombie has ended and waits to be counted."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _adopt_orphans() -> bool:
    """Become the parent of descendants that lose theirs. Only Linux has that."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


if __name__ == "__main__":
    sys.exit(Guard(sys.argv[1:]).run())
