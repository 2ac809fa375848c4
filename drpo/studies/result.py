"""What a study came to: its rows with their figures, what failed, what it cost, as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.errors import DrpoError
from drpo.measuring.results import Evaluation
from drpo.statistics import Estimate
from drpo.studies.cells import Row, Study
from drpo.studies.figures import GENERAL, SAFETY, PartFigures, difference, part_figures, variance_of, wins

SCHEMA = 1
_DIGITS = 6
"""Of a figure in JSON: beyond them machines differ in how they add up."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Requests answered, and dollars; None where a price is unknown."""

    calls: int = 0
    usd: float | None = 0.0

    def __add__(self, other: Cost) -> Cost:
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Cost(self.calls + other.calls, usd)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"calls": self.calls, "usd": None if self.usd is None else round(self.usd, _DIGITS)}


@dataclass(frozen=True, slots=True)
class Measured:
    """A cell that was evaluated. searches: its search, and the one that made its examples, if any; each is
    (name of the run, cost). prompts: how many its search has tried, each counted once a query.
    kept_initial: its validation has handed the initial prompt over."""

    evaluation: Evaluation
    searches: tuple[tuple[str, Cost], ...]
    cost: Cost
    prompts: int = 0
    kept_initial: bool = False


@dataclass(frozen=True, slots=True)
class Missing:
    """A cell that has no figures, and why."""

    error: DrpoError


Outcome = Measured | Missing


@dataclass(frozen=True, slots=True)
class RowFigures:
    """A row and what its cells came to. general and safety: None where nothing was measured. difference: to
    the row `row.against`, over the general queries; wins: how often a query scores higher than there."""

    row: Row
    outcomes: tuple[Outcome, ...]
    general: PartFigures | None
    safety: PartFigures | None
    difference: Estimate | None = None
    wins: Estimate | None = None

    @property
    def measured(self) -> tuple[Measured, ...]:
        """Its cells that have figures."""
        return tuple(outcome for outcome in self.outcomes if isinstance(outcome, Measured))

    @property
    def failures(self) -> tuple[DrpoError, ...]:
        """Why the others have none."""
        return tuple(outcome.error for outcome in self.outcomes if isinstance(outcome, Missing))


@dataclass(frozen=True, slots=True)
class StudyResult:
    """The result of one study. folder: where table.md, table.json and plot.svg are. facts: what was measured
    with what. plotted: whether the plot could be drawn, which takes matplotlib."""

    study: Study
    rows: tuple[RowFigures, ...]
    facts: dict[str, Any]
    simulated: bool
    folder: Path
    plotted: bool = True

    @property
    def failures(self) -> tuple[DrpoError, ...]:
        """Why cells have no figures, in the order of the table."""
        return tuple(error for row in self.rows for error in row.failures)

    @property
    def runs(self) -> dict[str, Cost]:
        """What each search and evaluation of the table cost, each once."""
        found: dict[str, Cost] = {}
        for measured in (one for row in self.rows for one in row.measured):
            found.update(measured.searches)
            found[measured.evaluation.run_dir.name] = measured.cost
        return found

    def as_dict(self) -> dict[str, Any]:
        """The content of table.json."""
        total = sum(self.runs.values(), Cost())
        return {
            "schema": SCHEMA,
            "study": self.study.name,
            "title": self.study.title,
            "simulated": self.simulated,
            **self.facts,
            "notes": list(self.study.notes),
            "head": list(self.study.head),
            "rows": [_row_dict(row, tells_wins=self.study.tells_wins) for row in self.rows],
            "failed": len(self.failures),
            "cost": {"runs": len(self.runs), **total.as_dict()},
        }


def figures_of(
    study: Study, outcomes: Sequence[Sequence[Outcome]], level: float, seed: int
) -> tuple[RowFigures, ...]:
    """The rows of the table from what became of their cells."""
    rows = [_row(row, tuple(found), level, seed) for row, found in zip(study.rows, outcomes, strict=True)]
    return tuple(_compared(row, rows, level, seed) for row in rows)


def _row(row: Row, outcomes: tuple[Outcome, ...], level: float, seed: int) -> RowFigures:
    evaluations = [outcome.evaluation for outcome in outcomes if isinstance(outcome, Measured)]
    if not evaluations:
        return RowFigures(row, outcomes, None, None)
    general, safety = (part_figures(evaluations, part, level, seed) for part in (GENERAL, SAFETY))
    return RowFigures(row, outcomes, general, safety)


def _compared(row: RowFigures, rows: Sequence[RowFigures], level: float, seed: int) -> RowFigures:
    other = None if row.row.against is None else rows[row.row.against]
    if other is None or row.general is None or other.general is None:
        return row
    found = difference(row.general, other.general, level, seed)
    won = wins(row.general, other.general, level, seed)
    return RowFigures(row.row, row.outcomes, row.general, row.safety, found, won)


def costs_of(row: RowFigures) -> tuple[Cost, Cost]:
    """What the searches and the evaluations of a row cost, summed over its repeats."""
    searches = dict(pair for measured in row.measured for pair in measured.searches)
    evaluations = {measured.evaluation.run_dir.name: measured.cost for measured in row.measured}
    return sum(searches.values(), Cost()), sum(evaluations.values(), Cost())


def _row_dict(row: RowFigures, *, tells_wins: bool) -> dict[str, Any]:
    searches, evaluations = costs_of(row)
    return {
        "columns": list(row.row.columns),
        "repeats": len(row.measured),
        "failed": [str(error) for error in row.failures],
        "general": None if row.general is None else _part_dict(row.general),
        "safety": None if row.safety is None else _part_dict(row.safety),
        "against": row.row.against,
        "difference": None if row.difference is None else estimate_dict(row.difference),
        **(_wins_dict(row) if tells_wins else {}),
        "kept_initial": sum(measured.kept_initial for measured in row.measured),
        "prompts": [measured.prompts for measured in row.measured],
        "searches": searches.as_dict(),
        "evaluations": evaluations.as_dict(),
        "runs": [
            [*(name for name, _ in measured.searches), measured.evaluation.run_dir.name]
            for measured in row.measured
        ],
    }


def _wins_dict(row: RowFigures) -> dict[str, Any]:
    told = [measured.evaluation.facts.get("rewriter") for measured in row.measured]
    rewritten = [None if one is None else {name: one[name] for name in ("changed", "kept")} for one in told]
    return {
        "variance": None if row.general is None else _rounded(variance_of(row.general)),
        "wins": None if row.wins is None else estimate_dict(row.wins),
        "rewritten": rewritten,
    }


def _part_dict(part: PartFigures) -> dict[str, Any]:
    return {
        "queries": len(part.scores),
        "overall": estimate_dict(part.overall),
        "aspects": {name: estimate_dict(estimate) for name, estimate in part.aspects},
        "repeats": [_rounded(mean) for mean in part.repeats],
    }


def estimate_dict(estimate: Estimate) -> dict[str, Any]:
    """Plain JSON values."""
    interval = estimate.interval
    return {
        "mean": _rounded(estimate.mean),
        "low": None if interval is None else _rounded(interval.low),
        "high": None if interval is None else _rounded(interval.high),
        "level": None if interval is None else interval.level,
        "count": estimate.count,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
