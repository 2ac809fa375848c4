"""Where models are served, with which key, and the connections that are open to there."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    import aiohttp
    import openai

    from drpo.llm.pool import Pool

_HEADERS_LEFT_OUT = (
    *(
        f"X-Stainless-{name}"
        for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version")
    ),
    *(f"X-Stainless-{name}" for name in ("Async", "Retry-Count", "Read-Timeout")),
)


@dataclass(frozen=True)
class Endpoint:
    """Where an API begins (often ".../v1") and its key; None: none is sent, not the environment's either."""

    url: str
    api_key: str | None = field(default=None, repr=False)

    def __hash__(self) -> int:
        return hash(self.url)  # which a text remembers: every request looks its connections up

    @property
    def shown(self) -> str:
        """The URL as it may be shown: without user name, password and query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def authorization(self) -> str | None:
        """The header's value: the key, else user name and password of the URL, else None."""
        user, at, _ = urlsplit(self.url).netloc.rpartition("@")
        if self.api_key:
            return f"Bearer {self.api_key}"
        return f"Basic {b64encode(unquote(user).encode()).decode()}" if at else None


class Connections:
    """The open connections: one SDK client per endpoint and event loop, made when first asked for."""

    def __init__(self) -> None:
        self._clients: dict[tuple[asyncio.AbstractEventLoop, Endpoint], openai.AsyncOpenAI] = {}
        self._sessions: dict[tuple[asyncio.AbstractEventLoop, Endpoint], aiohttp.ClientSession] = {}
        self._pools: dict[tuple[asyncio.AbstractEventLoop, Endpoint], Pool | None] = {}

    def client(self, endpoint: Endpoint) -> openai.AsyncOpenAI:
        """The client of `endpoint` for the running event loop; it belongs to this object, who closes it."""
        key = (asyncio.get_running_loop(), endpoint)
        if (client := self._clients.get(key)) is None:
            client = self._clients[key] = _new_client(endpoint)
        return client

    def session(self, endpoint: Endpoint) -> aiohttp.ClientSession:
        """An aiohttp session, for streams where there is no pool, else as `client`."""
        key = (asyncio.get_running_loop(), endpoint)
        if (session := self._sessions.get(key)) is None:
            import httpx2

            from drpo.llm.transport import new_session

            session = self._sessions[key] = new_session(httpx2.URL(endpoint.shown))
        return session

    def pool(self, endpoint: Endpoint) -> Pool | None:
        """What gives answers at the least cost, whole or as they come, else as `client`. None where the way
        to the endpoint leads through a proxy. Raises httpx2's errors for a URL that is none."""
        key = (asyncio.get_running_loop(), endpoint)
        if key not in self._pools:
            self._pools[key] = _new_pool(endpoint)
        return self._pools[key]

    async def aclose(self) -> None:
        """Close what was opened on the running event loop. May be called twice."""
        loop = asyncio.get_running_loop()
        for key in [key for key in self._pools if key[0] is loop or key[0].is_closed()]:
            pool = self._pools.pop(key)
            if pool is not None and key[0] is loop:
                pool.close()
        for key in [key for key in self._sessions if key[0] is loop or key[0].is_closed()]:
            session = self._sessions.pop(key)
            if key[0] is loop:
                await session.close()
        for key in [key for key in self._clients if key[0] is loop or key[0].is_closed()]:
            client = self._clients.pop(key)
            if key[0] is loop:
                await client.close()


def _new_pool(endpoint: Endpoint) -> Pool | None:
    import httpx2

    from drpo.llm.pool import Pool
    from drpo.llm.transport import environment_proxy

    url = httpx2.URL(endpoint.shown)
    if environment_proxy(url.scheme, url.host) is not None:
        return None
    return Pool(url, httpx2.create_ssl_context() if url.scheme == "https" else None)


def _new_client(endpoint: Endpoint) -> openai.AsyncOpenAI:
    from drpo.llm.transport import LeanClient, LeanOpenAI

    return LeanOpenAI(
        # Without user name and password, which aiohttp refuses next to an Authorization header, and without
        # the query, to which the SDK would append the path.
        base_url=endpoint.shown,
        default_query=dict(parse_qsl(urlsplit(endpoint.url).query)),
        api_key=endpoint.api_key or "none",  # None would take the environment's
        # The key once more, because OPENAI_CUSTOM_HEADERS would override the one above.
        default_headers={"Authorization": endpoint.authorization or "Bearer none"},
        max_retries=0,
        timeout=None,
        http_client=LeanClient(),
    )


def sdk_options(endpoint: Endpoint) -> Any:
    """What the SDK need not work out anew for each request (its defaults are copied deeply every time).

    OPENAI_ORG_ID and OPENAI_PROJECT_ID are meant for OpenAI alone.
    """
    import openai

    headers: dict[str, str | openai.Omit] = dict.fromkeys(_HEADERS_LEFT_OUT, openai.Omit())
    if not endpoint.authorization:
        headers["Authorization"] = openai.Omit()
    if not (urlsplit(endpoint.url).hostname or "").endswith("openai.com"):
        headers |= {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
    return {
        "headers": headers,
        "params": {},
        "max_retries": 0,
        "timeout": None,  # each request is bounded as a whole
        "idempotency_key": "unused",
        "security": {"bearer_auth": True},
    }
