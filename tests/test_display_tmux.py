"""The display in real terminals of several sizes, as its user sees it: tmux draws them, and is asked."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.processes import until

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

DEMO = ("optimize", "--model", "demo", "--embedder", "lexical", "--max-extra-depth", "0")
ROLES = ("base", "optimizer", "evaluator", "selector")
FIRST, CODE = "drpo optimize  ", "exit code "


@dataclass(frozen=True)
class Terminal:
    """A window of a tmux server of our own."""

    server: str
    name: str

    def tmux(self, *arguments: str) -> str:
        """What tmux answers."""
        command = ["tmux", "-L", self.server, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout

    def open(self, width: int, height: int, *arguments: str) -> None:
        """Start a terminal of that size, in which drpo runs and its exit code is told."""
        drpo = shlex.join([sys.executable, "-m", "drpo", *arguments])
        size = ("-x", str(width), "-y", str(height))
        self.tmux("-f", "/dev/null", "new-session", "-d", "-s", self.name, *size, "sh")
        self.tmux("send-keys", "-t", self.name, f"PS1='$ '; clear; {drpo}; echo {CODE}$?", "Enter")

    def lines(self, *flags: str) -> list[str]:
        """What stands on the screen."""
        return self.tmux("capture-pane", "-p", "-t", self.name, *flags).splitlines()

    def has_ended(self) -> bool:
        return any(re.match(rf"{CODE}\d", line) for line in self.lines())

    def cursor_is_shown(self) -> bool:
        return self.tmux("display-message", "-p", "-t", self.name, "#{cursor_flag}").strip() == "1"

    def display(self) -> list[str]:
        """The lines of the display, from its first one on; none while that is not on the screen."""
        lines = self.lines()
        return lines[next((at for at, line in enumerate(lines) if line.startswith(FIRST)), len(lines)) :]

    def shows_roles_at_work(self) -> bool:
        """Whether a level is done, and every role has had an answer."""
        shown = {line.split()[0]: line.split() for line in self.lines() if line.strip()}
        answered = all(role in shown and shown[role][2] != "0" for role in ROLES)
        return answered and "level" in shown and shown["level"][2].isdigit()


@dataclass(frozen=True)
class Seen:
    """A run in a terminal of its own: its display while it went on, and what is left in the end."""

    going: list[str]
    left: list[str]
    cursor_is_shown: bool

    @property
    def last_display(self) -> list[str]:
        """From its first line to the empty one below it."""
        first = [number for number, line in enumerate(self.left) if line.startswith(FIRST)]
        assert len(first) == 1, self.left  # every drawing replaces the one before
        rows = self.left[first[0] :]
        return rows[: rows.index("", rows.index("") + 1)]

    @property
    def code(self) -> str:
        return next(line for line in self.left if line.startswith(CODE)).removeprefix(CODE)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Seen]]:
    """Two runs at once; the terminal of `stopped` becomes narrower, and then it gets Ctrl-C."""
    folder = tmp_path_factory.mktemp("terminals")
    server = f"drpo-{os.getpid()}"
    runs = {name: Terminal(server, name) for name in ("whole", "stopped")}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CI", "NO_COLOR", "COLUMNS", "LINES", "TMUX"):
            patch.delenv(name, raising=False)
        patch.setenv("DRPO_CACHE_DIR", str(folder / "cache"))
        patch.chdir(folder)
        try:
            yield seen_in(runs)
        finally:
            with contextlib.suppress(subprocess.SubprocessError):
                runs["whole"].tmux("kill-server")


def seen_in(runs: dict[str, Terminal]) -> dict[str, Seen]:
    """Start them, look at each, do to each what is done to it, and see what is left of it."""
    whole, stopped = runs["whole"], runs["stopped"]
    whole.open(80, 24, *DEMO, "--demo-latency-ms", "100", "--depth", "5", "--run-dir", "whole")
    stopped.open(120, 40, *DEMO, "--demo-latency-ms", "200", "--depth", "40", "--run-dir", "stopped")
    going = []
    for run in (whole, stopped):
        until(run.shows_roles_at_work)
        going.append(run.display())
    stopped.tmux("resize-window", "-t", "stopped", "-x", "60", "-y", "40")
    until(lambda: stopped.display() and stopped.shows_roles_at_work())
    stopped.tmux("send-keys", "-t", "stopped", "C-c")
    for run in (whole, stopped):
        until(run.has_ended)
    # What a terminal that becomes narrower has pushed out of its screen nobody can draw anew.
    left = whole.lines("-S", "-"), stopped.lines()
    return {
        "whole": Seen(going[0], left[0], whole.cursor_is_shown()),
        "stopped": Seen(going[1], left[1], stopped.cursor_is_shown()),
    }


def test_while_a_run_goes_on_its_terminal_shows_where_it_stands(seen: dict[str, Seen]) -> None:
    for name, width in (("whole", 80), ("stopped", 120)):
        shown = "\n".join(seen[name].going)
        assert shown.startswith(f"drpo optimize  running  {name}  ") and "simulated" in shown
        assert re.search(r"^level +█+░+  \d+ of \d+   \d+ tried", shown, re.MULTILINE), shown
        assert re.search(r"^best +\d\.\d\d(, the start's reward| path score, )", shown, re.MULTILINE)
        assert re.search(r"^time +0:\d\d so far, left: (not known yet|about 0:\d\d)$", shown, re.MULTILINE)
        assert re.search(r"^all +\d+ +\d+ +0 +0 ", shown, re.MULTILINE)
        assert max(map(len, seen[name].going)) < width


def test_in_the_end_the_last_state_and_the_result_are_left(seen: dict[str, Seen]) -> None:
    whole = seen["whole"]
    text = "\n".join(whole.left)
    assert whole.code == "0" and whole.cursor_is_shown
    assert whole.last_display[0].startswith("drpo optimize  finished  whole  ")
    places = [text.index(part) for part in (" 5 of 5 ", "path score  ", "written: whole/alignment.json")]
    assert places == sorted(places)
    assert "change" not in "\n".join(whole.last_display)


def test_ctrl_c_ends_it_in_order(seen: dict[str, Seen]) -> None:
    stopped = seen["stopped"]
    text = "\n".join(stopped.left)
    assert stopped.code == "130" and stopped.cursor_is_shown
    assert stopped.last_display[0].startswith("drpo optimize  interrupted  stopped  ")
    assert text.index("stopping: no new request") < text.index(stopped.last_display[0])
    assert text.index(stopped.last_display[0]) < text.index("drpo: interrupted; run the same command again")
    assert "^C" not in text


def test_a_terminal_that_becomes_narrower_keeps_no_remains_of_earlier_drawings(seen: dict[str, Seen]) -> None:
    stopped = seen["stopped"]
    assert max(map(len, stopped.last_display)) < 60 <= max(map(len, stopped.going))
    assert sum(line.startswith("level ") for line in stopped.left) == 1
