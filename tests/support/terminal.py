"""drpo on a terminal of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys


def on_terminal(*arguments: object, columns: str = "100", **variables: str) -> str:
    """What the command writes where stdout is a terminal; it must end with exit code 0 within a minute."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, int(columns), 0, 0))
    environment = {**os.environ, **variables}
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-m", "drpo", *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, env=environment
    ) as running:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # Linux says EIO where the other side is closed
            while part := os.read(ours, 65_536):
                written += part
        os.close(ours)
        said = running.stderr.read() if running.stderr else b""
        assert running.wait(60) == 0, said
    return written.decode()
