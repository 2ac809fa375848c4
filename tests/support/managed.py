"""Runs of drpo over the stand-in for vLLM, and what became of its processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from drpo.jsonl import read_lines
from tests.support.command import SMALL, Ran, Shell
from tests.support.processes import alive, kill

ROOT = Path(__file__).parents[2]
FAKE = f"{sys.executable} -m tests.support.fake_vllm serve"
LEFT_AFTER_S = 10.0  # the longest that any process of a server may outlive drpo
SEARCH = (*SMALL, "--embedder", "lexical", "--base-max-tokens", "256", "--vllm-command", FAKE)


class Managed:
    """A folder in which drpo runs stand-ins. `state` is where they write down what they did."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.state = shell.folder / "state"
        shell.env.setenv("PYTHONPATH", str(ROOT))
        shell.env.setenv("FAKE_VLLM_STATE", str(self.state))
        shell.env.setenv("FAKE_VLLM_REQUESTS", str(shell.folder / "requests.jsonl"))

    def arguments(self, *more: object, model: str = "vllm/org/m", run: str = "run") -> list[object]:
        """`optimize` with one model for all roles."""
        roles = [part for flag in ("--model", "--optimizer", "--evaluator") for part in (flag, model)]
        return ["optimize", *roles, *SEARCH, "--run-dir", run, *more]

    def run(self, faults: str = "", *more: object, model: str = "vllm/org/m", run: str = "run") -> Ran:
        """The command in this process, over servers with these faults."""
        self.shell.env.setenv("FAKE_VLLM", faults)
        return self.shell.run(*self.arguments(*more, model=model, run=run))

    @property
    def starts(self) -> list[str]:
        """The model of each start of a server so far."""
        path = self.state / "starts"
        return path.read_text().split() if path.exists() else []

    def pids(self) -> list[int]:
        """Every process of every server so far."""
        path = self.state / "pids"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [line[name] for line in found for name in ("front_end", "engine", "orphan") if line.get(name)]

    def left(self) -> list[int]:
        """Processes of servers that still run."""
        return [pid for pid in self.pids() if alive(pid)]

    def end_all(self) -> None:
        """Whatever a failing test has left."""
        for pid in self.left():
            kill(pid)


def calls(run: Path) -> list[dict[str, Any]]:
    """The calls in a record."""
    return [entry for entry in read_lines(run / "calls.jsonl").records if entry["kind"] == "call"]
