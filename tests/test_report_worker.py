"""Pages that another process makes while a run goes on: current, and never in the way of the run."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from drpo.another_python import can_start
from drpo.report import LiveReport, render_report
from drpo.report.maker import seen_by_it
from drpo.run_view import RunView, read_view
from tests.support.processes import alive, kill, until
from tests.support.report_growing import levels_of, tiles
from tests.support.report_runs import copy_of, demo_run

WRITTEN_S = 1_700_000_000.0
DEMO = ("--model", "demo", "--demo-latency-ms", "2000", "--report")
on_linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc, which Linux has")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drpo.report.maker.START_AFTER_S", 0.0)
    monkeypatch.setattr("drpo.report.maker.REST", 0)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    run = demo_run(tmp_path_factory.mktemp("made") / "run", depth=3, max_extra_depth=0, reuse=False)
    return read_view(run)


@dataclass
class Followed:
    """A run directory, like that of `view` and with the same name, and its report."""

    view: RunView
    folder: Path

    def __post_init__(self) -> None:
        self.path = copy_of(self.view.path, self.folder / self.view.path.name)
        spent = dict(self.view.spent or {})
        self.report = LiveReport(
            self.path, self.view.run, self.view.queries, self.view.examples, lambda: spent, lambda: WRITTEN_S
        )

    def started(self) -> int:
        """The process, once it is there."""
        until(lambda: self.report.pid is not None)
        assert self.report.pid is not None
        return self.report.pid

    def first_page(self) -> str:
        """The page that is there before the first level, once it is."""
        until((self.path / "report.html").exists)
        return self.page()

    def page(self) -> str:
        return (self.path / "report.html").read_text(encoding="utf-8")

    def tell_all(self) -> None:
        for level in levels_of(self.view.trees[0]):
            for event in level:
                self.report(event)

    def has_last_page(self) -> bool:
        """Ends the run; whether its page is the one that can be made from the directory."""
        self.report.finish(self.view.alignment, None, "finished")
        view = read_view(self.path)
        return self.page() == render_report(view, written_s=WRITTEN_S, state="finished")

    def is_tidy(self) -> bool:
        """Whether nothing half-written is left."""
        return not list(self.path.glob(".*.tmp"))


@pytest.fixture
def followed(view: RunView, tmp_path: Path) -> Iterator[Followed]:
    run = Followed(view, tmp_path)
    yield run
    if run.report.pid is not None and is_there(run.report.pid):
        kill(run.report.pid)


def is_there(pid: int) -> bool:
    """Whether there is such a process, be it one that has ended and that nobody has waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_pages_follow_the_run_and_ctrl_c_is_for_the_run_alone(followed: Followed) -> None:
    assert "No level is done yet" in followed.first_page() and "Running" in followed.page()
    pid, seen = followed.started(), 0
    os.kill(pid, signal.SIGINT)
    for level in levels_of(followed.view.trees[0])[:-1]:
        for event in level:
            followed.report(event)
        seen += len(level) - 1
        until(lambda: tiles(followed.path) == seen)  # noqa: B023 - looked at before it changes
    for event in levels_of(followed.view.trees[0])[-1]:
        followed.report(event)
    assert followed.report.pid == pid and alive(pid)
    assert followed.has_last_page() and followed.is_tidy()
    assert not is_there(pid)


@on_linux
def test_it_has_no_key_no_file_and_no_lock_of_the_run_and_ends_with_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    secret = "sk-a-key-of-nobody"
    process = subprocess.Popen(
        [sys.executable, "-m", "drpo", "optimize", "--run-dir", run, *DEMO],
        env={**os.environ, "OPENAI_API_KEY": secret, "MY_OWN_KEY": secret},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            until((run / "report.html").exists)
            [worker] = children(process.pid)
            seen = Path(f"/proc/{worker}/environ").read_bytes()
            assert secret.encode() not in seen and b"PATH=" in seen
            held = {file.name for file in Path(f"/proc/{worker}/fd").iterdir()}
            assert held == {"0", "1", "2"}
            assert os.getpgid(worker) != os.getpgid(process.pid)
        finally:
            process.kill()
    until(lambda: not alive(worker))
    with FileLock(run / ".lock", timeout=0):
        pass


def children(pid: int) -> list[int]:
    """What a process has started, whichever of its threads has."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def test_one_that_is_killed_costs_no_last_page_and_the_log_says_so(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "drpo")
    pid = followed.started()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_there(pid))
    followed.tell_all()
    assert followed.has_last_page()
    [said] = caplog.messages
    assert "report.html" in said and "the last page is made without it" in said


def test_one_that_hangs_is_not_waited_for_long(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drpo.report.maker.LAST_S", 0.05)
    followed.first_page()
    pid = followed.started()
    os.kill(pid, signal.SIGSTOP)
    followed.tell_all()
    assert followed.has_last_page() and followed.is_tidy() and not is_there(pid)


def test_one_that_is_not_ready_is_not_waited_for(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drpo.report.maker.LAST_S", 1e6)
    pid = followed.started()
    os.kill(pid, signal.SIGSTOP)  # it never will be
    followed.tell_all()
    assert followed.has_last_page() and not is_there(pid)


def test_where_no_process_can_be_started_the_last_page_is_made_all_the_same(
    view: RunView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    followed = Followed(view, tmp_path)
    followed.tell_all()
    assert followed.has_last_page() and followed.report.pid is None


@pytest.mark.parametrize("executable", ["", None, "/usr/bin/blender"])
def test_an_application_that_has_a_python_in_it_is_not_started_again(
    executable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert can_start()
    monkeypatch.setattr(sys, "executable", executable)
    assert not can_start()


def test_a_frozen_application_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert not can_start()


def test_it_sees_what_python_needs_and_nothing_else() -> None:
    given = {"PATH": "/bin", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8", "SystemRoot": "C:\\Windows"}
    keys = {"OPENAI_API_KEY": "a", "HF_TOKEN": "b", "WANDB_API_KEY": "c", "MY_KEY": "d", "OTEL_HEADERS": "e"}
    assert seen_by_it({**given, **keys}) == given
