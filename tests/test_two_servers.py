"""Several servers of one model: the run uses them all, goes on without one, and comes out the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.command import Shell
from tests.support.managed import ROOT
from tests.support.processes import free_port, until

SEARCH = ("--embedder", "lexical", "--depth", "8", "--max-extra-depth", "0", "--base-max-tokens", "256")


class Server:
    """A stand-in that drpo did not start."""

    def __init__(self, folder: Path, name: str, faults: str = "") -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/v1"
        self.requests = folder / f"{name}.jsonl"
        own = {"FAKE_VLLM": faults, "FAKE_VLLM_STATE": str(folder / name)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fake_vllm", "serve", "org/m", "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, **own, "FAKE_VLLM_REQUESTS": str(self.requests)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self.answers)

    def answers(self) -> bool:
        try:
            return bool(urlopen(self.url.removesuffix("/v1") + "/health", timeout=5).status == 200)
        except OSError:
            return False

    def completions(self) -> int:
        """How many completions it was asked for."""
        lines = self.requests.read_text().splitlines()
        return sum("completions" in json.loads(line)["path"] for line in lines)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Server]]:
    started = [Server(tmp_path, "first", "die-after=12"), Server(tmp_path, "second")]
    yield started
    for server in started:
        server.process.terminate()
        server.process.wait(30)


def test_a_run_over_two_servers_goes_on_when_one_dies(shell: Shell, servers: list[Server]) -> None:
    first, second = servers

    def search(at: str, run: str) -> str:
        roles = [p for flag in ("--model", "--optimizer", "--evaluator") for p in (flag, f"vllm/org/m@{at}")]
        ran = shell.done("optimize", *roles, *SEARCH, "--run-dir", run)
        return ran.err

    said = search(f"{second.url},{first.url}", "both")
    assert f"{first.url} cannot be reached and is left out" in said
    assert "requests by server: http://127.0.0.1:" in said
    assert first.process.wait(30) == 0
    assert first.completions() >= 12 and second.completions() > 12
    search(second.url, "one")
    events = [(shell.folder / run / "events.jsonl").read_bytes() for run in ("both", "one")]
    assert events[0] == events[1]
    identity = json.loads((shell.folder / "both" / "run.json").read_text())["identity"]["models"]["base"]
    assert identity == "vllm/org/m@" + ",".join(sorted([first.url, second.url]))
