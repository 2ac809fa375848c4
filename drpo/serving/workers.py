"""Several processes that serve at one port, and this one, which looks after them.

Each worker is a server of its own at the same port: the system gives each its share of the connections. One
that dies is replaced; a signal to this process ends all of them, their running answers first. What /metrics
tells is the sum over all, whoever is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drpo.another_python import can_start, command_of
from drpo.config_use import ServeConfig
from drpo.errors import DrpoError, InputError, Interrupted, ProviderDown
from drpo.live import Notice
from drpo.plan import digest_of
from drpo.serving.listening import SharedPort
from drpo.serving.metrics import Metrics
from drpo.serving.running import Seldom, ending_words, signals
from drpo.serving.worker import LONGEST_LINE, line
from drpo.use.plan import UsePlan

_COUNT_S = 2.0
"""How long a worker may take to tell its counts; then those it told last are taken."""
_END_S = 5.0
"""How long a worker that was told to end at once may take."""
_LONGEST_REST_S = 30.0
_WELL_S = 60.0
"""A worker that served so long was well: the next one is started at once."""


@dataclass(frozen=True, slots=True)
class Team:
    """What the workers are. arguments: as `serve_plans` takes them."""

    arguments: Sequence[str]
    plans: Mapping[str, UsePlan]
    config: ServeConfig

    def told(self) -> dict[str, Any]:
        """What each of them is told at its beginning; no key is in it."""
        part = -(-self.config.max_waiting // self.config.workers)
        settings = self.config.model_copy(update={"max_waiting": part})
        return {
            "arguments": list(self.arguments),
            "settings": settings.model_dump(mode="json", exclude_unset=True),
            "digests": {name: digest_of(plan.identity) for name, plan in self.plans.items()},
        }


def refuse_workers(plans: Mapping[str, UsePlan], config: ServeConfig) -> None:
    """Raise InputError where several processes cannot serve this."""
    if config.workers == 1:
        return
    if not hasattr(socket, "AF_UNIX") or not can_start():
        raise InputError(f"--workers {config.workers}: cannot be had on this system; leave it out")
    for plan in plans.values():
        for choice in plan.models.values():
            if choice.server is not None or choice.provider == "local":
                raise InputError(
                    f"--workers {config.workers}: each process would load {choice.name} for itself; start it "
                    f"by `drpo models serve`, and name it with its address: vllm/{choice.name}@URL"
                )


async def serve_by_workers(team: Team, port: SharedPort, notice: Notice, ready: Callable[[], None]) -> None:
    """Serve as `running.serve` does, by as many processes as `port` is for. ready: called when all of them
    are.

    Raises what a worker could not begin for; later it is told, and tried again.
    """
    own = asyncio.current_task()
    assert own is not None
    tell = Seldom(notice)  # all of them say the same
    keeper = _Keeper(team, port, tell, ready)

    def asked_to_stop() -> None:
        if not keeper.all_ready or keeper.ending:
            own.cancel()
            return
        tell(ending_words(team.config.grace_s))
        keeper.end()

    try:
        with signals(asked_to_stop):
            await keeper.run()
    except asyncio.CancelledError:
        raise Interrupted("ended at once") from None


class _Keeper:
    """Starts the workers, hears them, and sees them end."""

    def __init__(self, team: Team, port: SharedPort, notice: Notice, ready: Callable[[], None]) -> None:
        self._told, self._port = team.told(), port
        self._notice, self._ready = notice, ready
        self._workers: dict[int, _Worker] = {}
        self._gone = Metrics()
        self._answering = set[asyncio.Task[None]]()
        self._ending = asyncio.Event()
        self.all_ready = False

    @property
    def ending(self) -> bool:
        """Whether the workers have been told to end."""
        return self._ending.is_set()

    async def run(self) -> None:
        """Until all of them have ended."""
        keeping = [asyncio.create_task(self._keep(number)) for number in range(len(self._port))]
        try:
            await asyncio.gather(*keeping)
        finally:
            for task in (*keeping, *self._answering):
                task.cancel()
            await asyncio.gather(*keeping, *self._answering, return_exceptions=True)
            self._port.close()

    def end(self) -> None:
        """Let each of them end its running answers, and nobody new in."""
        self._ending.set()
        self._port.close()
        for worker in self._workers.values():
            worker.say("end")

    async def _keep(self, number: int) -> None:
        """One worker, and the next where it dies."""
        loop = asyncio.get_running_loop()
        rest_s = 0.5
        while True:
            began_s = loop.time()
            was_ready, ended = await self._work(number)
            if self._ending.is_set():
                return
            if not self.all_ready:
                raise ended
            rest_s = 0.5 if loop.time() - began_s > _WELL_S else min(2 * rest_s, _LONGEST_REST_S)
            then = "another takes its place" if was_ready else f"tried again in {rest_s:g} s"
            self._notice(f"{ended}; {then}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), rest_s)
                return

    async def _work(self, number: int) -> tuple[bool, DrpoError]:
        """Whether a worker came to serve, and how it ended."""
        try:
            worker = await _started(number, self._port.of(number), self._told)
        except DrpoError as error:
            return False, error
        self._workers[number] = worker
        try:
            if self._ending.is_set():
                worker.say("end")
            await worker.hear(self._heard)
            if not worker.is_ready:
                self._port.leave(number)
            return worker.is_ready, worker.failed(await worker.process.wait())
        finally:
            await worker.gone()
            self._gone.add(worker.counts, runs=False)
            del self._workers[number]

    def _heard(self, worker: _Worker, said: Mapping[str, Any]) -> None:
        match said:
            case {"kind": "ready"}:
                worker.is_ready = True
                everyone = [self._workers.get(number) for number in range(len(self._port))]
                if not self.all_ready and all(one is not None and one.is_ready for one in everyone):
                    self.all_ready = True
                    self._ready()
            case {"kind": "notice", "message": message}:
                self._notice(message)
            case {"kind": "asks", "number": number}:
                task = asyncio.create_task(self._answer(worker, number))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    async def _answer(self, asker: _Worker, number: int) -> None:
        """Tell one of them what all have counted."""
        if counting := [worker.count() for worker in self._workers.values()]:
            await asyncio.wait(counting, timeout=_COUNT_S)
        counts = [worker.counts for worker in self._workers.values()]
        asker.say("total", number=number, counts=[*counts, self._gone.as_json()])


class _Worker:
    """One process, seen from here. counts: what it told last."""

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._name = f"worker {number + 1}"
        self._reader, self._writer = reader, writer
        self._counting: deque[asyncio.Future[None]] = deque()
        self._failure: DrpoError | None = None
        self.process = process
        self.counts: Mapping[str, Any] = Metrics().as_json()
        self.is_ready = False

    def say(self, kind: str, **facts: Any) -> None:
        if not self._writer.is_closing():
            self._writer.write(line(kind, **facts))

    def count(self) -> asyncio.Future[None]:
        """Done when `counts` are new."""
        asked = asyncio.get_running_loop().create_future()
        if self.is_ready:
            self._counting.append(asked)
            self.say("count")
        else:
            asked.set_result(None)
        return asked

    async def hear(self, tell: Callable[[_Worker, Mapping[str, Any]], None]) -> None:
        """Whatever it says, until it says no more."""
        while said := await self._line():
            match json.loads(said):
                case {"kind": "counts", "counts": counts}:
                    self.counts = counts
                    if self._counting:
                        _done(self._counting.popleft())
                case {"kind": "last", "counts": counts}:
                    self.counts = counts
                case {"kind": "failed", "message": message, "code": code}:
                    kinds = (kind for kind in DrpoError.__subclasses__() if kind.exit_code == code)
                    self._failure = next(kinds, DrpoError)(message)
                case told:
                    tell(self, told)

    def failed(self, code: int) -> DrpoError:
        """Why it ended."""
        if self._failure is not None:
            return self._failure
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return ProviderDown(f"{self._name} ended {how}")

    async def gone(self) -> None:
        """See it end, by force where it takes its time."""
        for asked in self._counting:
            _done(asked)
        self.say("end")  # the second time: at once
        try:
            await asyncio.wait_for(self.process.wait(), _END_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        self._writer.close()

    async def _line(self) -> bytes:
        with contextlib.suppress(ConnectionError):
            return await self._reader.readline()
        return b""


async def _started(number: int, listening: socket.socket, told: Mapping[str, Any]) -> _Worker:
    """A worker that knows what to serve. It is in no group to which a terminal sends Ctrl-C."""
    here, there = socket.socketpair()
    try:
        with there:
            process = await asyncio.create_subprocess_exec(
                *command_of("drpo.serving.worker"),
                stdin=there.fileno(),
                stdout=subprocess.DEVNULL,
                pass_fds=[listening.fileno()],
                start_new_session=True,
            )
    except OSError as error:
        here.close()
        raise ProviderDown(f"worker {number + 1} cannot be started: {error.strerror}") from None
    reader, writer = await asyncio.open_unix_connection(sock=here, limit=LONGEST_LINE)
    worker = _Worker(number, process, reader, writer)
    worker.say("start", listening=listening.fileno(), **told)
    return worker


def _done(asked: asyncio.Future[None]) -> None:
    if not asked.done():
        asked.set_result(None)
