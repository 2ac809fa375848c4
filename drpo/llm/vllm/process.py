"""One start of a server: its guard, its port, key and log, and whether it answers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from drpo.errors import StorageError
from drpo.llm.connections import Endpoint

if TYPE_CHECKING:
    import aiohttp

Health = Literal["well", "ill", "silent"]

STOP_S = 8.0  # the guard asks for 3 s and ends within 4 s more; past this its processes are ended from here
LOOPBACK = "127.0.0.1"
_GUARD = Path(__file__).with_name("guard.py")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens and by which names and key it is known. `mark` is a name that no other has."""

    host: str
    port: int
    api_key: str | None = field(default=None, repr=False)
    mark: str = field(default_factory=lambda: f"drpo-{secrets.token_hex(6)}")

    @property
    def endpoint(self) -> Endpoint:
        """As requests from this machine reach it."""
        host = LOOPBACK if self.host in ("0.0.0.0", "::") else self.host
        return Endpoint(f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1", self.api_key)


def free_port(host: str = LOOPBACK) -> int:
    """A port that is free now. Whoever takes it before the server does is noticed."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def is_taken(host: str, port: int) -> bool:
    """Whether somebody listens there, so that a server could not."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # Without it a port whose server has just ended would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


class ServerProcess:
    """A running server behind its guard.

    Not one of asyncio's own processes: those are killed when their event loop is gone, and it is the guard
    that has to outlive us then.
    """

    def __init__(self, guard: subprocess.Popen[bytes], address: Address) -> None:
        self.address = address
        self._guard = guard
        self._pid: int | None = None
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = loop.create_future()
        threading.Thread(target=self._listen, args=(loop,), daemon=True).start()

    @classmethod
    def start(
        cls, command: list[str], address: Address, log: Path, environment: Mapping[str, str]
    ) -> ServerProcess:
        """Start `command` under a guard. log: where its output is added. Raises StorageError where that
        cannot be written."""
        variables = {**environment, "VLLM_NO_USAGE_STATS": environment.get("VLLM_NO_USAGE_STATS", "1")}
        variables.pop("VLLM_API_KEY", None)
        if address.api_key is not None:
            variables["VLLM_API_KEY"] = address.api_key  # not on the command line, which everyone can see
        with contextlib.ExitStack() as files:
            try:
                output = files.enter_context(log.open("ab"))
            except OSError as error:
                remedy = "Free or unlock the disk"
                raise StorageError(f"{log}: cannot be written: {error.strerror}. {remedy}") from None
            guard = subprocess.Popen(
                [sys.executable, "-P", str(_GUARD), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=variables,
                start_new_session=True,
            )
        return cls(guard, address)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of its own: the server's process id, then the guard's end."""
        assert self._guard.stdout is not None
        said = self._guard.stdout.readline().strip()
        self._pid = int(said) if said.isdigit() else None
        self._guard.wait()
        with contextlib.suppress(RuntimeError):  # the event loop is gone
            loop.call_soon_threadsafe(self._note_end)

    def _note_end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + N where signal N ended it."""
        code = self._guard.returncode
        return code if code is None or code >= 0 else 128 - code

    async def ended(self, timeout_s: float) -> bool:
        """Whether it ends within this time."""
        done, _ = await asyncio.wait({self._ended}, timeout=timeout_s)
        return bool(done)

    async def stop(self) -> None:
        """End it and everything it has started; at most about 10 s."""
        assert self._guard.stdin is not None and self._guard.stdout is not None
        with contextlib.suppress(OSError):
            self._guard.stdin.close()
        if not await self.ended(STOP_S):
            self._guard.kill()
            await self.ended(1.0)
        self._guard.stdout.close()
        self._sweep()

    def _sweep(self) -> None:
        """What a guard that was itself killed has left: the server's process group, which is ours to end."""
        if self._pid is None or (self._guard.returncode or 0) >= 0:
            return  # it ended by itself, and has left nothing
        import psutil  # which takes its time, and is needed here alone

        if any(_group_of(pid) == self._pid for pid in psutil.pids()):
            with contextlib.suppress(OSError):
                os.killpg(self._pid, signal.SIGKILL)


class Probe:
    """Asks servers how they are, over connections of its own."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def health(self, address: Address, timeout_s: float) -> Health:
        """well: it answers 200; ill: it answers otherwise, or nobody listens; silent: anything else.

        What keeps us from asking (too many open files, say) tells nothing of the server.
        """
        try:
            status, _ = await self._get(address, "/health", timeout_s)
        except ConnectionRefusedError:
            return "ill"
        except OSError:
            return "silent"
        return "well" if status == 200 else "ill"

    async def models(self, address: Address, timeout_s: float) -> dict[str, int | None] | None:
        """The names under which models are served at this address, and the context in tokens of each.

        None where no answer came in time.
        """
        try:
            status, data = await self._get(address, "/v1/models", timeout_s)
        except OSError:
            return None
        models = data.get("data") if status == 200 and isinstance(data, dict) else None
        served = [model for model in models or () if isinstance(model, dict)]
        return {str(model.get("id")): model.get("max_model_len") for model in served}

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _get(self, address: Address, path: str, timeout_s: float) -> tuple[int, Any]:
        """Status and JSON (None where it is none). Raises OSError, of which TimeoutError is one."""
        import aiohttp

        if self._session is None:
            # No connection is kept: a server that is gone must not look like one that answers late.
            connector = aiohttp.TCPConnector(force_close=True)
            self._session = aiohttp.ClientSession(connector=connector)
        url = address.endpoint.url.removesuffix("/v1") + path
        headers = {"Authorization": f"Bearer {address.api_key}"} if address.api_key else {}
        limit = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.get(url, headers=headers, timeout=limit, allow_redirects=False) as reply:
                try:
                    return reply.status, await reply.json(content_type=None)
                except ValueError:
                    return reply.status, None
        except TimeoutError:
            raise
        except aiohttp.ClientConnectorError as error:
            refused = error.os_error.errno == errno.ECONNREFUSED
            kind = ConnectionRefusedError if refused else ConnectionError
            raise kind(str(error)) from None
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from None


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None
