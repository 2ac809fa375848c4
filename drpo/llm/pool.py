"""Answers over HTTP/1.1 from one server, whole or as they come, over connections that are kept.

A server that passes requests on spends most of a request's processor time in a general HTTP client (see
`benchmarks/serving.py`). This one posts and reads, and no more: no redirects, cookies, compression or
proxies. The parser is httptools', the one that the server's own side uses.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import NamedTuple

import httpx2

from drpo.llm.pool_connection import Connection, Headers
from drpo.llm.pool_stream import Stream

LONGEST_BODY = 64_000_000
"""Bytes of a whole answer's body: a server that never ends is left."""
CONNECT_S = 10.0
KEPT_S = 60.0
"""How long a connection that nobody uses is kept open."""


class Reply(NamedTuple):
    """An answer. raw_headers: names in lower case, as they came, repeated ones included."""

    status: int
    raw_headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """By name in lower case; of repeated ones the last."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.raw_headers}


class Pool:
    """The connections to one server, for one event loop; each carries one request at a time, and there are as
    many as requests in the air. context: for https."""

    def __init__(self, url: httpx2.URL, context: ssl.SSLContext | None = None) -> None:
        if url.scheme not in ("http", "https") or not url.host:
            raise httpx2.UnsupportedProtocol(f"expected http(s)://HOST, came {str(url)!r}")
        self._host = url.host
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._context = context if url.scheme == "https" else None
        self._open: set[Connection] = set()
        self._idle: deque[Connection] = deque()
        self._sweeping: asyncio.TimerHandle | None = None
        self._over = False

    async def post(self, head: bytes, body: bytes, timeout_s: float) -> Reply:
        """The answer to a request, whatever its status. head: of `head_of`.

        Raises TimeoutError where it is not whole within `timeout_s` of being sent, OSError where no
        connection could be made or it broke, or where what came is no HTTP or longer than the bounds.
        Whoever is cancelled while waiting ends the request at the server too.
        """
        connection = self._kept() or await self._connected(min(CONNECT_S, timeout_s))
        try:
            whole = _Whole(connection)
            connection.send(b"%b%d\r\n\r\n%b" % (head, len(body), body), whole, timeout_s)
            reply = await whole.reply
        except BaseException:
            connection.transport.abort()
            raise
        self._keep(connection)
        return reply

    async def stream(self, head: bytes, body: bytes, timeout_s: float) -> Stream:
        """The answer to a request, whatever its status, from when its head has come; who asks must close it.

        Errors and cancelling as of `post`, but that `timeout_s` bounds the time to the head, and then that
        between two parts of the body, whose length has no bound.
        """
        connection = self._kept() or await self._connected(min(CONNECT_S, timeout_s))
        stream = Stream(connection, timeout_s, self._keep)
        connection.send(b"%b%d\r\n\r\n%b" % (head, len(body), body), stream, timeout_s)
        await stream.begun()
        return stream

    def close(self) -> None:
        """Close all connections. May be called twice."""
        self._over = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._open):
            connection.transport.abort()
        self._idle.clear()

    def _kept(self) -> Connection | None:
        """The connection used last, which is the least likely to be closed at the other end by now."""
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
            connection.transport.close()
        return None

    async def _connected(self, within_s: float) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, self._open), self._host, self._port, ssl=self._context
                )
        except TimeoutError:
            raise ConnectionError(f"no connection within {within_s:g} s") from None
        return connection

    def _keep(self, connection: Connection) -> None:
        if self._over or not connection.reusable:
            connection.transport.close()
            return
        connection.kept_at_s = connection.loop.time()
        self._idle.append(connection)
        if self._sweeping is None:
            self._sweeping = connection.loop.call_later(KEPT_S, self._sweep, connection.loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what was not used for a while, and forget what was closed at the other end."""
        long_ago_s = loop.time() - KEPT_S
        while self._idle and (self._idle[0].kept_at_s <= long_ago_s or not self._idle[0].reusable):
            self._idle.popleft().transport.close()
        self._sweeping = None
        if self._idle:
            wait_s = max(0.1, self._idle[0].kept_at_s - long_ago_s)
            self._sweeping = loop.call_later(wait_s, self._sweep, loop)


class _Whole:
    """Gathers an answer. `reply`: the whole of it."""

    __slots__ = ("_connection", "_headers", "_left", "_parts", "_status", "reply")

    def __init__(self, connection: Connection) -> None:
        self.reply: asyncio.Future[Reply] = connection.loop.create_future()
        self._connection = connection
        self._parts: list[bytes] = []
        self._left = LONGEST_BODY

    def head(self, status: int, headers: Headers) -> None:
        self._status, self._headers = status, headers

    def came(self, part: bytes) -> None:
        self._parts.append(part)
        self._left -= len(part)
        if self._left < 0:
            self._connection.fail(f"the answer is longer than {LONGEST_BODY} bytes")

    def ended(self, error: OSError | None) -> None:
        if self.reply.done():
            return
        if error is None:
            self.reply.set_result(Reply(self._status, tuple(self._headers), b"".join(self._parts)))
        else:
            self.reply.set_exception(error)


def head_of(url: httpx2.URL, headers: dict[str, str]) -> bytes:
    """The head of a POST up to the number of its Content-Length. Raises ValueError for what no header can
    hold."""
    lines = [f"POST {url.raw_path.decode('ascii')} HTTP/1.1", f"Host: {url.netloc.decode('ascii')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if not all(line.isprintable() for line in lines):
        raise ValueError("expected headers of one line each")
    return "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")
