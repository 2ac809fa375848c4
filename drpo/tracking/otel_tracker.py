"""Runs as traces of OpenTelemetry: a span for the run, one for each request, by the GenAI conventions.

Prompts and replies are not in them: the conventions want those asked for, and a run's directory has them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from drpo.choices import OPENAI_URL
from drpo.events import Event
from drpo.llm.ledger import CallDone
from drpo.tracking.base import Clean, RunFacts, as_text, import_library, offer, parameters
from drpo.tracking.otel_sending import Sending
from drpo.tracking.rows import Rows

_PROMPTS = ("initial_prompt", "protect")
_BILLION = 1_000_000_000
_AT = re.compile(r"@(https?://.*)$")
_ERROR_NAME = re.compile(r"[A-Za-z_][\w.]{0,99}")


@dataclass(frozen=True, slots=True)
class ModelParts:
    """A model's identity in the parts that the conventions name; no address where it is not one."""

    provider: str
    model: str
    address: str | None = None
    port: int | None = None

    @classmethod
    def of(cls, identity: str) -> ModelParts:
        """`openai/NAME@http://HOST:PORT/v1` -> openai, NAME, HOST, PORT."""
        provider, slash, name = identity.partition("/")
        if not slash:
            return cls("custom", identity)
        if provider not in ("openai", "vllm"):
            return cls(provider, "demo" if provider == "demo" else name)
        at = _AT.search(name)
        url = at[1] if at else OPENAI_URL if provider == "openai" else ""
        name = name[: at.start()] if at else name.partition("[")[0]  # vllm/REPO@REVISION[flags]
        parts = urlsplit("" if "," in url else url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        return cls(provider, name, parts.hostname, port)

    def attributes(self) -> dict[str, Any]:
        """As the conventions name them."""
        named = {
            "gen_ai.provider.name": self.provider,
            "gen_ai.request.model": self.model,
            "server.address": self.address,
            "server.port": self.port,
        }
        return {name: value for name, value in named.items() if value is not None}


def call_attributes(call: CallDone) -> dict[str, Any]:
    """The attributes of a request's span, but for those of its model."""
    usage = call.usage
    named: dict[str, Any] = {
        "gen_ai.operation.name": call.operation,
        "gen_ai.request.max_tokens": call.max_tokens,
        "gen_ai.request.temperature": call.temperature,
        "gen_ai.response.finish_reasons": call.finish_reasons or None,
        "drpo.role": call.role,
        "drpo.again": True if call.again else None,
        "drpo.usd": call.usd,
    }
    if usage is not None:
        written = usage.completion_tokens if call.operation != "embeddings" else None
        named["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        named["gen_ai.usage.output_tokens"] = written
        named["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    if call.ending != "answered":
        # Few and known: the class of error or the finish reason that drpo names, else how it ended. What a
        # server said is left out: some repeat the prompt.
        problem = call.problem or ""
        named["error.type"] = problem if _ERROR_NAME.fullmatch(problem) else call.ending
    return {name: value for name, value in named.items() if value is not None}


class OtelTracker:
    """Makes spans: with the application's tracer provider where it has set one, else with one of its own.

    The latter sends over OTLP by HTTP, to OTEL_EXPORTER_OTLP_ENDPOINT or to port 4318 of this machine. Raises
    InputError where OTEL_* variables want something else.
    """

    def __init__(self, environment: Mapping[str, str], clean: Clean) -> None:
        offer(environment, "OTEL_", {})
        trace: Any = import_library("otel", "opentelemetry.trace", "get_tracer_provider")
        self._trace, self._clean = trace, clean
        self._provider: Any = trace.get_tracer_provider()
        self._sending: Sending | None = None
        if isinstance(self._provider, trace.ProxyTracerProvider):  # nobody has set one
            self._sending = Sending(environment)
        self._models: dict[str, dict[str, Any]] = {}
        self._tracer: Any = None
        self._span: Any = None
        self._within: Any = None
        self._rows = Rows()

    @property
    def where(self) -> str:
        """The trace's id, and where it is sent."""
        context = self._span.get_span_context() if self._span is not None else None
        if context is None or not context.is_valid:
            return ""
        to = f" at {self._sending.endpoint}" if self._sending else ""
        return f"otel trace {context.trace_id:032x}{to}"

    def begin(self, run: RunFacts) -> None:
        """Begin the run's span, within the one that is current where the run is begun."""
        began_ns = time.time_ns()
        self._rows = Rows(run.spent)
        if self._sending is not None:
            self._provider = self._sending.open()
        self._tracer = self._provider.get_tracer("drpo", version("drpo"))
        attributes: dict[str, Any] = {
            "drpo.run": self._clean(run.name),
            "drpo.run_id": run.id,
            "drpo.resumed": run.resumed,
            "drpo.simulated": run.simulated,
        }
        for name, value in parameters(run):
            if name not in _PROMPTS:
                plain = value if isinstance(value, (bool, int, float)) else self._clean(as_text(value), 500)
                attributes[f"drpo.{name}"] = plain
        self._span = self._tracer.start_span(
            f"drpo {run.command}", attributes=attributes, start_time=began_ns
        )
        self._within = self._trace.set_span_in_context(self._span)

    def event(self, event: Event) -> None:
        """Note the rows that are complete now on the run's span."""
        for row in self._rows.event(event):
            kind = "level" if event.subject is None else "example"
            attributes = {f"drpo.{name}": value for name, value in row.metrics.items()}
            self._span.add_event(f"drpo.{kind}", {f"drpo.{kind}": row.step, **attributes})
        self._check()

    def call(self, call: CallDone) -> None:
        """Make the request's span, from when it was sent to when it ended."""
        self._rows.call(call)
        if call.ending == "unsent":
            return
        model = self._models.get(call.model)
        if model is None:
            parts = ModelParts.of(self._clean(call.model))
            model = self._models[call.model] = parts.attributes()
        span = self._tracer.start_span(
            f"{call.operation} {model['gen_ai.request.model']}",
            context=self._within,
            kind=self._trace.SpanKind.CLIENT,
            attributes={**model, **call_attributes(call)},
            start_time=int(call.began_s * _BILLION),
        )
        if call.ending != "answered":
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(int((call.began_s + call.took_s) * _BILLION))
        self._check()

    def end(self, state: str, results: Mapping[str, float], files: Sequence[Path]) -> None:
        """End the run's span and send what is left. Files are not sent: traces hold none."""
        self._span.set_attribute("drpo.state", state)
        for name, value in results.items():
            self._span.set_attribute(f"drpo.result.{name}", value)
        if state == "failed":
            self._span.set_attribute("error.type", state)
            self._span.set_status(self._trace.StatusCode.ERROR)
        self._span.end()
        if self._sending is not None:
            self._sending.close()

    def _check(self) -> None:
        if self._sending is not None and self._sending.lost:
            self._sending.close()
