"""How long `drpo runs` takes over many runs.

    python -m benchmarks.runs [--runs 1000] [--repeats 7]

Makes one small run of the simulated models, copies its small files into as many run directories with other
names, models, states and figures, and times the command as a process with its output read from a pipe. Beside
it stand `drpo --help`, which is what starting costs, and the same over runs of a drpo that kept no progress.
Medians; the first round, which compiles bytecode and fills the cache of the disk, is left out.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUN_FLAGS = ("--depth", "4", "--max-extra-depth", "1", "--validate", "0", "--quiet")
MODELS = (
    "vllm/mistralai/Mistral-7B-v0.1",
    "openai/gpt-4o-mini",
    "vllm/meta-llama/Llama-2-70b-hf@http://10.0.0.1:8000/v1",
)
STATES = ("finished", "finished", "finished", "running", "budget", "interrupted", "failed")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "one"
        _drpo("optimize", "--model", "demo", *RUN_FLAGS, "--run-dir", str(one))
        kept, older = Path(folder) / "kept", Path(folder) / "older"
        dice = random.Random(0)
        for number in range(options.runs):
            _copy(one, kept / f"run-{number:04}", number, dice)
            shutil.copytree(
                one, older / f"run-{number:04}", ignore=shutil.ignore_patterns("inputs", "calls*")
            )
            (older / f"run-{number:04}" / "progress.json").unlink()
        commands = {
            "drpo --help": ("--help",),
            f"drpo runs, {options.runs:,} runs": ("runs", str(kept)),
            f"drpo runs --json, {options.runs:,} runs": ("runs", str(kept), "--json"),
            f"drpo runs, {options.runs:,} without progress": ("runs", str(older)),
        }
        took: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.repeats + 1):  # in turn, so that a slow moment of the machine hits all of them
            for name, arguments in commands.items():
                began = time.perf_counter()
                said = _drpo(*arguments)
                took[name].append(1000 * (time.perf_counter() - began))
                if arguments[0] == "runs" and said.count("run-0") < options.runs:
                    raise SystemExit(f"{name}: expected {options.runs} runs, came {said.count('run-0')}")
    print(f"{'command':<36}{'ms (median)':>12}{'fastest':>10}{'slowest':>10}")
    for name, times in took.items():
        counted = times[1:]
        print(f"{name:<36}{statistics.median(counted):>12.0f}{min(counted):>10.0f}{max(counted):>10.0f}")


def _copy(run: Path, to: Path, number: int, dice: random.Random) -> None:
    """A run directory with what `drpo runs` reads, and the larger files that it must not."""
    to.mkdir(parents=True)
    data: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    data["identity"]["models"]["base"] = dice.choice(MODELS)
    (to / "run.json").write_text(json.dumps(data, indent=2), encoding="utf-8")
    progress: dict[str, Any] = json.loads((run / "progress.json").read_text(encoding="utf-8"))
    progress["state"] = dice.choice(STATES)
    progress["best"], progress["usd"] = dice.uniform(3, 5), dice.choice((None, dice.uniform(0, 20)))
    progress["updated_s"] -= 60 * number
    (to / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
    has_result = progress["state"] in ("finished", "budget")
    for name in ("alignment.json", "events.jsonl") if has_result else ("events.jsonl",):
        shutil.copyfile(run / name, to / name)


def _drpo(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "drpo", *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
