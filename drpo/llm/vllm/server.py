"""A server that drpo runs for itself: started when first needed, watched, started again, ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.errors import DrpoError, InputError, ProviderDown, Stopped
from drpo.llm.base import LLM, Completion, Request
from drpo.llm.limits import Stop
from drpo.llm.retry import Transient
from drpo.llm.vllm.gpus import gpus_needed, visible_gpus_gb
from drpo.llm.vllm.launch import Installation, ServerSpec, server_command, shown_command
from drpo.llm.vllm.log import PortTaken, ServerLog, last_line, last_words, out_of_memory, stage, why_it_ended
from drpo.llm.vllm.process import LOOPBACK, Address, Probe, ServerProcess, free_port, is_taken

log = logging.getLogger("drpo")

_LOOK_S = 0.25  # between looks at a server that starts
_WATCH_S = 2.0  # between looks at one that runs; its end is noticed at once
_HEALTH_S = 5.0
_SILENT_S = 60.0  # a server that computes may be late, one that is silent for so long is none
_TELL_S = 15.0  # a starting server is spoken of at least this often
_PORTS = 3  # ports tried when others are quicker


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a server may take to be ready, and how often one that died is started again."""

    ready_s: float
    restarts: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server writes and listens. Port None: any free one, anew at each start; key None: no key."""

    log: Path
    host: str = LOOPBACK
    port: int | None = None
    api_key: str | None = None


class ManagedServer:
    """One vLLM server. `notice` is told how it fares; servers that share `turn` start in turn."""

    def __init__(
        self,
        spec: ServerSpec,
        installation: Installation,
        place: Place,
        environment: Mapping[str, str],
        stop: Stop,
        notice: Callable[[str], None],
        bounds: Bounds,
        turn: asyncio.Lock | None = None,
    ) -> None:
        self.spec = spec
        self.deaths = 0
        self.least_context: int | None = None  # tokens; what a run that goes on was begun with
        self._installation, self._place, self._environment = installation, place, environment
        self._stop, self._notice, self._bounds = stop, notice, bounds
        self._turn = turn or asyncio.Lock()
        self._starting: asyncio.Task[ServerProcess] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._process: ServerProcess | None = None
        self._dying: ServerProcess | None = None  # what is left of a start that no longer answers
        self._suspected = asyncio.Event()
        self._log = ServerLog(place.log)
        self._probe = Probe()
        self._closed = False

    async def running(self) -> ServerProcess:
        """The server, once it is ready; started if nobody has asked before.

        Raises what keeps it from being ready, to everyone who asks: InputError, ProviderRefused,
        ProviderDown, or Stopped when the run ends meanwhile.
        """
        self._stop.check()
        if self._closed:
            raise Stopped("not sent, its server was ended")
        if self._starting is None:
            self._begin(self._start())
        assert self._starting is not None
        return await asyncio.shield(self._starting)

    async def answers(self, process: ServerProcess) -> bool:
        """Whether this start of the server still does, asked when a request to it has failed.

        If not, `running` gives the next start.
        """
        if process is not self._process:
            return False
        if process.exit_code is None and await self._probe.health(process.address, _HEALTH_S) != "ill":
            return True
        if process is self._process:  # else it was replaced meanwhile, and the next one is not suspected
            self._suspected.set()
            if self._watching is not None:
                await asyncio.wait({self._watching})
        return False

    async def aclose(self) -> None:
        """End the server and everything it has started."""
        self._closed = True
        for task in (self._starting, self._watching):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(t for t in (self._starting, self._watching) if t), return_exceptions=True)
        for process in (self._process, self._dying):
            if process is not None:
                await process.stop()
        self._process = self._dying = None
        await self._probe.aclose()

    def _begin(self, work: Coroutine[Any, Any, ServerProcess]) -> None:
        self._starting = asyncio.get_running_loop().create_task(work)
        # A failure belongs to whoever asks next, if anyone does: asyncio would print its traceback.
        self._starting.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _start(self) -> ServerProcess:
        """A ready server, watched from now on."""
        async with self._turn:
            for tries_left in range(_PORTS - 1, -1, -1):
                try:
                    process = await self._launch()
                    break
                except PortTaken:
                    if tries_left == 0 or self._place.port is not None:
                        raise
        self._process = process
        self._suspected.clear()
        self._watching = asyncio.create_task(self._watch(process))
        return process

    async def _launch(self) -> ServerProcess:
        place, began_s = self._place, time.monotonic()
        port = place.port if place.port is not None else free_port(place.host)
        address = Address(place.host, port, place.api_key)
        if place.port is not None and is_taken(place.host, port):
            raise PortTaken(
                f"the vLLM server of {self.spec.label}: port {port} of {place.host} is taken by another "
                "program; end that one, or give another port (--port)"
            )
        command = await self._command(address)
        self._log = ServerLog(place.log)
        self._notice(f"starting vLLM for {self.spec.label} on {place.host}:{port} (log: {place.log})")
        log.info("starting %s", shown_command(command))
        process = ServerProcess.start(command, address, place.log, self._environment)
        try:
            await self._await_ready(process, began_s)
        except BaseException:
            await process.stop()
            raise
        self._notice(f"vLLM is ready after {time.monotonic() - began_s:.0f} s")
        return process

    async def _command(self, address: Address) -> list[str]:
        tensor = self.spec.parallel.tensor
        if tensor is None:
            gpus_gb = await asyncio.to_thread(visible_gpus_gb, self._environment)
            tensor = gpus_needed(self.spec.weights_gb, gpus_gb)
        names = (self.spec.label, address.mark)
        return server_command(self.spec, self._installation, address.host, address.port, names, tensor)

    async def _await_ready(self, process: ServerProcess, began_s: float) -> None:
        told_s, told = began_s, ""
        while not await self._is_ready(process):
            if await process.ended(_LOOK_S):
                raise why_it_ended(self._log.text(), process.exit_code, self.spec.label, self._log.shown)
            self._stop.check()
            now_s = time.monotonic()
            if now_s - began_s > self._bounds.ready_s:
                error = why_it_ended("", None, self.spec.label, self._log.shown)
                raise ProviderDown(
                    f"{error} (--vllm-ready-s {self._bounds.ready_s:g} gives it longer if raised)"
                )
            text = self._log.text()
            doing = stage(text)
            if text and (doing != told or now_s - told_s >= _TELL_S):
                self._notice(f"vLLM, {now_s - began_s:.0f} s: {doing}: {last_line(text)}")
                told_s, told = now_s, doing

    async def _is_ready(self, process: ServerProcess) -> bool:
        if await self._probe.health(process.address, _HEALTH_S) != "well":
            return False
        models = await self._probe.models(process.address, _HEALTH_S)
        if models is None:
            return False  # it is busy, or has just ended
        if process.address.mark in models:
            self._check_context(models[process.address.mark])
            return True
        raise PortTaken(
            f"the vLLM server of {self.spec.label}: another server answers at "
            f"{process.address.endpoint.shown} (its models: {', '.join(models) or 'not told'}); "
            + self._log.shown
        )

    def _check_context(self, tokens: int | None) -> None:
        least = self.least_context
        if tokens is not None and least is not None and tokens < least:
            raise InputError(
                f"the vLLM server of {self.spec.label} has a context of {tokens} tokens, but this run was "
                f"begun with {least}: give --vllm-arg max-model-len={least}, or begin another run (--run-dir)"
            )

    async def _watch(self, process: ServerProcess) -> None:
        """Wait until it no longer answers, then end what is left of it and start the next."""
        silent_since_s: float | None = None
        while True:
            if await self._ends_or_is_suspected(process):
                break
            health = await self._probe.health(process.address, _HEALTH_S)
            now_s = time.monotonic()
            silent_since_s = (silent_since_s or now_s) if health == "silent" else None
            if health == "ill" or (silent_since_s is not None and now_s - silent_since_s > _SILENT_S):
                break
        self._process, self._dying = None, process
        self.deaths += 1
        self._begin(self._next(process, process.exit_code))

    async def _ends_or_is_suspected(self, process: ServerProcess) -> bool:
        suspected = asyncio.ensure_future(self._suspected.wait())
        ended = asyncio.ensure_future(process.ended(_WATCH_S))
        try:
            await asyncio.wait({suspected, ended}, return_when=asyncio.FIRST_COMPLETED)
            return suspected.done() or process.exit_code is not None
        finally:
            suspected.cancel()
            ended.cancel()

    async def _next(self, dead: ServerProcess, code: int | None) -> ServerProcess:
        """The start after a death, unless it would end the same or there were enough."""
        text = self._log.text()
        await dead.stop()
        self._dying = None
        how = "no longer answers" if code is None else f"ended with exit code {code}"
        error: DrpoError | None = out_of_memory(text, self.spec.label, self._log.shown)
        said = last_words(text)
        if error is None and self.deaths > self._bounds.restarts:
            error = ProviderDown(
                f"the vLLM server of {self.spec.label} {how}{': ' + said if said else ''}; it was started "
                f"again {self.deaths - 1} times, --vllm-restarts allows no more. Everything answered so far "
                f"is kept: the same command resumes; {self._log.shown}"
            )
        if error is not None:
            log.error("%s", error)
            raise error
        self._notice(f"the vLLM server of {self.spec.label} {how}; starting it again, its requests wait")
        log.warning("the server of %s %s: %s", self.spec.label, how, said)
        return await self._start()


class Managed:
    """An LLM behind a managed server. A request that the server's death has cost goes to its next start.

    client: makes the client of one start.
    """

    def __init__(self, server: ManagedServer, client: Callable[[ServerProcess], LLM]) -> None:
        self._server, self._client = server, client
        self._clients: dict[str, LLM] = {}

    async def complete(self, request: Request) -> Completion:
        while True:
            process = await self._server.running()
            mark = process.address.mark
            if mark not in self._clients:
                self._clients = {mark: self._client(process)}
            try:
                return await self._clients[mark].complete(request)
            except Transient:
                if await self._server.answers(process):
                    raise


class Servers:
    """The servers of one run, one per spec. They start one after the other, since they share the GPUs."""

    def __init__(self) -> None:
        self._servers: dict[ServerSpec, ManagedServer] = {}
        self._turn = asyncio.Lock()

    def of(self, spec: ServerSpec, make: Callable[[int, asyncio.Lock], ManagedServer]) -> ManagedServer:
        """The server of `spec`. make: gives it from its number, from 0, and the lock that orders starts."""
        if spec not in self._servers:
            self._servers[spec] = make(len(self._servers), self._turn)
        return self._servers[spec]

    async def aclose(self) -> None:
        """End all of them."""
        await asyncio.gather(*(server.aclose() for server in self._servers.values()))
