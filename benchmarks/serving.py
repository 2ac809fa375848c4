"""What `drpo serve` costs in front of a model, and what hostile requests do to it.

    python -m benchmarks.serving [--streams 10000] [--at-once 1000] [--plain 10000] [--cases 10000]
                                 [--workers 1] [--shots-among 100000] [--soak-minutes 60] [--soak-rate 25]
    python -m benchmarks.serving --streams 2000 --plain 2000 --cases 1000       (under three minutes)

A mock model, the server and the client share the machine. Each figure stands beside that of going to the
mock model directly, in the same run and with the same client: quote the ratios and differences. The queries
are all different, so that each has its shots looked for (BM25 over the 16 shipped examples, K = 3). Plain
requests are sent by aiohttp and by the OpenAI SDK. Where other programs share the machine, quote the
processor times. What finding the shots takes, among many examples too: see `benchmarks/serving_shots.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import openai
import psutil
from openai.types.chat import ChatCompletionUserMessageParam

from benchmarks.serving_shots import shots

_TOKENS, _INTERVAL_MS = 20, 250
_TURNS = 20
_STREAM_S = _TOKENS * _INTERVAL_MS / 1000


@dataclass(frozen=True)
class Load:
    """What a number of requests came to. first_s: seconds to the first text of each, sorted."""

    wall_s: float
    first_s: tuple[float, ...]
    errors: int

    def first_ms(self, part: float) -> float:
        """The quantile of the first text, in milliseconds."""
        return 1000 * self.first_s[min(len(self.first_s) - 1, int(part * len(self.first_s)))]

    @property
    def a_second(self) -> float:
        return len(self.first_s) / self.wall_s


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=1000)
    parser.add_argument("--plain", type=int, default=10_000)
    parser.add_argument("--plain-at-once", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1, help="of drpo serve")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--shots-among", type=int, default=100_000)
    parser.add_argument("--soak-minutes", type=float, default=0.0)
    parser.add_argument("--soak-rate", type=float, default=25.0, help="requests a second")
    given = parser.parse_args()
    if given.shots_among:
        asyncio.run(shots(given.shots_among, dimensions=384))
    with (
        tempfile.TemporaryDirectory() as folder,
        upstream() as direct,
        served(direct, Path(folder), given.workers) as ours,
    ):
        bench = Bench(direct, *ours)
        print(f"{'':<34}{'direct':>12}{'drpo serve':>12}", flush=True)
        if given.plain:
            asyncio.run(bench.plain(given.plain, given.plain_at_once, sdk=False))
            asyncio.run(bench.plain(given.plain // 4, given.plain_at_once, sdk=True))
        if given.streams:
            asyncio.run(bench.streams(given.streams, given.at_once))
        if given.cases:
            asyncio.run(bench.cases(given.cases))
        if given.soak_minutes:
            asyncio.run(bench.soak(given.soak_minutes, given.soak_rate))


class Bench:
    """Asks both, one after the other."""

    def __init__(self, direct: str, server: str, process: psutil.Process) -> None:
        self._direct, self._server, self._process = direct, server, process
        self._number = 0

    @property
    def memory_mb(self) -> float:
        """What the server holds in memory, in megabytes."""
        return sum(float(one.memory_info().rss) for one in self._all()) / 1e6

    def _used_s(self) -> float:
        """Processor time of the server, its workers included."""
        return sum(sum(one.cpu_times()[:2]) for one in self._all())

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children()]

    async def plain(self, count: int, at_once: int, *, sdk: bool) -> None:
        """Whole answers, in many turns so that a change of the machine's speed meets both."""
        both: dict[str, list[Load]] = {self._direct: [], self._server: []}
        load = self._sdk_load if sdk else partial(self._load, stream=False)
        for url in both:
            await load(url, 500, at_once)
        before_s = self._used_s()
        for _ in range(_TURNS):
            for url, loads in both.items():
                loads.append(await load(url, count // _TURNS, at_once))
        speeds = [statistics.median(load.a_second for load in loads) for loads in both.values()]
        errors = [sum(load.errors for load in loads) for loads in both.values()]
        print(f"{count} plain requests, {at_once} at once, by {'the OpenAI SDK' if sdk else 'aiohttp'}")
        each = sorted(mine.a_second / theirs.a_second for theirs, mine in zip(*both.values(), strict=True))
        _row("  a second", speeds, f"  ratio {statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})")
        _row("  errors", errors)
        used_s = self._used_s() - before_s
        asked = _TURNS * (count // _TURNS)
        print(f"  processor time of the server: {1000 * used_s / asked:.2f} ms a request")

    async def streams(self, count: int, at_once: int) -> None:
        """Streams of 20 tokens in 5 s: all clients begin in one moment, and go on in waves; and the same with
        clients that begin one after the other within the time of a stream."""
        for name, over_s in (("begun in one moment", 0.0), (f"begun over {_STREAM_S:g} s", _STREAM_S)):
            await self._compare(
                f"{count} streams of {_TOKENS} tokens, {at_once} at once, {name}", count, at_once, over_s
            )

    async def _compare(self, title: str, count: int, at_once: int, over_s: float) -> None:
        loads = []
        for url in (self._direct, self._server):
            before = self.memory_mb
            loads.append(await self._load(url, count, at_once, stream=True, over_s=over_s))
        print(title)
        for name, part in (("median", 0.5), ("p99", 0.99)):
            both = [load.first_ms(part) for load in loads]
            _row(f"  first text, {name}, ms", both, f"  {both[1] - both[0]:+.0f} ms")
        _row("  errors", [load.errors for load in loads])
        _row("  wall s", [load.wall_s for load in loads])
        print(f"  memory of the server: {before:.0f} MB before, {self.memory_mb:.0f} MB after")

    async def cases(self, count: int) -> None:
        """Bodies of all kinds, drawn as in the tests: none may be answered by a 5xx."""
        from tests.support.bodies import drawn_bodies

        statuses: dict[int, int] = {}
        connector = aiohttp.TCPConnector(limit=32)
        async with aiohttp.ClientSession(connector=connector) as session:
            waiting = asyncio.Semaphore(32)

            async def one(path: str, body: bytes) -> None:
                async with (
                    waiting,
                    session.post(self._server + path, data=body, headers=_HEADERS) as reply,
                ):
                    await reply.read()
                    statuses[reply.status] = statuses.get(reply.status, 0) + 1

            for start in range(0, count, 1000):
                bodies = drawn_bodies(min(1000, count - start), seed=start)
                await asyncio.gather(*(one(path, body) for path, body in bodies))
        told = ", ".join(f"{status}: {number}" for status, number in sorted(statuses.items()))
        bad = sum(number for status, number in statuses.items() if status >= 500)
        print(f"{count} drawn requests: {bad} answered by 5xx  ({told})", flush=True)

    async def soak(self, minutes: float, rate: float) -> None:
        """Streams and plain requests in turn, so many a second; memory in the second tenth of the time and in
        the last one, in the middle each: the first one fills what is bounded."""
        began_s, sent, errors, told = time.monotonic(), 0, 0, 0.0
        seen: list[tuple[float, float]] = []
        while (passed_s := time.monotonic() - began_s) < 60 * minutes:
            load = await self._load(self._server, 250, 50, stream=sent % 500 == 0)
            sent, errors = sent + 250, errors + load.errors
            seen.append((passed_s / (60 * minutes), self.memory_mb))
            if passed_s > told + 60:
                told = passed_s
                print(
                    f"  after {passed_s / 60:.0f} minutes: {sent} requests, {errors} errors, "
                    f"{self.memory_mb:.1f} MB",
                    flush=True,
                )
            await asyncio.sleep(max(0.0, began_s + sent / rate - time.monotonic()))
        early = [mb for part, mb in seen if 0.1 <= part < 0.2]
        late = [mb for part, mb in seen if part >= 0.9]
        if not early or not late:
            raise SystemExit(f"a soak of {minutes:g} minutes is too short to tell anything")
        first, last = statistics.median(early), statistics.median(late)
        print(
            f"soak of {minutes:g} minutes: {sent} requests, {errors} errors, memory {first:.1f} MB in the "
            f"second tenth, {last:.1f} MB in the last ({100 * (last / first - 1):+.1f} %)",
            flush=True,
        )

    async def _sdk_load(self, url: str, count: int, at_once: int) -> Load:
        """Plain requests by the client that most use."""
        errors, left = 0, iter(range(count))
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as sdk:

            async def client() -> None:
                nonlocal errors
                for _ in left:
                    self._number += 1
                    try:
                        await sdk.chat.completions.create(model="bees", messages=[_message(self._number)])
                    except openai.OpenAIError:
                        errors += 1

            began_s = time.perf_counter()
            await asyncio.gather(*(client() for _ in range(at_once)))
            return Load(time.perf_counter() - began_s, (0.0,) * count, errors)

    async def _load(self, url: str, count: int, at_once: int, *, stream: bool, over_s: float = 0.0) -> Load:
        """So many requests by `at_once` clients, whose connections are open before the first one is timed."""
        firsts: list[float] = []
        errors = 0
        left = iter(range(count))
        timeout = aiohttp.ClientTimeout(total=120)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

            async def client(number: int) -> None:
                nonlocal errors
                await asyncio.sleep(over_s * number / at_once)
                for _ in left:
                    self._number += 1
                    try:
                        firsts.append(await _ask(session, url, self._number, stream=stream))
                    except (aiohttp.ClientError, TimeoutError, AssertionError):
                        errors += 1

            await asyncio.gather(*(_open(session, url) for _ in range(at_once)))
            began_s = time.perf_counter()
            await asyncio.gather(*(client(number) for number in range(at_once)))
            wall_s = time.perf_counter() - began_s
        return Load(wall_s, tuple(sorted(firsts)) or (0.0,), errors)


_HEADERS = {"Content-Type": "application/json"}


def _message(number: int) -> ChatCompletionUserMessageParam:
    return {"role": "user", "content": f"How does one keep bees in town, question {number}?"}


async def _open(session: aiohttp.ClientSession, url: str) -> None:
    """A connection, and one behind the server: by an answer that is not timed."""
    await _ask(session, url, 0, stream=False)


async def _ask(session: aiohttp.ClientSession, url: str, number: int, *, stream: bool) -> float:
    """Seconds until the first text, or until a whole answer; the answer is read to its end."""
    body = {"model": "bees", "messages": [_message(number)], "stream": stream}
    began_s = time.perf_counter()
    async with session.post(f"{url}/chat/completions", json=body) as reply:
        if not stream:
            assert reply.status == 200 and b'"choices"' in await reply.read()
            return time.perf_counter() - began_s
        assert reply.status == 200
        first_s, tail = 0.0, b""
        async for part in reply.content.iter_any():
            if not first_s and b"word" in part:
                first_s = time.perf_counter() - began_s
            tail = (tail + part)[-40:]
        assert first_s and b"[DONE]" in tail
        return first_s


@contextlib.contextmanager
def upstream() -> Iterator[str]:
    """The URL of a mock model in a process of its own."""
    command = [sys.executable, "-m", "tests.support.streaming_upstream", "--tokens", str(_TOKENS)]
    with _process([*command, "--interval-ms", str(_INTERVAL_MS)], subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


@contextlib.contextmanager
def served(url: str, folder: Path, workers: int = 1) -> Iterator[tuple[str, psutil.Process]]:
    """`drpo serve` in front of it: its URL and its process."""
    from tests.support.alignments import written_alignment

    alignment = written_alignment(folder / "bees.json")
    command = [sys.executable, "-m", "drpo", "serve", str(alignment), "--model", f"openai/m@{url}"]
    command += ["--workers", str(workers), "--port", "0"]
    with _process(command, subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("serving at "):
                yield line.split()[2].rstrip(":"), psutil.Process(process.pid)
                return
        raise SystemExit("the server did not start")


@contextlib.contextmanager
def _process(command: Sequence[str], stdout: int, **named: Any) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DRPO_")}
    with subprocess.Popen(command, stdout=stdout, text=True, env=environment, **named) as process:
        try:
            yield process
        finally:
            process.terminate()


def _row(name: str, both: Sequence[float], told: str = "") -> None:
    print(f"{name:<34}{both[0]:>12.0f}{both[1]:>12.0f}{told}", flush=True)


if __name__ == "__main__":
    main()
