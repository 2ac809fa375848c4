"""HTTP on a connection, with an end to everything that a client may leave undone.

uvicorn bounds neither the time that the head of a request takes nor its length, nor how long a client may
leave an answer unread (its issue 157).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from drpo.serving.door import WHOLE
from drpo.serving.errors import BUSY_RETRY_S, Refusal

ON_LEFT = "drpo.on_left"
"""Where in its scope a request says what to call when its client is gone. An application that waits for
`http.disconnect` instead needs another task for each request."""
LONGEST_HEAD = 64 * 1024
"""Bytes of a request before its body."""
_LINGER_S = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for the head of a request; for a reader who leaves an answer where it is. connections: how
    many may be open."""

    request_s: float
    reader_s: float
    connections: int


def protocol_with(patience: Patience) -> type[HttpToolsProtocol]:
    """The protocol for one server's connections, as uvicorn wants it: a class."""
    return type("BoundedProtocol", (_Bounded,), {"patience": patience})


class _Bounded(HttpToolsProtocol):
    """uvicorn's protocol with bounds."""

    patience: Patience

    cycle: RequestResponseCycle | None  # type: ignore[assignment]  # None until the first request has a head

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._in_head = self._lingers = False
        self._head_bytes = 0
        self._earlier: list[RequestResponseCycle] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.patience.connections:
            self._end_with(
                Refusal(503, "too many connections", retry_after_s=BUSY_RETRY_S), "Service Unavailable"
            )
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head_timer()
        self._end_reader_timer()
        super().connection_lost(exc)
        for cycle in (*self._earlier, self.cycle):  # uvicorn tells only the request that came last
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
                if callable(left := cycle.scope.get(ON_LEFT)):
                    left()

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        super().data_received(data)
        # Most heads come in one piece, and need no timer.
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > LONGEST_HEAD:
                message = f"the head of the request is longer than {LONGEST_HEAD} bytes"
                self._end_with(Refusal(431, message), "Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._end_head_timer()
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not None and self.scope["method"] == "POST":  # else there may be nothing but a head
            self.cycle.transport = cast("asyncio.Transport", _Joining(self.transport))
        self._earlier = [
            one for one in (*self._earlier, before) if one is not None and not one.response_complete
        ]

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.cycle is not None:
            self.cycle.scope[WHOLE] = True  # type: ignore[literal-required]  # not of the ASGI standard

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle is not None and self.cycle.more_body and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._linger()  # it was refused by its head, or by what came of its body so far
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._await_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_reader_timer()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # the last answer was never read to its end
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        self._end_with(Refusal(400, "this is no HTTP request that can be read"), "Bad Request")

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.patience.request_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._in_head:
            message = f"the request did not come within {self.patience.request_s:g} s"
            self._end_with(Refusal(408, message), "Request Timeout")
        elif not self.transport.is_closing():
            self.transport.close()

    def _end_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _await_reader(self) -> None:
        if self._reader_timer is None:
            abort: Callable[[], None] = self.transport.abort
            self._reader_timer = self.loop.call_later(self.patience.reader_s, abort)

    def _end_with(self, refusal: Refusal, phrase: str) -> None:
        """Answer below the application, and close. An answer that has begun is not written into."""
        if self.transport.is_closing() or self._lingers:
            return
        if self.cycle is None or self.cycle.response_complete or self._took_over():
            body = refusal.as_json()
            lines = [f"HTTP/1.1 {refusal.status} {phrase}", "content-type: application/json"]
            lines += [f"content-length: {len(body)}", "connection: close"]
            if refusal.retry_after_s is not None:
                lines.append(f"retry-after: {refusal.retry_after_s:.0f}")
            self.transport.write("\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body)
        self._linger()

    def _took_over(self) -> bool:
        """Whether the request whose body is still coming is no longer answered by the application."""
        cycle = self.cycle
        if cycle is None or not cycle.more_body or cycle.response_started:
            return False
        if not all(one.response_complete for one in self._earlier):
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return True

    def _linger(self) -> None:
        """Close once the other side has had the time to read: closing on bytes that were not read would take
        the answer from it."""
        self._lingers = True
        self._end_head_timer()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)


class _Joining:
    """The transport of one answer with a body: its head goes out with the first of the body. Each write by
    itself would be a call of the system, a packet, and a turn of the client's loop."""

    __slots__ = ("_head", "_transport", "_wrote")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._head, self._wrote = transport, b"", False

    def write(self, data: bytes) -> None:
        if not self._wrote and not data.startswith(b"HTTP/1.1 100 "):
            self._head, self._wrote = data, True
            return
        if self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)

    def close(self) -> None:
        if self._head:
            self.write(b"")
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
