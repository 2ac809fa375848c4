"""What a measurement came to: per item, summed up, and as files that others read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.bootstrap import bootstrap_mean, bootstrap_means
from drpo.evaluation_data import Item
from drpo.jsonl import plain_lines, write_atomically
from drpo.judging.scores import Judged, Policy, Summary, by_task, by_topic, summarise
from drpo.measured import SCHEMA, SUMMARY_NAME
from drpo.rewriting.contract import Rewrite
from drpo.statistics import Estimate, Interval

ITEMS_NAME = "items.jsonl"
MOST_MISSING = 0.05
"""A larger share of items without a score makes a measurement one that nobody should believe (exit 4)."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One response and what became of it. shots: indices of the examples shown. problem: why there is no
    score. reward: of a reward model, in its own units; None where none was asked or there is no response.
    rewrite: what the base model read in place of the query; None where nothing is rewritten."""

    item: Item
    judged: Judged
    response: str | None
    finish_reason: str = ""
    shots: tuple[int, ...] = ()
    problem: str = ""
    reward: float | None = None
    rewrite: Rewrite | None = None

    def as_dict(self) -> dict[str, Any]:
        """A line of items.jsonl, with the fields of just-eval's result files among its own."""
        scored = self.judged.outcome == "scored"
        return {
            "id": self.item.id,
            "instruction": self.item.query,
            "output_cand": self.response,
            "finish_reason": self.finish_reason,
            "shots": list(self.shots),
            "safety": self.item.safety,
            "topic": list(self.item.topics),
            "task": list(self.item.tasks),
            "outcome": self.judged.outcome,
            "problem": self.problem or None,
            "result": self.problem if self.judged.outcome == "unreadable" else None,
            "parsed_result": {
                score.aspect: {
                    "reason": score.rationale,
                    "score": "N/A" if score.score is None else f"{score.score:g}",
                }
                for score in self.judged.scores
            }
            if scored
            else None,
            "reward": self.reward,
            **rewrite_fields(self.rewrite),
        }


def rewrite_fields(rewrite: Rewrite | None) -> dict[str, Any]:
    """What a line of a result file says of a rewritten query; nothing where nothing is rewritten."""
    if rewrite is None:
        return {}
    return {"rewritten": rewrite.text, "kept": rewrite.kept or None, "rounds": list(rewrite.rounds)}


def rewriting_facts(name: str | None, rewrites: Sequence[Rewrite]) -> dict[str, Any]:
    """What a summary says of the rewriter `name`: how many queries it changed, and why others stand."""
    if not rewrites:
        return {}
    kept = Counter(one.kept for one in rewrites if one.kept)
    changed = sum(one.is_changed for one in rewrites)
    return {"rewriter": {"name": name, "queries": len(rewrites), "changed": changed, "kept": dict(kept)}}


@dataclass(frozen=True, slots=True)
class Part:
    """The general or the safety queries. means: per aspect, in the order in which they are asked; overall:
    the mean of these means. Intervals are bootstrapped over the items."""

    name: str
    summary: Summary
    means: tuple[tuple[str, Estimate], ...]
    overall: Estimate
    topics: dict[str, Summary]
    tasks: dict[str, Summary]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        missing = {entry.aspect: entry.not_applicable for entry in self.summary.aspects}
        return {
            "items": self.summary.items,
            "scored": self.summary.scored,
            "unreadable": self.summary.unreadable,
            "failed": self.summary.failed,
            "not_applicable": self.summary.not_applicable,
            "mean_words": self.summary.mean_words,
            "overall": estimate_dict(self.overall),
            "aspects": {
                name: {**estimate_dict(estimate), "not_applicable": missing.get(name, 0)}
                for name, estimate in self.means
            },
            "topics": {name: _group_dict(found) for name, found in self.topics.items()},
            "tasks": {name: _group_dict(found) for name, found in self.tasks.items()},
        }


