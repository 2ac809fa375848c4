"""The server from its socket to its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from drpo.config_use import ServeConfig
from drpo.errors import Interrupted
from drpo.live import Notice, Resources, asked_once, server_facts
from drpo.llm.base import Request
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.llm.vllm.tokens import Refusal as Untold
from drpo.respond import ContextFit
from drpo.run import calm_collector
from drpo.serving.answering import Desk
from drpo.serving.app import application
from drpo.serving.door import Bounds, Door
from drpo.serving.metrics import Metrics
from drpo.serving.models import Served
from drpo.serving.protocol import Patience, protocol_with
from drpo.serving.upstream import Upstream
from drpo.use.asking import Using, open_using
from drpo.use.plan import UsePlan

_BACKLOG = 4096
_SAID_AGAIN_S = 10.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Keeper:
    """Whoever runs a server. notice: hears what a user wants to know. ready: called when requests are taken.

    metrics: what the server counts. total: what it tells at /metrics where other processes serve too.
    """

    notice: Notice
    ready: Callable[[], None]
    metrics: Metrics = field(default_factory=Metrics)
    total: Callable[[], Awaitable[Metrics]] | None = None


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns, on uvloop where it is installed."""
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    except ImportError:  # Windows
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner, calm_collector():
        return runner.run(main)


async def serve(
    plans: Mapping[str, UsePlan],
    config: ServeConfig,
    environment: Mapping[str, str],
    listening: socket.socket,
    api_key: str | None,
    keeper: Keeper,
) -> None:
    """Serve until a signal comes; then answers that are running are awaited for `grace_s`. A second signal
    (or one before the server is ready) raises Interrupted at once."""
    _more_files(4 * config.max_waiting + 256)
    server: _Server | None = None
    own = asyncio.current_task()
    assert own is not None

    def asked_to_stop() -> None:
        if server is None or server.should_exit:
            own.cancel()
            return
        server.should_exit = True
        keeper.notice(ending_words(config.grace_s))

    tell = Seldom(keeper.notice)
    try:
        with signals(asked_to_stop):
            async with _opened(plans, config, environment, keeper.metrics, tell) as models:
                bounds = Bounds(config.max_body_bytes, config.request_s)
                desk = Desk(models, keeper.metrics, bounds, config.max_waiting, config.timeout_s, tell)
                app = application(desk, Door(api_key), keeper.total)
                server = _Server(_settings(app, config), keeper.ready)
                try:
                    await server.serve(sockets=[listening])
                finally:
                    server.stop_listening()
                    await _ended(server.server_state.tasks)
    except asyncio.CancelledError:
        raise Interrupted("ended at once") from None
    finally:
        listening.close()


def ending_words(grace_s: float) -> str:
    """What is said at the first signal."""
    return (
        f"ending: no new requests; running answers are awaited for up to {grace_s:g} s "
        "(once more: end at once)"
    )


class _Server(uvicorn.Server):
    """uvicorn's server without its own idea of signals."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self.servers: list[asyncio.Server] = []  # uvicorn has none before it has begun

    def stop_listening(self) -> None:
        """Where uvicorn was cancelled it has not, and the loop would take the next socket for this one."""
        for one in self.servers:
            one.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # what is there now stays: no collection looks through it again
        self._ready()


def _settings(app: Any, config: ServeConfig) -> uvicorn.Config:
    patience = Patience(config.request_s, config.reader_s, 2 * config.max_waiting + 64)
    return uvicorn.Config(
        app,
        http=protocol_with(patience),  # type: ignore[arg-type]  # a class, or what makes one's objects
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",  # what a hostile client sends is no news; what fails is told by the application
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=config.grace_s,  # type: ignore[arg-type]  # a wait_for: fractions are fine
    )


@contextlib.asynccontextmanager
async def _opened(
    plans: Mapping[str, UsePlan],
    config: ServeConfig,
    environment: Mapping[str, str],
    metrics: Metrics,
    notice: Notice,
) -> AsyncIterator[dict[str, Served]]:
    """Each alignment at its model, over connections that all of them share."""
    seen = {name: value for name, value in environment.items() if name != config.api_key_env}
    with tempfile.TemporaryDirectory(prefix="drpo-") as folder:
        record = Record(Path(folder) / "calls.jsonl")
        resources = Resources(record, Stop(), seen, config, folder=Path(folder), notice=notice)
        try:
            models: dict[str, Served] = {}
            for name, plan in plans.items():
                opened = await open_using(plan, resources, asked_once(plan.choice, resources), lasts=True)
                using = _for_serving(opened, resources)
                models[name] = Served(name, using, config.client_system, config.base_max_tokens, metrics)
            yield models
        finally:
            await resources.close()


def _for_serving(opened: Using, resources: Resources) -> Using:
    """The same, asked as a server asks: nothing of a request is kept."""
    choice = opened.plan.choice
    thinking = resources.config.max_thinking_tokens
    upstream = Upstream(choice, opened.llm, opened.streams, opened.sampling, thinking)
    fit = None
    if opened.fit is not None:
        facts = server_facts(choice, resources)

        async def count(request: Request) -> int | None:
            ids = await facts.tokens(request)
            return None if isinstance(ids, Untold) else len(ids)

        fit = ContextFit(opened.composer, opened.sampling, opened.fit.limit, count)
    return replace(opened, llm=upstream, streams=upstream, fit=fit)


class Seldom:
    """Tells what is new; the same words again only after a while."""

    def __init__(self, notice: Notice) -> None:
        self._notice, self._last, self._said_s = notice, "", 0.0

    def __call__(self, message: str) -> None:
        now_s = time.monotonic()
        if message != self._last or now_s - self._said_s > _SAID_AGAIN_S:
            self._last, self._said_s = message, now_s
            self._notice(message)


@contextlib.contextmanager
def signals(handler: Callable[[], None]) -> Iterator[None]:
    """Call `handler` at SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in numbers:
            loop.add_signal_handler(number, handler)
    except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
        for number in numbers:
            with contextlib.suppress(ValueError):
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(handler))
        yield
        return
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _ended(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel what is still running, and see it end."""
    running = list(tasks)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _more_files(wanted: int) -> None:
    """Let the process have a connection for each client and each request of its own, as far as it may."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
