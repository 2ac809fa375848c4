"""HTTP on a connection, with an end to everything that a client may leave undone.

uvicorn's own protocol bounds neither the time that the head of a request takes nor its length, nor how long a
client may leave an answer unread (its issue 157), and takes a quarter of the processor time of a request that
is passed on. This one is made for its server (`uvicorn.Server` starts and ends it) and on the same parser.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from drpo.llm.deadline import Deadline
from drpo.serving.errors import BUSY_RETRY_S, Refusal
from drpo.serving.exchange import Exchange
from drpo.serving.reading import Head, Reader

MOST_WAITING = 100
"""Requests that may wait for the answer to one before them. Behind more of them nothing is read."""
_READ_ON = 2
"""While so many are asked or fewer, what comes is read, so that a client that leaves is seen to."""
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
        self._reader = Reader(self._came, self._part, self._whole)
        self._asked: deque[Exchange] = deque()
        self._head_is_due = self._deaf = False
        self._deadline = Deadline(self._loop, self._late)
        self._reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport, self._flow = transport, FlowControl(transport)
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if not peer or not own:  # gone before it was taken: uvloop tells of it all the same
            transport.abort()
            return
        self._places: dict[str, Any] = {"server": own[:2], "client": peer[:2]}
        self._state.connections.add(self)  # type: ignore[arg-type]  # it names its own classes only
        if len(self._state.connections) > self._patience.connections:
            self._refuse(Refusal(503, "too many connections", retry_after_s=BUSY_RETRY_S))
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._deadline.close()
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        self._flow.resume_writing()
        self._leave()
        self._reader.close()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        try:
            self._reader.feed(data)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if not self._asked and not self._head_is_due:
            self._await_head()  # most heads come in one piece

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
            self._close()

    def _came(self, head: Head) -> None:
        if len(self._asked) > MOST_WAITING:
            raise ValueError("expected a client that reads its answers")
        self._head_is_due = False
        self._deadline.never()
        head.scope.update(self._places)
        common = self._state.default_headers
        exchange = Exchange(head, self.transport, self._flow, self._ended, self._close, common)
        self._asked.append(exchange)
        if len(self._asked) == 1:
            self._start(exchange)
        elif len(self._asked) > _READ_ON:
            self._flow.pause_reading()

    def _part(self, body: bytes) -> None:
        if self._asked:
            self._asked[-1].feed(body)

    def _whole(self) -> None:
        if self._asked:
            self._asked[-1].whole()
        if len(self._asked) <= _READ_ON:
            self._flow.resume_reading()

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
        if exchange.coming or (self._deaf and not self._asked):
            self._linger()  # it was refused by its head, or by what came of its body so far; or what followed
        elif not exchange.keeps:
            self._close()
        else:
            if len(self._asked) <= _READ_ON:
                self._flow.resume_reading()
            if self._asked:
                self._start(self._asked[0])
            else:
                self._deadline.within(KEPT_S)

    def _await_head(self) -> None:
        self._head_is_due = True
        self._deadline.within(self._patience.request_s)

    def _late(self) -> None:
        if self._reader.in_head:
            message = f"the request did not come within {self._patience.request_s:g} s"
            self._refuse(Refusal(408, message))
        elif self.transport.get_write_buffer_size():
            self.transport.abort()  # the last answer was never read to its end
        else:
            self.transport.close()

    def _await_reader(self) -> None:
        if self._reader_timer is None:
            abort: Callable[[], None] = self.transport.abort
            self._reader_timer = self._loop.call_later(self._patience.reader_s, abort)

    def _refuse(self, refusal: Refusal) -> None:
        """Read nothing more: the requests that came whole are answered, then this is told, below the
        application, if nothing was answered before it, and the connection closed."""
        if self.transport.is_closing() or self._deaf:
            return
        while len(self._asked) > 1 and self._asked[-1].coming:
            self._asked.pop()  # it was not begun
        last = self._asked[-1] if self._asked else None
        if last is not None and not last.coming:
            self._deaf, last.keeps = True, False
            self._deadline.never()
            self._flow.resume_reading()  # a client that leaves is to be seen to
            return
        if last is None or not last.begun:
            self.transport.write(refusal.as_http())
        self._linger()

    def _linger(self) -> None:
        """Close once the other side has had the time to read: closing on bytes that were not read would take
        the answer from it."""
        self._deaf = True
        self._deadline.never()
        self._leave()
        self._flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._loop.call_later(_LINGER_S, self._close)

    def _leave(self) -> None:
        """Nobody waits for the answers any more."""
        for exchange in self._asked:
            exchange.leave()

    def _close(self) -> None:
        """Close once all is written, and whether it is read or not."""
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._await_reader()
