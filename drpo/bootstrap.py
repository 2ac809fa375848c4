"""Bootstrap intervals of means. Pure: equal input gives equal output. None: a value that could not be had."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean

import numpy as np

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
    tail = NormalDist().cdf(
        -math.sqrt(len(had) / (len(had) - 1)) * student_quantile((1 + level) / 2, len(had) - 1)
    )
    low, high = (float(end) for end in np.quantile(means, [tail, 1 - tail]))
    # Rounding must not push a mean out of an interval without width.
    return Estimate(mean, Interval(min(low, mean), max(high, mean), level), len(had), missing)


def bootstrap_means(
    rows: Sequence[Sequence[float | None]],
    level: float = LEVEL,
    resamples: int = _RESAMPLES // 5,
    seed: int = 0,
) -> tuple[tuple[Estimate, ...], Estimate]:
    """The mean of each column and the plain mean of these means, rows being drawn again as wholes, so that
    what a row's values have in common counts. Percentiles are taken as far out as in `bootstrap_mean`.

    A column without values has no mean and is left out of the last one. Raises ValueError for rows of
    different lengths.
    """
    columns = max((len(row) for row in rows), default=0)
    if any(len(row) != columns for row in rows):
        raise ValueError("expected rows of one length")
    table = np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=np.float64)
    table = table.reshape(len(rows), columns)
    had = ~np.isnan(table)
    counts = had.sum(axis=0)
    usable = counts > 0
    filled = np.where(had, table, 0.0)
    means = np.full(columns, np.nan)
    means[usable] = filled.sum(axis=0)[usable] / counts[usable]
    scored = int(had.any(axis=1).sum())
    overall = float(means[usable].mean()) if usable.any() else None
    missing = len(rows) - scored
    if scored < least_count(level):
        pairs = zip(means, counts, strict=True)
        plain = tuple(Estimate(_or_none(mean), None, int(n), len(rows) - int(n)) for mean, n in pairs)
        return plain, Estimate(overall, None, scored, missing)
    drawn = np.random.default_rng(seed).multinomial(len(rows), [1 / len(rows)] * len(rows), size=resamples)
    with np.errstate(invalid="ignore"):  # a column none of whose rows was drawn
        again = (drawn @ filled) / (drawn @ had)
    tail = NormalDist().cdf(-math.sqrt(scored / (scored - 1)) * student_quantile((1 + level) / 2, scored - 1))
    found = tuple(
        Estimate(
            _or_none(means[column]),
            _ends(again[:, column], means[column], tail, level)
            if counts[column] >= least_count(level)
            else None,
            int(counts[column]),
            len(rows) - int(counts[column]),
        )
        for column in range(columns)
    )
    with_all = again[:, usable]
    with_all = with_all[~np.isnan(with_all).any(axis=1)]
    assert overall is not None
    return found, Estimate(overall, _ends(with_all.mean(axis=1), overall, tail, level), scored, missing)


def _ends(values: Floats, mean: float, tail: float, level: float) -> Interval:
    low, high = (float(end) for end in np.quantile(values[~np.isnan(values)], [tail, 1 - tail]))
    return Interval(min(low, float(mean)), max(high, float(mean)), level)


def _or_none(mean: float) -> float | None:
    return None if math.isnan(mean) else float(mean)
