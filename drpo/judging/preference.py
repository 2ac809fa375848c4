"""Verdicts on pairs -> which side is preferred, and how much of that is the length of its responses.

Every pair is judged in both orders: in the first the side one is shown as A, in the second as B.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

import numpy as np

from drpo.bootstrap import expanded_tail, resamples_for
from drpo.judging.verdicts import Verdict
from drpo.reply_json import Unreadable
from drpo.statistics import LEVEL, Floats, Interval, least_count
from drpo.types import Failed

Outcome: TypeAlias = Literal["win", "tie", "loss"]
"""For the side one."""
Reading: TypeAlias = Verdict | Unreadable | Failed

WORTH: dict[Outcome, Fraction] = {"win": Fraction(1), "tie": Fraction(1, 2), "loss": Fraction(0)}
# The prior of the length effect: normal, of standard deviation 2.5 on the squashed scale. It is weak (such an
# effect moves an even chance to 92 % where one response is much longer) but keeps separable data finite.
LENGTH_SD = 2.5
# Beside the pairs stands one tie between equally long responses. It keeps the answer inside 0 to 1 where one
# side won everything, and weighs 1 / (pairs + 1).
PRIOR_TIES = 1.0
MOST_STEPS = 100
_AT_ONCE = 300_000  # numbers of one array of the bootstrap


@dataclass(frozen=True, slots=True)
class PairOutcome:
    """One pair. `flipped`: the verdict changed with the order; it is a tie then.

    toward: the place that gained by it, "first" or "second" (A or B in both orders, or once beside a tie).
    """

    outcome: Outcome
    flipped: bool = False
    toward: Literal["", "first", "second"] = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of pairs. `unreadable` pairs (at least one order without a verdict) are in none of the others.

    Flips are ties too; `flips_first` and `flips_second` say which place gained by them.
    """

    wins: int
    ties: int
    losses: int
    flips: int
    flips_first: int
    flips_second: int
    unreadable: int

    @property
    def judged(self) -> int:
        """Pairs with an outcome."""
        return self.wins + self.ties + self.losses

    @property
    def win_rate(self) -> Fraction | None:
        """Wins and half of the ties over the judged pairs, 0 to 1; None without any."""
        return (self.wins + Fraction(self.ties, 2)) / self.judged if self.judged else None


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """win_rate: as predicted for responses of equal length, 0 to 1; raw: as it was, ties as halves.

    length_effect: change of the log-odds of a win from equal length to a much longer response of side one;
    above 0 the judge prefers the longer. extrapolated: True where the same side is longer in every pair. Then
    equal length lies outside of what was seen, length and quality cannot be told apart, and `win_rate` rests
    on the priors (it has no correction at all if the differences are all the same).
    """

    win_rate: float
    raw: float
    length_effect: float
    pairs: int
    extrapolated: bool


def pair_outcome(first: Reading, second: Reading) -> PairOutcome | Unreadable:
    """The outcome of a pair from the two readings; a pair with fewer than two verdicts is unreadable."""
    if not isinstance(first, Verdict):
        return _unreadable("first", first)
    if not isinstance(second, Verdict):
        return _unreadable("second", second)
    if first.preferred == second.preferred == "tie":
        return PairOutcome("tie")
    gains = {"A": 1, "tie": 0, "B": -1}
    in_first, in_second = gains[first.preferred], gains[second.preferred]  # of the place A over the place B
    if in_first == -in_second:
        return PairOutcome("win" if in_first > 0 else "loss")
    return PairOutcome("tie", flipped=True, toward="first" if in_first + in_second > 0 else "second")


def tally(pairs: Iterable[PairOutcome | Unreadable]) -> Tally:
    """The counts of all `pairs`."""
    pairs = tuple(pairs)
    read = [pair for pair in pairs if isinstance(pair, PairOutcome)]
    outcomes = [pair.outcome for pair in read]
    return Tally(
        wins=outcomes.count("win"),
        ties=outcomes.count("tie"),
        losses=outcomes.count("loss"),
        flips=sum(pair.flipped for pair in read),
        flips_first=sum(pair.toward == "first" for pair in read),
        flips_second=sum(pair.toward == "second" for pair in read),
        unreadable=len(pairs) - len(read),
    )


def length_controlled_win_rate(
    outcomes: Sequence[Outcome], length_a: Sequence[int], length_b: Sequence[int]
) -> LengthControlled:
    """The win rate of side a with the effect of length taken out; lengths in characters, a first.

    After Dubois et al. 2024 (arXiv 2404.04475): log-odds of a win = quality + effect * tanh(d / sd), with d
    the difference of the two lengths and sd its standard deviation, fitted to the outcomes (a tie is half a
    win) and read off at d = 0. Simplified: there are two sides only, so the term for the difficulty of the
    query, which is fitted over many models, is left out; and instead of an L1 penalty chosen by
    cross-validation and added judgments of a padded baseline there are two fixed weak priors, `LENGTH_SD`
    and `PRIOR_TIES`. Swapping the sides gives one minus the win rate; the same input the same bits.

    Raises ValueError without pairs, for sequences of different lengths and for a length that is negative.
    """
    if not outcomes or not len(outcomes) == len(length_a) == len(length_b):
        counts = f"{len(outcomes)}, {len(length_a)} and {len(length_b)}"
        raise ValueError(f"expected as many outcomes as lengths of each side, at least one; came {counts}")
    if min(*length_a, *length_b) < 0:
        raise ValueError("expected lengths of at least 0, came a negative one")
    wins = np.array([float(WORTH[outcome]) for outcome in outcomes])
    difference = np.array([a - b for a, b in zip(length_a, length_b, strict=True)], dtype=float)
    spread = float(np.std(difference, ddof=1)) if len(outcomes) > 1 else 0.0
    squashed = np.tanh(difference / spread) if spread > 0 else np.zeros(len(outcomes))
    qualities, effects = _fitted(squashed[None, :], wins[None, :])
    quality, effect = float(qualities[0]), float(effects[0])
    raw = sum((WORTH[outcome] for outcome in outcomes), Fraction()) / len(outcomes)
    return LengthControlled(
        win_rate=_logistic(quality),
        raw=float(raw),
        length_effect=effect,
        pairs=len(outcomes),
        extrapolated=not difference.min() <= 0 <= difference.max(),
    )


