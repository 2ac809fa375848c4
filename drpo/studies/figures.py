"""The figures of one row: means over repeated searches, with intervals over the queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, variance

from drpo.bootstrap import bootstrap_mean, bootstrap_means
from drpo.measuring.results import Answered, Evaluation
from drpo.statistics import Estimate

GENERAL, SAFETY = "general", "safety"
Scores = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class PartFigures:
    """Scores of the general or the safety queries, 1 to 5.

    overall, aspects: means over the queries, of the mean of each query over the repeats; their intervals are
    bootstrapped over the queries, so they say how well the queries tell what these prompts are worth, and
    nothing of what other searches would find. repeats: the overall mean of each single one. scores: per
    query and aspect, what the means are made of.
    """

    overall: Estimate
    aspects: tuple[tuple[str, Estimate], ...]
    repeats: tuple[float | None, ...]
    scores: Scores = field(repr=False)

    @property
    def spread(self) -> tuple[float, float] | None:
        """Lowest and highest of the repeats; None where there are not two."""
        known = [mean for mean in self.repeats if mean is not None]
        return (min(known), max(known)) if len(known) > 1 else None


def part_figures(evaluations: Sequence[Evaluation], part: str, level: float, seed: int) -> PartFigures | None:
    """The figures of repeated evaluations of the same queries; None where they have no such queries.

    Of one evaluation they are those of `drpo evaluate`.
    """
    if not any(found.name == part for found in evaluations[0].parts):
        return None
    parts = [next(found for found in evaluation.parts if found.name == part) for evaluation in evaluations]
    names = [name for name, _ in parts[0].means]
    tables = [
        [
            _values(answered, names, evaluation)
            for answered in evaluation.items
            if answered.item.safety is (part == SAFETY)
        ]
        for evaluation in evaluations
    ]
    scores = tuple(
        tuple(_mean([row[column] for row in rows]) for column in range(len(names)))
        for rows in zip(*tables, strict=True)
    )
    estimates, overall = bootstrap_means(scores, level, seed=seed)
    repeats = tuple(found.overall.mean for found in parts)
    return PartFigures(overall, tuple(zip(names, estimates, strict=True)), repeats, scores)


def difference(ours: PartFigures, theirs: PartFigures, level: float, seed: int) -> Estimate:
    """Ours less theirs, query by query and aspect by aspect; positive where ours is better."""
    rows = [
        [None if a is None or b is None else a - b for a, b in zip(mine, other, strict=True)]
        for mine, other in zip(ours.scores, theirs.scores, strict=True)
    ]
    return bootstrap_means(rows, level, seed=seed)[1]


def query_scores(part: PartFigures) -> list[float | None]:
    """The mean score of each query over its aspects; None where it has none."""
    return [_mean(row) for row in part.scores]


def variance_of(part: PartFigures) -> float | None:
    """Of the queries' scores, with n - 1; None of fewer than two."""
    had = [score for score in query_scores(part) if score is not None]
    return variance(had) if len(had) > 1 else None


def wins(ours: PartFigures, theirs: PartFigures, level: float, seed: int) -> Estimate:
    """The share of the queries that score higher in ours than in theirs, equal ones as halves."""
    pairs = zip(query_scores(ours), query_scores(theirs), strict=True)
    worth = [None if a is None or b is None else 0.5 * ((a > b) - (a < b)) + 0.5 for a, b in pairs]
    return bootstrap_mean(worth, level, seed=seed)


def _values(answered: Answered, aspects: Sequence[str], evaluation: Evaluation) -> tuple[float | None, ...]:
    scores = {score.aspect: score.score for score in answered.judged.scores}
    counts = evaluation.na == "five"
    return tuple(
        5.0 if counts and name in scores and scores[name] is None else scores.get(name) for name in aspects
    )


def _mean(values: Sequence[float | None]) -> float | None:
    had = [value for value in values if value is not None]
    return fmean(had) if had else None
