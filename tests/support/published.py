"""Where the published runs are, and a server that replays one of them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(
    os.environ.get("DRPO_PUBLISHED_RUNS") or Path(__file__).resolve().parents[3] / "shared" / "published_runs"
)
RUNS = ("gpt-3.5-turbo", "mistral-7b-v0.1")
needs_published_runs = pytest.mark.skipif(
    not (FOLDER / "server.py").exists(),
    reason="the published runs are missing: name their folder with DRPO_PUBLISHED_RUNS",
)


def tree(name: str) -> dict[str, Any]:
    """One published search tree."""
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


@contextlib.contextmanager
def replaying(name: str, *, latency_ms: str, folder: Path) -> Iterator[str]:
    """The URL of a server that answers as the models of the published run did."""
    command = [
        sys.executable,
        str(FOLDER / "server.py"),
        "--run",
        str(FOLDER / f"{name}.json"),
        "--port",
        "0",
    ]
    command += ["--tag-outputs", "ambiguous", "--latency-ms", latency_ms]
    command += ["--unmatched-log", str(folder / "unmatched.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
