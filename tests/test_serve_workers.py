"""`drpo serve --workers`: several processes at one port, which a client cannot tell from one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from drpo.config_use import ServeConfig
from drpo.errors import InputError
from drpo.serving import listening
from drpo.serving.listening import SharedPort, listen, url_of
from drpo.serving.metrics import Metrics
from drpo.serving.workers import Team
from drpo.settings import resolve
from tests.support.alignments import written_alignment
from tests.support.command import Shell, ended, killed_at_the_end, process
from tests.support.processes import alive, until
from tests.support.served import Served
from tests.support.serving import ASKING

CONNECTIONS = 24  # that all of them are one worker's share: twice in 2 ** 24 times


@pytest.fixture
def bees(shell: Shell) -> Path:
    return written_alignment(shell.folder / "bees.json")


class Team2:
    """A server of two workers. told: what it has said."""

    def __init__(self, running: subprocess.Popen[str]) -> None:
        self.running = running
        self.told: list[str] = []
        assert running.stderr is not None
        for line in running.stderr:
            self.told.append(line.rstrip("\n"))
            if line.startswith("  curl "):
                break
        self.url = next(line.split()[2].rstrip(":") for line in self.told if "serving at" in line)

    @property
    def workers(self) -> list[psutil.Process]:
        return [one for one in psutil.Process(self.running.pid).children() if "-P" in one.cmdline()]

    def next_line(self) -> str:
        assert self.running.stderr is not None
        return self.running.stderr.readline().rstrip("\n")

    def counted(self) -> int:
        """Answers, as /metrics tells them."""
        text = asyncio.run(_get(self.url.removesuffix("/v1") + "/metrics"))
        counts = re.findall(r'requests_total\{route="chat",model="bees",status="200"\} (\d+)', text)
        return sum(map(int, counts))


@contextlib.contextmanager
def team(upstream: Served, *arguments: object) -> Iterator[Team2]:
    flags = ("--model", f"openai/m@{upstream.url}", "--port", "0", "--workers", 2)
    with killed_at_the_end(process("serve", "bees.json", *flags, *arguments)) as running:
        yield Team2(running)


async def _get(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as reply:
        assert reply.status == 200
        return await reply.text()


async def _ask_all(url: str, count: int = CONNECTIONS) -> list[Any]:
    """As many requests at once, over a connection each."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one() -> Any:
            async with session.post(f"{url}/chat/completions", json=ASKING) as reply:
                return reply.status, await reply.json()

        return await asyncio.gather(*(one() for _ in range(count)))


