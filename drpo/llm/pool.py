"""Whole answers over HTTP/1.1 from one server, over connections that are kept.

A server that passes requests on spends most of a request's processor time in a general HTTP client (see
`benchmarks/serving.py`). This one posts and reads, and no more: no redirects, cookies, compression or
proxies. The parser is httptools', the one that the server's own side uses.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass
from typing import cast

import httptools
import httpx2

LONGEST_HEAD = 64 * 1024
"""Bytes of an answer before its body, interim answers (1xx) included."""
LONGEST_BODY = 64_000_000
"""Bytes of an answer's body: a server that never ends is left."""
CONNECT_S = 10.0
KEPT_S = 60.0
"""How long a connection that nobody uses is kept open."""


@dataclass(frozen=True, slots=True)
class Reply:
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
        self._open: set[_Connection] = set()
        self._idle: deque[_Connection] = deque()
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
            reply = await connection.ask(b"%b%d\r\n\r\n%b" % (head, len(body), body), timeout_s)
        except BaseException:
            connection.transport.abort()
            raise
        if connection.reusable and not self._over:
            self._keep(connection)
        else:
            connection.transport.close()
        return reply

    def close(self) -> None:
        """Close all connections. May be called twice."""
        self._over = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._open):
            connection.transport.abort()
        self._idle.clear()

    def _kept(self) -> _Connection | None:
        """The connection used last, which is the least likely to be closed at the other end by now."""
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    async def _connected(self, within_s: float) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop, self._open), self._host, self._port, ssl=self._context
                )
        except TimeoutError:
            raise ConnectionError(f"no connection within {within_s:g} s") from None
        return connection

    def _keep(self, connection: _Connection) -> None:
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


class _Connection(asyncio.Protocol):
    """One connection. kept_at_s: when it was last put aside."""

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, peers: set[_Connection]) -> None:
        self.loop, self._peers = loop, peers
        self._parser = httptools.HttpResponseParser(self)
        self._asked: asyncio.Future[Reply] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._late_at_s = self._fires_at_s = 0.0
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._in_head = self._ends = False
        self._head_bytes = self._body_bytes = 0
        self.kept_at_s = 0.0

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent here."""
        return not self._ends and not self.transport.is_closing()

    def ask(self, request: bytes, timeout_s: float) -> asyncio.Future[Reply]:
        """The answer to a request, which is sent now."""
        self._bound(timeout_s)
        self._asked = asked = self.loop.create_future()
        self._headers, self._parts = [], []
        self._in_head, self._ends = True, True  # until the answer says that the connection stays
        self._head_bytes = self._body_bytes = 0
        self.transport.write(request)
        return asked

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.discard(self)
        self._ends = True
        if self._timer is not None:
            self._timer.cancel()
        names = {name for name, _ in self._headers}
        if exc is None and not self._in_head and not names & {b"content-length", b"transfer-encoding"}:
            self._answer()  # a body that goes to the end of the connection
        else:
            self._fail(str(exc or "") or "the server closed the connection before the end of its answer")

    def data_received(self, data: bytes) -> None:
        if self._asked is None:  # nothing was asked for: what comes belongs to no request
            self._ends = True
            self.transport.abort()
            return
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("an answer that changes the protocol")
        except httptools.HttpParserError as error:
            self._fail(f"an answer that is no HTTP: {error}")
        if self._in_head and self._head_bytes > LONGEST_HEAD:
            self._fail(f"the head of the answer is longer than {LONGEST_HEAD} bytes")
        elif self._body_bytes > LONGEST_BODY:
            self._fail(f"the answer is longer than {LONGEST_BODY} bytes")

    def on_message_begin(self) -> None:
        if self._asked is None:
            self._ends = True  # a second answer, to nothing

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # and no trailer
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = self._parser.get_status_code() < 200
        if self._in_head:
            self._headers = []  # of an interim answer, which the real one follows

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if not self._in_head and self._asked is not None:
            self._ends = not self._parser.should_keep_alive()
            self._answer()

    def _answer(self) -> None:
        asked = self._over()
        if asked is not None and not asked.done():
            status = self._parser.get_status_code()
            asked.set_result(Reply(status, tuple(self._headers), b"".join(self._parts)))

    def _fail(self, said: str) -> None:
        self._break(ConnectionError(said))

    def _bound(self, timeout_s: float) -> None:
        """Have the request that is sent now end in time. One timer serves the requests of a connection until
        it fires: to make one for each, and to cancel it, takes longer than all else here."""
        self._late_at_s = self.loop.time() + timeout_s
        if self._timer is not None and self._late_at_s < self._fires_at_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._fires_at_s = self._late_at_s
            self._timer = self.loop.call_later(timeout_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._asked is None:
            return
        left_s = self._late_at_s - self.loop.time()
        if left_s > 0:  # what was asked when the timer was set has been answered
            self._bound(left_s)
        else:
            self._break(TimeoutError())

    def _break(self, error: OSError) -> None:
        asked = self._over()
        self._ends = True
        self.transport.abort()
        if asked is not None and not asked.done():
            asked.set_exception(error)

    def _over(self) -> asyncio.Future[Reply] | None:
        """Who waited for the answer, if anybody."""
        asked, self._asked = self._asked, None
        return asked


def head_of(url: httpx2.URL, headers: dict[str, str]) -> bytes:
    """The head of a POST up to the number of its Content-Length. Raises ValueError for what no header can
    hold."""
    lines = [f"POST {url.raw_path.decode('ascii')} HTTP/1.1", f"Host: {url.netloc.decode('ascii')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if not all(line.isprintable() for line in lines):
        raise ValueError("expected headers of one line each")
    return "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")
