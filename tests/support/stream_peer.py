"""A server that sends an answer as a test says, and the pool that asks it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from drpo.llm import pool as pool_module
from drpo.llm.pool import Pool, head_of
from drpo.llm.pool_connection import Connection
from drpo.llm.pool_stream import Stream

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = CHUNKED + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: late\r\n\r\n"


class Watched(Connection):
    """A connection that tells what it has read, and when it stops to."""

    read = 0
    changed: asyncio.Event

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        Watched.read += len(data)
        Watched.changed.set()

    def pause(self) -> None:
        super().pause()
        Watched.changed.set()


class Peer:
    """The server's side, and a pool that asks it. connections: how many there were; gone: set once one was
    ended by the client."""

    pool: Pool
    url: httpx2.URL

    def __init__(self) -> None:
        self.connections = 0
        self.gone = asyncio.Event()
        self._asked: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r")[0])
                await reader.readexactly(length)
                self._asked.put_nowait(writer)
        self.gone.set()
        writer.close()

    async def asked(self) -> asyncio.StreamWriter:
        """What answers the next request."""
        return await self._asked.get()

    async def ask(self, timeout_s: float = 60.0) -> Stream:
        return await self.pool.stream(head_of(self.url, {}), b"{}", timeout_s)

    async def begin(
        self, first: bytes = CHUNKED, timeout_s: float = 60.0
    ) -> tuple[Stream, asyncio.StreamWriter]:
        """A stream of which the server has sent `first`, and what it goes on with."""
        coming = asyncio.ensure_future(self.ask(timeout_s))
        writer = await self.asked()
        writer.write(first)
        return await coming, writer


@asynccontextmanager
async def streaming() -> AsyncIterator[Peer]:
    """A server that is asked for streams."""
    Watched.read, Watched.changed = 0, asyncio.Event()
    peer = Peer()
    listening = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.url = httpx2.URL(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/chat/completions")
    peer.pool = Pool(peer.url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_module, "Connection", Watched)
        try:
            yield peer
        finally:
            peer.pool.close()
            listening.close()
            await listening.wait_closed()
            await asyncio.sleep(0)


async def say(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send, and come back when the client has read it."""
    wanted = Watched.read + len(data)
    writer.write(data)
    while Watched.read < wanted:
        Watched.changed.clear()
        await Watched.changed.wait()


async def pass_by(seconds: float) -> None:
    """For what is about time itself."""
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    loop.call_later(seconds, passed.set_result, None)
    await passed


async def rest_of(stream: Stream) -> bytes:
    parts = list[bytes]()
    while part := await stream.part():
        parts.append(part)
    stream.close()
    return b"".join(parts)
