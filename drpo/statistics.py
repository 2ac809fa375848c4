"""Intervals and tests for means, shares and paired differences. Pure: equal input gives equal output.

A value that is None could not be had. It is left out and counted, and never stands for a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
_SLACK = 1e-9
"""Relative error within which two statistics are the same: sums of equal terms differ by rounding."""


@dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`, both included; `level` is the share of such intervals that hold the truth."""

    low: float
    high: float
    level: float = LEVEL

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of `count` values and where the true one is; `missing` values could not be had.

    `mean` is None where there is no value, `interval` where there are fewer than `least_count(level)`.
    """

    mean: float | None
    interval: Interval | None
    count: int
    missing: int = 0


def least_count(level: float = LEVEL) -> int:
    """How many values an interval of this level needs, whatever their distribution: 6 at 95 %.

    That all of n values lie on one side of the middle happens with chance 2^(1-n), and then no interval
    made of these values can hold it.
    """
    _check(level)
    return 1 + math.ceil(math.log2(1 / (1 - level)) - _SLACK)


def wilson(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval for a share (Wilson 1927; recommended by Brown, Cai and DasGupta 2001).

    Without trials it is from 0 to 1.
    """
    _check(level)
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    if trials == 0:
        return Interval(0.0, 1.0, level)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, shrink = successes / trials, 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == trials else min(1.0, middle + half)
    return Interval(low, high, level)


