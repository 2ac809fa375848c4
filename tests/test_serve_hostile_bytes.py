"""What a client may send, in and out of order: nobody waits for ever, and no answer is lost or another's."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import weakref
from typing import cast

import psutil
import pytest

from drpo.serving import protocol
from drpo.serving.door import Receive, Scope, Send, respond
from drpo.serving.exchange import ON_LEFT
from drpo.serving.protocol import MOST_WAITING, Patience
from tests.support.http_server import POST, body_of, connected, echo, last
from tests.support.loops import Run

UPGRADE = POST.replace(b"\r\n\r\n", b"\r\nConnection: upgrade, keep-alive\r\nUpgrade: h2c\r\n\r\n")
ANSWER = b"POST /a  abc;"


class Held:
    """An application that answers when it is let, and counts who has left."""

    def __init__(self) -> None:
        self.go, self.asked, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def leave(self) -> bool:
        self.left.set()
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[ON_LEFT] = self.leave
        await body_of(receive)
        self.asked.set()
        await self.go.wait()
        await respond(send, 200, b"held;", b"text/plain")


BAD_CHUNK = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"
LONG_HEADS = (b"GET /" + b"x" * 100_000, b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000)


@pytest.mark.parametrize(
    ("behind", "together"),
    [
        *(
            (wrong, together)
            for wrong in (b"}", b"\0garbage\r\n\r\n", BAD_CHUNK)
            for together in (True, False)
        ),
        *((head, False) for head in LONG_HEADS),
    ],
)
def test_what_is_wrong_behind_a_good_request_does_not_cost_its_answer(
    run: Run, behind: bytes, together: bool
) -> None:
    async def main() -> None:
        app = Held()
        async with connected(app) as client:
            client.writer.write(POST + POST + (behind if together else b""))
            await app.asked.wait()
            if not together:
                client.writer.write(behind)
            app.go.set()
            assert (await client.reader.read()).count(b"held;") == 2

    run(main())


def test_a_long_body_and_the_beginning_of_the_next_head_are_no_long_head(run: Run) -> None:
    body = b"a" * 70_000
    asks = b"POST /a HTTP/1.1\r\nContent-Length: 70000\r\n\r\n" + body

    async def main() -> None:
        async with connected(echo) as client:
            client.writer.write(asks + POST[:10])
            assert body in await client.reader.readuntil(b";")
            assert (await client.asks(last(POST)[10:])).endswith(ANSWER)

    run(main())


@pytest.mark.parametrize("target", [b"/a", b"*", b"http://127.0.0.1/x", b"//a/b", b"a:80"])
def test_nobody_is_connected_to_elsewhere(run: Run, target: bytes) -> None:
    async def main() -> None:
        async with connected(echo) as client:
            told = await client.asks(b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert told.startswith(b"HTTP/1.1 400 ") and told.count(b"HTTP/1.1 ") == 1

    run(main())


@pytest.mark.parametrize("asks", [POST, UPGRADE])
def test_only_so_many_requests_may_wait_and_those_are_answered(run: Run, asks: bytes) -> None:
    async def main() -> None:
        async with connected(echo) as client:
            told = await client.asks(asks * 3000)
            assert told.count(ANSWER) == MOST_WAITING + 1 and told.count(b"HTTP/1.1 ") == MOST_WAITING + 1

    run(main())


@pytest.mark.parametrize(
    "asks",
    [
        b"POST /a HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"a" * 100_000,
        POST + POST,
        UPGRADE + UPGRADE,
        POST + POST + POST + b"\0garbage\r\n\r\n",
    ],
)
def test_a_client_that_leaves_is_noticed_whatever_it_has_sent(run: Run, asks: bytes) -> None:
    async def main() -> None:
        app = Held()
        async with connected(app) as client:
            client.writer.write(asks)
            await app.asked.wait()
            client.writer.close()
            await app.left.wait()

    run(main())


@pytest.mark.parametrize("barren", [b"X: y\r\n", b"1" * 70_000])
def test_what_is_no_part_of_a_body_is_not_read_for_ever(run: Run, barren: bytes) -> None:
    head = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
    begun = head + (b"0\r\n" if barren.startswith(b"X") else b"1;")

    async def main() -> None:
        async with connected(echo) as client:
            client.writer.write(begun)
            answer = asyncio.ensure_future(client.reader.read())
            while not answer.done():
                client.writer.write(barren * (60_000 // len(barren) or 1))
                await asyncio.wait({answer}, timeout=0.001)
            assert (await answer).startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))

    run(main())


@pytest.mark.parametrize("then", [b"\0bad", b"GET / HTTP/1.1\r\nX: y", b""])
def test_an_answer_that_nobody_reads_holds_no_connection(
    run: Run, monkeypatch: pytest.MonkeyPatch, then: bytes
) -> None:
    monkeypatch.setattr(protocol, "KEPT_S", 0.1)
    monkeypatch.setattr(protocol, "_LINGER_S", 0.1)

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, b"x" * 6_000_000 if scope["path"] == "/large" else b"ok", b"text/plain")

    async def main() -> None:
        async with connected(large, Patience(0.2, 0.2, 10)) as client:
            client.writer.write(POST)
            await client.reader.readuntil(b"ok")
            (connection,) = client.state.connections
            connection.transport.set_write_buffer_limits(high=2**30)  # else that it is full ends it
            client.writer.write(POST.replace(b"/a", b"/large"))
            await client.reader.readexactly(100)
            cast("asyncio.Transport", client.writer.transport).pause_reading()
            client.writer.write(then)
            while client.state.connections:  # its own bounds end it, or the test's does
                await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=0.05)

    run(main())


def test_who_resets_the_connection_before_it_is_taken_leaves_nothing(run: Run) -> None:
    async def main() -> None:
        async with connected(echo) as client:
            _, port = client.writer.get_extra_info("peername")
            before = psutil.Process().num_fds()
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", port)) as gone:
                    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert (await client.asks(last(POST))).endswith(ANSWER)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not client.state.connections and psutil.Process().num_fds() <= before

    run(main())


class Token:
    """What is there as long as a request is."""


def test_nothing_of_a_request_and_of_a_connection_stays_behind_it(run: Run) -> None:
    requests, connections = list[weakref.ref[Token]](), list[weakref.ref[object]]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        token = Token()
        requests.append(weakref.ref(token))
        scope[ON_LEFT] = lambda: bool([token, send])  # as the server's own: it holds what holds it
        await echo(scope, receive, send)

    async def main() -> None:
        gc.disable()
        try:
            async with connected(app) as client:
                for _ in range(5):
                    client.writer.write(POST)
                    await client.reader.readuntil(ANSWER)
                connections.extend(weakref.ref(one) for one in client.state.connections)
                await client.asks(last(POST))
            assert [one() for one in requests[:5]] == [None] * 5  # without the collector
        finally:
            gc.enable()

    run(main())
    gc.collect()
    assert len(connections) == 1 and connections[0]() is None


def test_http_1_0_has_its_answer_as_it_can_read_it_and_an_address_needs_no_path(run: Run) -> None:
    async def parts(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    async def main() -> None:
        async with connected(parts) as client:
            head, _, body = (await client.asks(b"GET http://127.0.0.1 HTTP/1.0\r\n\r\n")).partition(
                b"\r\n\r\n"
            )
            assert b"chunked" not in head and b"connection: close" in head and body == b"one /"

    run(main())
