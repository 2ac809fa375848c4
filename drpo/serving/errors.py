"""What goes wrong, in OpenAI's shape: without keys, without addresses of what is behind this server."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from drpo.errors import DrpoError, ParameterRefused, ProviderDown, ProviderRefused, Stopped
from drpo.llm.faults import one_line
from drpo.llm.retry import Transient, Unconnected

CONTEXT_EXCEEDED = "context_length_exceeded"
BUSY_RETRY_S = 1.0
"""What a client is told to wait where nobody knows better."""
_ADDRESS = re.compile(
    r"\b[a-z][a-z0-9+.\-]*://\S+|\[[0-9a-f:.]*:[0-9a-f:.]*\](?::\d+)?|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?"
    r"|\b(?:localhost|host)[: ]\S*\d",
    re.IGNORECASE,
)


@dataclass(eq=False)
class Refusal(Exception):
    """An answer that is an error. param: the field of the request that it is about."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def kind(self) -> str:
        """OpenAI's type of error."""
        if self.status == 429:
            return "insufficient_quota" if self.code == "insufficient_quota" else "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def as_dict(self) -> dict[str, Any]:
        """The body of the answer, and of the event that ends a stream."""
        said = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": said}

    def as_json(self) -> bytes:
        """The same as bytes, all ASCII."""
        return json.dumps(self.as_dict()).encode("ascii")

    def as_http(self) -> bytes:
        """A whole answer, after which the connection ends: for what no application gets to see."""
        body = self.as_json()
        headers = [(b"date", formatdate(usegmt=True).encode("ascii"))]
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}".encode("ascii")]
        lines += [b"%b: %b" % header for header in (*headers, (b"connection", b"close"), *self.all_headers())]
        return b"\r\n".join([*lines, b"", body])

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """What goes with the body; names in lower case."""
        found = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]
        if self.retry_after_s is not None:
            found.append((b"retry-after", str(max(1, math.ceil(self.retry_after_s))).encode()))
        return found


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


def too_long(reason: str) -> Refusal:
    """The refusal of a conversation that does not fit the model's context."""
    return Refusal(400, reason, "messages", CONTEXT_EXCEEDED)


def refusal_of(error: DrpoError | TimeoutError, hosts: Sequence[str] = ()) -> Refusal:
    """What a client is told of a failure behind this server. hosts: names that it must not learn."""
    if isinstance(error, TimeoutError):
        return Refusal(504, "the model gave no answer in time", code="upstream_timeout")
    if isinstance(error, ParameterRefused):
        name = error.parameter
        message = f"{name}: the model behind this server takes no such setting; leave it out"
        return Refusal(400, message, name, "unsupported_parameter")
    if isinstance(error, ProviderRefused):
        return _refused(error, hosts)
    if isinstance(error, Unconnected):
        return Refusal(502, "the model behind this server cannot be reached", code="upstream_unreachable")
    if isinstance(error, Transient):
        return _passing(error)
    if isinstance(error, (ProviderDown, Stopped)):
        message = "the model behind this server is not there at the moment"
        return Refusal(503, message, code="upstream_down", retry_after_s=5.0)
    return Refusal(502, "what this server needs for an answer does not work", code="upstream_error")


def _refused(error: ProviderRefused, hosts: Sequence[str]) -> Refusal:
    if error.status in (400, 413, 422):
        said = without_addresses(error.said, hosts) or "no reason was given"
        return Refusal(400, f"the model did not take the request: {said}", code="upstream_refused")
    if error.status == 402 or error.status == 429:
        return Refusal(429, "the account behind this server has no credit left", code="insufficient_quota")
    if error.status in (401, 403):
        message = "the model behind this server does not accept this server's own key"
        return Refusal(502, message, code="upstream_key")
    if error.status == 404:
        message = "what stands behind this server does not know the model any more"
        return Refusal(502, message, code="upstream_model")
    return Refusal(502, "the model behind this server refused the request", code="upstream_refused")


def _passing(error: Transient) -> Refusal:
    wait_s = BUSY_RETRY_S if error.retry_after_s is None else error.retry_after_s
    if error.status == 429:
        return Refusal(429, "the model is asked too much at the moment", None, "rate_limit_exceeded", wait_s)
    if error.status in (503, 529):
        return Refusal(503, "the model is overloaded at the moment", None, "upstream_overloaded", wait_s)
    if error.status in (408, 504, 524):
        return Refusal(504, "the model gave no answer in time", code="upstream_timeout")
    return Refusal(502, "the model gave no answer that can be read", code="upstream_error")


def without_addresses(text: str, hosts: Sequence[str] = ()) -> str:
    """A server's words in one line, fit for strangers: no key, no URL, no host."""
    for host in sorted(filter(None, hosts), key=len, reverse=True):
        text = re.sub(re.escape(host), "[address]", text, flags=re.IGNORECASE)
    return one_line(_ADDRESS.sub("[address]", text), None)