def sign_test(wins: int, losses: int) -> float:
    """The exact two-sided p-value of the sign test (Dixon and Mood 1946): how likely a split is that is at
    least as uneven as this one where either side wins with chance 1/2. Ties are left out by the caller.
    Without wins and losses it is 1.
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"{wins} wins and {losses} losses")
    rounds = wins + losses
    term, tail = 1, 0
    for k in range(min(wins, losses) + 1):
        tail += term
        term = term * (rounds - k) // (k + 1)
    return min(1.0, float(Fraction(2 * tail, 2**rounds)))


def paired_differences(
    values: Sequence[float | None], others: Sequence[float | None]
) -> tuple[float | None, ...]:
    """`values` minus `others`, place by place; None where either side is None."""
    return tuple(
        None if one is None or other is None else one - other
        for one, other in zip(values, others, strict=True)
    )


def student_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's distribution with whole degrees of freedom, to about 1e-10."""
    if not 0 < probability < 1 or degrees < 1:
        raise ValueError(f"probability {probability}, {degrees} degrees of freedom")
    if probability < 0.5:
        return -student_quantile(1 - probability, degrees)
    low, high = 0.0, 1.0
    while _student_cdf(high, degrees) < probability:
        low, high = high, 2 * high
    while high - low > 1e-11 * high and low < (middle := (low + high) / 2) < high:
        if _student_cdf(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return high


def _student_cdf(t: float, degrees: int) -> float:
    """Abramowitz and Stegun 26.7.3 and 26.7.4: finite sums, since the degrees are whole."""
    angle = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    term, total = (cosine, 0.0) if degrees % 2 else (1.0, 0.0)
    for k in range(2 + degrees % 2, degrees + 1, 2):
        total += term
        term *= cosine * cosine * (k - 1) / k
    if degrees % 2:
        return 0.5 + (angle + sine * total) / math.pi
    return 0.5 + sine * total / 2


def sign_flips(length: int, at_most: int = 2048, seed: int = 0) -> Floats:
    """Rows of +1 and -1 for `length` differences; the first is all +1, each stands for its opposite too.

    They are all there are where these are at most `at_most`, else as many drawn ones. (The row that
    changes nothing must be among drawn ones for a test to be exact: Hemerik and Goeman 2018, TEST 27.)
    """
    if length - 1 < at_most.bit_length() and 2 ** max(0, length - 1) <= at_most:
        rows = 2 ** max(0, length - 1)
        bits = np.arange(rows)[:, None] >> np.arange(length)[None, :] & 1
    else:
        bits = np.random.default_rng(seed).integers(0, 2, size=(at_most, length))
        bits[0] = 0
    return np.asarray(1 - 2 * bits, dtype=np.float64)


def critical_value(differences: Floats, flips: Floats, tail: float) -> float:
    """What the largest `flip_statistics` exceeds with chance at most `tail` if no true mean is above 0.

    `differences` has a row per query and a column per comparison, nan where one is missing; `flips` comes
    from `sign_flips`. The signs of a whole row are flipped at once, so comparisons that go together cost
    little. This holds exactly, for any subset of the columns, where the rows are independent and the
    columns of the subset jointly as likely as their opposites; else as the rows become many (single-step
    max-t: Westfall and Young 1993; Romano and Wolf 2005, JASA 100).
    """
    if differences.shape[0] == 0 or differences.shape[1] == 0:
        return math.inf
    flipped = flips @ _scaled(differences)
    largest = np.concatenate([flipped.max(axis=1), (-flipped).max(axis=1)])
    rank = math.ceil((1 - tail) * len(largest) - _SLACK)
    return float(np.partition(largest, rank - 1)[rank - 1])


def flip_statistics(differences: Floats) -> Floats:
    """Per column the sum over the root of the sum of squares; 0 where all are 0 or missing.

    It grows with Student's t and is n values of one size and sign at most, sqrt(n). Its denominator does
    not change when signs do.
    """
    return np.asarray(_scaled(differences).sum(axis=0))


def _scaled(differences: Floats) -> Floats:
    known = np.nan_to_num(differences, nan=0.0)
    norms = np.sqrt((known * known).sum(axis=0))
    return np.asarray(np.divide(known, norms, out=np.zeros_like(known), where=norms > 0))


@dataclass(frozen=True, slots=True)
class Bounds:
    """Simultaneous intervals for the means of columns: mean -+ half width (inf where nothing bounds it)."""

    means: tuple[float, ...]
    counts: tuple[int, ...]
    halves: tuple[float, ...]
    critical: float


def simultaneous_bounds(
    differences: Floats, flips: Floats, level: float = LEVEL, complete: Floats | None = None
) -> Bounds:
    """Intervals of which all lower ends together are right with the chance (1 + level) / 2, so the uppers.

    A lower end is above 0 only where the column's statistic is above `critical_value`: the guarantee of the
    test, exact under its assumptions, is that of the sign of each lower end. The critical value is the larger
    one of the differences as they are and of their deviations from the means, as the first grows too small
    for an interval where all true means are large. Where `complete` is given, it is taken from that: the
    differences without gaps that depend on the values. Solved for the mean, |sum - n mean| / root of sum of
    squares <= c is a half width of c sd / sqrt(n - c^2). A mean without values is nan.
    """
    _check(level)
    known = ~np.isnan(differences)
    counts = known.sum(axis=0)
    means = _means(differences)
    deviations = differences - means
    compute = partial(critical_value, flips=flips, tail=(1 - level) / 2)
    full = differences if complete is None else complete
    # Above its own rounding error: a statistic must not be larger than one that is the same.
    critical = max(compute(full), compute(full - _means(full))) * (1 + _SLACK)
    spreads = np.sqrt(np.nansum(deviations**2, axis=0) / np.maximum(counts, 1))
    halves = tuple(
        critical * spread / math.sqrt(count - critical**2) if count > critical**2 else math.inf
        for spread, count in zip(spreads.tolist(), counts.tolist(), strict=True)
    )
    return Bounds(tuple(means.tolist()), tuple(counts.tolist()), halves, critical)


def _means(differences: Floats) -> Floats:
    counts = (~np.isnan(differences)).sum(axis=0)
    sums = np.nansum(differences, axis=0)
    return np.asarray(np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0))


def _check(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"a level is between 0 and 1, not {level}")
