"""What the server counts, in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counts of one server. Labels hold names of its own only, so there are never more of them."""

    def __init__(self) -> None:
        self.in_work = 0
        self._left = 0
        self._requests: defaultdict[Labels, int] = defaultdict(int)
        self._tokens: defaultdict[Labels, int] = defaultdict(int)
        self._failures: defaultdict[Labels, int] = defaultdict(int)
        self._seconds: defaultdict[Labels, _Histogram] = defaultdict(_Histogram)
        self._first: defaultdict[Labels, _Histogram] = defaultdict(_Histogram)
        self._shots: defaultdict[Labels, _Histogram] = defaultdict(_Histogram)
        self._counters = {"requests": self._requests, "tokens": self._tokens, "failures": self._failures}
        self._histograms = {"seconds": self._seconds, "first": self._first, "shots": self._shots}

    def answered(self, route: str, model: str, status: int, took_s: float) -> None:
        """A request was answered. model: a name that is served, or "" where none was asked for."""
        self._requests[(("route", route), ("model", model), ("status", str(status)))] += 1
        self._seconds[(("route", route),)].add(took_s)

    def first_text(self, model: str, took_s: float) -> None:
        """The first text of a stream came so long after the request."""
        self._first[(("model", model),)].add(took_s)

    def found_shots(self, model: str, took_s: float) -> None:
        """The examples were found; not counted where they were known."""
        self._shots[(("model", model),)].add(took_s)

    def used(self, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Tokens that the model behind this server told."""
        self._tokens[(("model", model), ("kind", "prompt"))] += prompt_tokens
        self._tokens[(("model", model), ("kind", "completion"))] += completion_tokens

    def failed(self, status: int) -> None:
        """What is behind this server failed, and the client was told so by this status."""
        self._failures[(("status", str(status)),)] += 1

    def left(self) -> None:
        """A client went away before its answer was complete."""
        self._left += 1

    def as_json(self) -> dict[str, Any]:
        """What `add` takes, of a process that shares the port."""
        return {
            "in_work": self.in_work,
            "left": self._left,
            "counters": {name: list(values.items()) for name, values in self._counters.items()},
            "histograms": {
                name: [(labels, one.counts, one.sum) for labels, one in values.items()]
                for name, values in self._histograms.items()
            },
        }

    def add(self, told: Mapping[str, Any], *, runs: bool = True) -> None:
        """Count what another process has counted. runs: whether it still does; else nothing is in work."""
        self.in_work += told["in_work"] if runs else 0
        self._left += told["left"]
        for name, values in told["counters"].items():
            for labels, count in values:
                self._counters[name][_read(labels)] += count
        for name, histograms in told["histograms"].items():
            for labels, counts, total in histograms:
                self._histograms[name][_read(labels)].merge(counts, total)

    def text(self) -> str:
        """All of them."""
        lines = [
            *_counter("drpo_requests_total", "Requests answered.", self._requests),
            *_counter("drpo_tokens_total", "Tokens told by the models.", self._tokens),
            *_counter("drpo_upstream_failures_total", "Failures of the models.", self._failures),
            *_counter("drpo_clients_left_total", "Clients that left before the end.", {(): self._left}),
            *_family("drpo_requests_in_work", "gauge", "Requests in work.", [f" {self.in_work}"]),
            *_histogram("drpo_request_seconds", "Seconds until the end of an answer.", self._seconds),
            *_histogram("drpo_first_text_seconds", "Seconds until the first text of a stream.", self._first),
            *_histogram("drpo_shots_seconds", "Seconds it took to find the examples.", self._shots),
        ]
        return "\n".join(lines) + "\n"


class _Histogram:
    """Counts per bucket, their sum and number."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_SECONDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(_SECONDS, seconds)] += 1
        self.sum += seconds

    def merge(self, counts: Sequence[int], total: float) -> None:
        self.counts = [own + other for own, other in zip(self.counts, counts, strict=True)]
        self.sum += total


def _read(labels: Sequence[Sequence[str]]) -> Labels:
    return tuple((name, value) for name, value in labels)


def _family(name: str, kind: str, text: str, samples: Sequence[str]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for sample in samples:
        yield f"{name}{sample}"


def _counter(name: str, text: str, values: Mapping[Labels, int]) -> Iterator[str]:
    return _family(name, "counter", text, [f"{_labels(one)} {value}" for one, value in values.items()])


def _histogram(name: str, text: str, values: Mapping[Labels, _Histogram]) -> Iterator[str]:
    samples: list[str] = []
    for labels, histogram in values.items():
        below = 0
        for bound, count in zip((*map(str, _SECONDS), "+Inf"), histogram.counts, strict=True):
            below += count
            samples.append(f"_bucket{_labels((*labels, ('le', bound)))} {below}")
        samples.append(f"_sum{_labels(labels)} {histogram.sum:.6f}")
        samples.append(f"_count{_labels(labels)} {below}")
    return _family(name, "histogram", text, samples)


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
