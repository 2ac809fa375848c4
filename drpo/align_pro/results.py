"""What an estimate came to: per query, summed up over queries, and as files that others read."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from drpo.align_pro.bound import Bound, Distance
from drpo.align_pro.plan import COMMAND
from drpo.align_pro.sampled import Drawn, Off, Reference, Tilted, best
from drpo.evaluation_data import Item
from drpo.measured import SCHEMA
from drpo.measuring.results import MOST_MISSING, estimate_dict
from drpo.statistics import Estimate

Kind = Literal["reference", "lambda", "best"]


@dataclass(frozen=True, slots=True)
class Tried:
    """A query as the frozen model read it, what it answered, and the rewards of these answers for the
    user's own query. problem: why there is no answer, or why some have no reward. distance: d_TV between
    these answers and the frozen model's to the query itself; None where it is not known."""

    text: str
    answers: tuple[str, ...]
    rewards: tuple[float, ...]
    problem: str = ""
    distance: Distance | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "text": self.text,
            "answers": list(self.answers),
            "rewards": list(self.rewards),
            "problem": self.problem or None,
            "distance": None
            if self.distance is None
            else {"value": self.distance.value, "error": self.distance.error},
        }


@dataclass(frozen=True, slots=True)
class Explored:
    """One query, the rewrites that were drawn of it with how often each, and an aligned policy's answers to
    it, where one was asked. kept: how many of the rewrites could not stand and are the query itself, by
    reason."""

    item: Item
    own: Tried
    rewrites: tuple[tuple[Tried, int], ...]
    kept: tuple[tuple[str, int], ...] = ()
    policy: Tried | None = None

    @property
    def drawn(self) -> tuple[Drawn, ...]:
        """The rewrites that have a reward."""
        return tuple(Drawn(one.text, n, one.rewards) for one, n in self.rewrites if one.rewards)

    @property
    def is_usable(self) -> bool:
        """Whether the query itself and some rewrite have a reward."""
        return bool(self.own.rewards and self.drawn)


@dataclass(frozen=True, slots=True)
class Weighed:
    """One query with what its rewrites are worth. reference: None where nothing could be rewarded, and then
    there are no `tilts`. chosen: per tilt the place of the rewrite that was drawn by the weights."""

    explored: Explored
    reference: Reference | None = None
    tilts: tuple[Tilted, ...] = ()
    chosen: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """A line of items.jsonl. weights and places are of the rewrites that have a reward, in their
        order."""
        one, drawn = self.explored, self.explored.drawn
        return {
            "id": one.item.id,
            "query": one.item.query,
            "own": one.own.as_dict(),
            "rewrites": [{**tried.as_dict(), "count": count} for tried, count in one.rewrites],
            "kept": dict(one.kept),
            "policy": None if one.policy is None else one.policy.as_dict(),
            "reference": None
            if self.reference is None
            else {
                "mean": self.reference.mean,
                "error": plain(self.reference.error),
                "variance": plain(self.reference.variance),
            },
            "best": best(drawn) if self.tilts else None,
            "lambdas": [
                {
                    "lambda": found.lambda_,
                    "weights": list(found.weights),
                    "chosen": place,
                    "mean": found.mean,
                    "honest": plain(found.honest),
                    "effective": found.effective,
                    "log_z": {"value": plain(found.log_z), **_off(found.log_z_off)},
                    "kl": {"value": found.kl, **_off(found.kl_off)},
                }
                for found, place in zip(self.tilts, self.chosen, strict=True)
            ],
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One point of the curve. reward: expected under the weights, averaged over queries; gain: less that of
    the query as it is. variance: of the reward of a single answer, over queries, rewrites and answers.
    win_rate: how often the answer to a rewrite drawn by the weights is better than that to the query,
    ties as halves. kl in nats, log_z: averages, with the mean of their leading biases. gap: what an
    aligned policy's reward is above. Intervals are bootstrapped over the queries; with several answers to
    a rewrite rewards are of answers that had no part in its weight.
    """

    kind: Kind
    lambda_: float
    reward: Estimate
    gain: Estimate
    variance: float | None
    win_rate: Estimate
    effective: float
    kl: Estimate
    kl_bias: float | None
    log_z: Estimate | None
    log_z_bias: float | None
    bound: Bound | None
    gap: Estimate | None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "kind": self.kind,
            "lambda": self.lambda_ if self.kind == "lambda" else None,
            "reward": estimate_dict(self.reward),
            "gain": estimate_dict(self.gain),
            "variance": plain(self.variance),
            "win_rate": estimate_dict(self.win_rate),
            "effective": self.effective,
            "kl": {**estimate_dict(self.kl), "bias": plain(self.kl_bias)},
            "log_z": None
            if self.log_z is None
            else {**estimate_dict(self.log_z), "bias": plain(self.log_z_bias)},
            "bound": None
            if self.bound is None
            else {
                "policy": self.bound.policy,
                "rewriting": self.bound.rewriting,
                "kl": self.bound.kl,
                "value": self.bound.value,
            },
            "gap": None if self.gap is None else estimate_dict(self.gap),
        }


@dataclass(frozen=True, slots=True)
class Side:
    """Rewards of answers to the users' own queries. variance: of single answers, over queries."""

    reward: Estimate
    variance: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"reward": estimate_dict(self.reward), "variance": plain(self.variance)}


