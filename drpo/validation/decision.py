"""From scores to a verdict: which candidate is the best one, by how much, and whether that is sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from drpo.statistics import LEVEL, Bounds, Floats, Interval, sign_flips, simultaneous_bounds

Why = Literal["worse than the initial prompt", "worse than the best"]
_SAME = 1e-9
"""Gains that differ by less are equal: they differ by rounding."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A prompt in the race: the index that `Measure` is called with, and its length (in tokens, say)."""

    index: int
    length: int


@dataclass(frozen=True, slots=True)
class Rules:
    """How a race is run. `rounds` are growing shares of the queries, the last one 1.

    `level` is that of the intervals, so (1 - level) / 2 is the chance of a false "better". `drop` is the
    chance that a round drops any candidate that is not worse, all its comparisons taken together (a wrong
    drop can only lose a gain). Candidates that are themselves better and at most `alike` standard errors
    behind the best are as good as it. `span` is the largest difference of two scores: no interval goes beyond
    it. Of more sign patterns than `flips` as many are drawn with `seed`.
    """

    rounds: tuple[float, ...] = (0.25, 0.5, 1.0)
    level: float = LEVEL
    drop: float = 0.2
    alike: float = 1.0
    span: float = 4.0
    flips: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        rising = all(one < other for one, other in zip((0.0, *self.rounds), self.rounds, strict=False))
        if not self.rounds or not rising or self.rounds[-1] != 1:
            raise ValueError(f"rounds are growing shares of the queries that end with 1, not {self.rounds}")
        if not (0 < self.level < 1 and 0 <= self.drop < 1 and self.alike >= 0 and self.span > 0):
            raise ValueError(f"{self} has a value out of its range")