@contextlib.contextmanager
def in_the_background(url: str) -> Iterator[list[Any]]:
    """Requests that are asked meanwhile; what came of them, once the context is left."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(asyncio.run(_ask_all(url))))
    thread.start()
    try:
        yield found
    finally:
        thread.join(30)


def test_both_answer_both_are_counted_and_one_that_dies_is_replaced_by_its_like(
    shell: Shell, bees: Path
) -> None:
    holding = threading.Event()
    holding.set()
    with (
        Served(lambda model, body: "An answer.", hold=lambda model: holding.is_set()) as upstream,
        team(upstream) as served,
    ):
        assert any("bees by 2 processes" in line for line in served.told)
        with in_the_background(served.url) as answers:
            upstream.wait_for(lambda: upstream.held() == CONNECTIONS)
            port = int(served.url.rsplit(":", 1)[1].partition("/")[0])
            for one in served.workers:
                places = [place for place in one.net_connections() if place.laddr.port == port]
                assert [place for place in places if place.status == psutil.CONN_ESTABLISHED]
            upstream.release()
        holding.clear()
        assert [status for status, _ in answers] == [200] * CONNECTIONS
        assert served.counted() == CONNECTIONS

        first, other = served.workers
        first.kill()
        assert served.next_line().endswith(" ended by signal 9; another takes its place")
        until(lambda: len(served.workers) == 2 and first not in served.workers)
        asyncio.run(_ask_all(served.url))  # what came for the dead one waits for the next
        assert served.counted() == 2 * CONNECTIONS  # which was told of before it died

        bees.write_text(bees.read_text().replace("careful", "careless"))
        other.kill()
        assert served.next_line().endswith("ended by signal 9; another takes its place")
        assert "bees: has changed since the server was started" in served.next_line()
        asyncio.run(_ask_all(served.url))  # all of them come to the one that is left
        assert served.counted() == 3 * CONNECTIONS


@pytest.mark.parametrize("twice", [False, True])
def test_at_a_signal_answers_are_awaited_and_at_a_second_one_they_are_not(
    shell: Shell, bees: Path, twice: bool
) -> None:
    with (
        Served(lambda model, body: "An answer.", hold=lambda model: True) as upstream,
        team(upstream) as served,
        in_the_background(served.url) as answers,
    ):
        upstream.wait_for(lambda: upstream.held() == CONNECTIONS)
        workers = [one.pid for one in served.workers]
        served.running.send_signal(signal.SIGTERM if twice else signal.SIGINT)
        assert "running answers are awaited" in served.next_line()
        if twice:
            served.running.send_signal(signal.SIGTERM)
        else:
            upstream.release()
        ran = ended(served.running, 20)
    assert not any(map(alive, workers))
    if twice:
        assert (ran.code, ran.err.splitlines()[-1]) == (130, "drpo: ended at once")
        assert [said["error"]["code"] for _, said in answers] == ["ending"] * CONNECTIONS
    else:
        assert (ran.code, ran.err.splitlines()) == (0, ["ended"])
        assert [status for status, _ in answers] == [200] * CONNECTIONS


def test_workers_do_not_outlive_the_one_that_started_them(shell: Shell, bees: Path) -> None:
    with Served(lambda model, body: "An answer.") as upstream, team(upstream) as served:
        workers = [one.pid for one in served.workers]
        os.killpg(os.getpgid(workers[0]), signal.SIGINT)  # as a terminal would, were they in its group
        served.running.kill()
        until(lambda: not any(map(alive, workers)))


def test_what_a_worker_cannot_begin_for_ends_the_server_with_its_sentence_and_code(
    shell: Shell, bees: Path
) -> None:
    flags = ("--model", "vllm/m@http://127.0.0.1:9/v1", "--port", 0, "--workers", 2)
    with killed_at_the_end(process("serve", "bees.json", *flags, DRPO_DEADLINE_S="0.1")) as running:
        ran = ended(running, 60)
    assert ran.code == 5, ran.err
    assert [line for line in ran.err.splitlines() if line.startswith("drpo: ")] == ran.err.splitlines()[-1:]
    assert "127.0.0.1:9" in ran.err


def test_a_port_that_another_team_has_is_in_use(shell: Shell, bees: Path) -> None:
    port = SharedPort("127.0.0.1", 0, 2)
    for number in range(2):
        port.of(number).listen()
    taken = url_of(port.of(0)).rsplit(":", 1)[1].partition("/")[0]
    said = shell.refused(2, "serve", bees, "--model", "demo", "--port", taken, "--workers", 2)
    port.close()
    assert f"--port {taken}: is in use" in said


@pytest.mark.parametrize("model", ["vllm/some/model", "local/some/model"])
def test_a_model_that_each_worker_would_load_is_refused(shell: Shell, bees: Path, model: str) -> None:
    said = shell.refused(2, "serve", bees, "--model", model, "--workers", 2)
    assert "each process would load" in said and "drpo models serve" in said


def test_where_another_python_cannot_be_started_there_are_no_workers(
    shell: Shell, bees: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drpo.serving.workers.can_start", lambda: False)
    assert "cannot be had" in shell.refused(2, "serve", bees, "--model", "demo", "--workers", 2)


def test_a_worker_that_cannot_be_started_ends_the_server(
    shell: Shell, bees: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drpo.serving.workers.command_of", lambda module: ["/no/such/python"])
    said = shell.refused(5, "serve", bees, "--model", "demo", "--port", 0, "--workers", 2)
    assert "worker 1 cannot be started: No such file" in said


@pytest.mark.parametrize("spreads", [True, False])
def test_a_socket_for_each_process_at_one_address(spreads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if spreads and not hasattr(socket, "SO_REUSEPORT"):
        pytest.skip("the system has no SO_REUSEPORT")
    monkeypatch.setattr(listening, "_SPREADS", spreads)
    port = SharedPort("127.0.0.1", 0, 3)
    with contextlib.closing(port):
        sockets = [port.of(number) for number in range(len(port))]
        for one in sockets:
            one.listen()
        assert len({one.fileno() for one in sockets}) == 3
        assert {url_of(one) for one in sockets} == {port.url}
        with pytest.raises(InputError, match="in use"):
            listen("127.0.0.1", sockets[0].getsockname()[1])

        port.leave(1)
        assert (sockets[1].fileno() < 0) is spreads
        assert url_of(port.of(1)) == port.url


def test_what_has_taken_the_port_meanwhile_is_told() -> None:
    if not listening._SPREADS:
        pytest.skip("the system does not spread connections over sockets")
    port = SharedPort("127.0.0.1", 0, 1)
    port.leave(0)
    with (
        listen("127.0.0.1", int(port.url.rsplit(":", 1)[1].partition("/")[0])) as other,
        pytest.raises(InputError, match="cannot be shared"),
    ):
        other.listen()
        port.of(0)


def test_the_bound_on_what_waits_is_shared_out_and_no_key_is_told() -> None:
    config = resolve(ServeConfig, {"workers": 3, "max_waiting": 100, "api_key_env": "KEY"}, {"KEY": "sk-1"})
    told = Team(["bees=bees.json"], {}, config).told()
    assert told["settings"]["max_waiting"] == 34
    assert told["arguments"] == ["bees=bees.json"]
    assert "sk-1" not in json.dumps(told)
    assert ServeConfig.model_validate(told["settings"]) == config.model_copy(update={"max_waiting": 34})


def test_counts_of_several_are_their_sum_and_what_is_gone_works_no_more() -> None:
    both, parts = Metrics(), [Metrics(), Metrics()]
    for number, part in enumerate(parts):
        for one in (part, both):
            one.answered("chat", "bees", 200, 0.02 + number)
            one.answered("chat", "" if number else "bees", 400, 0.0)
            one.used("bees", 7, 20)
            one.first_text("bees", 0.1)
            one.found_shots("bees", 0.001 * number)
            one.failed(502)
            one.left()
        part.in_work = 2
    total = Metrics()
    total.add(json.loads(json.dumps(parts[0].as_json())))
    total.add(json.loads(json.dumps(parts[1].as_json())), runs=False)
    assert total.in_work == 2
    both.in_work = 2
    assert total.text() == both.text()
