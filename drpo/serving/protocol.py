"""HTTP on a connection, with an end to everything that a client may leave undone.

uvicorn's own protocol bounds neither the time that the head of a request takes nor its length, nor how long a
client may leave an answer unread (its issue 157), and takes a third of the processor time of a request that
is passed on. This one is made for its server (`uvicorn.Server` starts and ends it) and on the same parser.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import httptools
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from drpo.serving.errors import BUSY_RETRY_S, Refusal
from drpo.serving.exchange import ON_LEFT, Exchange, scope_of, without_upgrade

LONGEST_HEAD = 64 * 1024
"""Bytes of a request before its body."""
KEPT_S = 30.0
"""How long a connection that nobody uses is kept open."""
_LINGER_S = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for the head of a request; for a reader who leaves an answer where it is. connections: how
    many may be open."""

    request_s: float
    reader_s: float
    connections: int


def protocol_with(patience: Patience) -> Callable[..., asyncio.Protocol]:
    """Makes the protocol of each of a server's connections, called as uvicorn calls its own class."""
    return partial(Connection, patience)


class Connection(asyncio.Protocol):
    """A client's connection: requests in, one after the other, and their answers in the same order."""

    transport: asyncio.Transport
    _flow: FlowControl

    def __init__(
        self,
        patience: Patience,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._patience, self._app, self._state = patience, config.loaded_app, server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._parser = self._new_parser()
        self._asked: deque[Exchange] = deque()
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._asks = self._in_head = self._head_is_due = self._lingers = False
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = self._fires_s = math.inf
        self._reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport, self._flow = transport, FlowControl(transport)
        self._state.connections.add(self)  # type: ignore[arg-type]  # it names its own classes only
        self._places: dict[str, Any] = {
            "server": transport.get_extra_info("sockname")[:2],
            "client": transport.get_extra_info("peername")[:2],
        }
        if len(self._state.connections) > self._patience.connections:
            self._end_with(Refusal(503, "too many connections", retry_after_s=BUSY_RETRY_S))
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        for timer in (self._timer, self._reader_timer):
            if timer is not None:
                timer.cancel()
        self._flow.resume_writing()
        for exchange in self._asked:
            exchange.leave()
            left = exchange.scope.get(ON_LEFT)
            if left is not None and left() and exchange.task is not None:
                exchange.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._end_with(Refusal(400, "this is no HTTP request that can be read"))
            return
        if not self._asked and not self._head_is_due:
            self._await_head()  # most heads come in one piece
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > LONGEST_HEAD:
                message = f"the head of the request is longer than {LONGEST_HEAD} bytes"
                self._end_with(Refusal(431, message))

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Another protocol is asked for in vain, and the request is read as if it were not: the parser,
            # which would leave out its body, gets it once more without those headers.
            method, version = self._parser.get_method(), self._parser.get_http_version().encode("ascii")
            head = without_upgrade(b"%b %b HTTP/%b" % (method, self._url, version), self._headers)
            self._parser = self._new_parser()
            self._feed(head + data[upgrade.args[0] :])

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # Who ends a request by `Connection: close` and sends on all the same still has its answer.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        self._url, self._headers, self._asks = b"", [], False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._asks = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser.should_upgrade() and parser.get_method() != b"CONNECT":
            return
        self._in_head = self._head_is_due = False
        self._due_s = math.inf
        exchange = Exchange(
            scope_of(parser, self._url, self._headers, self._places),
            self.transport,
            self._flow,
            self._ended,
            self._state.default_headers,
            keeps=parser.get_http_version() == "1.1" and parser.should_keep_alive(),
            asks=self._asks,
        )
        self._asked.append(exchange)
        if len(self._asked) == 1:
            self._start(exchange)
        else:
            self._flow.pause_reading()  # who sends on before the answer waits for it

    def on_body(self, body: bytes) -> None:
        if self._asked:
            self._asked[-1].feed(body)

    def on_message_complete(self) -> None:
        if self._asked and not self._in_head:
            self._asked[-1].whole()

    def pause_writing(self) -> None:
        self._flow.pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        self._flow.resume_writing()
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def shutdown(self) -> None:
        """Let the answers under way come to their end, and close. uvicorn calls it at its own."""
        if self._asked:
            self._asked[-1].keeps = False
        else:
            self.transport.close()

    def _start(self, exchange: Exchange) -> None:
        task = exchange.task = self._loop.create_task(exchange.run(self._app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _ended(self, exchange: Exchange) -> None:
        """An answer is complete: the next request's turn."""
        self._state.total_requests += 1
        self._asked.popleft()
        if self.transport.is_closing():
            return
        if exchange.coming:
            self._linger()  # it was refused by its head, or by what came of its body so far
            return
        if not exchange.keeps:
            self.transport.close()
            if self.transport.get_write_buffer_size():
                self._await_reader()
            return
        self._flow.resume_reading()
        if self._asked:
            self._start(self._asked[0])
        else:
            self._bound(KEPT_S)

    def _await_head(self) -> None:
        self._head_is_due = True
        self._bound(self._patience.request_s)

    def _bound(self, within_s: float) -> None:
        """Have the waiting for a request end in time. One timer serves until it fires: to make one for each
        request, and to cancel it, takes longer than to read a head."""
        self._due_s = self._loop.time() + within_s
        if self._timer is not None and self._due_s < self._fires_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._fires_s = self._due_s
            self._timer = self._loop.call_later(within_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if math.isinf(self._due_s):
            return
        left_s = self._due_s - self._loop.time()
        if left_s > 0:
            self._bound(left_s)
        elif self._in_head:
            message = f"the request did not come within {self._patience.request_s:g} s"
            self._end_with(Refusal(408, message))
        elif self.transport.get_write_buffer_size():
            self.transport.abort()  # the last answer was never read to its end
        else:
            self.transport.close()

    def _await_reader(self) -> None:
        if self._reader_timer is None:
            abort: Callable[[], None] = self.transport.abort
            self._reader_timer = self._loop.call_later(self._patience.reader_s, abort)

    def _end_with(self, refusal: Refusal) -> None:
        """Answer below the application, and close. An answer that has begun is not written into."""
        if self.transport.is_closing() or self._lingers:
            return
        if not self._asked or self._took_over(self._asked[-1]):
            self.transport.write(refusal.as_http())
        self._linger()

    def _took_over(self, exchange: Exchange) -> bool:
        """Whether the request whose body is still coming is no longer answered by the application."""
        if len(self._asked) > 1 or not exchange.coming or exchange.begun:
            return False
        exchange.leave()
        return True

    def _linger(self) -> None:
        """Close once the other side has had the time to read: closing on bytes that were not read would take
        the answer from it."""
        self._lingers = True
        self._due_s = math.inf
        self._flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._loop.call_later(_LINGER_S, self.transport.close)