@dataclass(frozen=True, slots=True)
class Estimation:
    """The result of `drpo align-pro estimate`. own: without any prompter; policy: of an aligned policy,
    where one was asked. rows: the reference prompter, each lambda from the largest, the best of the
    samples; none where no query could be rewarded."""

    run_dir: Path
    facts: dict[str, Any]
    weighed: tuple[Weighed, ...]
    own: Side
    policy: Side | None
    rows: tuple[Row, ...]
    simulated: bool
    sent: dict[str, int]

    @property
    def missing(self) -> int:
        """Queries without a reward of their own, or of any rewrite."""
        return sum(one.reference is None for one in self.weighed)

    @property
    def is_believable(self) -> bool:
        """Whether at most `MOST_MISSING` of the queries are missing."""
        return self.missing <= MOST_MISSING * len(self.weighed)

    def as_dict(self) -> dict[str, Any]:
        """The content of summary.json."""
        rewrites = [found for one in self.weighed for found in one.explored.rewrites]
        kept = Counter[str]()
        for one in self.weighed:
            kept.update(dict(one.explored.kept))
        return {
            "schema": SCHEMA,
            "command": COMMAND,
            "simulated": self.simulated,
            **self.facts,
            "items": len(self.weighed),
            "missing": self.missing,
            "rewrites": {
                "drawn": sum(count for _, count in rewrites),
                "different": len(rewrites),
                "unrewarded": sum(count for tried, count in rewrites if not tried.rewards),
                "kept": dict(kept),
            },
            "own": self.own.as_dict(),
            "policy": None if self.policy is None else self.policy.as_dict(),
            "rows": [row.as_dict() for row in self.rows],
        }


def doubt(estimation: Estimation) -> str | None:
    """Why nobody should believe the figures, in words; None where `is_believable`."""
    if estimation.is_believable:
        return None
    missing = [one.explored for one in estimation.weighed if one.reference is None]
    tried = [found for one in missing for found in (one.own, *(tried for tried, _ in one.rewrites))]
    why = next((f" ({found.problem})" for found in tried if found.problem), "")
    return (
        f"{len(missing)} of {len(estimation.weighed)} queries have no reward of their own or of any rewrite"
        f"{why}, more than {MOST_MISSING:.0%}"
    )


def plain(value: float | None) -> float | None:
    """A number that JSON can hold; None for what is none."""
    return value if value is not None and math.isfinite(value) else None


def _off(off: Off | None) -> dict[str, float | None]:
    return {"bias": None, "error": None} if off is None else {"bias": off.bias, "error": off.error}
