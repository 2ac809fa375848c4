"""What a client's bytes say: heads, bodies and their ends, each within bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools

from drpo.serving.door import Scope
from drpo.serving.errors import Refusal

LONGEST_HEAD = 64 * 1024
"""Bytes of a request before its body; also of what may come behind it or between its parts."""
_ASGI = {"version": "3.0", "spec_version": "2.3"}
_LONGEST_KEPT = 200
"""Bytes of an address that is remembered: few of them are asked for."""
_OF_UPGRADES = (b"upgrade", b"http2-settings")
Header = tuple[bytes, bytes]


class Head(NamedTuple):
    """The head of a request. scope: of ASGI, without who talks to whom. keeps: the connection may stay. asks:
    whether to send the body: the client waits for 100 Continue."""

    scope: Scope
    keeps: bool
    asks: bool


class Reader:
    """Reads the requests of one connection, on httptools' parser. in_head: a head has begun and not ended.

    came: takes each head; part: each part of a body; whole: called at the end of one.
    """

    def __init__(
        self, came: Callable[[Head], None], part: Callable[[bytes], None], whole: Callable[[], None]
    ) -> None:
        self.in_head = False
        self._came, self._part, self._whole = came, part, whole
        self._parser = self._new_parser()
        self._url = b""
        self._headers: list[Header] = []
        self._asks = self._in_body = self._fed = False
        self._head_bytes = self._barren_bytes = self._begun = 0

    def feed(self, data: bytes) -> None:
        """Read on. Raises Refusal (400, 431) where there is nothing to be read behind what came before."""
        in_head, in_body, length = self.in_head, self._in_body, len(data)
        self._begun, self._fed = 0, False
        while True:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                raise Refusal(400, "this is no HTTP request that can be read") from None
        if self.in_head and not in_body and self._begun == (0 if in_head else 1):
            # Else another request ended in these bytes, and what is of this one cannot be told.
            self._head_bytes += length
            if self._head_bytes > LONGEST_HEAD:
                raise Refusal(431, f"the head of the request is longer than {LONGEST_HEAD} bytes")
        elif self._in_body:
            self._barren_bytes = 0 if self._fed else self._barren_bytes + length
            if self._barren_bytes > LONGEST_HEAD:
                raise Refusal(431, f"more than {LONGEST_HEAD} bytes that are no part of the body")

    def close(self) -> None:
        """Let go of the parser, which holds this object as this holds it."""
        del self._parser

    def on_message_begin(self) -> None:
        self.in_head, self._head_bytes = True, 0
        self._url, self._headers, self._asks = b"", [], False
        self._begun += 1

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_head:
            return  # a trailer
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._asks = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser.should_upgrade():
            if parser.get_method() == b"CONNECT":
                raise ValueError("expected a request to this server")
            return
        self.in_head, self._in_body, self._barren_bytes = False, True, 0
        version = parser.get_http_version()
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "scheme": "http",
            "root_path": "",
            "method": parser.get_method().decode("ascii"),
            "headers": self._headers,
            **(_address if len(self._url) < _LONGEST_KEPT else _address.__wrapped__)(self._url),
        }
        self._came(Head(scope, version == "1.1" and parser.should_keep_alive(), self._asks))

    def on_body(self, body: bytes) -> None:
        self._fed = True
        self._part(body)

    def on_message_complete(self) -> None:
        if self._in_body:
            self._in_body = False
            self._whole()

    def _without_upgrade(self) -> bytes:
        """Another protocol is asked for in vain, and the request is read as if it were not: the parser, which
        would leave out its body, gets the head once more without those headers."""
        method, version = self._parser.get_method(), self._parser.get_http_version().encode("ascii")
        self._parser = self._new_parser()
        return _head(b"%b %b HTTP/%b" % (method, self._url, version), self._headers)

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # Who ends a request by `Connection: close` and sends on all the same still has its answer.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser


def _head(request_line: bytes, headers: Iterable[Header]) -> bytes:
    lines = [request_line]
    for name, value in headers:
        if name == b"connection":
            kept = [word for word in value.split(b",") if word.strip().lower() not in _OF_UPGRADES]
            lines.append(b"connection: " + b",".join(kept))
        elif name not in _OF_UPGRADES:
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join(lines) + b"\r\n\r\n"


@lru_cache(maxsize=64)
def _address(url: bytes) -> Mapping[str, Any]:
    """What a request line names. Raises httptools' and decoding errors for what is no address."""
    parts = httptools.parse_url(url)
    raw = parts.path or b"/"
    path = raw.decode("ascii")
    return {
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw,
        "query_string": parts.query or b"",
    }
