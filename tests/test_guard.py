"""The guard by itself: what a server has started and lost sight of ends with the server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drpo.llm.vllm import guard
from tests.support.processes import alive, kill, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no setsid command")

# As on a system where nobody inherits orphans. psutil comes first: it has to know where it really is.
ELSEWHERE = (
    "import psutil, runpy, sys\n"
    "sys.platform = 'elsewhere'\n"
    "sys.argv = sys.argv[1:]\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)


@contextmanager
def guarded(folder: Path, script: str, *python: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A guard whose server is a shell that runs `script`, and the process named in the file `orphan`."""
    command = [sys.executable, "-P", *python, guard.__file__, "sh", "-c", script]
    running = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    written = folder / "orphan"
    try:
        until(lambda: written.exists() and written.read_text().endswith("\n"))
        orphan = int(written.read_text())
        try:
            yield running, orphan
        finally:
            kill(orphan)
    finally:
        running.communicate(timeout=30)


def test_what_loses_its_parent_at_once_and_has_a_session_of_its_own_is_not_lost(tmp_path: Path) -> None:
    script = "(setsid sleep 300 & echo $! > orphan); exec sleep 300"
    with guarded(tmp_path, script) as (running, orphan):
        assert alive(orphan)
        running.communicate(timeout=30)  # which closes its input
        assert running.returncode == 0
        assert not alive(orphan)


def test_elsewhere_it_is_remembered_from_while_it_had_a_parent(tmp_path: Path) -> None:
    several_looks = "sleep 0.7"
    script = f"setsid sleep 300 & echo $! > orphan; {several_looks}; kill -9 $$"
    with guarded(tmp_path, script, "-c", ELSEWHERE) as (running, orphan):
        assert running.wait(30) == 128 + 9
        assert not alive(orphan)
