"""A lean HTTP client for the openai SDK: aiohttp below, without what chat completions do not need.

The SDK takes any `httpx2.AsyncClient`. Its own one over aiohttp goes through cookies, redirects,
authentication flows and streams on every call, which adds up when many replies arrive at once: see
`benchmarks/speed.py`. Import this module where a client is made: it loads the SDK, httpx2 and aiohttp.
"""

from __future__ import annotations

import urllib.request
from typing import Any

import aiohttp
import httpx2
import openai

_KEEPALIVE_S = 60.0  # aiohttp's 15 s would reconnect after every slow level
_CONNECT_S = 10.0
_UNDONE = (b"content-encoding", b"content-length", b"transfer-encoding")  # by aiohttp, on the way in


class LeanOpenAI(openai.AsyncOpenAI):
    """The SDK's client, which works URL and headers out once instead of for every request.

    Both methods are the SDK's inner ones. Were they to go, the requests would be the same and cost more.
    """

    def _prepare_url(self, url: str) -> httpx2.URL:
        known: dict[str, httpx2.URL] = self.__dict__.setdefault("_known_urls", {})
        if url not in known:
            known[url] = super()._prepare_url(url)
        return known[url]

    def _build_headers(self, options: Any, *, retries_taken: int = 0) -> httpx2.Headers:
        known: list[tuple[Any, httpx2.Headers]] = self.__dict__.setdefault("_known_headers", [])
        for given, built in known:
            if given == options.headers:
                return built.copy()
        built = super()._build_headers(options, retries_taken=retries_taken)
        known.append((options.headers, built))  # one entry for requests, one for embeddings
        return built.copy()


class LeanClient(httpx2.AsyncClient):
    """Posts, and reads whole replies: no redirects are followed, no cookies are kept.

    TLS roots are the system's, as the SDK takes them; proxies come from the environment. How long a request
    may take is for the caller to bound. Failures are raised as httpx2's, which the SDK expects.
    """

    def __init__(self) -> None:
        super().__init__(transport=_Unused(), trust_env=False)
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, httpx2.URL] = {}

    def build_request(self, method: str, url: Any, **parts: Any) -> httpx2.Request:
        """The request that the SDK asks for: its headers, content and query are complete."""
        parsed = self._urls.get(url)
        if parsed is None:
            parsed = self._urls[url] = httpx2.URL(url, params=parts.get("params") or None)
        return httpx2.Request(method, parsed, headers=parts.get("headers"), content=parts.get("content"))

    async def send(self, request: httpx2.Request, **_: Any) -> httpx2.Response:
        """The whole reply."""
        if self._session is None:
            self._session = new_session(request.url)
        names_and_values = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in request.headers.raw]
        post = self._session.request(
            request.method,
            str(request.url),
            headers=names_and_values,
            data=request.content,
            allow_redirects=False,
        )
        try:
            async with post as reply:
                content = await reply.read()
        except (aiohttp.NonHttpUrlClientError, aiohttp.InvalidURL) as error:
            raise httpx2.UnsupportedProtocol(str(error)) from error
        except TimeoutError as error:
            raise httpx2.ConnectTimeout(f"no connection within {_CONNECT_S:g} s") from error
        except aiohttp.ClientConnectorError as error:
            raise httpx2.ConnectError(str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.NetworkError(str(error)) from error
        headers = [pair for pair in reply.raw_headers if pair[0].lower() not in _UNDONE]
        return httpx2.Response(reply.status, headers=headers, content=content, request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        await super().aclose()
        if self._session is not None:
            await self._session.close()


class _Unused(httpx2.AsyncBaseTransport):
    """Given to the base class, which would else make a TLS context and a pool that nobody uses."""


def new_session(url: httpx2.URL) -> aiohttp.ClientSession:
    """A session for the host of `url`, with as many connections as there are requests."""
    # How many requests are in the air is decided by `limits.Slots`, never by a queue inside the transport.
    connector = aiohttp.TCPConnector(
        limit=0,
        keepalive_timeout=_KEEPALIVE_S,
        ssl=httpx2.create_ssl_context() if url.scheme == "https" else True,
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        # Not trust_env: it would look for proxies and read .netrc anew for every request.
        proxy=environment_proxy(url.scheme, url.host),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def environment_proxy(scheme: str, host: str) -> str | None:
    """The proxy for `host` by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, or the system's settings."""
    proxies = urllib.request.getproxies()
    if urllib.request.proxy_bypass(host):
        return None
    proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
