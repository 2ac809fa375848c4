"""What an audit found, as plain values: one check per thing that was looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, TypeAlias

from drpo.bootstrap import bootstrap_mean
from drpo.statistics import LEVEL, Interval, wilson

FEWEST = 4
"""Cases from which on a check can be flagged: what one or two say is chance, whatever their interval."""

Status: TypeAlias = Literal["ok", "unsure", "flagged", "no data"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `asked` are the cases (or pairs, responses, replies) that it is about,
    `counted` those of which it could be told, `wrong` those that went wrong.

    unit "share": value = wrong / counted, 0 to 1, with Wilson's interval. unit "points": value is a mean in
    points of the scale 1 to 5, with a bootstrap interval (None below 6 values), and `wrong` counts the values
    above the limit. limit: the highest value allowed; lower_limit: the lowest one, where there is one. cases:
    ids of the cases that went wrong, each once. by_value: flagged by the value, without its interval.
    """

    name: str
    meaning: str
    unit: Literal["share", "points"]
    asked: int
    counted: int
    wrong: int
    value: float | None
    interval: Interval | None
    limit: float
    lower_limit: float | None = None
    cases: tuple[str, ...] = ()
    by_value: bool = False

    @property
    def status(self) -> Status:
        """ "flagged": beyond the limit with evidence; "unsure": beyond it without; "no data": no value."""
        if self.value is None:
            return "no data"
        if not self._beyond(self.value, self.value):
            return "ok"
        if self.by_value or (
            self.counted >= FEWEST
            and self.interval is not None
            and self._beyond(self.interval.low, self.interval.high)
        ):
            return "flagged"
        return "unsure"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "meaning": self.meaning,
            "unit": self.unit,
            "asked": self.asked,
            "counted": self.counted,
            "wrong": self.wrong,
            "value": self.value,
            "low": None if self.interval is None else self.interval.low,
            "high": None if self.interval is None else self.interval.high,
            "limit": self.limit,
            "lower_limit": self.lower_limit,
            "status": self.status,
            "cases": list(self.cases),
            "by_value": self.by_value,
        }

    def _beyond(self, low: float, high: float) -> bool:
        return low > self.limit or (self.lower_limit is not None and high < self.lower_limit)


@dataclass(frozen=True, slots=True)
class Audit:
    """All checks in a fixed order, of which the last is on replies that could not be used."""

    cases: int
    questions: int
    checks: tuple[Check, ...]
    level: float = LEVEL

    @property
    def flagged(self) -> tuple[Check, ...]:
        """The checks for which the judge is not to be trusted; none for a judge that passes."""
        return tuple(check for check in self.checks if check.status == "flagged")

    @property
    def unsure(self) -> tuple[Check, ...]:
        """The checks beyond their limit without enough evidence."""
        return tuple(check for check in self.checks if check.status == "unsure")

    @property
    def sentence(self) -> str:
        """What it came to, in words."""
        beyond = "is beyond its limit" if len(self.flagged) == 1 else "are beyond their limits"
        told = f"{len(self.flagged)} of {len(self.checks)} checks {beyond}"
        if self.flagged:
            return f"{told}: {'; '.join(check.name for check in self.flagged)}"
        empty = sum(check.status == "no data" for check in self.checks)
        rest = [f"{len(self.unsure)} unsure"] * bool(self.unsure) + [f"{empty} without data"] * bool(empty)
        return f"no check is surely beyond its limit{' (' + ', '.join(rest) + ')' if rest else ''}"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; "flagged" and "unsure" are names of checks, in their order."""
        return {
            "sentence": self.sentence,
            "flagged": [check.name for check in self.flagged],
            "unsure": [check.name for check in self.unsure],
            "cases": self.cases,
            "questions": self.questions,
            "level": self.level,
            "checks": [check.as_dict() for check in self.checks],
        }


def read_audit(data: Mapping[str, Any]) -> Audit:
    """The audit of which `data` is `Audit.as_dict()`; KeyError or TypeError where it is not."""
    return Audit(data["cases"], data["questions"], tuple(map(_read_check, data["checks"])), data["level"])


def _read_check(data: Mapping[str, Any]) -> Check:
    low, high = data["low"], data["high"]
    return Check(
        **{name: data[name] for name in ("name", "meaning", "unit", "asked", "counted", "wrong", "value")},
        interval=None if low is None else Interval(low, high),
        limit=data["limit"],
        lower_limit=data["lower_limit"],
        cases=tuple(data["cases"]),
        by_value=data["by_value"],
    )


def share_check(
    name: str,
    meaning: str,
    limit: float,
    found: Sequence[tuple[str, bool | None]],
    *,
    lower_limit: float | None = None,
    by_value: bool = False,
) -> Check:
    """The share of what went wrong; `found`: (id of the case, whether it did, or None if untold)."""
    told = [(case, wrong) for case, wrong in found if wrong is not None]
    wrong = [case for case, is_wrong in told if is_wrong]
    return Check(
        name=name,
        meaning=meaning,
        unit="share",
        asked=len(found),
        counted=len(told),
        wrong=len(wrong),
        value=len(wrong) / len(told) if told else None,
        interval=wilson(len(wrong), len(told)) if told else None,
        limit=limit,
        lower_limit=lower_limit,
        cases=tuple(dict.fromkeys(wrong)),
        by_value=by_value,
    )


def points_check(name: str, meaning: str, limit: float, found: Sequence[tuple[str, float | None]]) -> Check:
    """The mean of points; `found`: (id of the case, its points, or None if untold)."""
    told = [(case, points) for case, points in found if points is not None]
    over = [case for case, points in told if points > limit]
    points = [value for _, value in told]
    return Check(
        name=name,
        meaning=meaning,
        unit="points",
        asked=len(found),
        counted=len(told),
        wrong=len(over),
        value=fmean(points) if points else None,
        interval=bootstrap_mean(points).interval,
        limit=limit,
        cases=tuple(dict.fromkeys(over)),
    )
