"""A client's streams over the pool, or through a proxy: what it gives, and what it says of failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from drpo.llm.base import Message, Request
from drpo.llm.client import OpenAIClient
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.retry import Transient, Unconnected
from tests.support.loops import Run
from tests.support.mock_openai import MockServer, Reply
from tests.support.stream_peer import CHUNKED, Peer, say, streaming
from tests.support.streams import delta
from tests.support.streams import stream as events

CHAT = Request("m", messages=(Message("user", "Hello?"),))
EVENTS = b"".join(b'data: {"choices": [{"delta": {"content": "%d"}}]}\n\n' % n for n in range(3))


@asynccontextmanager
async def client_of(peer: Peer, timeout_s: float = 60.0) -> AsyncIterator[OpenAIClient]:
    connections = Connections()
    endpoint = Endpoint(str(peer.url).removesuffix("/chat/completions"))
    try:
        yield OpenAIClient(connections, endpoint, "m", timeout_s=timeout_s)
    finally:
        await connections.aclose()


def test_a_client_gives_each_piece_as_it_comes_and_its_connection_serves_the_next_stream(run: Run) -> None:
    async def main() -> None:
        async with streaming() as peer, client_of(peer) as client:
            for _ in range(3):
                coming = client.stream(CHAT)
                first = asyncio.ensure_future(anext(coming))
                writer = await peer.asked()
                writer.write(CHUNKED + b"%x\r\n" % len(EVENTS) + EVENTS + b"\r\n")
                assert [(await first).text, (await anext(coming)).text] == ["0", "1"]
                writer.write(b"e\r\ndata: [DONE]\n\n\r\n")
                assert [piece.text async for piece in coming] == ["2"]
                await say(writer, b"0\r\n\r\n")
            assert peer.connections == 1

    run(main())


@pytest.mark.parametrize("ends_by", ["closing", "cancelling"])
def test_who_leaves_a_client_s_stream_ends_it_at_the_server(run: Run, ends_by: str) -> None:
    async def main() -> None:
        async with streaming() as peer, client_of(peer) as client:
            coming = client.stream(CHAT)
            first = asyncio.ensure_future(anext(coming))
            (await peer.asked()).write(CHUNKED + b"%x\r\n" % len(EVENTS) + EVENTS + b"\r\n")
            assert (await first).text == "0"
            if ends_by == "closing":
                await coming.aclose()
            else:
                assert [(await anext(coming)).text for _ in range(2)] == ["1", "2"]
                waiting = asyncio.ensure_future(anext(coming))
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            await peer.gone.wait()

    run(main())


def test_a_client_s_stream_that_breaks_has_given_what_came(run: Run) -> None:
    async def main() -> None:
        async with streaming() as peer, client_of(peer) as client:
            found = list[str]()

            async def read() -> None:
                async for piece in client.stream(CHAT):
                    found.append(piece.text)

            reading = asyncio.ensure_future(read())
            writer = await peer.asked()
            writer.write(CHUNKED + b"%x\r\n" % len(EVENTS) + EVENTS + b"\r\n")
            writer.close()
            with pytest.raises(Unconnected, match="no connection, or it broke") as failure:
                await reading
            assert found == ["0", "1", "2"] and failure.value.charge == "perhaps"
            assert failure.value.__context__ is None

    run(main())


def test_a_client_whose_server_falls_silent_says_for_how_long(run: Run) -> None:
    async def main() -> None:
        async with streaming() as peer, client_of(peer, timeout_s=0.1) as client:
            coming = client.stream(CHAT)
            first = asyncio.ensure_future(anext(coming))
            (await peer.asked()).write(CHUNKED + b"%x\r\n" % len(EVENTS) + EVENTS + b"\r\n")
            await first
            with pytest.raises(Transient, match=r"nothing came for 0\.1 s") as failure:
                assert [piece.text async for piece in coming] == ["1", "2"]
            assert failure.value.status == 504

    run(main())


async def test_a_client_does_not_ask_for_compressed_streams_and_asks_for_their_usage() -> None:
    connections = Connections()
    async with MockServer(script=[events(delta("ok", "stop"))]) as server:
        client = OpenAIClient(connections, Endpoint(server.url + "?a=b"), "m", timeout_s=5.0)
        assert [piece.text async for piece in client.stream(CHAT)] == ["ok"]
        await connections.aclose()
    (seen,) = server.requests
    assert (seen.headers["accept"], seen.headers["accept-encoding"]) == ("text/event-stream", "identity")
    assert seen.query == "a=b" and seen.body["stream_options"] == {"include_usage": True}
    assert seen.body["messages"] == [{"role": "user", "content": "Hello?"}]


async def test_where_a_proxy_is_set_streams_go_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = Connections()
    async with MockServer(
        script=[events(delta("by "), delta("proxy", "stop")), events(delta("a"), end=b"data: {\n\n")]
    ) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        endpoint = Endpoint("http://models.test/v1?a=b")
        client = OpenAIClient(connections, endpoint, "m", timeout_s=5.0)
        assert [piece.text async for piece in client.stream(CHAT)] == ["by ", "proxy"]
        with pytest.raises(Transient, match="cannot be read"):
            assert [piece.text async for piece in client.stream(CHAT)] == ["a"]
        await connections.aclose()
    seen = proxy.requests[0]
    assert (seen.headers["host"], seen.headers["accept"]) == ("models.test", "text/event-stream")
    assert seen.headers["accept-encoding"] == "identity" and seen.query == "a=b"


async def test_a_proxy_that_is_gone_or_breaks_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = Connections()
    async with MockServer(script=[Reply(body=events(delta("Go"), delta("od")).body, fault="cut")]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        client = OpenAIClient(connections, Endpoint("http://models.test/v1"), "m", timeout_s=5.0)
        with pytest.raises(Unconnected):
            assert [piece.text async for piece in client.stream(CHAT)]
    with pytest.raises(Unconnected):
        assert [piece.text async for piece in client.stream(CHAT)]
    await connections.aclose()
