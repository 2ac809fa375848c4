"""A streamed answer over an aiohttp session, for where the way leads through a proxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import aiohttp

_CONNECT_S = 10


class SessionStream:
    """An answer for one reader, who ends it with `close`; the methods are as of `pool_stream.Stream`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, in any case."""
        return self._response.headers

    async def part(self) -> bytes:
        """All that has come since the last part; b"" at the end. Errors are TimeoutError and OSError."""
        with _as_os_errors():
            return await self._response.content.readany()

    async def whole(self) -> bytes:
        """What is left of the body."""
        with _as_os_errors():
            return await self._response.read()

    def finish(self) -> None:
        """Read no more."""
        self._response.close()

    def close(self) -> None:
        """Close the connection where the answer has not ended. May be called twice."""
        self._response.close()


async def post_in_session(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float
) -> SessionStream:
    """The answer from when its head has come. Between two parts at most `timeout_s` may pass."""
    with _as_os_errors():
        bound = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=timeout_s)
        return SessionStream(
            await session.post(url, data=body, headers=headers, timeout=bound, allow_redirects=False)
        )


@contextmanager
def _as_os_errors() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error) or type(error).__name__) from error
