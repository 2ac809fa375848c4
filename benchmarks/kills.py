"""Runs that are killed and resumed: python -m benchmarks.kills [--kills 100] [--steps 100] [--seed 0]

Three scenes, each against an uninterrupted reference run with the same settings:

demo    a process is killed -9 at a random moment of its life, start-up and end included, at random latencies
        and concurrencies, and started again until it finishes
server  the same against a mock server, whose log says what was really sent
steps   killed before or after the k-th fsync or rename, for every k up to --steps

A run must come out with the alignment.json and events.jsonl of the reference to the byte, its record must
hold no call twice, and the server must never see a request again whose reply was recorded. Else exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drpo import cli
from drpo.jsonl import read_lines
from tests.support.command import roles_at
from tests.support.mock_openai import Reply, drpo_answers
from tests.support.served import Served

SEARCH = (
    "--depth",
    "5",
    "--width",
    "2",
    "--samples",
    "2",
    "--max-extra-depth",
    "1",
    "--quiet",
    "--no-report",
    "--validate",
    "0",
)
LATENCIES_MS = (0, 3, 20)
CONCURRENCIES = (1, 3, 64)
RESULTS = ("alignment.json", "events.jsonl")


@dataclass
class Scene:
    """What one row of the table says. `torn`: kills in the middle of a line of the record."""

    name: str
    runs: int = 0
    kills: int = 0
    before_record: int = 0
    torn: int = 0
    requests: int = 0
    repeated: int = 0
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0


def command(folder: Path, *more: object) -> list[str]:
    """The arguments of a run in `folder`."""
    return ["optimize", *SEARCH, "--run-dir", str(folder), *map(str, more)]


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """A drpo of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "drpo", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(arguments: list[str]) -> float:
    """Run to the end; how many seconds that took."""
    began_s = time.monotonic()
    running = start(arguments)
    _, said = running.communicate()
    if running.returncode != 0:
        raise SystemExit(f"the reference run failed: {said.decode()}")
    return time.monotonic() - began_s


def results(folder: Path) -> dict[str, bytes]:
    """What must not depend on kills."""
    return {name: (folder / name).read_bytes() for name in RESULTS}


def check_run(scene: Scene, folder: Path, reference: dict[str, bytes], how: str) -> None:
    """Compare a finished run with the reference, and look for calls that are recorded twice."""
    for name, data in results(folder).items():
        if data != reference[name]:
            scene.violations.append(f"{scene.name}: {name} differs ({how})")
    keys = Counter(r["key"] for r in read_lines(folder / "calls.jsonl").records if r["kind"] == "call")
    twice = [key for key, times in keys.items() if times > 1]
    if twice:
        scene.violations.append(f"{scene.name}: {len(twice)} calls recorded twice ({how})")


def killed(arguments: list[str], after_s: float) -> bool:
    """Start, and kill after some seconds; False if the run was quicker, and then it must have succeeded."""
    running = start(arguments)
    try:
        _, said = running.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGKILL)
        running.communicate()
        return True
    if running.returncode != 0:
        raise SystemExit(f"a resumed run failed: {said.decode()}")
    return False


def random_kills(
    scene: Scene,
    kills: int,
    dice: random.Random,
    root: Path,
    arguments: Callable[[Path, int], list[str]],
    log: Callable[[], list[dict[str, Any]]],
    latencies_ms: Sequence[int],
) -> None:
    """Kill runs until `kills` have been killed, resume each until it finishes."""
    began_s = time.monotonic()
    first = latencies_ms[0]
    life_s = {first: finish(arguments(root / f"reference-{first}", first))}
    reference = results(root / f"reference-{first}")
    while scene.kills < kills:
        folder = root / f"run-{scene.runs}"
        scene.runs += 1
        seen, recorded = len(log()), set[str]()
        begun_at, moments = seen, list[str]()
        while True:
            ms = dice.choice(latencies_ms)
            if ms not in life_s:
                life_s[ms] = finish(arguments(root / f"reference-{ms}", ms))
                check_run(scene, root / f"reference-{ms}", reference, f"uninterrupted, {ms} ms")
                seen = len(log())
            after_s = dice.uniform(0.0, life_s[ms] * 1.05)
            if scene.kills >= kills:
                after_s = 600.0
            was_killed = killed(
                [*arguments(folder, ms), "--concurrency", str(dice.choice(CONCURRENCIES))], after_s
            )
            again = [body for body in map(canonical, log()[seen:]) if body in recorded]
            seen = len(log())
            if again:
                scene.violations.append(f"{scene.name}: {len(again)} recorded calls sent again ({moments})")
            if not was_killed:
                break
            moments.append(f"{after_s:.3f} s")
            scene.kills += 1
            lines = read_lines(folder / "calls.jsonl")
            scene.before_record += not lines.records
            scene.torn += lines.torn
            recorded = {canonical(wire(r["request"])) for r in lines.records if r["kind"] == "call"}
        check_run(scene, folder, reference, f"killed after {', '.join(moments)}")
        sent = [canonical(body) for body in log()[begun_at:]]
        scene.requests += len(sent)
        scene.repeated += len(sent) - len(set(sent))
    scene.seconds = time.monotonic() - began_s


