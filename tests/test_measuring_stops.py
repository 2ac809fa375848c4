"""A measurement that is killed or stopped goes on where it was, and comes out the same to the byte."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.support.command import Shell, ended, process
from tests.support.processes import until

QUERIES = [f"How do I learn {thing} in {n} weeks?" for n in range(2, 12) for thing in ("chess", "Dutch")]
FLAGS = {
    "evaluate": ("--model", "demo", "--alignment", "urial", "--data", "data.txt"),
    "compare": ("--model", "demo", "--alignment", "urial", "--against", "none", "--data", "data.txt"),
}


def command(name: str, run: str) -> list[str]:
    return [name, *FLAGS[name], "--judge", "demo", "--run-dir", run, "--concurrency", "4", "--quiet"]


def keys(run: Path) -> list[str]:
    """What was recorded, in any order."""
    lines = (run / "calls.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return sorted(entry["key"] for entry in entries if entry["kind"] == "call")


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_measurement_that_is_ended_resumes_to_the_same_files(
    shell: Shell, name: str, number: signal.Signals
) -> None:
    shell.write("data.txt", "\n".join(QUERIES))
    shell.done(*command(name, "whole"))
    run = shell.folder / "ended"
    running = process(*command(name, "ended"), "--demo-latency-ms", "30")
    until(
        lambda: (run / "calls.jsonl").exists() and len((run / "calls.jsonl").read_bytes().splitlines()) > 12
    )
    os.kill(running.pid, number)
    ran = ended(running)
    assert ran.code == (-9 if number is signal.SIGKILL else 130), ran.err
    assert not (run / "summary.json").exists()
    before = len(keys(run))
    shell.done(*command(name, "ended"))
    for file in ("items.jsonl", "summary.json"):
        assert (run / file).read_bytes() == (shell.folder / "whole" / file).read_bytes()
    assert 0 < before < len(keys(run)) and keys(run) == keys(shell.folder / "whole")
