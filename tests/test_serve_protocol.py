"""HTTP as `drpo serve` speaks it, by the bytes that come and go; the application is a small one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from drpo.serving.door import WHOLE, Message, Receive, Scope, Send, respond
from drpo.serving.exchange import ON_LEFT
from drpo.serving.protocol import Patience
from tests.support.http_server import POST, body_of, connected, echo, last
from tests.support.loops import Run


def test_a_request_is_read_whatever_way_its_bytes_are_cut(run: Run) -> None:
    whole = last(
        b"POST /a%20b?c=d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    )

    async def main() -> None:
        for cut in range(1, len(whole), 3):
            async with connected(echo) as client:
                told = await client.asks(whole[:cut], whole[cut:])
                assert told.startswith(b"HTTP/1.1 200 OK\r\n") and told.endswith(
                    b"\r\n\r\nPOST /a b c=d abc;"
                )

    run(main())


def test_requests_sent_at_once_are_answered_in_their_order_one_after_the_other(run: Run) -> None:
    working: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        working.append(await body_of(receive))
        await asyncio.sleep(0)
        await respond(send, 200, b"%b of %d" % (working.pop(), len(working) + 1), b"text/plain")

    async def main() -> None:
        async with connected(app) as client:
            told = await client.asks(POST + POST.replace(b"abc", b"def") + last(POST).replace(b"abc", b"ghi"))
            assert [part[-8:] for part in told.split(b"HTTP/1.1 200 OK")[1:]] == [
                b"abc of 1",
                b"def of 1",
                b"ghi of 1",
            ]
            assert client.state.total_requests == 3 and not client.state.tasks

    run(main())


def test_a_body_that_has_come_is_at_hand_and_one_that_is_awaited_is_given_once(run: Run) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        came = scope.get(WHOLE)
        await respond(send, 200, b"at hand" if came == await body_of(receive) else b"awaited", b"text/plain")

    async def main() -> None:
        async with connected(app) as client:
            assert (await client.asks(last(POST))).endswith(b"at hand")
        async with connected(app) as client:
            client.writer.write(last(POST).replace(b"Connection", b"Expect: 100-continue\r\nConnection")[:-3])
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert (await client.asks(b"abc")).endswith(b"awaited")

    run(main())


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_who_wants_no_more_is_let_go_by_what_it_says_or_speaks(run: Run, version: bytes) -> None:
    asked = b"GET / HTTP/" + version + b"\r\n" + (b"Connection: close\r\n" if version == b"1.1" else b"")

    async def main() -> None:
        async with connected(echo) as client:
            assert b"connection: close\r\n" in await client.asks(asked + b"\r\n")

    run(main())


def test_an_upgrade_is_asked_for_in_vain(run: Run) -> None:
    asks = b"POST /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc"

    async def main() -> None:
        async with connected(echo) as client:
            client.writer.write(asks)
            await client.reader.readuntil(b"POST /a  abc;")
            assert (await client.asks(last(POST))).endswith(b"POST /a  abc;")

    run(main())


def parts(*bodies: bytes, **head: Any) -> Any:
    """An application that answers in these parts."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], **head})
        for number, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    return app


def test_parts_go_out_in_chunks_the_head_with_the_first_and_the_end_with_the_last(run: Run) -> None:
    async def main() -> None:
        async with connected(parts(b"one", b"", b"two")) as client:
            head, _, body = (await client.asks(last(POST))).partition(b"\r\n\r\n")
            assert b"transfer-encoding: chunked" in head
            assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"

    run(main())


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_answers_that_have_no_body_have_none(run: Run, method: bytes, status: int) -> None:
    async def main() -> None:
        async with connected(parts(b"no body", status=status)) as client:
            told = await client.asks(method + b" / HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert told.startswith(b"HTTP/1.1 %d " % status) and told.endswith(b"\r\n\r\n")
            assert b"chunked" not in told and told.count(b"\r\n\r\n") == 1

    run(main())


LENGTH = [(b"content-length", b"5")]


@pytest.mark.parametrize(
    "app",
    [
        parts(b"too long", headers=LENGTH),
        parts(b"not", headers=LENGTH),
        parts(b"x", headers=[(b"x", b"1\r\nInjected: 1")]),
        parts(b"x", headers=[(b"x", b"1\nInjected: 1")]),
        parts(),
    ],
)
def test_an_answer_that_is_none_is_never_taken_for_one(run: Run, app: Any) -> None:
    async def main() -> None:
        async with connected(app) as client:
            told = await client.asks(POST)
            body = told.partition(b"\r\n\r\n")[2]
            assert b"Injected" not in told and (told.startswith(b"HTTP/1.1 500 ") or body in (b"", b"not"))

    run(main())


def test_an_application_that_fails_is_a_500_before_its_answer_and_a_cut_in_it(run: Run) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": LENGTH})
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        raise ValueError("a secret")

    async def main() -> None:
        async with connected(fails) as client:
            told = await client.asks(last(POST))
            assert told.startswith(b"HTTP/1.1 500 ") and b'"internal_error"' in told and b"secret" not in told
        async with connected(fails) as client:
            assert (await client.asks(POST.replace(b"/a", b"/late"))).endswith(
                b"content-length: 5\r\n\r\nabc"
            )

    run(main())


def test_a_client_that_leaves_is_told_to_the_application_in_both_ways(run: Run) -> None:
    left, ended = asyncio.Event(), asyncio.Event()

    async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
        scope[ON_LEFT] = lambda: True
        left.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        ended.set()

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        await body_of(receive)
        left.set()
        message: Message = await receive()
        assert message["type"] == "http.disconnect"
        ended.set()

    async def main() -> None:
        for app in (cancelled, told):
            left.clear()
            ended.clear()
            async with connected(app) as client:
                client.writer.write(POST)
                await left.wait()
                client.writer.transport.abort()
                await ended.wait()

    run(main())


def test_a_connection_that_nobody_uses_is_closed_and_not_before(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drpo.serving.protocol.KEPT_S", 0.3)

    async def main() -> None:
        async with connected(echo, Patience(5.0, 5.0, 10)) as client:
            loop = asyncio.get_running_loop()
            for _ in range(2):
                began_s = loop.time()
                client.writer.write(POST)
                await client.reader.readuntil(b"abc;")
            assert await client.reader.read() == b"" and loop.time() - began_s >= 0.29
            assert not client.state.connections

    run(main())


def test_at_the_servers_end_idle_connections_go_at_once_and_others_after_their_answer(run: Run) -> None:
    go, asked = asyncio.Event(), asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        await go.wait()
        await respond(send, 200, b"done", b"text/plain")

    async def main() -> None:
        async with connected(waits) as client:
            client.writer.write(POST)
            await asked.wait()
            (connection,) = client.state.connections
            connection.shutdown()
            go.set()
            assert (await client.reader.read()).endswith(b"connection: close\r\n\r\ndone")
        async with connected(waits) as client:
            client.writer.write(b"GET / HTTP/1.1\r\n\r\n")  # whose answer tells that it is connected
            await client.reader.readuntil(b"done")
            (connection,) = client.state.connections
            connection.shutdown()
            assert await client.reader.read() == b""

    run(main())