@dataclass(frozen=True, slots=True)
class Standing:
    """How one prompt did. `mean` is over its `scores` own scores, of `asked` ones; `gain` is the mean of
    its `pairs` paired differences to the initial prompt, each None where there is nothing to tell.

    `interval` holds the true gain, simultaneously for all candidates (the initial prompt has neither).
    `dropped` is the number of the round after which it was left out, from 1, and `why`.
    """

    contender: Contender
    mean: float | None
    scores: int
    asked: int
    gain: float | None = None
    interval: Interval | None = None
    pairs: int = 0
    dropped: int | None = None
    why: Why | None = None

    @property
    def missing(self) -> int:
        """How many scores were asked for and could not be had."""
        return self.asked - self.scores


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the race came to. `winner` is None where no candidate is left or none has a pair.

    `gain` is the winner's mean paired difference, `corrected` that gain less what picking the best of
    several adds to it, `interval` holds the true one. `better` is whether the interval's lower end is
    above 0. `critical` is what a statistic (`flip_statistics`) had to exceed; `rounds` the queries asked
    by then.
    """

    initial: Standing
    standings: tuple[Standing, ...]
    winner: Contender | None
    gain: float | None
    corrected: float | None
    interval: Interval | None
    better: bool
    critical: float
    level: float
    rounds: tuple[int, ...]
    queries: int

    @property
    def chosen(self) -> Contender:
        """The prompt to hand over: the winner if it is better, else the initial one."""
        return self.winner if self.better and self.winner is not None else self.initial.contender

    @property
    def measured(self) -> int:
        """How many scores were asked for."""
        return self.initial.asked + sum(standing.asked for standing in self.standings)

    @property
    def missing(self) -> int:
        """How many of them could not be had."""
        return self.initial.missing + sum(standing.missing for standing in self.standings)

    @property
    def saved(self) -> float:
        """The share of all scores that dropping made unnecessary."""
        whole = self.queries * (1 + len(self.standings))
        return 1 - self.measured / whole if self.standings and whole else 0.0


def decide(
    contenders: Sequence[Contender],
    scores: Floats,
    asked: Sequence[int],
    dropped: Mapping[int, tuple[int, Why]],
    rounds: Sequence[int],
    rules: Rules,
) -> Verdict:
    """The verdict from a table with a row per query and a column per contender, the initial prompt first.

    nan is a score that was not asked for or could not be had; `asked` counts the former per column.
    `dropped` tells by column after which round a candidate was left out: it cannot win.
    """
    differences = scores[:, 1:] - scores[:, :1]
    flips = sign_flips(len(scores), rules.flips, rules.seed)
    complete = _complete(differences, {column - 1: asked[column] for column in dropped})
    bounds = simultaneous_bounds(differences, flips, rules.level, complete)
    standings = [
        _standing(contender, scores[:, column], asked[column], bounds, column - 1, rules, dropped.get(column))
        for column, contender in enumerate(contenders)
    ]
    picker = _Picker.of(differences, bounds, [contender.length for contender in contenders[1:]], rules.alike)
    gains = np.array(
        [
            -np.inf if standing.dropped or standing.gain is None else standing.gain
            for standing in standings[1:]
        ]
    )
    initial, rest = standings[0], tuple(standings[1:])
    common = (bounds.critical, rules.level, tuple(rounds), len(scores))
    if not np.isfinite(gains).any():
        return Verdict(initial, rest, None, None, None, None, False, *common)
    best = rest[int(picker.pick(gains[None, :])[0])]
    assert best.gain is not None and best.interval is not None
    optimism = _optimism(differences, bounds, flips, picker)
    corrected = min(max(best.gain - optimism, best.interval.low), best.interval.high)
    better = best.interval.low > 0
    return Verdict(initial, rest, best.contender, best.gain, corrected, best.interval, better, *common)


def _complete(differences: Floats, asked: Mapping[int, int]) -> Floats:
    """The same with the differences of dropped candidates repeated over the queries they were not asked.

    A few differences cannot reach a high statistic, so without this the critical value would be lower the
    more candidates were dropped, as though those had never been tried.
    """
    complete = differences.copy()
    for column, count in asked.items():
        complete[count:, column] = np.resize(differences[:count, column], len(differences) - count)
    return complete


def _standing(
    contender: Contender,
    scores: Floats,
    asked: int,
    bounds: Bounds,
    place: int,
    rules: Rules,
    dropped: tuple[int, Why] | None,
) -> Standing:
    """`place` is that among the candidates, below 0 for the initial prompt."""
    had = scores[~np.isnan(scores)]
    mean = float(had.mean()) if had.size else None
    if place < 0 or not bounds.counts[place]:
        return Standing(contender, mean, had.size, asked, None, None, 0, *(dropped or ()))
    gain, half = bounds.means[place], bounds.halves[place]
    interval = Interval(max(-rules.span, gain - half), min(rules.span, gain + half), rules.level)
    pairs = bounds.counts[place]
    return Standing(contender, mean, had.size, asked, gain, interval, pairs, *(dropped or ()))


@dataclass(frozen=True, slots=True)
class _Picker:
    """Which candidate is taken: of those that are better the best one, if none is the one of highest gain;
    instead of it the shortest of those that are as good as it.

    As good is an equal gain, or being better too and at most `alike` standard errors (of the paired
    difference) behind: the one-standard-error rule of Breiman et al. 1984, so shortness costs no more than
    chance does. What cannot be told apart at the level of the intervals would be far more, at 40 queries
    often 0.3 points.
    """

    halves: Floats
    errors: Floats
    lengths: Floats
    alike: float

    @classmethod
    def of(cls, differences: Floats, bounds: Bounds, lengths: Sequence[int], alike: float) -> _Picker:
        noise = _errors_of_means(differences, bounds)
        cov = noise.T @ noise
        own = np.diag(cov)
        apart = np.sqrt(np.maximum(0.0, own[:, None] + own[None, :] - 2 * cov))
        return cls(np.array(bounds.halves), apart, np.array(lengths, dtype=np.float64), alike)

    def pick(self, gains: Floats) -> NDArray[np.intp]:
        """The picked column for each row of gains; -inf marks what cannot be picked."""
        good = gains > self.halves
        eligible = np.where(good | ~good.any(axis=1, keepdims=True), gains, -np.inf)
        best = eligible.argmax(axis=1)
        top = np.take_along_axis(eligible, best[:, None], axis=1)
        near = good & (eligible >= top - self.alike * self.errors[best])
        near |= eligible >= top - _SAME
        lengths = np.where(near, self.lengths, np.inf)
        shortest = lengths == lengths.min(axis=1, keepdims=True)
        return np.asarray(np.where(shortest, eligible, -np.inf).argmax(axis=1))


def _errors_of_means(differences: Floats, bounds: Bounds) -> Floats:
    """Each query's part in the error of each mean: with signs flipped at random the columns' sums are such
    errors, of the right covariance."""
    counts = np.array(bounds.counts, dtype=np.float64)
    scale = np.sqrt(1 / np.maximum(counts * (counts - 1), 1))
    return np.asarray(np.nan_to_num(differences - np.array(bounds.means), nan=0.0) * scale)


def _optimism(differences: Floats, bounds: Bounds, flips: Floats, picker: _Picker) -> float:
    """How much the gain of the picked candidate exceeds its true gain on average, at least 0.

    The pick is repeated on resampled gains (Efron and Tibshirani 1993, chapter 17: optimism): assumed true
    gains plus errors, which are the deviations of the queries with flipped signs, all candidates' at once.
    Assumed are the observed gains drawn to their mean as far as their spread is no more than their errors
    explain (empirical Bayes, Efron and Morris 1975): the observed ones alone are too far apart, and near
    equal candidates would be corrected by too little. Dropped candidates take part as if all queries had
    been asked: they were part of the choice.
    """
    means = np.array(bounds.means)
    known = ~np.isnan(means)
    noise = _errors_of_means(differences, bounds)[:, known]
    grand, off = means[known].mean(), means[known] - means[known].mean()
    chance = (noise**2).sum() - (noise.sum(axis=1) ** 2).sum() / known.sum()
    spread = (off**2).sum()
    assumed = np.full(means.shape, -np.inf)
    assumed[known] = grand + off * (max(0.0, 1 - chance / spread) if spread > 0 else 0.0)
    counts = np.array(bounds.counts, dtype=np.float64)
    errors = np.zeros((2 * len(flips), len(means)))
    errors[: len(flips), known] = flips @ (noise * np.sqrt(counts[known] / counts.max()))
    errors[len(flips) :] = -errors[: len(flips)]
    picked = picker.pick(assumed + errors)
    return max(0.0, float(np.take_along_axis(errors, picked[:, None], axis=1).mean()))
