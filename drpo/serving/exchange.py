"""One request and its answer on a connection, as an ASGI application receives and sends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus

from uvicorn.protocols.http.flow_control import FlowControl

from drpo.serving.door import WHOLE, App, Message, refuse
from drpo.serving.errors import Refusal
from drpo.serving.reading import Head, Header

ON_LEFT = "drpo.on_left"
"""Where in its scope a request says what to call when its client is gone: it returns whether to cancel the
task. An application that waits for `http.disconnect` instead needs another task for each request."""
_HELD = 64 * 1024
"""Bytes of a body that are held for an application; then its sender waits."""
_WITHOUT_BODY = (204, 304)


class Exchange:
    """A request whose head came, and its answer.

    coming: more of its body is to come; begun: the head of the answer is made; over: the answer is complete;
    gone: nobody is there to read it; keeps: the connection may stay. ended: called once the answer is
    complete. cut: closes the connection. common: headers of every answer.
    """

    def __init__(
        self,
        head: Head,
        transport: asyncio.Transport,
        flow: FlowControl,
        ended: Callable[[Exchange], None],
        cut: Callable[[], None],
        common: Iterable[Header],
    ) -> None:
        self.scope, self.keeps, self._asks = head.scope, head.keeps, head.asks
        self.coming = True
        self.begun = self.over = self.gone = False
        self.task: asyncio.Task[None] | None = None
        self._transport, self._flow, self._common = transport, flow, common
        self._ended, self._cut = ended, cut
        self._parts: list[bytes] = []
        self._held = 0
        self._taken = self._given = False  # some of it was asked for; all of it was given
        self._waiter: asyncio.Future[None] | None = None
        self._head = b""
        self._chunks = self._bare = False
        self._left: int | None = None

    async def run(self, app: App) -> None:
        """Let the application answer; whatever it does, the client's waiting ends."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException:  # noqa: BLE001 the application has told of it; a cancelled one ends here too
            pass
        finally:
            self.scope.pop(ON_LEFT, None)  # which holds the application's own, and that this
            if not self.over and not self.gone:
                await self._end()

    def feed(self, body: bytes) -> None:
        """Some of the request's body."""
        if self.over:
            return
        self._parts.append(body)
        self._held += len(body)
        if self._held > _HELD:
            self._flow.pause_reading()
        self._wake()

    def whole(self) -> None:
        """The request's body has come to its end."""
        self.coming = False
        if not self._taken:
            self.scope[WHOLE] = b"".join(self._parts)
        self._wake()

    def leave(self) -> None:
        """The client is gone, or no longer answered by the application."""
        self.gone = True
        self._wake()
        left = self.scope.get(ON_LEFT)
        if left is not None and left() and self.task is not None:
            self.task.cancel()

    async def receive(self) -> Message:
        """More of the body, or that the client is gone."""
        self._taken = True
        if self._asks and not self.begun and not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._asks = False
        if (self.coming or self._given) and not (self._parts or self.gone or self.over):
            self._flow.resume_reading()
            await self._woken()
        if self.gone or self.over:
            return {"type": "http.disconnect"}
        body, self._parts, self._held = b"".join(self._parts), [], 0
        self._given = not self.coming
        return {"type": "http.request", "body": body, "more_body": self.coming}

    async def send(self, message: Message) -> None:
        """The head of the answer, or some of its body."""
        if self._flow.write_paused and not self.gone:
            await self._flow.drain()
        if self.gone:
            return
        if message["type"] == "http.response.start":
            self._begin(message["status"], message.get("headers", ()))
        elif not self.begun or self.over:
            raise RuntimeError("expected the head of an answer, then its body, once")
        else:
            self._write(message.get("body", b""), more=message.get("more_body", False))

    def _begin(self, status: int, headers: Iterable[Header]) -> None:
        """Make the head, which goes out with the first of the body: each write by itself would be a call of
        the system, a packet, and a turn of the client's loop."""
        if self.begun:
            raise RuntimeError("expected the body of an answer, came its head again")
        lines = [_status_line(status)]
        for name, value in (*self._common, *headers):
            lines.append(b"%b: %b\r\n" % (name, value))
            if name == b"content-length":
                self._left = int(value)
            elif name == b"connection" and value == b"close":
                self.keeps = False
        if self.scope["method"] == "HEAD" or status in _WITHOUT_BODY:
            self._left = None
        elif self._left is None and self.scope["http_version"] != "1.1":
            self._bare = True  # its end is that of the connection
        elif self._left is None:
            self._chunks = True
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keeps:
            lines.append(b"connection: close\r\n")
        head = b"".join(lines)
        if not head.count(b"\n") == head.count(b"\r") == len(lines):
            raise RuntimeError("expected headers of one line each")
        self._head, self.begun, self._asks = head + b"\r\n", True, False

    def _write(self, body: bytes, *, more: bool) -> None:
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("an answer that is not as long as its head says")
        elif self._chunks:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        elif not self._bare:
            body = b""
        if self._head:
            body, self._head = self._head + body, b""
        if body:
            self._transport.write(body)
        if not more:
            self.over = True
            self._wake()
            self._ended(self)

    async def _end(self) -> None:
        """What an application leaves undone."""
        if self.begun:
            self._transport.write(self._head)
            self._cut()
        else:
            self.keeps, self._left, self._chunks, self._bare = False, None, False, False
            await refuse(self.send, Refusal(500, "a bug of this server", code="internal_error"))

    async def _woken(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode("ascii"))
