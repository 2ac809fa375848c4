"""How much of `drpo serve` one client can take: connections, time, memory; and where it may be reached."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
from pathlib import Path

import aiohttp
import psutil
import pytest

from drpo.config_use import ServeConfig
from drpo.errors import InputError
from drpo.serving.plan import client_key
from tests.support.alignments import written_alignment
from tests.support.mock_openai import MockServer
from tests.support.serving import ASKING, at, becomes, head, raw, serving
from tests.support.streaming_upstream import StreamingUpstream

BODY = json.dumps(ASKING).encode()


@pytest.fixture
def alignment(tmp_path: Path) -> Path:
    return written_alignment(tmp_path / "bees.json")


@pytest.mark.parametrize(
    ("host", "open_to_others"),
    [
        *(("127.0.0.1", False), ("127.8.8.8", False), ("::1", False), ("localhost", False)),
        *(("0.0.0.0", True), ("::", True), ("192.0.2.1", True), ("localhost.example", True), ("", True)),
        *(("127.0.0.1.example", True), ("2130706433", True), ("::ffff:192.0.2.1", True)),
    ],
)
def test_an_address_that_others_may_reach_needs_a_key(host: str, open_to_others: bool) -> None:
    assert ServeConfig(model="demo").host == "127.0.0.1"
    config = ServeConfig(model="demo", host=host)
    if not open_to_others:
        assert client_key(config, {}) is None
        return
    with pytest.raises(InputError, match="needs a key"):
        client_key(config, {})
    assert client_key(config.model_copy(update={"api_key_env": "KEY"}), {"KEY": "k"}) == "k"


async def test_with_a_key_the_server_is_asked_by_any_name_but_by_nobody_without_it(alignment: Path) -> None:
    async with MockServer() as upstream:
        given = at(upstream.url, alignment, api_key_env="KEY")
        async with serving(**given, environment={"KEY": "k"}) as running, aiohttp.ClientSession() as session:
            for key, status in (("k", 200), ("x", 401)):
                headers = {"Host": "models.example", "Authorization": f"Bearer {key}"}
                async with session.post(
                    f"{running.url}/chat/completions", json=ASKING, headers=headers
                ) as reply:
                    assert reply.status == status
        assert len(upstream.requests) == 1


async def test_more_connections_than_there_is_room_for_are_told_to_come_again(alignment: Path) -> None:
    async with (
        MockServer() as upstream,
        serving(**at(upstream.url, alignment, max_waiting=1)) as running,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(66):
            _, writer = await asyncio.open_connection("127.0.0.1", running.port)
            stack.callback(writer.close)
        told = await raw(running.port)
        assert told.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in told
        assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["type"] == "server_error"


@pytest.mark.parametrize("before", [b"", head(100_000), head("chunked"), b"POST /v1 HTTP/1.1\r\nX: "])
async def test_bytes_that_come_one_by_one_do_not_hold_a_connection(alignment: Path, before: bytes) -> None:
    drop = b"1\r\nx\r\n" if b"chunked" in before else b"x"
    async with MockServer() as upstream, serving(**at(upstream.url, alignment, request_s=0.2)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(before)
        answer = asyncio.ensure_future(reader.read())
        async with asyncio.timeout(5):
            while not answer.done():
                with contextlib.suppress(ConnectionError):
                    writer.write(drop)
                await asyncio.wait({answer}, timeout=0.02)
        assert (await answer).startswith(b"HTTP/1.1 400" if before == b"" else b"HTTP/1.1 408")
        writer.close()
        assert upstream.requests == []


@pytest.mark.parametrize("line", [b"xyz\r\n", b"-5\r\n", b"1" * 40 + b"\r\n", b"5;a=b\r\nhello12345\r\n"])
async def test_chunks_that_are_none_are_refused(alignment: Path, line: bytes) -> None:
    async with MockServer() as upstream, serving(**at(upstream.url, alignment)) as running:
        told = await raw(running.port, head("chunked"), line)
        assert told.startswith(b"HTTP/1.1 400 "), told
        assert told.count(b"HTTP/1.1") == 1
        assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
        assert upstream.requests == []


async def test_a_whole_answer_that_nobody_reads_is_not_kept(alignment: Path) -> None:
    async with (
        MockServer(lambda model, body: "word " * 600_000) as upstream,
        serving(**at(upstream.url, alignment, reader_s=0.3)) as running,
    ):

        def at_the_server() -> int:
            every = psutil.Process().net_connections("tcp")
            return sum(one.laddr[1] == running.port and one.status != psutil.CONN_LISTEN for one in every)

        client = socket.socket()
        with contextlib.closing(client):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", running.port))
            client.sendall(head(len(BODY)) + BODY)
            await becomes(lambda: select.select([client], [], [], 0)[0], 8.0)
            assert client.recv(12) == b"HTTP/1.1 200" and at_the_server() == 1
            await becomes(lambda: at_the_server() == 0, 8.0)


async def test_an_address_of_another_server_in_the_request_line_leads_nowhere(alignment: Path) -> None:
    async with MockServer() as upstream, MockServer() as elsewhere:
        async with serving(**at(upstream.url, alignment)) as running:
            for target in (elsewhere.url, elsewhere.url.replace("http://", "//")):
                sent = head(len(BODY), "Connection: close", path=f"{target}/chat/completions") + BODY
                told = await raw(running.port, sent)
                assert told.startswith((b"HTTP/1.1 200", b"HTTP/1.1 404")), told
        assert elsewhere.requests == []


async def test_a_stream_under_way_is_ended_well_before_the_server_is(alignment: Path) -> None:
    async with (
        StreamingUpstream(tokens=20, interval_s=0.01) as upstream,
        serving(**at(upstream.url, alignment)) as running,
    ):
        body = json.dumps({**ASKING, "stream": True}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(head(len(body)) + body)
        await reader.readuntil(b"word")
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            rest = await reader.read()
            await running.ended
        writer.close()
        assert rest.count(b"word") == 19 and b"data: [DONE]\n\n" in rest and upstream.abandoned == 0
