"""`drpo serve` in a test: in this process on its loop, or as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from drpo.config_use import ServeConfig
from drpo.serving.listening import listen, url_of
from drpo.serving.plan import client_key, serve_plans
from drpo.serving.running import Keeper, serve
from drpo.settings import resolve

ASKING: dict[str, Any] = {"model": "bees", "messages": [{"role": "user", "content": "Hello?"}]}


class Running:
    """A server that runs. url: where its API begins; told: its notices so far; ended: done when it is."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ended: asyncio.Task[None]
        self.told: list[str] = []

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1].partition("/")[0])


@contextlib.asynccontextmanager
async def serving(
    alignments: list[str], environment: Mapping[str, str] | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """Serves while the context is open, on any free port."""
    environment = environment or {}
    config = resolve(ServeConfig, {"port": 0, **settings}, environment)
    key = client_key(config, environment)
    plans = serve_plans(alignments, config, environment)
    listening = listen(config.host, config.port)
    running = Running(url_of(listening))
    ready = asyncio.Event()
    task = running.ended = asyncio.create_task(
        serve(plans, config, environment, listening, key, Keeper(running.told.append, ready.set))
    )
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        task.result()
    try:
        yield running
    finally:
        task.cancel()
        with contextlib.suppress(Exception):
            await task


def at(url: str, alignment: Path, **settings: Any) -> dict[str, Any]:
    """The arguments of `serving` for one alignment named bees, at a model of this URL."""
    return {"alignments": [f"bees={alignment}"], "model": f"openai/m@{url}", **settings}


async def raw(port: int, *parts: bytes, timeout_s: float = 10.0) -> bytes:
    """What the server says to these bytes, until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        async with asyncio.timeout(timeout_s):
            with contextlib.suppress(ConnectionError):
                return await reader.read()
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def head(length: int | str, *lines: str, path: str = "/v1/chat/completions") -> bytes:
    """The head of a request with a body. length: "chunked" where it is not told."""
    told = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    told += [f"Content-Length: {length}"] if length != "chunked" else ["Transfer-Encoding: chunked"]
    return "\r\n".join([*told, *lines]).encode() + b"\r\n\r\n"


async def becomes(condition: Callable[[], object], timeout_s: float = 1.0) -> None:
    """Returns once this holds of a peer; fails where it does not within the time."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 what is waited for is the state of a peer
            await asyncio.sleep(0.005)
