"""A run that is asked to stop sends nothing new and keeps what is in the air; asked twice, it ends now."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import drpo
from drpo.errors import Interrupted
from drpo.llm.base import Choice, Completion, Request
from drpo.llm.limits import Stop
from drpo.llm.simulated import SimulatedLLM
from tests.support.command import Ran, Shell, ended, killed_at_the_end, process, roles_at
from tests.support.served import Served

WIDE = ("--depth", "4", "--width", "2", "--samples", "3", "--concurrency", "16")


class Search:
    """A search whose first level hangs in the air: three responses of the base model are awaited."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.base_requests = 0
        self.server = Served(hold=self._hold)

    def _hold(self, model: str) -> bool:
        self.base_requests += model == "base"
        return model == "base" and self.base_requests > 1

    @property
    def command(self) -> list[str]:
        return ["optimize", *roles_at(self.server.url), *WIDE, "--run-dir", "run", "--quiet"]

    def stopped(self, number: signal.Signals, then: Callable[[subprocess.Popen[str]], None]) -> Ran:
        """The run after it was asked once, said so, and `then` happened."""
        with killed_at_the_end(process(*self.command)) as running:
            self.server.wait_for(lambda: self.server.held() == 3)
            running.send_signal(number)
            said = running.stderr.readline()
            assert said.startswith("stopping: no new request"), said
            then(running)
            return ended(running)

    def sent(self) -> Counter[str]:
        return Counter(json.dumps(body, sort_keys=True) for body in self.server.bodies)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_once_it_records_what_is_in_the_air_and_sends_nothing_new(
    shell: Shell, number: signal.Signals
) -> None:
    search = Search(shell)
    with search.server as server:
        ran = search.stopped(number, lambda running: server.release())
        assert (ran.code, ran.out) == (130, "")
        assert ran.err == "drpo: interrupted; run the same command again to resume\n"
        asked = len(server.requests)
        recorded = (shell.folder / "run" / "calls.jsonl").read_text().splitlines()
        assert sum(json.loads(line)["kind"] == "call" for line in recorded) == asked
        shell.done(*search.command)
        assert len(server.requests) > asked
        assert set(search.sent().values()) == {1}
    assert shell.done("replay", "run").out.startswith("identical")


def test_asked_twice_it_ends_at_once_and_says_how_many_calls_were_abandoned(shell: Shell) -> None:
    search = Search(shell)
    with search.server as server:
        began_s = time.monotonic()
        ran = search.stopped(signal.SIGINT, lambda running: running.send_signal(signal.SIGINT))
        assert time.monotonic() - began_s < 20  # the calls in the air would have been awaited for 30 s
        assert (ran.code, ran.out) == (130, "")
        assert ran.err.startswith("drpo: interrupted; ") and ran.err.count("\n") == 1
        assert "3 calls in the air were abandoned" in ran.err
        abandoned = {text for text in search.sent() if json.loads(text)["model"] == "base"}
        server.release()
        shell.done(*search.command)
        again = {text for text, times in search.sent().items() if times == 2}
        assert len(again) == 3 and again < abandoned
        assert max(search.sent().values()) == 2
    assert shell.done("replay", "run").out.startswith("identical")


class Hanging:
    """The simulated models, but a request that `hangs` says so of is never answered."""

    name = "hanging"

    def __init__(self, hangs: Callable[[Request], bool]) -> None:
        self.hangs = hangs
        self.cancelled = 0
        self.demo = SimulatedLLM()

    async def complete(self, request: Request) -> Completion:
        if self.hangs(request):
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled += 1
        return await self.demo.complete(request)


async def test_what_only_the_background_waits_for_is_abandoned_too_when_asked_twice(tmp_path: Path) -> None:
    stop, hurry = Stop(), asyncio.Event()
    selections: list[Request] = []

    def hangs(request: Request) -> bool:
        if request.role == "evaluator":  # so the start is done, and the level after it sends nothing
            stop.set(Interrupted("asked"))
            asyncio.get_running_loop().call_soon(hurry.set)
        if request.role == "selector":
            selections.append(request)
        return request.role == "selector" and len(selections) > 1

    model = Hanging(hangs)
    hooks = drpo.Hooks(stop=stop, hurry=hurry, grace_s=60)
    with pytest.raises(Interrupted, match=r"asked; \d+ calls in the air were abandoned"):
        async with asyncio.timeout(20):
            await optimize(model, tmp_path / "run", hooks)
    assert model.cancelled > 0


async def test_whoever_cancels_a_run_gets_what_is_in_the_air_recorded_and_nothing_new_sent(
    tmp_path: Path,
) -> None:
    in_air, answer = asyncio.Event(), asyncio.Event()
    sent: list[str] = []

    class Slow:
        name = "slow"

        async def complete(self, request: Request) -> Completion:
            sent.append(request.role)
            in_air.set()
            await answer.wait()
            return Completion((Choice("an answer"),))

    running = asyncio.create_task(optimize(Slow(), tmp_path / "run", drpo.Hooks()))
    await in_air.wait()
    running.cancel()
    asyncio.get_running_loop().call_soon(answer.set)
    with pytest.raises(asyncio.CancelledError):
        await running
    recorded = (tmp_path / "run" / "calls.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["kind"] == "call" for line in recorded) == len(sent) == 1


async def optimize(model: drpo.LLM, run_dir: Path, hooks: drpo.Hooks) -> drpo.OptimizeResult:
    """A short search in which `model` plays every role."""
    return await drpo.optimize_async(
        models={"base": model, "optimizer": model, "evaluator": model, "selector": model},
        embedder="lexical",
        run_dir=run_dir,
        depth=4,
        hooks=hooks,
    )
