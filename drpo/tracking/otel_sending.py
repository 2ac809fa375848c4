"""Spans on their way to a collector of OpenTelemetry, where no application has its own way for them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from drpo.errors import InputError
from drpo.tracking.base import NotDelivered, import_library

_MOST_WAITING = 20_000
"""Spans; the library's own 2,048 are two seconds of a quick search."""
_MOST_EVENTS = 10_000
"""Of the run's span, which has one a level; the library's own limit is 128."""


class Sending:
    """A tracer provider of our own, which sends to a collector and knows what could not be sent."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        _refuse_other_ways(environment)
        of_traces = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        of_all = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://localhost:4318"
        self.endpoint = of_traces or f"{of_all.rstrip('/')}/v1/traces"
        self.lost = 0
        self._environment = environment
        self._words = _LastWords(logging.WARNING)
        name = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
        import_library("otel", "opentelemetry.sdk.trace", "TracerProvider")
        self._exporter: Any = import_library("otel", name, "OTLPSpanExporter").OTLPSpanExporter()
        self._provider: Any = None

    def open(self) -> Any:
        """The provider."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        told = self._environment
        # Without a handler of its own the library's warnings would stand on stderr, one for each attempt.
        logging.getLogger("opentelemetry").addHandler(self._words)
        has_name = told.get("OTEL_SERVICE_NAME") or "service.name=" in told.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        self._provider = TracerProvider(
            resource=Resource.create({} if has_name else {"service.name": "drpo"}),
            shutdown_on_exit=False,  # where a dead collector would be waited for
            span_limits=SpanLimits(
                max_events=None if told.get("OTEL_SPAN_EVENT_COUNT_LIMIT") else _MOST_EVENTS
            ),
        )
        waiting = None if told.get("OTEL_BSP_MAX_QUEUE_SIZE") else _MOST_WAITING
        exporter: Any = self  # has what an exporter must have
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=waiting))
        return self._provider

    def close(self) -> None:
        """Send what is left and end. Raises NotDelivered where anything was lost."""
        if self._provider is not None:
            self._provider.force_flush()
            self._provider.shutdown()
            logging.getLogger("opentelemetry").removeHandler(self._words)
        if self.lost:
            raise NotDelivered(f"{self.lost:,} spans were not taken by {self.endpoint}: {self._words.last}")

    def export(self, spans: Sequence[Any]) -> Any:
        """Called by the library, in a thread of its own. After a failure nothing more is tried."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        result = SpanExportResult.FAILURE
        try:
            if not self.lost:
                result = self._exporter.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self.lost += len(spans)
        return result

    def shutdown(self) -> None:
        """Called by the library at its end."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Called by the library; nothing is held back here."""
        return True


class _LastWords(logging.Handler):
    """Keeps what was logged last, for whoever has to say what went wrong."""

    last = "no reason is known"

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it, as short as it can be said."""
        said = record.getMessage()
        if "retrying" in said or self.last == _LastWords.last:
            errno = re.search(r"\[Errno [^\"')]+", said)
            self.last = errno[0] if errno else said


def _refuse_other_ways(environment: Mapping[str, str]) -> None:
    """Variables that ask for what drpo does not do would silently be without effect."""
    expected = {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    for name, wanted in expected.items():
        came = environment.get(name) or wanted
        if came != wanted:
            raise InputError(
                f"--track otel: {name}={came}: expected {wanted}, the only way in which drpo sends traces; "
                "unset it, or run drpo inside an application that has set a tracer provider"
            )