def length_controlled_interval(
    outcomes: Sequence[Outcome],
    length_a: Sequence[int],
    length_b: Sequence[int],
    level: float = LEVEL,
    seed: int = 0,
) -> Interval | None:
    """The bootstrap interval of `length_controlled_win_rate` over the pairs, its percentiles taken as far out
    as in `bootstrap_mean`; None for fewer than `least_count(level)` pairs."""
    count = len(outcomes)
    if count < least_count(level):
        return None
    wins = np.array([float(WORTH[outcome]) for outcome in outcomes])
    difference = np.array(length_a, dtype=float) - np.array(length_b, dtype=float)
    draw = np.random.default_rng(seed)
    rates: list[Floats] = []
    rows, left = max(1, _AT_ONCE // count), resamples_for(level)
    while left > 0:
        drawn = draw.integers(0, count, size=(min(rows, left), count))
        left -= len(drawn)
        again = difference[drawn]
        spread = again.std(axis=1, ddof=1, keepdims=True)
        squashed = np.tanh(np.divide(again, spread, out=np.zeros_like(again), where=spread > 0))
        quality, _ = _fitted(squashed, wins[drawn])
        rates.append(0.5 * (1.0 + np.tanh(quality / 2)))
    tail = expanded_tail(count, level)
    low, high = (float(end) for end in np.quantile(np.concatenate(rates), [tail, 1 - tail]))
    found = length_controlled_win_rate(outcomes, length_a, length_b).win_rate
    return Interval(min(low, found), max(high, found), level)


def _fitted(squashed: Floats, wins: Floats) -> tuple[Floats, Floats]:
    """(quality, effect) of each row at the one minimum of its penalised loss, by Newton steps, halved where
    too long.

    The loss is strictly convex (the tie pins the quality, the prior the effect), so there is exactly one.
    """

    def loss(quality: Floats, effect: Floats) -> Floats:
        odds = quality[:, None] + effect[:, None] * squashed
        own = np.sum(np.logaddexp(0.0, odds) - wins * odds, axis=1)
        tie = PRIOR_TIES * (np.log1p(np.exp(-np.abs(quality))) + np.abs(quality) / 2)
        return np.asarray(own + tie + effect * effect / (2 * LENGTH_SD**2))

    quality, effect = np.zeros(len(squashed)), np.zeros(len(squashed))
    best = loss(quality, effect)
    for _ in range(MOST_STEPS):
        step_q, step_e = _newton_step(squashed, wins, quality, effect)
        size = np.ones(len(squashed))
        following = loss(quality - step_q, effect - step_e)
        while (too_long := (following > best) & (size > 1e-6)).any():
            size = np.where(too_long, size / 2, size)
            following = loss(quality - size * step_q, effect - size * step_e)
        goes_on = (following < best) & (np.maximum(np.abs(step_q), np.abs(step_e)) >= 1e-12)
        if not goes_on.any():
            break
        quality = np.where(goes_on, quality - size * step_q, quality)
        effect = np.where(goes_on, effect - size * step_e, effect)
        best = np.where(goes_on, following, best)
    return quality, effect


def _newton_step(squashed: Floats, wins: Floats, quality: Floats, effect: Floats) -> tuple[Floats, Floats]:
    chance = 0.5 * (1.0 + np.tanh((quality[:, None] + effect[:, None] * squashed) / 2))
    level = 0.5 * (1.0 + np.tanh(quality / 2))
    weight, miss = chance * (1.0 - chance), chance - wins
    slope_q = np.sum(miss, axis=1) + PRIOR_TIES * (level - 0.5)
    slope_e = np.sum(miss * squashed, axis=1) + effect / LENGTH_SD**2
    curve_q = np.sum(weight, axis=1) + PRIOR_TIES * level * (1.0 - level)
    curve_e = np.sum(weight * squashed * squashed, axis=1) + 1.0 / LENGTH_SD**2
    cross = np.sum(weight * squashed, axis=1)
    area = curve_q * curve_e - cross * cross
    return (curve_e * slope_q - cross * slope_e) / area, (curve_q * slope_e - cross * slope_q) / area


def _unreadable(order: str, reading: Unreadable | Failed) -> Unreadable:
    problem = reading.reason if isinstance(reading, Failed) else reading.problem
    return Unreadable(f"in the {order} order: {problem}")


def _logistic(odds: float) -> float:
    return 0.5 * (1.0 + math.tanh(odds / 2))
