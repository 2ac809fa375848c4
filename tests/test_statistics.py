"""Intervals hold what they say, tests are exact, and too little data is told as such."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drpo.bootstrap import bootstrap_mean
from drpo.statistics import (
    Estimate,
    Interval,
    critical_value,
    flip_statistics,
    least_count,
    paired_differences,
    sign_flips,
    sign_test,
    simultaneous_bounds,
    student_quantile,
    wilson,
)

SCORES = st.lists(st.sampled_from([1.0, 1.5, 2.0, 3.25, 4.0, 4.75, 5.0]), min_size=6, max_size=30)
STEPS = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.0, 0.25, 0.5, 0.5, 1.0, 3.0])
TABLES = st.integers(1, 4).flatmap(
    lambda columns: st.lists(st.tuples(*[STEPS] * columns), min_size=1, max_size=9)
)
HOLED = st.lists(
    st.lists(st.one_of(st.just(math.nan), STEPS), min_size=3, max_size=3), min_size=1, max_size=14
)


# -- shares


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (8, 10, 0.4902, 0.9433), (10, 10, 0.7225, 1.0), (5, 200, 0.0107, 0.0572)],
)
def test_wilsons_interval_is_the_published_one(successes: int, trials: int, low: float, high: float) -> None:
    found = wilson(successes, trials)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


def test_wilsons_interval_without_trials_is_everything() -> None:
    assert wilson(0, 0) == Interval(0.0, 1.0)


@given(st.integers(1, 300), st.data())
def test_wilsons_interval_holds_the_share_and_is_the_mirror_of_the_other_side(
    trials: int, data: st.DataObject
) -> None:
    successes = data.draw(st.integers(0, trials))
    found, mirror = wilson(successes, trials), wilson(trials - successes, trials)
    assert successes / trials in found
    assert (found.low, found.high) == pytest.approx((1 - mirror.high, 1 - mirror.low), abs=1e-12)
    wider = wilson(successes, trials, 0.99)
    assert wider.low <= found.low and found.high <= wider.high


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="trials"):
        wilson(successes, trials)


# -- the sign test


@given(st.integers(0, 7), st.integers(0, 7))
def test_the_sign_test_counts_the_splits_that_are_at_least_as_uneven(wins: int, losses: int) -> None:
    splits = [sum(coins) for coins in itertools.product((0, 1), repeat=wins + losses)]
    uneven = abs(wins - losses)
    as_uneven = sum(abs(2 * heads - wins - losses) >= uneven for heads in splits)
    assert sign_test(wins, losses) == pytest.approx(as_uneven / len(splits))


def test_the_sign_test_without_wins_and_losses_says_nothing() -> None:
    assert sign_test(0, 0) == 1.0


def test_the_sign_test_takes_thousands() -> None:
    assert sign_test(5000, 5000) == 1.0
    assert 0 <= sign_test(6000, 4000) < 1e-80


def test_the_sign_test_refuses_counts_below_zero() -> None:
    with pytest.raises(ValueError, match="-1 wins"):
        sign_test(-1, 3)


# -- means


@pytest.mark.parametrize(
    ("probability", "degrees", "value"),
    [(0.975, 1, 12.7062), (0.975, 5, 2.5706), (0.95, 4, 2.1318), (0.975, 30, 2.0423), (0.025, 5, -2.5706)],
)
def test_students_quantile_is_the_tables(probability: float, degrees: int, value: float) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(value, abs=6e-5)


@pytest.mark.parametrize("values", [(), (None,), (3.0,), (3.0, None, 4.0, 5.0, 1.0, 2.0)])
def test_too_few_values_have_no_interval(values: Sequence[float | None]) -> None:
    found = bootstrap_mean(values)
    had = [value for value in values if value is not None]
    assert found == Estimate(sum(had) / len(had) if had else None, None, len(had), len(values) - len(had))


@pytest.mark.parametrize(("level", "count"), [(0.5, 2), (0.75, 3), (0.9, 5), (0.95, 6), (0.99, 8)])
def test_an_interval_needs_as_many_values_as_its_level_says(level: float, count: int) -> None:
    assert least_count(level) == count
    assert 2.0 ** (1 - count) <= 1 - level + 1e-9 < 2.0 ** (2 - count) + 2e-9


@settings(max_examples=25)
@given(SCORES)
def test_the_bootstrap_does_not_know_the_order_and_stays_among_the_values(values: list[float]) -> None:
    found = bootstrap_mean(values, resamples=500)
    assert found.interval is not None and found.mean is not None
    assert min(values) <= found.interval.low <= found.mean <= found.interval.high <= max(values)
    assert bootstrap_mean(values[::-1], resamples=500) == found


def test_values_that_are_all_equal_have_an_interval_without_width() -> None:
    assert bootstrap_mean([0.1] * 7).interval == Interval(bootstrap_mean([0.1] * 7).mean or 0, 0.1)


def test_of_symmetric_values_the_bootstrap_is_students_interval() -> None:
    values = np.linspace(-1, 1, 12)
    half = student_quantile(0.975, 11) * values.std(ddof=1) / math.sqrt(12)
    found = bootstrap_mean(values.tolist()).interval
    assert found is not None
    assert (found.low, found.high) == pytest.approx((-half, half), rel=0.05)


def test_of_eight_normal_values_more_intervals_hold_the_mean_than_plain_percentiles_would() -> None:
    draw = np.random.default_rng(5)
    held = 0
    for values in draw.normal(0, 1, (400, 8)).tolist():
        interval = bootstrap_mean(values, resamples=1000).interval
        assert interval is not None
        held += 0.0 in interval
    assert 0.91 <= held / 400 <= 0.97  # of plain percentile intervals 0.89


def test_paired_differences_are_none_where_either_side_is() -> None:
    assert paired_differences([3, None, 4.5, 1], [1, 2, None, 1]) == (2, None, None, 0)
    with pytest.raises(ValueError, match="longer"):
        paired_differences([1], [1, 2])


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_mean([1, 2], level)


# -- many comparisons at once


@pytest.mark.parametrize("length", range(9))
def test_few_differences_have_all_their_sign_patterns(length: int) -> None:
    flips = sign_flips(length)
    both = {tuple(row) for row in flips.tolist()} | {tuple(row) for row in (-flips).tolist()}
    assert len(both) == 2**length and (flips[0] == 1).all()


def test_many_differences_have_as_many_patterns_as_asked_for_and_the_same_ones_again() -> None:
    flips = sign_flips(40, at_most=100)
    assert flips.shape == (100, 40) and (flips[0] == 1).all() and set(flips.ravel()) == {1.0, -1.0}
    assert (flips == sign_flips(40, at_most=100)).all()
    assert (flips != sign_flips(40, at_most=100, seed=1)).any()


@settings(max_examples=60, deadline=None)
@given(TABLES, st.sampled_from([0.025, 0.05, 0.2]))
def test_of_all_sign_patterns_at_most_the_tail_exceeds_the_critical_value(
    rows: list[tuple[float, ...]], tail: float
) -> None:
    differences = np.array(rows)
    flips = sign_flips(len(rows))
    bar = critical_value(differences, flips, tail) + 1e-9
    largest = [flip_statistics(sign * row[:, None] * differences).max() for row in flips for sign in (1, -1)]
    assert sum(value > bar for value in largest) <= tail * len(largest) + 1e-9


@settings(max_examples=60)
@given(HOLED)
def test_a_lower_end_is_above_zero_only_where_the_test_says_so(rows: list[list[float]]) -> None:
    differences = np.array(rows)
    found = simultaneous_bounds(differences, sign_flips(len(rows), 64))
    assert found.critical >= critical_value(differences, sign_flips(len(rows), 64), 0.025)
    columns = zip(found.means, found.halves, flip_statistics(differences), found.counts, strict=True)
    for mean, half, statistic, count in columns:
        assert (count == 0) == math.isnan(mean)
        if count and mean > half:
            assert statistic > found.critical
        elif mean < half - 1e-6:
            assert statistic <= found.critical


def test_columns_that_are_the_same_cost_nothing() -> None:
    one = np.random.default_rng(3).normal(0.2, 1, (20, 1))
    flips = sign_flips(20)
    assert simultaneous_bounds(np.repeat(one, 8, axis=1), flips).critical == pytest.approx(
        simultaneous_bounds(one, flips).critical
    )


def test_five_differences_cannot_be_told_from_zero_and_six_can() -> None:
    for count, told in ((5, False), (6, True)):
        found = simultaneous_bounds(np.full((count, 1), 0.5), sign_flips(count))
        assert (found.means[0] > found.halves[0]) is told


def test_without_differences_nothing_is_bounded() -> None:
    nothing = simultaneous_bounds(np.full((4, 2), math.nan), sign_flips(4))
    assert nothing.counts == (0, 0) and nothing.halves == (math.inf, math.inf)
    assert simultaneous_bounds(np.empty((0, 1)), sign_flips(0)).halves == (math.inf,)


def test_a_single_comparison_comes_to_students_interval() -> None:
    values = np.random.default_rng(8).normal(0.3, 1, (40, 1))
    half = student_quantile(0.975, 39) * values.std(ddof=1) / math.sqrt(40)
    assert simultaneous_bounds(values, sign_flips(40)).halves[0] == pytest.approx(half, rel=0.06)
