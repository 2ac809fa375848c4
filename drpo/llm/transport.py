"""A lean HTTP client for the openai SDK: aiohttp below, without what chat completions do not need.

The SDK takes any `httpx2.AsyncClient`; its own aiohttp one costs about half as much again per call (cookies,
redirects, authentication flows, streams), which many requests at once add up (`benchmarks/speed.py`). Made by a
function, because importing drpo must import neither httpx2 nor aiohttp.
"""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2

_KEEPALIVE_S = 60.0  # aiohttp's 15 s would reconnect after every slow level
_CONNECT_S = 10.0


def lean_client() -> httpx2.AsyncClient:
    """A client that posts and reads whole replies: no redirects are followed, no cookies are kept.

    TLS roots are the system's, as the SDK takes them; proxies come from the environment. How long a request may
    take is for the caller to bound. Failures are raised as httpx2's, which the SDK expects.
    """
    import aiohttp
    import httpx2

    class LeanClient(httpx2.AsyncClient):
        def __init__(self) -> None:
            super().__init__(transport=_Unused(), trust_env=False)
            self._session: aiohttp.ClientSession | None = None
            self._urls: dict[str, httpx2.URL] = {}

        def build_request(self, method: str, url: Any, **parts: Any) -> httpx2.Request:
            parsed = self._urls.get(url)
            if parsed is None:
                parsed = self._urls[url] = httpx2.URL(url, params=parts.get("params") or None)
            return httpx2.Request(method, parsed, headers=parts.get("headers"), content=parts.get("content"))

        async def send(self, request: httpx2.Request, **_: Any) -> httpx2.Response:
            if self._session is None:
                self._session = _session(request.url)
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
            post = self._session.request(
                request.method, str(request.url), headers=headers, data=request.content, allow_redirects=False
            )
            try:
                async with post as reply:
                    content = await reply.read()
            except (aiohttp.NonHttpUrlClientError, aiohttp.InvalidURL) as error:
                raise httpx2.UnsupportedProtocol(str(error)) from error
            except TimeoutError as error:
                raise httpx2.ConnectTimeout(f"no connection within {_CONNECT_S:g} s") from error
            except (aiohttp.ClientError, OSError) as error:
                raise httpx2.NetworkError(str(error)) from error
            kept = [pair for pair in reply.raw_headers if pair[0].lower() not in _ABOUT_THE_BODY]
            return httpx2.Response(reply.status, headers=kept, content=content, request=request)

        async def aclose(self) -> None:
            await super().aclose()
            if self._session is not None:
                await self._session.close()

    class _Unused(httpx2.AsyncBaseTransport):
        """The base class would make a TLS context and connection pools that nobody uses."""

    def _session(url: httpx2.URL) -> aiohttp.ClientSession:
        # How many requests are in the air is decided by `limits.Slots`, never by a queue inside the transport.
        tls = httpx2.create_ssl_context() if url.scheme == "https" else True
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S, ssl=tls)
        bounds = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
        jar = aiohttp.DummyCookieJar()
        # Not trust_env: it would look for proxies and read .netrc anew for every request.
        proxy = environment_proxy(url.scheme, url.host)
        return aiohttp.ClientSession(connector=connector, timeout=bounds, proxy=proxy, cookie_jar=jar)

    return LeanClient()


def environment_proxy(scheme: str, host: str) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY (or the system's settings) name for `host`."""
    proxies = urllib.request.getproxies()
    if urllib.request.proxy_bypass(host):
        return None
    proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


_ABOUT_THE_BODY = (b"content-encoding", b"content-length", b"transfer-encoding")  # aiohttp has undone them
