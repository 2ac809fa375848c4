"""One of several processes that serve at one port: `drpo.serving.workers` starts it.

What stands on its stdin is a socket, over which JSON lines go both ways: what to serve, and later what the
others have counted, to it; that it is ready, what there is to tell and what it has counted, from it. Where
nobody is at the other end any more, it ends as at a signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

from drpo.config_use import ServeConfig
from drpo.errors import DrpoError, RunConflict
from drpo.plan import digest_of
from drpo.serving.metrics import Metrics
from drpo.serving.plan import client_key, serve_plans
from drpo.serving.running import Keeper, run_loop, serve
from drpo.settings import environment
from drpo.use.plan import UsePlan

LONGEST_LINE = 16_000_000
"""Bytes of a line between the processes: a bound for what is read, far above what is said."""


def main() -> None:
    """Serve until the one who started this says so, or is gone."""
    with contextlib.suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whether the server ends is for the other one to say
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as link:
        sys.exit(run_loop(_work(link)))


async def _work(link: socket.socket) -> int:
    """The exit code."""
    reader, writer = await asyncio.open_unix_connection(sock=link, limit=LONGEST_LINE)
    voice = _Voice(writer)
    try:
        told = json.loads(await reader.readline())
        listening = socket.socket(fileno=told["listening"])
        config = ServeConfig.model_validate(told["settings"])
        env = environment()
        plans = serve_plans(told["arguments"], config, env)
        _refuse_others(plans, told["digests"])
        hearing = asyncio.create_task(_hear(reader, voice))
        keeper = Keeper(voice.notice, voice.ready, voice.metrics, voice.total)
        await serve(plans, config, env, listening, client_key(config, env), keeper)
        hearing.cancel()
    except DrpoError as error:
        voice.say("failed", message=str(error), code=error.exit_code)
        return error.exit_code
    finally:
        voice.say("last", counts=voice.metrics.as_json())
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return 0


class _Voice:
    """What this process says."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._asked: dict[int, asyncio.Future[list[Mapping[str, Any]]]] = {}
        self._number = 0
        self.metrics = Metrics()

    def say(self, kind: str, **facts: Any) -> None:
        if not self._writer.is_closing():
            self._writer.write(line(kind, **facts))

    def notice(self, message: str) -> None:
        self.say("notice", message=message)

    def ready(self) -> None:
        self.say("ready")

    async def total(self) -> Metrics:
        """What all processes have counted."""
        self._number += 1
        number = self._number
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        self.say("asks", number=number)
        found = Metrics()
        try:
            for counts in await asked:
                found.add(counts)
        finally:
            del self._asked[number]
        return found

    def told(self, number: int, counts: list[Mapping[str, Any]]) -> None:
        if (asked := self._asked.get(number)) is not None and not asked.done():
            asked.set_result(counts)


async def _hear(reader: asyncio.StreamReader, voice: _Voice) -> None:
    while said := await reader.readline():
        match json.loads(said):
            case {"kind": "end"}:
                os.kill(os.getpid(), signal.SIGTERM)
            case {"kind": "count"}:
                voice.say("counts", counts=voice.metrics.as_json())
            case {"kind": "total", "number": number, "counts": counts}:
                voice.told(number, counts)
    os.kill(os.getpid(), signal.SIGTERM)


def _refuse_others(plans: Mapping[str, UsePlan], digests: Mapping[str, str]) -> None:
    """All processes serve the same, one that takes another's place too."""
    for name, plan in plans.items():
        if digests.get(name) != digest_of(plan.identity):
            raise RunConflict(f"{name}: has changed since the server was started; start the server again")


def line(kind: str, **facts: Any) -> bytes:
    """What one process says to the other."""
    return json.dumps({"kind": kind, **facts}).encode("ascii") + b"\n"


if __name__ == "__main__":
    main()
