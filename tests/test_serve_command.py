"""`drpo serve` as its user runs it: what it says, what it refuses to begin, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.alignments import written_alignment
from tests.support.command import Shell, ended, killed_at_the_end, process
from tests.support.mock_openai import MockServer, Reply
from tests.support.served import Served
from tests.support.serving import Running, at
from tests.support.serving import serving as running_server

ASKING = {"model": "bees", "messages": [{"role": "user", "content": "Hello?"}]}


@pytest.fixture
def bees(shell: Shell) -> Path:
    return written_alignment(shell.folder / "bees.json", found_for="openai/other@http://elsewhere.example/v1")


@contextlib.contextmanager
def serving(*arguments: object, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The process, its URL and what it has said until it was ready."""
    with killed_at_the_end(process("serve", *arguments, "--port", "0", **variables)) as running:
        said: list[str] = []
        for line in running.stderr:
            said.append(line.rstrip("\n"))
            if line.startswith("  curl "):
                break
        yield running, next(line.split()[2].rstrip(":") for line in said if "serving at" in line), said


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_it_says_where_it_is_and_how_to_ask_and_a_second_signal_ends_it_at_once(
    shell: Shell, bees: Path
) -> None:
    holding = threading.Event()
    with (
        Served(lambda model, body: "An answer.", hold=lambda model: holding.is_set()) as upstream,
        serving(bees, "--model", f"openai/m@{upstream.url}", SERVE_KEY="k", DRPO_API_KEY_ENV="SERVE_KEY") as (
            running,
            url,
            said,
        ),
    ):
        moved = f"bees.json was found for openai/other@http://elsewhere.example/v1, openai/m@{upstream.url}"
        assert any(moved in line for line in said)
        assert any(line.startswith(f"serving at {url}: bees;") for line in said)
        shown = ["/bin/sh", "-c", said[-1] + " -s"]
        done = subprocess.run(shown, capture_output=True, text=True, timeout=30, check=True, env=_KEY)
        assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "An answer."
        holding.set()
        client = subprocess.Popen(shown, stdout=subprocess.PIPE, text=True, env=_KEY)
        with killed_at_the_end(client):
            upstream.wait_for(lambda: upstream.held() == 1)
            running.send_signal(signal.SIGTERM)
            assert running.stderr is not None and "running answers are awaited" in running.stderr.readline()
            running.send_signal(signal.SIGTERM)
            ran = ended(running, 15)
            told = client.communicate(timeout=10)[0]
    assert (ran.code, ran.err.splitlines()[-1]) == (130, "drpo: ended at once")
    assert json.loads(told)["error"]["code"] == "ending"


_KEY = {"PATH": os.environ["PATH"], "SERVE_KEY": "k"}


async def _asked(running: Running) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.url}/chat/completions", json=ASKING) as reply,
    ):
        return reply.status, await reply.json()


async def test_one_server_may_follow_another_and_stand_beside_it(shell: Shell, bees: Path) -> None:
    async with MockServer(lambda model, body: "An answer.") as upstream:
        async with running_server(**at(upstream.url, bees)) as running:
            assert (await _asked(running))[0] == 200
        async with (
            running_server(**at(upstream.url, bees)) as first,
            running_server(**at(upstream.url, bees)) as second,
            asyncio.timeout(10),
        ):
            assert [(await _asked(one))[0] for one in (first, second)] == [200, 200]


@pytest.mark.parametrize("in_time", [True, False])
async def test_at_a_signal_running_answers_are_awaited_and_nobody_new_is_let_in(
    shell: Shell, bees: Path, in_time: bool
) -> None:
    arrived, released = asyncio.Event(), asyncio.Event()

    async def handler() -> Reply:
        arrived.set()
        await released.wait()
        return Reply(texts=("An answer.",))

    async with (
        MockServer(lambda model, body: handler()) as upstream,
        running_server(**at(upstream.url, bees, grace_s=20 if in_time else 0.1)) as running,
    ):
        asking = asyncio.create_task(_asked(running))
        await arrived.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            with pytest.raises(OSError):
                while True:  # until the socket is closed, which is a moment after the signal
                    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
                    writer.close()
        if in_time:
            released.set()
        status, told = await asking
        await running.ended
    assert any("running answers are awaited" in said for said in running.told)
    assert status == (200 if in_time else 503)
    assert in_time or told["error"]["code"] == "ending"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "found nothing of that name"),
        (("bees.json", "--host", "0.0.0.0"), "needs a key"),
        (
            ("bees.json", "--host", "no.such.host.example", "--api-key-env", "KEY"),
            "KEY: this variable is not",
        ),
        (("bees.json", "--api-key-env", "OPENAI_API_KEY"), "is not set"),
        (("bees.json", "other/bees=urial", "bees=none"), "two models of this name"),
        (("=urial",), "expected ALIGNMENT or NAME=ALIGNMENT"),
        (("a b=urial",), "expected ALIGNMENT or NAME=ALIGNMENT"),
        (("bees.json", "--client-system", "shout"), "shout"),
        (("bees.json", "--port", "65536"), "--port"),
        ((), "Missing argument"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(
    shell: Shell, bees: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in shell.refused(2, "serve", *arguments, "--model", "demo")


def test_a_port_in_use_is_a_sentence(shell: Shell, bees: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = shell.refused(2, "serve", bees, "--model", "demo", "--port", port)
    assert f"--port {port}: is in use" in said


def test_the_key_of_clients_must_be_another_than_that_of_the_model(shell: Shell, bees: Path) -> None:
    shell.env.setenv("DRPO_BASE_API_KEY", "sk-12345")
    flags = ("--model", "openai/m@http://127.0.0.1:1/v1", "--api-key-env", "DRPO_BASE_API_KEY")
    said = shell.refused(2, "serve", bees, *flags)
    assert "one of their own" in said and "sk-12345" not in said
    shell.env.setenv("KEY", "a\nb")
    assert "no request can carry" in shell.refused(
        2, "serve", bees, "--model", "demo", "--api-key-env", "KEY"
    )


def test_limits_that_a_server_does_not_keep_are_refused(shell: Shell, bees: Path) -> None:
    shell.env.setenv("DRPO_MAX_USD", "3")
    assert "keeps no books" in shell.refused(2, "serve", bees, "--model", "demo")


def test_without_its_packages_the_remedy_is_named(shell: Shell, bees: Path) -> None:
    from drpo.commands import serve

    shell.env.setattr(serve, "_PACKAGES", ("no_such_package_here",))
    assert "pip install 'drpo[serve]'" in shell.refused(2, "serve", bees)
