"""An answer of a pool as it comes: the parts of its body, and what its reader's pace does to the sender."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from drpo.llm.pool_connection import Connection, Headers

LONGEST_HELD = 256 * 1024
"""Bytes that wait for a slow reader before the server is made to wait too."""
LONGEST_ERROR = 64_000_000
"""Bytes of an answer that is read whole."""
LONGEST_REST, REST_S = 4096, 1.0
"""How much may come, and for how long, behind what the reader wanted, for the connection to be kept."""


class Stream:
    """An answer for one reader, who ends it with `close`, and with `finish` before it where nothing more is
    wanted. status, raw_headers: of its head, which has come once `begun` has returned.

    keep: takes the connection when the answer has ended.
    """

    __slots__ = (
        *("status", "raw_headers", "_connection", "_timeout_s", "_keep", "_parts", "_held"),
        *("_waiter", "_ended", "_error", "_paused", "_left"),
    )

    def __init__(self, connection: Connection, timeout_s: float, keep: Callable[[Connection], None]) -> None:
        self.status = 0
        self.raw_headers: Headers = []
        self._connection, self._timeout_s, self._keep = connection, timeout_s, keep
        self._parts: list[bytes] = []
        self._held = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: OSError | None = None
        self._ended = self._paused = self._left = False

    @property
    def headers(self) -> dict[str, str]:
        """By name in lower case; of repeated ones the last."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.raw_headers}

    async def begun(self) -> None:
        """Wait for the head. Errors as of `part`."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._more()

    async def part(self) -> bytes:
        """All that has come since the last part, never empty before the end; b"" there.

        Raises TimeoutError where nothing comes in time while the reader keeps up, ConnectionError where the
        answer breaks: both behind what had come until then.
        """
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            await self._more()
        parts, self._parts, self._held = self._parts, [], 0
        if self._paused:
            self._paused = False
            self._connection.resume(self._timeout_s)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def whole(self) -> bytes:
        """What is left of the body, for an answer that is none to be streamed. Errors as of `part`, also
        where it is not whole within the time of one part, or longer than the bound."""
        parts, length = list[bytes](), 0
        async with asyncio.timeout(self._timeout_s):
            while part := await self.part():
                parts.append(part)
                length += len(part)
                if length > LONGEST_ERROR:
                    raise ConnectionError(f"the answer is longer than {LONGEST_ERROR} bytes")
        return b"".join(parts)

    def finish(self) -> None:
        """Read no more. The connection is kept where the end of the answer follows soon."""
        self._left = True
        self._parts, self._held = [], 0
        if not self._ended:
            if self._paused:
                self._paused = False
                self._connection.resume(self._timeout_s)
            self._connection.bound(min(REST_S, self._timeout_s))

    def close(self) -> None:
        """Abort the connection where the answer has neither ended nor been finished: the server is to know
        at once that nobody listens. May be called twice."""
        if not self._ended and not self._left:
            self._left = True
            self._connection.fail("the answer was left")

    def head(self, status: int, headers: Headers) -> None:
        self.status, self.raw_headers = status, headers
        self._wake()

    def came(self, part: bytes) -> None:
        self._held += len(part)
        if self._left:
            if self._held > LONGEST_REST:
                self._connection.fail("the answer goes on behind its end")
            return
        self._parts.append(part)
        if self._held <= LONGEST_HELD:
            self._connection.bound_later(self._timeout_s)
        elif not self._paused:
            self._paused = True
            self._connection.pause()
        self._wake()

    def ended(self, error: OSError | None) -> None:
        self._ended, self._error = True, error
        if self._paused:
            self._paused = False
            self._connection.resume(self._timeout_s)
        if error is None:
            self._keep(self._connection)
        self._wake()

    async def _more(self) -> None:
        self._waiter = self._connection.loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.close()
            raise

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
