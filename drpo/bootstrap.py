"""Bootstrap intervals of means. Pure: equal input gives equal output. None: a value that could not be had."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean

import numpy as np
from numpy.typing import NDArray

from drpo.statistics import LEVEL, Estimate, Floats, Interval, least_count, student_quantile

_RESAMPLES, _AT_ONCE = 10_000, 1_000_000


def bootstrap_mean(
    values: Sequence[float | None], level: float = LEVEL, resamples: int = _RESAMPLES, seed: int = 0
) -> Estimate:
    """The mean and its expanded percentile bootstrap interval (Hesterberg 2015, Am. Statistician 69).

    The plain percentile interval is too narrow by the factor sqrt((n-1)/n) times normal over Student
    quantile. Here the percentiles are taken farther out by that much. For symmetric values it comes to
    Student's interval, for skewed ones it follows the skew, and it never leaves the range of the values. With
    fewer values than `least_count(level)` there is no interval. Where all are equal it has no width, which
    says only that no difference was seen. The order of the values does not matter.

    Measured at 95 %: of normal values 93 % of the intervals hold the mean with 6 values, 94 % with 8, 95 %
    from 10 on (plain percentiles: 86, 89 and 91 %); of scores half of which are the highest one 84 % with 6
    and 91 % with 8 or 10.
    """
    had = [value for value in values if value is not None]
    missing = len(values) - len(had)
    mean = fmean(had) if had else None
    if mean is None or len(had) < least_count(level):
        return Estimate(mean, None, len(had), missing)
    distinct, counts = np.unique(np.asarray(had, dtype=np.float64), return_counts=True)
    draw = np.random.default_rng(seed)
    share = counts / counts.sum()
    rows = max(1, _AT_ONCE // len(distinct))
    means = np.concatenate(
        [
            draw.multinomial(len(had), share, size=min(rows, resamples - begun)) @ distinct / len(had)
            for begun in range(0, resamples, rows)
        ]
    )
    tail = expanded_tail(len(had), level)
    low, high = (float(end) for end in np.quantile(means, [tail, 1 - tail]))
    # Rounding must not push a mean out of an interval without width.
    return Estimate(mean, Interval(min(low, mean), max(high, mean), level), len(had), missing)


def resamples_for(level: float) -> int:
    """How often rows are drawn again: more for a high level, whose ends are rare."""
    return max(_RESAMPLES // 5, math.ceil(10 / (1 - level)))


def expanded_tail(count: int, level: float) -> float:
    """Which percentile the ends of an interval from `count` values are: see `bootstrap_mean`."""
    return NormalDist().cdf(-math.sqrt(count / (count - 1)) * student_quantile((1 + level) / 2, count - 1))


def bootstrap_means(
    rows: Sequence[Sequence[float | None]], level: float = LEVEL, seed: int = 0
) -> tuple[tuple[Estimate, ...], Estimate]:
    """The mean of each column and the plain mean of these means, rows being drawn again as wholes, so that
    what a row's values have in common counts. Percentiles are taken as far out as in `bootstrap_mean`, for
    each column by its own number of values.

    A column without values has no mean and is left out of the last one. Raises ValueError for rows of
    different lengths.
    """
    columns = max((len(row) for row in rows), default=0)
    if any(len(row) != columns for row in rows):
        raise ValueError("expected rows of one length")
    table = np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=np.float64)
    table = table.reshape(len(rows), columns)
    had = ~np.isnan(table)
    counts, scored = had.sum(axis=0), int(had.any(axis=1).sum())
    usable = counts > 0
    means = np.full(columns, np.nan)
    means[usable] = np.where(had, table, 0.0).sum(axis=0)[usable] / counts[usable]
    overall = float(means[usable].mean()) if usable.any() else None
    again = _drawn_again(table, had, resamples_for(level), seed) if scored >= least_count(level) else None

    def estimate(mean: float | None, count: int, values: Floats) -> Estimate:
        known = again is not None and mean is not None and count >= least_count(level)
        interval = (
            _ends(values, mean, expanded_tail(count, level), level) if known and mean is not None else None
        )
        return Estimate(mean, interval, count, len(rows) - count)

    drawn = np.full((0, columns), np.nan) if again is None else again
    found = tuple(
        estimate(_or_none(means[column]), int(counts[column]), drawn[:, column]) for column in range(columns)
    )
    together = drawn[:, usable]
    together = together[~np.isnan(together).any(axis=1)]
    return found, estimate(overall, scored, together.mean(axis=1) if together.size else np.array([]))


def _drawn_again(table: Floats, had: NDArray[np.bool_], resamples: int, seed: int) -> Floats:
    """The columns' means of so many tables whose rows are drawn from `table` with replacement."""
    draw, filled, means = np.random.default_rng(seed), np.where(had, table, 0.0), []
    counted = had.astype(np.float64)
    rows = max(1, _AT_ONCE // max(1, table.size))
    for begun in range(0, resamples, rows):
        chosen = draw.integers(0, len(table), size=(min(rows, resamples - begun), len(table)))
        with np.errstate(invalid="ignore"):  # a column none of whose rows was drawn
            means.append(filled[chosen].sum(axis=1) / counted[chosen].sum(axis=1))
    return np.concatenate(means)


def _ends(values: Floats, mean: float, tail: float, level: float) -> Interval:
    low, high = (float(end) for end in np.quantile(values[~np.isnan(values)], [tail, 1 - tail]))
    return Interval(min(low, float(mean)), max(high, float(mean)), level)


def _or_none(mean: float) -> float | None:
    return None if math.isnan(mean) else float(mean)