@dataclass(frozen=True, slots=True)
class Rewards:
    """What a reward model gave, in its own units. variance: of the single rewards, with n - 1."""

    model: str
    mean: Estimate
    variance: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"model": self.model, "mean": estimate_dict(self.mean), "variance": self.variance}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of `drpo evaluate`. facts: what was measured with what, as plain JSON values."""

    run_dir: Path
    facts: dict[str, Any]
    items: tuple[Answered, ...]
    parts: tuple[Part, ...]
    rewards: Rewards | None
    na: Policy
    simulated: bool
    sent: dict[str, int]

    @property
    def missing(self) -> int:
        """Items without scores (or, where no judge was asked, without a reward)."""
        if self.parts:
            return sum(not has_score(answered.judged) for answered in self.items)
        return sum(answered.reward is None for answered in self.items)

    @property
    def is_believable(self) -> bool:
        """Whether at most `MOST_MISSING` of the items have no score."""
        return self.missing <= MOST_MISSING * len(self.items)

    def as_dict(self) -> dict[str, Any]:
        """The content of summary.json."""
        return {
            "schema": SCHEMA,
            "command": "evaluate",
            "simulated": self.simulated,
            **self.facts,
            "na": self.na,
            "items": len(self.items),
            "missing": self.missing,
            **{part.name: part.as_dict() for part in self.parts},
            "reward": None if self.rewards is None else self.rewards.as_dict(),
        }


def has_score(judged: Judged) -> bool:
    """Whether the judge has scored the response on any aspect: N/A on all of them is no score."""
    return judged.outcome == "scored" and any(score.score is not None for score in judged.scores)


def part_of(
    name: str, items: Sequence[Judged], aspects: Sequence[str], na: Policy, level: float, seed: int
) -> Part:
    """Sums and intervals of the items that were asked about `aspects`."""
    summary = summarise(items, na)
    values = [_values(item, aspects, na) for item in items]
    estimates, overall = bootstrap_means(values, level, seed=seed)
    exact = {entry.aspect: entry.mean for entry in summary.aspects}
    means = tuple(
        (aspect, Estimate(exact.get(aspect), estimate.interval, estimate.count, estimate.missing))
        for aspect, estimate in zip(aspects, estimates, strict=True)
    )
    whole = Estimate(summary.overall(), overall.interval, overall.count, overall.missing)
    return Part(name, summary, means, whole, by_topic(items, na), by_task(items, na))


def rewards_of(model: str, items: Sequence[Answered], level: float, seed: int) -> Rewards:
    """Mean and variance of the rewards."""
    mean = bootstrap_mean([answered.reward for answered in items], level, seed=seed)
    had = [answered.reward for answered in items if answered.reward is not None]
    variance = None
    if len(had) > 1 and mean.mean is not None:
        variance = sum((value - mean.mean) ** 2 for value in had) / (len(had) - 1)
    return Rewards(model, mean, variance)


def write_results(run_dir: Path, items: Iterable[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Write items.jsonl, a line for each item, then summary.json, which says that the measurement is done."""
    write_atomically(run_dir / ITEMS_NAME, plain_lines(items))
    text = json.dumps(summary, ensure_ascii=False, indent=2) + "\n"
    write_atomically(run_dir / SUMMARY_NAME, text)


def estimate_dict(estimate: Estimate) -> dict[str, Any]:
    """Plain JSON values."""
    interval: Interval | None = estimate.interval
    return {
        "mean": estimate.mean,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "level": None if interval is None else interval.level,
        "count": estimate.count,
    }


def doubt(evaluation: Evaluation) -> str | None:
    """Why nobody should believe the figures, in words; None where `is_believable`."""
    if evaluation.is_believable:
        return None
    return (
        f"{evaluation.missing} of {len(evaluation.items)} items have no score, more than "
        f"{MOST_MISSING:.0%}: {_why_missing(evaluation)}"
    )


def _why_missing(evaluation: Evaluation) -> str:
    items = evaluation.items
    kinds: list[tuple[str, Callable[[Answered], bool]]] = [
        ("responses failed", lambda one: one.judged.outcome == "failed"),
        ("replies of the judge could not be read", lambda one: one.judged.outcome == "unreadable"),
        (
            "responses were N/A on every aspect",
            lambda one: (
                bool(evaluation.parts) and one.judged.outcome == "scored" and not has_score(one.judged)
            ),
        ),
    ]
    counts = [(text, [one for one in items if chosen(one)]) for text, chosen in kinds]
    told = [
        f"{len(found)} {text}" + (f" ({found[0].problem})" if found[0].problem else "")
        for text, found in counts
        if found
    ]
    return "; ".join(told)


def _values(item: Judged, aspects: Sequence[str], na: Policy) -> list[float | None]:
    scores = {score.aspect: score.score for score in item.scores}
    return [
        5.0 if na == "five" and name in scores and scores[name] is None else scores.get(name)
        for name in aspects
    ]


def _group_dict(found: Summary) -> dict[str, Any]:
    return {"items": found.items, "scored": found.scored, "overall": found.overall()}
