"""How a server that drpo runs is watched: what ends it, what does not, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from drpo.errors import Stopped
from drpo.llm.base import Choice, Completion, Request
from drpo.llm.limits import Stop
from drpo.llm.retry import Transient
from drpo.llm.vllm.launch import Installation, Parallel, ServerSpec
from drpo.llm.vllm.process import Address, Health, ServerProcess
from drpo.llm.vllm.server import Bounds, ManagedServer, Place
from drpo.llm.vllm.server import Managed as ManagedLLM
from tests.support.managed import FAKE, Managed
from tests.support.processes import until

T = TypeVar("T")
SPEC = ServerSpec("org/m", "org/m", parallel=Parallel(1))


class Process:
    """One start of a server that is none: it runs until it is told to die or to stop."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.exit_code: int | None = None
        self.is_gone = False  # and nothing of it is left
        self.stopping, self.may_stop, self._over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.may_stop.set()

    def die(self) -> None:
        self.exit_code = 1
        self._over.set()

    async def ended(self, timeout_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), timeout_s)
        return self._over.is_set()

    async def stop(self) -> None:
        self.stopping.set()
        await self.may_stop.wait()
        self.is_gone = True


class Machine:
    """Stands in for processes and for the probe that asks them: well, unless `script` says otherwise."""

    def __init__(self) -> None:
        self.starts: list[Process] = []
        self.script: deque[Health] = deque()
        self.otherwise: Health = "well"
        self.told_all = asyncio.Event()  # what was in the script, and that once more
        self.started_again = asyncio.Event()
        self.held: asyncio.Event | None = None  # what the next answer waits for

    def start(self, command: list[str], address: Address, log: Path, _: Mapping[str, str]) -> Process:
        self.starts.append(Process(address))
        if len(self.starts) == 2:
            self.started_again.set()
        return self.starts[-1]

    async def health(self, address: Address, timeout_s: float) -> Health:
        held, self.held = self.held, None
        told = self.script.popleft() if self.script else None
        if held is not None:
            await held.wait()
        if told is None:
            self.told_all.set()
        return told or self.otherwise

    async def models(self, address: Address, timeout_s: float) -> dict[str, int | None]:
        return {address.mark: 4096}

    async def aclose(self) -> None:
        """Nothing was opened."""


async def soon(what: Awaitable[T]) -> T:
    """What is awaited; a test that would wait for ever fails instead."""
    return await asyncio.wait_for(what, 10)


async def turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr("drpo.llm.vllm.server.ServerProcess", machine)
    monkeypatch.setattr("drpo.llm.vllm.server.Probe", lambda: machine)
    for wait in ("_WATCH_S", "_LOOK_S"):
        monkeypatch.setattr(f"drpo.llm.vllm.server.{wait}", 0.002)
    return machine


@pytest.fixture
async def server(machine: Machine, tmp_path: Path) -> AsyncIterator[ManagedServer]:
    server = a_server(Place(tmp_path / "vllm.log"))
    yield server
    await server.aclose()


def a_server(
    place: Place, command: str = "vllm serve", environment: Mapping[str, str] | None = None
) -> ManagedServer:
    installation, bounds = Installation(tuple(command.split())), Bounds(ready_s=60.0, restarts=3)
    return ManagedServer(SPEC, installation, place, environment or {}, Stop(), lambda message: None, bounds)


@pytest.mark.parametrize(
    ("told", "deaths"),
    [(["silent", "well", "silent", "well"], 0), (["silent", "silent"], 1), (["ill"], 1)],
)
async def test_a_server_is_replaced_when_it_is_ill_or_silent_for_long_but_not_for_one_odd_answer(
    machine: Machine, server: ManagedServer, monkeypatch: pytest.MonkeyPatch, told: list[Health], deaths: int
) -> None:
    monkeypatch.setattr("drpo.llm.vllm.server._SILENT_S", 0.0)  # no longer than from one answer to the next
    process = await server.running()
    machine.told_all.clear()
    machine.script.extend(told)
    await soon(machine.told_all.wait())
    assert (await server.running() is process) == (deaths == 0)
    assert (server.deaths, len(machine.starts)) == (deaths, 1 + deaths)
    assert [process.is_gone for process in machine.starts] == [True] * deaths + [False]


async def test_silence_has_to_last_before_a_server_counts_as_gone(
    machine: Machine, server: ManagedServer
) -> None:
    process = await server.running()
    machine.told_all.clear()
    machine.script.extend(["silent"] * 5)
    await soon(machine.told_all.wait())
    assert await server.running() is process and server.deaths == 0


