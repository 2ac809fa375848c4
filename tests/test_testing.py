"""What users' tests get: a scripted model and closed sockets."""

from __future__ import annotations

import asyncio
import socket

import pytest

from drpo.errors import ProviderDown
from drpo.llm.base import LLM, Choice, Completion, Request
from drpo.testing import ScriptedLLM, closed_sockets


def texts(completion: Completion) -> list[str]:
    return [choice.text for choice in completion.choices]


async def test_a_script_is_a_function_or_a_list() -> None:
    echo = ScriptedLLM(lambda request: f"{request.model}!")
    assert isinstance(echo, LLM)
    assert texts(await echo.complete(Request("m"))) == ["m!"]
    listed = ScriptedLLM(["one", "two"], name="mine")
    assert [texts(await listed.complete(Request(name))) for name in "ab"] == [["one"], ["two"]]
    assert [request.model for request in listed.requests] == ["a", "b"]
    assert (echo.name, listed.name) == ("scripted", "mine")


async def test_every_kind_of_answer() -> None:
    whole = Completion((Choice("x", "length"),))
    model = ScriptedLLM(["same", ["a", "b"], whole, ProviderDown("gone")])
    assert texts(await model.complete(Request("m", n=3))) == ["same"] * 3
    assert texts(await model.complete(Request("m", n=3))) == ["a", "b"]
    assert await model.complete(Request("m")) is whole
    with pytest.raises(ProviderDown, match="gone"):
        await model.complete(Request("m"))
    assert len(model.requests) == 4


async def test_a_script_at_its_end_says_what_was_asked() -> None:
    with pytest.raises(AssertionError, match=r"no answer left for: Request.*'extra'"):
        await ScriptedLLM([]).complete(Request("extra"))


async def test_the_list_of_the_caller_is_left_as_it_was() -> None:
    answers = ["one"]
    await ScriptedLLM(answers).complete(Request("m"))
    assert answers == ["one"]


@pytest.fixture
def port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        number: int = server.getsockname()[1]
        return number


def test_no_socket_opens_inside(port: int) -> None:
    with closed_sockets(), socket.socket() as one, socket.socket(socket.AF_UNIX) as local:
        with pytest.raises(AssertionError, match="a socket to"):
            one.connect(("127.0.0.1", port))
        with pytest.raises(AssertionError, match="a socket to"):
            one.connect_ex(("203.0.113.1", 80))
        with pytest.raises(AssertionError, match="a socket to"):
            local.connect("/nowhere")


def test_with_loopback_those_to_this_machine_do(port: int) -> None:
    with closed_sockets(loopback=True), socket.socket() as one:
        with pytest.raises(ConnectionRefusedError):
            one.connect(("127.0.0.1", port))
        assert one.connect_ex(("127.0.0.1", port)) != 0
        with pytest.raises(AssertionError, match="a socket to"):
            one.connect(("203.0.113.1", 80))


def test_afterwards_everything_is_as_before(port: int) -> None:
    before = socket.socket.connect
    with pytest.raises(ZeroDivisionError), closed_sockets():
        raise ZeroDivisionError
    assert socket.socket.connect is before
    with socket.socket() as one, pytest.raises(ConnectionRefusedError):
        one.connect(("127.0.0.1", port))


async def test_an_event_loop_is_closed_too(port: int) -> None:
    with closed_sockets(), pytest.raises(AssertionError, match="a socket to"):
        await asyncio.open_connection("127.0.0.1", port)
