"""A small application behind the protocol of `drpo serve`, and a client that sends it bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from drpo.serving.door import Receive, Scope, Send, respond
from drpo.serving.protocol import Connection, Patience

POST = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
PATIENT = Patience(5.0, 5.0, 10)


class Client:
    """One connection to the server, and what the server knows of all of them."""

    def __init__(
        self, state: ServerState, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.state, self.reader, self.writer = state, reader, writer

    async def asks(self, *parts: bytes) -> bytes:
        """What comes until the server closes."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
        return await self.reader.read()


@asynccontextmanager
async def connected(app: Any, patience: Patience = PATIENT) -> AsyncIterator[Client]:
    """A client of a server that has this application."""
    config, state = uvicorn.Config(app, lifespan="off", interface="asgi3", log_config=None), ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(patience, config, state, {}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=2**20)
    try:
        yield Client(state, reader, writer)
    finally:
        writer.close()
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()


async def body_of(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        body, more = body + message["body"], message["more_body"]
    return body


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await body_of(receive)
    said = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} {body.decode()};".encode()
    await respond(send, 200, said, b"text/plain")


def last(request: bytes) -> bytes:
    """The same request, after which the connection is to be closed."""
    return request.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\nConnection: close\r\n")
