"""A loopback server whose streamed answers take their time: tokens at an interval, as many as are asked for.

    async with StreamingUpstream(tokens=20, interval_s=0.05) as upstream:
        ...                      # upstream.url, upstream.bodies, upstream.streams, upstream.abandoned

    python -m tests.support.streaming_upstream --tokens 20 --interval-ms 50

The second form prints its URL. Hand-written on `asyncio.Protocol` like `mock_openai`, for the same reason.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

USAGE = {"prompt_tokens": 7, "completion_tokens": 20, "total_tokens": 27}


class StreamingUpstream:
    """Listens on 127.0.0.1 while the context is open. streams: under way now; abandoned: whose client left
    before the end. tokens None: they go on until the client leaves. changed: called when one of both did."""

    def __init__(
        self,
        *,
        tokens: int | None = 20,
        interval_s: float = 0.0,
        text: str = "word ",
        keep_log: bool = True,
    ) -> None:
        self.tokens, self.interval_s, self.text = tokens, interval_s, text
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.streams = self.abandoned = 0
        self.keep_log = keep_log
        self.url = ""
        self.changed: Callable[[], None] = lambda: None
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> StreamingUpstream:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self, self._connections), "127.0.0.1", 0, backlog=4096
        )
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        await self._server.wait_closed()


class _Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next one."""

    transport: asyncio.Transport

    def __init__(self, server: StreamingUpstream, peers: set[_Connection]) -> None:
        self._server, self._peers = server, peers
        self._buffer = b""
        self._left: int | None = None
        self._busy = self._paused = False
        self._timer: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._busy:
            self._server.streams -= 1
            self._server.abandoned += 1
            self._server.changed()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._busy and self._timer is None:
            self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._buffer = b""
        body = json.loads(rest[:length])
        if self._server.keep_log:
            self._server.bodies.append(body)
            self._server.headers.append(headers)
        self._answer("chat" in first, body)

    def _answer(self, chat: bool, body: dict[str, Any]) -> None:
        text = self._server.text
        if not body.get("stream"):
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choice = {"index": 0, **said, "finish_reason": "stop"}
            reply = json.dumps({"id": "x", "model": "m", "choices": [choice], "usage": USAGE}).encode()
            head = (
                f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(reply)}\r\n\r\n"
            )
            self.transport.write(head.encode() + reply)
            return
        delta = {"delta": {"content": text}} if chat else {"text": text}
        choice = {"index": 0, **delta, "finish_reason": None}
        self._chunk = _chunk(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
        ending = {"choices": [{"index": 0, "delta": {}, "text": "", "finish_reason": "stop"}]}
        last = b"data: " + json.dumps(ending).encode() + b"\n\n"
        last += b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\ndata: [DONE]\n\n"
        self._end = _chunk(last) + b"0\r\n\r\n"
        self._left, self._busy = self._server.tokens, True
        self._server.streams += 1
        self._server.changed()
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self._next()

    def _next(self) -> None:
        self._timer = None
        if self._left == 0:
            self._busy = False
            self._server.streams -= 1
            self.transport.write(self._end)
            self._server.changed()
            return
        self.transport.write(self._chunk)
        if self._left is not None:
            self._left -= 1
        if self._paused:
            return
        loop = asyncio.get_running_loop()
        interval_s = self._server.interval_s
        self._timer = loop.call_later(interval_s, self._next) if interval_s else loop.call_soon(self._next)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


async def _serve(tokens: int, interval_s: float) -> None:
    async with StreamingUpstream(tokens=tokens, interval_s=interval_s, keep_log=False) as upstream:
        print(upstream.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--interval-ms", type=float, default=50)
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(given.tokens, given.interval_ms / 1000))


if __name__ == "__main__":
    main()
