"""Theorem 6.1: distances from log-probabilities, and the bound over worlds in which everything is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.align_pro.bound import Distance, bound, greedy_distance, total_variation
from drpo.align_pro.closed_form import optimal

P, Q = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.2, 0.3, 0.1, 0.4])


def scored(one: np.ndarray, other: np.ndarray, times: int, seed: int) -> list[tuple[float, float]]:
    draws = np.random.default_rng(seed).choice(len(one), size=times, p=one)
    return [(float(np.log(one[n])), float(np.log(other[n]))) for n in draws]


def test_the_distance_is_that_of_the_distributions_and_its_error_tells() -> None:
    exact = 0.5 * float(np.abs(P - Q).sum())
    sides = [scored(P, Q, 3000, 1), scored(Q, P, 3000, 2)]
    for found in (total_variation(sides[0]), total_variation(sides[1]), total_variation(*sides)):
        assert found.error is not None and 0.001 < found.error < 0.02
        assert found.value == pytest.approx(exact, abs=4 * found.error)
    many = [total_variation(scored(P, Q, 50, seed)) for seed in range(200)]
    told = [found.error for found in many if found.error is not None]
    assert float(np.mean(told)) == pytest.approx(float(np.std([found.value for found in many])), rel=0.1)
    assert float(np.mean([found.value for found in many])) == pytest.approx(exact, abs=0.02)


def test_equal_models_are_at_no_distance_and_exclusive_ones_at_one() -> None:
    assert total_variation([(-5.0, -5.0), (-700.0, -700.0)]).value == 0.0
    assert total_variation([(-5.0, -math.inf), (-2.0, -2000.0)]).value == 1.0
    assert total_variation([(-5.0, -4.0)]) == Distance(0.0, None)


@given(st.lists(st.tuples(st.floats(-1e5, 0), st.floats(-1e5, 0)), min_size=1, max_size=9))
def test_it_stays_between_0_and_1(pairs: list[tuple[float, float]]) -> None:
    assert 0 <= total_variation(pairs).value <= 1


@pytest.mark.parametrize(
    "pair", [(0.1, -1.0), (-1.0, 0.1), (math.nan, -1.0), (-1.0, math.nan), (-math.inf, -1)]
)
def test_what_is_no_log_probability_is_refused(pair: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="log-probabilities"):
        total_variation([pair])
    with pytest.raises(ValueError, match="none"):
        total_variation([])


def test_greedy_models_are_at_distance_0_or_1() -> None:
    assert greedy_distance("yes", "yes").value == 0 and greedy_distance("yes", "no").value == 1


@st.composite
def worlds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Policies over 4 answers: of the frozen model for x and for three rewrites, of an aligned one; the
    prompter; rewards in 0 to 2; lambda."""
    weights = st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4)
    rows = np.array([draw(weights) for _ in range(5)])
    prompter = np.array(draw(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3)))
    rewards = np.array(draw(st.lists(st.floats(0.0, 2.0), min_size=4, max_size=4)))
    lambda_ = 10.0 ** draw(st.floats(-2.0, 2.0))
    return rows / rows.sum(axis=1, keepdims=True), prompter / prompter.sum(), rewards, lambda_


@given(worlds())
def test_no_prompter_falls_short_by_more_than_the_bound(
    world: tuple[np.ndarray, np.ndarray, np.ndarray, float],
) -> None:
    (frozen, aligned, *rewritten), prompter, rewards, lambda_ = world
    best = optimal(prompter.tolist(), [float(row @ rewards) for row in rewritten], lambda_)
    gap = float(aligned @ rewards) - best.mean
    rewriting = float(prompter @ [0.5 * np.abs(frozen - row).sum() for row in rewritten])
    policy = 0.5 * float(np.abs(aligned - frozen).sum())
    found = bound(lambda_, [best.kl], 2.0, [rewriting], [policy])
    assert found.value is not None and gap <= found.value + 1e-9
    assert found.kl <= 0 <= (found.rewriting or 0.0)


def test_a_bound_has_a_value_only_where_every_term_is_known() -> None:
    assert bound(0.5, [1.0, 3.0], 4.0, [0.5, 1.0], [0.1, 0.3]).value == pytest.approx(0.8 + 3.0 - 1.0)
    for known in (
        bound(0.5, [1.0], 4.0, [0.5], None),
        bound(0.5, [1.0], 4.0, None, [0.5]),
        bound(0.5, [1.0], None, [0.5], [0.5]),
    ):
        assert known.value is None and known.kl == -0.5
    assert bound(0.5, [1.0], 4.0, [0.5]).rewriting == 2.0 and bound(0.5, [1.0], None, [0.5]).rewriting is None


@pytest.mark.parametrize(("divergences", "width"), [([], 1.0), ([1.0], -1.0), ([1.0], math.nan)])
def test_no_queries_and_no_range_are_refused(divergences: list[float], width: float) -> None:
    with pytest.raises(ValueError, match="queries"):
        bound(1.0, divergences, width)
