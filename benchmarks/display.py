"""What the live display, progress.json and the report cost a run.

    python -m benchmarks.display [--repeats 7] [--latency-ms 50] [--profile]

A default run with simulated models that take 50 ms for each reply is made in this process: without any of
the three, with the display on a pseudo-terminal and progress.json, and with the report as well. The kinds
take turns, every other round in the other order, and each is compared with the bare run of its own round;
told is the median of these differences, and in brackets where it lies with a confidence of 90 % or more.

Wall time is what the user waits for, with the noise of the machine in it, and is said to be under the goal,
or not, only where all of the bracket is. CPU time has less noise: what the thread of the run itself takes
holds the run up, what other threads take is mostly spent while the run waits for models, and what the process
takes that makes the report's pages comes on top of it, on another core where there is one. A first round,
which loads modules, is left out. With --profile it is said instead how often the display was drawn, and where
its CPU time goes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import math
import os
import pstats
import resource
import statistics
import tempfile
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from unittest.mock import patch

from drpo.commands.display import render
from drpo.commands.live_display import LiveDisplay
from drpo.commands.painter import Painter
from drpo.config import OptimizeConfig
from drpo.following import Following
from drpo.monitor import Monitor
from drpo.plan import optimize_plan, run_path
from drpo.progress import Snapshot
from drpo.run import Hooks, run_optimize
from drpo.settings import environment

COLUMNS, LINES, GOAL = 100, 32, 0.03
BARE, SHOWN, ALL = "none of the three", "display, progress.json", "display, progress.json, report"


MEASURES = ("wall", "CPU", "CPU, own thread", "CPU, children")


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds that one run took, in the order of MEASURES, and the bytes that came to the terminal."""

    seconds: tuple[float, ...]
    written: int


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--latency-ms", type=int, default=50)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.profile:
            profile_drawing(Path(folder), given.latency_ms)
        else:
            compare(Path(folder), given.repeats, given.latency_ms)


def compare(folder: Path, repeats: int, latency_ms: int) -> None:
    """The three kinds in turn, and what the latter two take more than the first."""
    took: dict[str, list[Took]] = {BARE: [], SHOWN: [], ALL: []}
    for number in range(repeats + 1):
        for kind in took if number % 2 else reversed(took):
            one = asyncio.run(_run(folder / f"{number}-{len(kind)}", kind, latency_ms))
            if (one.written > 0) is (kind == BARE):
                raise SystemExit(f"{kind}: {one.written} bytes came to the terminal")
            if number:
                took[kind].append(one)
    wall_s, cpu_s = (statistics.median(one.seconds[index] for one in took[BARE]) for index in range(2))
    print(f"a run of {wall_s:.2f} s, {cpu_s:.2f} s of it CPU time; {repeats} rounds, replies {latency_ms} ms")
    print(f"{'what it takes more with':<32}{'':<16}{'ms':>6}{'(bracket)':>16}{'of the wall time':>18}")
    for kind in (SHOWN, ALL):
        for index, measure in enumerate(MEASURES):
            pairs = zip(took[BARE], took[kind], strict=True)
            more = sorted(with_it.seconds[index] - without.seconds[index] for without, with_it in pairs)
            low, high = bracket(more)
            told = f"{kind if not index else '':<32}{measure:<16}{1000 * statistics.median(more):>+6.0f}"
            told += (
                f"{f'({1000 * low:+.0f}, {1000 * high:+.0f})':>16}{statistics.median(more) / wall_s:>18.1%}"
            )
            print(told + (f"  {verdict(low / wall_s, high / wall_s)}" if not index else ""))


def bracket(ordered: Sequence[float]) -> tuple[float, float]:
    """Two of the values between which their distribution's median lies with a confidence of 90 % or more,
    whatever the distribution; the least and the greatest where there are too few for that."""
    count, outside, left_out = len(ordered), 0, 0
    for less in range(count // 2):
        outside += math.comb(count, less)
        if 2 * outside > 0.1 * 2**count:
            break
        left_out = less
    return ordered[left_out], ordered[-1 - left_out]


def verdict(low: float, high: float) -> str:
    """What a bracket of shares says about the goal."""
    if high < GOAL:
        return f"under {GOAL:.0%}"
    return f"NOT under {GOAL:.0%}" if low >= GOAL else f"under {GOAL:.0%} or not: the noise hides it"


async def _run(path: Path, kind: str, latency_ms: int) -> Took:
    env = environment()
    config = OptimizeConfig(
        model="demo", run_dir=path, demo_latency_ms=latency_ms, reuse=False, report=kind == ALL
    )
    plan = optimize_plan(config, env)
    monitor = Monitor(plan, run_path(plan))
    with _terminal() as (stream, written), contextlib.ExitStack() as around:
        if kind == BARE:  # no setting switches the file off
            around.enter_context(patch.object(Following, "_write", lambda self: None))
        began = _clocks()
        async with LiveDisplay(monitor, stream) if kind != BARE else contextlib.nullcontext():
            await run_optimize(plan, env, Hooks(monitor=monitor))
        ended = _clocks()
    return Took(tuple(after - before for before, after in zip(began, ended, strict=True)), sum(written))


def _clocks() -> tuple[float, ...]:
    """Now, in the order of MEASURES. Children are those that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    children_s = children.ru_utime + children.ru_stime
    return time.perf_counter(), time.process_time(), time.thread_time(), children_s


@contextlib.contextmanager
def _terminal() -> Iterator[tuple[TextIO, list[int]]]:
    """A pseudo-terminal that somebody reads, and, once it is closed, how much was read each time."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (LINES, COLUMNS))
    read: list[int] = []

    def reading() -> None:
        with contextlib.suppress(OSError):  # Linux says EIO where the other side is closed
            while piece := os.read(master, 65_536):
                read.append(len(piece))

    reader = threading.Thread(target=reading)
    reader.start()
    try:
        with os.fdopen(slave, "w", encoding="utf-8") as stream:
            yield stream, read
    finally:
        reader.join()
        os.close(master)


def profile_drawing(folder: Path, latency_ms: int) -> None:
    """How often it is drawn in a run, what a drawing takes, and the functions that take most of it."""
    snapshots: list[Snapshot] = []

    class Kept(Monitor):
        def snapshot(self) -> Snapshot:
            snapshots.append(super().snapshot())
            return snapshots[-1]

    env = environment()
    config = OptimizeConfig(
        model="demo",
        validate=0,
        run_dir=folder / "run",
        demo_latency_ms=latency_ms,
        reuse=False,
        report=False,
    )
    plan = optimize_plan(config, env)
    kept = Kept(plan, run_path(plan))

    async def whole(stream: TextIO) -> None:
        async with LiveDisplay(kept, stream):
            await run_optimize(plan, env, Hooks(monitor=kept))

    with _terminal() as (stream, _):
        asyncio.run(whole(stream))
    profile = cProfile.Profile()
    with _terminal() as (stream, _):
        painter = Painter(stream)
        began_s = time.process_time()
        for snapshot in snapshots:
            painter.draw(render(snapshot, COLUMNS, time.time(), LINES - 1))
        each_ms = 1000 * (time.process_time() - began_s) / len(snapshots)
        with profile:
            for snapshot in snapshots:
                painter.draw(render(snapshot, COLUMNS, time.time(), LINES - 1))
    print(f"{len(snapshots)} states, {each_ms:.2f} ms of CPU time to draw one")
    pstats.Stats(profile).sort_stats("cumulative").print_stats(18)


if __name__ == "__main__":
    main()
