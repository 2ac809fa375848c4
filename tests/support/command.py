"""drpo as its user runs it: in this process, which is quick, or as a process of its own."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drpo import cli

ROLES = {"--model": "base", "--optimizer": "optimizer", "--evaluator": "evaluator", "--selector": "selector"}
SMALL = ("--depth", "3", "--width", "1", "--samples", "2", "--max-extra-depth", "0")


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The whole of stdout as one JSON document."""
        return json.loads(self.out)


class Shell:
    """A folder to work in, and drpo at hand."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self.env = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(folder)

    def run(self, *arguments: object) -> Ran:
        """The command in this process."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        if ended.value.code:
            gc.collect()  # which is when asyncio speaks of failures that nobody has looked at
        out, err = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, out, err)

    def done(self, *arguments: object) -> Ran:
        """The command, which must succeed."""
        ran = self.run(*arguments)
        assert ran.code == 0, ran.err
        return ran

    def refused(self, code: int, *arguments: object) -> str:
        """The one line that a failing command says."""
        return the_error(self.run(*arguments), code)

    def write(self, name: str, content: str | bytes) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


def the_error(ran: Ran, code: int) -> str:
    """The error line of a command that ended with `code`; it is the last line of stderr and the only one."""
    assert ran.code == code, f"exit {ran.code}: {ran.err}"
    assert "Traceback" not in ran.err
    lines = ran.err.splitlines()
    assert [line for line in lines if line.startswith("drpo: ")] == lines[-1:], ran.err
    assert "a bug of drpo" not in lines[-1]
    return lines[-1].removeprefix("drpo: ")


def process(*arguments: object, **variables: str) -> subprocess.Popen[str]:
    """drpo as a process of its own, in the working directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "drpo", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )


def ended(running: subprocess.Popen[str], timeout_s: float = 60.0) -> Ran:
    """What came of a process; one that does not end is killed and fails the test."""
    try:
        out, err = running.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        running.kill()
        running.communicate()
        raise
    return Ran(running.returncode, out, err)


def roles_at(url: str, *, without: tuple[str, ...] = ()) -> list[str]:
    """The flags that let a server of `drpo_answers` play every role, shots found without a model."""
    flags = [
        part for flag, name in ROLES.items() if flag not in without for part in (flag, f"openai/{name}@{url}")
    ]
    return [*flags, "--embedder", "lexical"]


def demo(*arguments: object) -> list[object]:
    """A small search on the simulated models, in the folder `run`."""
    return ["optimize", "--model", "demo", *SMALL, "--run-dir", "run", "--quiet", *arguments]


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times_of(folder: Path) -> dict[str, int]:
    """When each file and folder below a folder was last changed, in nanoseconds."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


@contextlib.contextmanager
def killed_at_the_end(running: subprocess.Popen[str]) -> Any:
    """Whatever the test finds, the process does not outlive it."""
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()