def canonical(body: dict[str, Any]) -> str:
    """Equal for equal requests."""
    return json.dumps(body, sort_keys=True)


def wire(request: dict[str, Any]) -> dict[str, Any]:
    """The body that a recorded request had on the wire."""
    name = request["model"].partition("@")[0].partition("/")[2]
    messages = [{"role": role, "content": content} for role, content in request["messages"]]
    return {**request, "model": name, "messages": messages}


def demo_scene(
    kills: int, dice: random.Random, root: Path, latencies_ms: Sequence[int] = LATENCIES_MS
) -> Scene:
    """Random kills of runs on the simulated models."""
    scene = Scene("demo")

    def arguments(folder: Path, ms: int) -> list[str]:
        return command(folder, "--model", "demo", "--demo-latency-ms", ms)

    random_kills(scene, kills, dice, root, arguments, list, latencies_ms)
    return scene


def server_scene(
    kills: int, dice: random.Random, root: Path, latencies_ms: Sequence[int] = LATENCIES_MS
) -> Scene:
    """Random kills of runs against a server that keeps a log and takes a random time for each reply."""
    scene = Scene("server")
    latency_ms = [0]

    async def slowly(model: str, body: dict[str, Any]) -> Reply:
        await asyncio.sleep(random.uniform(0, 2 * latency_ms[0]) / 1000)
        return drpo_answers(model, body)

    with Served(slowly) as server:

        def arguments(folder: Path, ms: int) -> list[str]:
            latency_ms[0] = ms
            return command(folder, *roles_at(server.url))

        random_kills(scene, kills, dice, root, arguments, lambda: server.bodies, latencies_ms)
    return scene


def steps_scene(steps: int, root: Path) -> Scene:
    """A kill right before or right after the k-th fsync or rename, for each k while the run has as many."""
    scene, began_s = Scene("steps"), time.monotonic()
    importlib.import_module("drpo.commands.optimize")  # once, and not in each fork
    reference = root / "reference"
    forked(command(reference, "--model", "demo"), None)
    for step in range(2 * steps):
        folder = root / f"run-{step}"
        arguments = command(folder, "--model", "demo")
        scene.runs += 1
        if forked(arguments, step) == 0:
            break
        scene.kills += 1
        lines = read_lines(folder / "calls.jsonl")
        scene.before_record += not lines.records
        scene.torn += lines.torn
        code = forked(arguments, None)
        how = f"killed {'after' if step % 2 else 'before'} step {step // 2 + 1}"
        if code != 0:
            scene.violations.append(f"steps: exit {code} after it was {how}")
        else:
            check_run(scene, folder, results(reference), how)
    scene.seconds = time.monotonic() - began_s
    return scene


def forked(arguments: list[str], step: int | None) -> int:
    """The exit code of a run in a fork of this process, -9 if it was killed at `step`."""
    child = os.fork()
    if child == 0:
        with Path(os.devnull).open("w") as nowhere:
            sys.stdout = sys.stderr = nowhere
            code: object = 1
            try:
                if step is not None:
                    die_at(step)
                cli.main(arguments)
            except SystemExit as ended:
                code = ended.code
            finally:
                os._exit(code if isinstance(code, int) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(step: int) -> None:
    """Kill this process before (even) or after (odd) the `step // 2`-th fsync or rename from here."""
    done = [0]

    def fatal(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            mine, done[0] = done[0], done[0] + 1
            if mine == step // 2 and step % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **named)
            if mine == step // 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    os.fsync, os.replace = fatal(os.fsync), fatal(os.replace)


def print_table(scenes: list[Scene]) -> None:
    """One row per scene, then every violation."""
    print(f"{'scene':<8}{'runs':>6}{'kills':>7}{'no call yet':>13}{'torn':>6}", end="")
    print(f"{'requests':>10}{'in the air, again':>19}{'violations':>12}{'seconds':>9}")
    for s in scenes:
        print(f"{s.name:<8}{s.runs:>6}{s.kills:>7}{s.before_record:>13}{s.torn:>6}", end="")
        sent = f"{s.requests:>10}{s.repeated:>19}" if s.requests else f"{'-':>10}{'-':>19}"
        print(f"{sent}{len(s.violations):>12}{s.seconds:>9.0f}")
    for s in scenes:
        for violation in s.violations:
            print(violation)


def main() -> int:
    """Run the scenes; 1 if anything differed or was sent again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="kills in each of the scenes demo and server")
    parser.add_argument("--steps", type=int, default=100, help="fsyncs and renames to be killed at")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["DRPO_CACHE_DIR"] = str(root / "cache")
        scenes = [
            steps_scene(given.steps, root / "steps")
        ]  # first, while this process has no threads to fork
        if given.kills:
            scenes.append(demo_scene(given.kills, random.Random(given.seed), root / "demo"))
            scenes.append(server_scene(given.kills, random.Random(given.seed + 1), root / "server"))
    print_table(scenes)
    return 1 if any(scene.violations for scene in scenes) else 0


if __name__ == "__main__":
    sys.exit(main())
