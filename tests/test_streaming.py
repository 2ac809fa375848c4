"""Replies that come piece by piece: what is told of them, and of those that fail on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from drpo.errors import DrpoError, ParameterRefused, ProviderRefused
from drpo.llm.base import Message, Request, Usage
from drpo.llm.client import OpenAIClient
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.retry import Transient
from drpo.llm.wire import Piece
from tests.support.mock_openai import MockServer, Reply, error
from tests.support.streams import delta, stream

CHAT = Request("m", messages=(Message("user", "Hello?"),))
TEXT = Request("m", prompt="# Query\nHello?\n", stop=("\n#",))


async def pieces(
    reply: Reply, request: Request = CHAT, key: str | None = None, timeout_s: float = 5.0
) -> tuple[list[Piece], DrpoError | None, list[Any]]:
    """What came, how it failed, and what the server was asked."""
    connections, found = Connections(), list[Piece]()
    failure: DrpoError | None = None
    async with MockServer(script=[reply]) as server:
        client = OpenAIClient(connections, Endpoint(server.url, key), "m", timeout_s=timeout_s)
        try:
            async for piece in client.stream(request):
                found.append(piece)
        except DrpoError as error_:
            failure = error_
        finally:
            await connections.aclose()
        return found, failure, list(server.requests)


@pytest.mark.parametrize("line", [b"\n", b"\r\n"])
async def test_the_pieces_come_in_order_and_the_last_tells_why_it_ended(line: bytes) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}
    found, failure, (seen,) = await pieces(
        stream(delta("Good "), delta("day."), delta(None, "stop"), usage, line=line)
    )
    assert failure is None and "".join(piece.text for piece in found) == "Good day."
    assert [piece.finish_reason for piece in found] == [None, None, "stop", None]
    assert found[-1].usage == Usage(7, 2, None)
    assert seen.body["stream"] is True and seen.path.endswith("/chat/completions")


async def test_a_page_is_continued_piece_by_piece() -> None:
    events = [{"choices": [{"text": "An "}]}, {"choices": [{"text": "answer", "finish_reason": "stop"}]}]
    found, failure, (seen,) = await pieces(stream(*events), TEXT)
    assert failure is None and "".join(piece.text for piece in found) == "An answer"
    assert seen.path.endswith("/v1/completions") and seen.body["stop"] == ["\n#"]


async def test_an_event_in_two_packets_is_read_whole_and_halves_of_an_emoji_are_replaced() -> None:
    body = b"data: " + json.dumps(delta("caf\u00e9 \ud83d")).encode() + b"\n\n"
    found, failure, _ = await pieces(Reply(body=body, fault="trickle"))
    assert failure is None and found[0].text == "café \ufffd"


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (error(401, "no such key", code="invalid_api_key"), ProviderRefused, "HTTP 401"),
        (error(400, "unsupported: temperature", param="temperature"), ParameterRefused, "temperature"),
        (error(503, "overloaded"), Transient, "overloaded"),
        (stream(delta("Go"), {"error": {"message": "engine died", "code": 500}}), Transient, "engine died"),
        (Reply(body=b"data: {not json\n\n"), Transient, "cannot be read"),
        (Reply(body=b"data: [1, 2]\n\n"), Transient, "cannot be read"),
        (Reply(fault="reset"), Transient, "no connection"),
        (Reply(body=stream(delta("Go"), delta("od")).body, fault="cut"), Transient, "no connection"),
    ],
)  # fmt: skip
async def test_what_goes_wrong_is_the_failure_it_would_be_without_a_stream(
    reply: Reply, kind: type[DrpoError], said: str
) -> None:
    request = Request("m", messages=CHAT.messages, temperature=0.5)
    _, failure, _ = await pieces(reply, request)
    assert isinstance(failure, kind) and said in str(failure)


async def test_a_server_that_says_nothing_is_left() -> None:
    _, failure, _ = await pieces(Reply(fault="hang"), timeout_s=0.2)
    assert isinstance(failure, Transient) and "nothing came for 0.2 s" in str(failure)


async def test_too_long_and_filtered_are_answers_of_their_kind() -> None:
    found, failure, _ = await pieces(error(400, "maximum context length", code="context_length_exceeded"))
    assert failure is None and found == [Piece("", "context_length")]


async def test_the_key_is_sent_and_never_told() -> None:
    secret = "sk-stream-0c1d2e3f"
    _, failure, (seen,) = await pieces(error(403, f"{secret} may not"), key=secret)
    assert seen.headers["authorization"] == f"Bearer {secret}" and secret not in str(failure)


async def test_a_stream_that_is_left_early_closes_its_connection() -> None:
    connections = Connections()
    async with MockServer(script=[stream(*(delta("word ") for _ in range(50)))]) as server:
        client = OpenAIClient(connections, Endpoint(server.url), "m", timeout_s=5.0)
        coming = client.stream(CHAT)
        assert (await anext(coming)).text == "word "
        await coming.aclose()
        await connections.aclose()
        assert server.in_air == 0
