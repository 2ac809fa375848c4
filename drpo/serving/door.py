"""Who may come in, and with how much: host, key, type and size of a body, and the time it may take."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from drpo.serving.errors import ClientLeft, Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

WHOLE = "drpo.whole"
"""Where in its scope a request has its body, if that has come before the application asked for it."""
_THROWN_AWAY = 8_000_000
"""Bytes of a body too long that are read and thrown away, so that its sender comes to read the answer."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a client may send, and how long it may take, in seconds."""

    body_bytes: int
    request_s: float


class Door:
    """Whom the server answers. api_key: what all but /health asks for; None: this machine's own users, who
    name it by an address or as localhost (a page from elsewhere cannot)."""

    def __init__(self, api_key: str | None) -> None:
        self._digest = None if api_key is None else _digest(api_key.encode())

    @property
    def keyed(self) -> bool:
        """Whether clients need a key."""
        return self._digest is not None

    def check(self, scope: Scope) -> None:
        """Raise Refusal for whom it does not let in."""
        if scope["path"] == "/health":
            return
        if self._digest is None:
            host = _header(scope, b"host") or b""
            if not _is_address(host):
                message = "without --api-key-env this server is asked at 127.0.0.1, [::1] or localhost only"
                raise Refusal(421, message, code="unknown_host")
            return
        given = _header(scope, b"authorization") or b""
        scheme, _, key = given.partition(b" ")
        # Digests, or the time that a comparison takes would tell how long the key is.
        right = hmac.compare_digest(_digest(key.strip()), self._digest)
        if scheme.lower() != b"bearer" or not right:
            message = "this server asks for its API key, as a bearer token"
            headers = (("www-authenticate", "Bearer"),)
            raise Refusal(401, message, code="invalid_api_key", headers=headers)


def require_json(scope: Scope) -> None:
    """Raise Refusal (415) for a body that is no JSON by its headers. A page of a browser cannot send this
    type to another site without asking first."""
    if not _is_json(_header(scope, b"content-type") or b""):
        raise Refusal(415, "expected the header Content-Type: application/json")
    if (_header(scope, b"content-encoding") or b"identity").lower() != b"identity":
        raise Refusal(415, "expected a body that is not compressed")


async def read_body(scope: Scope, receive: Receive, bounds: Bounds) -> bytes:
    """The whole body. Raises Refusal (413, 408), and ClientLeft where its sender went away."""
    announced = _length(_header(scope, b"content-length"))
    if announced > bounds.body_bytes and (announced > _THROWN_AWAY or _header(scope, b"expect")):
        raise _too_large(bounds)
    whole: bytes | None = scope.get(WHOLE)
    if whole is not None and len(whole) <= bounds.body_bytes:
        return whole
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(bounds.request_s):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                part: bytes = message.get("body", b"")
                size += len(part)
                if size <= bounds.body_bytes:
                    parts.append(part)
                elif size > max(_THROWN_AWAY, bounds.body_bytes):
                    raise _too_large(bounds)
                more = message.get("more_body", False)
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {bounds.request_s:g} s") from None
    if size > bounds.body_bytes:
        raise _too_large(bounds)
    return b"".join(parts)


async def respond(
    send: Send, status: int, body: bytes, kind: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send a whole answer."""
    length = str(len(body)).encode()
    all_headers = [(b"content-type", kind), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, refusal: Refusal) -> None:
    """Send an error."""
    await respond(send, refusal.status, refusal.as_json(), b"application/json", refusal.all_headers())


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _too_large(bounds: Bounds) -> Refusal:
    return Refusal(413, f"the body is longer than {bounds.body_bytes} bytes", code="request_too_large")


@lru_cache(maxsize=64)
def _is_json(kind: bytes) -> bool:
    name, _, parameters = kind.decode("latin-1").partition(";")
    charset = parameters.strip().lower().replace('"', "").removeprefix("charset=")
    return name.strip().lower() == "application/json" and charset in ("", "utf-8", "utf8")


@lru_cache(maxsize=64)
def _is_address(host: bytes) -> bool:
    name = host.decode("latin-1").strip()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") <= 1:
        name = name.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower() == "localhost"
    return True


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            found: bytes = value
            return found
    return None


def _length(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() and len(value) < 19 else 0


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
