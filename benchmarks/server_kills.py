"""drpo killed at random moments, and what is left of the vLLM server it ran.

    python -m benchmarks.server_kills [--kills 20] [--seed 0] [--stand-in]

One run of `drpo optimize --config demo-lm/drpo.toml` says how long a run lives. Then runs are killed by
SIGKILL at random moments of such a life, start-up and end included. 10 s later no process may live that one
of them, or what it started, has ever started; else exit code 1. A run that was killed is resumed and killed
again, until it ends. `--stand-in` plays the server without vLLM, by a process tree that refuses to end when
asked.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

LEFT_AFTER_S = 10.0
_LOOK_S = 0.02
STAND_IN = f"{sys.executable} -m tests.support.fake_vllm serve"
ROOT = Path(__file__).parents[1]


def command(run: Path, stand_in: bool) -> list[str]:
    """The search whose process is killed."""
    flags = ["--config", "demo-lm/drpo.toml", "--run-dir", str(run), "--quiet"]
    if stand_in:
        roles = [part for role in ("model", "optimizer", "evaluator") for part in (f"--{role}", "vllm/org/m")]
        flags = [*roles, "--embedder", "lexical", "--depth", "20", "--run-dir", str(run), "--quiet"]
        flags += ["--base-max-tokens", "256", "--concurrency", "2", "--vllm-command", STAND_IN]
    return [sys.executable, "-m", "drpo", "optimize", *flags, "--validate", "0"]


def environment(folder: Path, stand_in: bool) -> dict[str, str]:
    """No network, no compiling. A stand-in starts slowly; its engine leaves the group and heeds no signal."""
    own = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "DRPO_CACHE_DIR": str(folder / "cache"),
    }
    if stand_in:
        own |= {"FAKE_VLLM": "orphan,stubborn,slow=0.5", "FAKE_VLLM_STATE": str(folder / "state")}
    return {**os.environ, **own}


def live(run: Path, stand_in: bool, at_most_s: float) -> tuple[set[psutil.Process], bool]:
    """Every process that came of one run up to its end or death, and whether it ended by itself."""
    process = subprocess.Popen(
        command(run, stand_in),
        cwd=ROOT,
        env=environment(run.parent, stand_in),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seen: set[psutil.Process] = set()
    deadline = time.monotonic() + at_most_s
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(psutil.Error):
            seen.update(psutil.Process(process.pid).children(recursive=True))
        time.sleep(_LOOK_S)
    ended = process.poll() is not None
    process.kill()
    process.wait()
    return seen, ended


def left(seen: set[psutil.Process]) -> list[psutil.Process]:
    """Those that run."""
    found = []
    for process in seen:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def look(seen: set[psutil.Process]) -> tuple[float, list[psutil.Process]]:
    """Seconds until none is left, and those left after the bound, which are ended here."""
    began_s = time.monotonic()
    while left(seen) and time.monotonic() - began_s < LEFT_AFTER_S:
        time.sleep(_LOOK_S)
    took_s, alive = time.monotonic() - began_s, left(seen)
    for process in alive:
        process.kill()
    return took_s, alive


def main() -> None:
    """Kill, wait, look."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stand-in", action="store_true")
    options = parser.parse_args()
    dice = random.Random(options.seed)
    kills, runs, processes, slowest_s, violations = 0, 0, 0, 0.0, 0
    with tempfile.TemporaryDirectory() as name:
        began_s = time.monotonic()
        live(Path(name) / "whole", options.stand_in, 600.0)
        life_s = time.monotonic() - began_s
        print(f"a run lives {life_s:.1f} s", flush=True)
        while kills < options.kills:
            after_s = dice.uniform(0.0, life_s)
            seen, ended = live(Path(name) / f"run-{runs}", options.stand_in, after_s)
            took_s, alive = look(seen)
            slowest_s, violations = max(slowest_s, took_s), violations + len(alive)
            runs, processes = runs + ended, processes + len(seen)
            if not ended:
                kills += 1
                print(
                    f"kill {kills:>3} after {after_s:5.1f} s: {len(seen)} processes, gone in {took_s:.1f} s"
                )
            for process in alive:
                print(f"    LEFT: {process}", flush=True)
    print(
        f"{kills} kills, {runs} runs resumed to their end, {processes} processes, the last one gone after at"
    )
    print(f"most {slowest_s:.1f} s; left after {LEFT_AFTER_S:.0f} s: {violations}")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