async def test_a_log_that_cannot_be_read_does_not_keep_a_server_from_being_replaced(
    machine: Machine, tmp_path: Path
) -> None:
    server = a_server(Place(tmp_path))  # a folder, which nobody can read as a file
    first = await server.running()
    machine.starts[0].die()
    await soon(machine.started_again.wait())
    assert await server.running() is not first and server.deaths == 1
    await soon(server.aclose())
    assert all(process.is_gone for process in machine.starts)


# Requests that fail


class Client:
    """A client of one start; its requests fail while anything is left of `failures`."""

    def __init__(self, process: ServerProcess, failures: list[Callable[[], None]]) -> None:
        self.process, self._failures = process, failures

    async def complete(self, request: Request) -> Completion:
        if self._failures:
            self._failures.pop(0)()
            raise Transient("no connection, or it broke")
        return Completion((Choice(self.process.address.mark),))


async def test_a_request_that_a_servers_death_has_cost_goes_to_the_next_one(
    machine: Machine, server: ManagedServer
) -> None:
    failures = [lambda: machine.starts[0].die()]
    managed = ManagedLLM(server, lambda process: Client(process, failures))
    done = await managed.complete(Request("m", prompt="Hello"))
    assert done.choices[0].text == machine.starts[1].address.mark
    assert server.deaths == 1


@pytest.mark.parametrize("health", ["well", "silent"])
async def test_a_failure_of_a_server_that_is_there_is_passed_on(
    machine: Machine, server: ManagedServer, health: Health
) -> None:
    managed = ManagedLLM(server, lambda process: Client(process, [lambda: machine.script.append(health)]))
    await server.running()
    with pytest.raises(Transient):
        await managed.complete(Request("m", prompt="Hello"))
    assert server.deaths == 0 and len(machine.starts) == 1


async def test_a_failed_request_has_its_server_looked_at_at_once(
    machine: Machine, server: ManagedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drpo.llm.vllm.server._WATCH_S", 60.0)
    process = await server.running()
    machine.script.append("ill")
    assert not await soon(server.answers(process))
    assert server.deaths == 1
    # A request to the one before, which fails late, says nothing of the one that is there now.
    assert await server.running() is not process
    assert not await server.answers(process)
    await turn()
    assert server.deaths == 1 and len(machine.starts) == 2


async def test_what_is_learnt_too_late_of_a_server_is_not_said_of_the_next_one(
    machine: Machine, server: ManagedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drpo.llm.vllm.server._WATCH_S", 60.0)
    process = await server.running()
    machine.script.append("ill")
    late = machine.held = asyncio.Event()
    looking = asyncio.ensure_future(server.answers(process))
    await turn()
    machine.starts[0].die()
    await soon(machine.started_again.wait())
    second = await soon(server.running())
    late.set()
    assert not await soon(looking)
    await turn()
    assert await server.running() is second and server.deaths == 1


async def test_a_server_that_is_being_replaced_no_longer_counts_whatever_it_answers(
    machine: Machine, server: ManagedServer
) -> None:
    process = await server.running()
    machine.starts[0].may_stop.clear()
    machine.script.append("ill")
    await soon(machine.starts[0].stopping.wait())
    assert not await server.answers(process)
    machine.starts[0].may_stop.set()


# The end


async def test_an_end_while_a_dead_server_is_cleared_away_leaves_nothing(
    machine: Machine, server: ManagedServer
) -> None:
    await server.running()
    (process,) = machine.starts
    process.may_stop.clear()
    process.die()
    await soon(process.stopping.wait())
    process.stopping.clear()
    ending = asyncio.ensure_future(server.aclose())
    await soon(process.stopping.wait())  # once more: the first time was called off
    process.may_stop.set()
    await soon(ending)
    assert process.is_gone and len(machine.starts) == 1
    with pytest.raises(Stopped):
        await server.running()


async def test_an_end_while_the_next_server_starts_leaves_nothing(
    machine: Machine, server: ManagedServer
) -> None:
    await server.running()
    machine.otherwise = "silent"  # the next one never is ready
    machine.starts[0].die()
    await soon(machine.started_again.wait())
    await soon(server.aclose())
    assert [process.is_gone for process in machine.starts] == [True, True]


async def test_an_end_during_a_restart_leaves_no_process(managed: Managed) -> None:
    environment = dict(os.environ)
    server = a_server(Place(managed.shell.folder / "vllm.log"), FAKE, environment)
    await server.running()
    environment["FAKE_VLLM"] = "slow=60"  # the next one is still starting
    os.kill(managed.pids()[0], signal.SIGKILL)
    await asyncio.to_thread(until, lambda: len(managed.starts) == 2)
    await soon(server.aclose())
    assert managed.left() == []
