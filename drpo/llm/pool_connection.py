"""One connection of a pool: a request is sent, and what comes is told to who waits for it."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

import httptools

from drpo.llm.deadline import Deadline

LONGEST_HEAD = 64 * 1024
"""Bytes of an answer before its body, interim answers (1xx) included."""
Headers = list[tuple[bytes, bytes]]
"""Names in lower case, as they came, repeated ones included."""


class Receiver(Protocol):
    """Who is told of one answer: its head, the parts of its body, and once how it ended. None of the methods
    may raise: the parser calls them."""

    def head(self, status: int, headers: Headers) -> None: ...

    def came(self, part: bytes) -> None: ...

    def ended(self, error: OSError | None) -> None: ...


class Connection(asyncio.Protocol):
    """One connection, which carries one request at a time. kept_at_s: when it was last put aside. peers: the
    open connections, to which it belongs while it is one."""

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, peers: set[Connection]) -> None:
        self.loop, self._peers = loop, peers
        self._parser = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._deadline = Deadline(loop, self._late)
        self._headers: Headers = []
        self._in_head = self._ends = False
        self._head_bytes = 0
        self.kept_at_s = 0.0

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent here."""
        return not self._ends and not self.transport.is_closing()

    def send(self, request: bytes, receiver: Receiver, timeout_s: float) -> None:
        """Send a request, whose answer must end within `timeout_s` unless `bound` gives it longer."""
        self.bound(timeout_s)
        self._receiver, self._headers = receiver, []
        self._in_head, self._ends = True, True  # until the answer says that the connection stays
        self._head_bytes = 0
        self.transport.write(request)

    def bound(self, timeout_s: float) -> None:
        """Have the answer fail with TimeoutError if it has not ended in that time from now."""
        self._deadline.within(timeout_s)

    def bound_later(self, timeout_s: float) -> None:
        """As `bound`, for less: the answer fails at the latest when it would have failed before."""
        self._deadline.later(timeout_s)

    def pause(self) -> None:
        """Read nothing more, for as long as it takes, until `resume`."""
        if not self.transport.is_closing():
            self.transport.pause_reading()
            self._deadline.never()

    def resume(self, timeout_s: float) -> None:
        """Read on, with a new bound."""
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self.bound(timeout_s)

    def fail(self, said: str) -> None:
        """End the answer with ConnectionError, and the connection with it."""
        self._break(ConnectionError(said))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.discard(self)
        self._ends = True
        self._deadline.close()
        names = {name for name, _ in self._headers}
        if exc is None and not self._in_head and not names & {b"content-length", b"transfer-encoding"}:
            self._over(None)  # a body that goes to the end of the connection
        else:
            self.fail(str(exc or "") or "the server closed the connection before the end of its answer")

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:  # nothing was asked for: what comes belongs to no request
            self._ends = True
            self.transport.abort()
            return
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail("an answer that changes the protocol")
        except httptools.HttpParserError as error:
            self.fail(f"an answer that is no HTTP: {error}")
        if self._in_head and self._head_bytes > LONGEST_HEAD:
            self.fail(f"the head of the answer is longer than {LONGEST_HEAD} bytes")

    def on_message_begin(self) -> None:
        if self._receiver is None:
            self._ends = True  # a second answer, to nothing

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # and no trailer
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._in_head = status < 200
        if self._in_head:
            self._headers = []  # of an interim answer, which the real one follows
        elif self._receiver is not None:
            self._receiver.head(status, self._headers)

    def on_body(self, body: bytes) -> None:
        if self._receiver is not None:
            self._receiver.came(body)

    def on_message_complete(self) -> None:
        if not self._in_head and self._receiver is not None:
            unsent = self.transport.get_write_buffer_size() > 0  # of a request that was answered early
            self._ends = unsent or not self._parser.should_keep_alive()
            self._over(None)

    def _late(self) -> None:
        if self._receiver is not None:
            self._break(TimeoutError())

    def _break(self, error: OSError) -> None:
        self._ends = True
        self.transport.abort()
        self._over(error)

    def _over(self, error: OSError | None) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.ended(error)
