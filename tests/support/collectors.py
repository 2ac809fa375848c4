"""Servers on loopback for what trackers send; the wire is real, and so is the decoding."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Collector:
    """What a server was sent: method, path, body."""

    url: str
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)

    @property
    def spans(self) -> list[tuple[dict[str, Any], Any]]:
        """The spans of OTLP requests, each with its resource's attributes."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found: list[tuple[dict[str, Any], Any]] = []
        for _, path, body in self.requests:
            assert path == "/v1/traces"
            for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = plain(resource_spans.resource.attributes)
                found += [(resource, span) for scope in resource_spans.scope_spans for span in scope.spans]
        return found


def plain(attributes: Any) -> dict[str, Any]:
    """The attributes of OTLP as Python values."""

    def value(any_value: Any) -> Any:
        kind = any_value.WhichOneof("value")
        if kind == "array_value":
            return [value(inner) for inner in any_value.array_value.values]
        return getattr(any_value, kind)

    return {attribute.key: value(attribute.value) for attribute in attributes}


@contextmanager
def collector(status: int = 200, *, well: tuple[str, ...] = ()) -> Iterator[Collector]:
    """A server that answers everything with `status`, but the paths in `well` with 200."""
    here = Collector("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            here.requests.append((self.command, self.path, body))
            self.send_response(200 if self.path in well else status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
