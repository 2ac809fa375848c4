"""How close a search comes to its critical path, and what client, engine and recording cost.

    python -m benchmarks.speed [--repeats 3] [--wide] [--serial]

A mock server answers with fixed latencies (optimizer 100 ms, the other roles 50 ms) and never above 4.5, so
that no prompt is kept: at depth 20, 19 levels are expanded and the longest chain of replies takes 3.9 s. All
figures of one call of this script are from one machine at one time; quote the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.config import OptimizeConfig
from drpo.jsonl import Journal
from drpo.plan import optimize_plan
from drpo.replaying import replay_run
from drpo.run import Hooks, run_optimize
from drpo.settings import resolve

CRITICAL_PATH_S = 19 * 0.2 + 0.1
LATENCIES = "optimizer=100,base=50,evaluator=50,selector=50"


@dataclass(frozen=True)
class Figures:
    """One run: wall and CPU seconds of this process, and how many calls."""

    wall_s: float
    cpu_s: float
    calls: int

    @property
    def ratio(self) -> float:
        return self.wall_s / CRITICAL_PATH_S


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--wide", action="store_true", help="also W=5 M=16")
    parser.add_argument(
        "--serial", action="store_true", help="also one call at a time (slow: with --wide 3 minutes)"
    )
    given = parser.parse_args()
    print(f"critical path {CRITICAL_PATH_S:.1f} s; {given.repeats} runs each, medians")
    print(f"{'search':<30}{'calls':>6} {'wall / critical path':>26}{'CPU ms a call':>15}")
    with mock_server() as url, tempfile.TemporaryDirectory() as folder:
        bench = Bench(url, Path(folder))
        bench.run(2, 3, 64)  # connections, imports, bytecode
        bench.row("W=2 M=3", given.repeats, 2, 3, 64)
        bench.row("W=2 M=3, at most 8 in the air", given.repeats, 2, 3, 8)
        if given.serial:
            bench.row("W=2 M=3, one call at a time", 1, 2, 3, 1)
        costs = [100 * (bench.recording_cost() - 1) for _ in range(given.repeats)]
        print(
            f"recording, pair by pair: {statistics.median(costs):+.1f} % of the wall time "
            f"({min(costs):+.1f} to {max(costs):+.1f})"
        )
        print(f"replay of {bench.calls} recorded calls: {1000 * bench.replay(2 * given.repeats + 1):.0f} ms")
        if given.wide:
            bench.row("W=5 M=16", given.repeats, 5, 16, 128)
        if given.wide and given.serial:
            bench.row("W=5 M=16, one call at a time", 1, 5, 16, 1)


class Bench:
    """Runs searches against one server, each in a fresh run directory."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder, self._number = url, folder, 0
        self.calls = 0

    def recording_cost(self) -> float:
        """Wall time of a narrow run over that of one right before it with nothing recorded."""
        without = self.run(2, 3, 64, recording=False)
        return self.run(2, 3, 64).wall_s / without.wall_s

    def row(self, name: str, repeats: int, *shape: int) -> None:
        """Print one line."""
        figures = [self.run(*shape) for _ in range(repeats)]
        cpu = statistics.median(1000 * f.cpu_s / f.calls for f in figures)
        ratios = [f.ratio for f in figures]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        print(f"{name:<30}{figures[0].calls:>6} {spread:>26}{cpu:>15.2f}", flush=True)

    def run(self, width: int, samples: int, concurrency: int, *, recording: bool = True) -> Figures:
        """One search."""
        self._number += 1
        config = self._config(width, samples, concurrency)
        plan = optimize_plan(config, {})
        with contextlib.nullcontext() if recording else unrecorded():
            wall, cpu = time.perf_counter(), time.process_time()
            result = asyncio.run(run_optimize(plan, {}, Hooks()))
            took = time.perf_counter() - wall, time.process_time() - cpu
        calls = sum(result.alignment.found.calls.values())
        if recording:
            self.calls, self._last = calls, config.run_dir
        return Figures(*took, calls)

    def replay(self, repeats: int) -> float:
        """Median seconds of a strict replay of the last recorded run."""
        took = []
        for _ in range(repeats):
            assert self._last is not None
            began = time.perf_counter()
            assert asyncio.run(replay_run(self._last, {})).identical
            took.append(time.perf_counter() - began)
        return statistics.median(took)

    def _config(self, width: int, samples: int, concurrency: int) -> OptimizeConfig:
        roles: dict[str, Any] = {
            role: f"openai/{name}@{self._url}"
            for role, name in (("model", "base"), *((r, r) for r in ("optimizer", "evaluator", "selector")))
        }
        run_dir = self._folder / f"run{self._number}"
        shape = {"width": width, "samples": samples, "concurrency": concurrency, "validate": 0}
        return resolve(OptimizeConfig, {**roles, **shape, "embedder": "lexical", "run_dir": run_dir}, {})


@contextlib.contextmanager
def mock_server() -> Iterator[str]:
    """The URL of a mock server in a process of its own."""
    command = [sys.executable, "-m", "tests.support.mock_openai", "--latency-ms", LATENCIES]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """Journals that keep nothing, to see what keeping costs."""
    append = Journal.append

    async def nothing(self: Journal, record: dict[str, Any], *, durable: bool = True) -> None:
        return None

    Journal.append = nothing  # type: ignore[method-assign]
    try:
        yield
    finally:
        Journal.append = append  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
