"""Lemma 5.1: rho*, Z and KL against enumeration in 60 digits, both limits, and that nothing beats rho*."""

from __future__ import annotations

import decimal
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from drpo.align_pro.closed_form import divergence, moments, objective, optimal

DIGITS = decimal.Context(prec=60)


@dataclass(frozen=True)
class Toy:
    """A prompter over a few rewrites, and their rewards."""

    probabilities: tuple[float, ...]
    rewards: tuple[float, ...]


def shares(size: int, least: float = 0.0) -> st.SearchStrategy[tuple[float, ...]]:
    """Distributions over `size` rewrites; some probabilities are 0 where `least` is."""
    weights = st.lists(st.one_of(st.just(least), st.floats(1e-6, 1.0)), min_size=size, max_size=size).filter(
        lambda found: sum(found) > 1e-3
    )
    return weights.map(lambda found: tuple(w / math.fsum(found) for w in found))


@st.composite
def toys(draw: st.DrawFn, largest: float = 50.0, most: int = 8) -> Toy:
    size = draw(st.integers(1, most))
    rewards = draw(st.lists(st.floats(-largest, largest), min_size=size, max_size=size))
    return Toy(draw(shares(size)), tuple(rewards))


lambdas = st.floats(-2.0, 3.0).map(lambda power: 10.0**power)
any_lambda = st.floats(-300.0, 300.0).map(lambda power: 10.0**power)


def enumerated(toy: Toy, lambda_: float) -> tuple[list[Decimal], Decimal, Decimal, Decimal]:
    """rho*, log Z, KL and E[R] as the lemma's formulas are written, in 60 digits."""
    with decimal.localcontext(DIGITS):
        total = sum(map(Decimal, toy.probabilities))
        prior = [Decimal(p) / total for p in toy.probabilities]
        rewards, by = list(map(Decimal, toy.rewards)), Decimal(lambda_)
        joint = [p * (r / by).exp() for p, r in zip(prior, rewards, strict=True)]
        z = sum(joint, Decimal(0))
        found = [x / z for x in joint]
        kl = sum((q * (q / p).ln() for q, p in zip(found, prior, strict=True) if q > 0), Decimal(0))
        mean = sum((q * r for q, r in zip(found, rewards, strict=True)), Decimal(0))
        return found, z.ln(), kl, mean


def near(found: float, wanted: Decimal) -> bool:
    """Within 1e-9 of the enumerated value, of its size where that is above 1."""
    return abs(found - float(wanted)) <= 1e-9 * max(1.0, abs(float(wanted)))


@given(toys(), lambdas)
def test_rho_z_and_kl_are_those_of_exact_enumeration(toy: Toy, lambda_: float) -> None:
    found = optimal(toy.probabilities, toy.rewards, lambda_)
    wanted, log_z, kl, mean = enumerated(toy, lambda_)
    assert all(near(q, exact) for q, exact in zip(found.probabilities, wanted, strict=True))
    assert near(found.log_z, log_z) and near(found.kl, kl) and near(found.mean, mean)
    assert near(found.value, log_z * Decimal(lambda_))
    assert near(found.mean - lambda_ * found.kl, log_z * Decimal(lambda_))


@given(toys(), st.floats(3.0, 12.0).map(lambda power: 10.0**power))
def test_a_small_divergence_keeps_its_digits(toy: Toy, lambda_: float) -> None:
    """At a large lambda KL is about variance / (2 lambda^2), less than a difference of sums could tell."""
    found, (_, _, kl, _) = optimal(toy.probabilities, toy.rewards, lambda_), enumerated(toy, lambda_)
    _, variance = moments(toy.probabilities, toy.rewards)
    assume(variance > 1e-6)
    assert found.kl == pytest.approx(variance / (2 * lambda_**2), rel=0.2)
    if kl > Decimal("1e-22"):
        assert found.kl == pytest.approx(float(kl), rel=1e-6)


@given(toys(most=6), lambdas, st.data())
def test_any_other_distribution_is_worse_by_lambda_times_its_divergence(
    toy: Toy, lambda_: float, data: st.DataObject
) -> None:
    found = optimal(toy.probabilities, toy.rewards, lambda_)
    at_best = objective(found.probabilities, toy.probabilities, toy.rewards, lambda_)
    assert at_best == pytest.approx(found.value, rel=1e-9, abs=1e-9 * max(1.0, lambda_))
    other = data.draw(shares(len(toy.rewards)))
    worse = objective(other, toy.probabilities, toy.rewards, lambda_)
    assert worse <= found.value + 1e-9 * max(1.0, lambda_, abs(found.value))
    if worse > -math.inf and all(q > 0 for q in found.probabilities):
        lost = lambda_ * divergence(other, found.probabilities)
        assert found.value - worse == pytest.approx(lost, rel=1e-7, abs=1e-8 * max(1.0, lambda_))


def test_a_perturbed_rho_falls_short_of_lambda_log_z() -> None:
    toy, lambda_ = Toy((0.5, 0.3, 0.2), (1.0, 2.0, 4.0)), 0.7
    found = optimal(toy.probabilities, toy.rewards, lambda_)
    assert found.value == pytest.approx(lambda_ * found.log_z)
    for shift in (1e-3, -1e-3, 0.05):
        q = (found.probabilities[0] + shift, found.probabilities[1], found.probabilities[2] - shift)
        assert objective(q, toy.probabilities, toy.rewards, lambda_) < found.value - 1e-7


@given(toys())
def test_for_lambda_to_infinity_it_is_the_reference_prompter(toy: Toy) -> None:
    found = optimal(toy.probabilities, toy.rewards, 1e300)
    total = math.fsum(toy.probabilities)
    assert found.probabilities == pytest.approx([p / total for p in toy.probabilities], abs=1e-12)
    mean, _ = moments(toy.probabilities, toy.rewards)
    assert found.value == pytest.approx(mean, abs=1e-9) and found.mean == pytest.approx(mean, abs=1e-9)
    assert found.kl == 0.0


@given(toys())
def test_for_lambda_to_zero_only_the_best_are_left_as_likely_as_before(toy: Toy) -> None:
    found = optimal(toy.probabilities, toy.rewards, 1e-300)
    there = [r for p, r in zip(toy.probabilities, toy.rewards, strict=True) if p > 0]
    assume(all(r == max(there) or max(there) - r > 1e-290 for r in there))  # nearer ones: no limit yet
    is_best = [p > 0 and r == max(there) for p, r in zip(toy.probabilities, toy.rewards, strict=True)]
    best = math.fsum(p for p, kept in zip(toy.probabilities, is_best, strict=True) if kept)
    limit = [p / best if kept else 0.0 for p, kept in zip(toy.probabilities, is_best, strict=True)]
    assert found.probabilities == pytest.approx(limit, abs=1e-12)
    assert found.mean == max(there) and found.value == pytest.approx(max(there))
    assert found.kl == pytest.approx(-math.log(best / math.fsum(toy.probabilities)), abs=1e-9)


@given(toys(largest=1e308), any_lambda)
def test_no_reward_and_no_lambda_is_too_large_or_too_small(toy: Toy, lambda_: float) -> None:
    found = optimal(toy.probabilities, toy.rewards, lambda_)
    assert math.fsum(found.probabilities) == pytest.approx(1.0)
    assert all(0.0 <= q <= 1.0 for q in found.probabilities)
    there = [r for p, r in zip(toy.probabilities, toy.rewards, strict=True) if p > 0]
    assert min(there) <= found.mean <= max(there)
    slack = 1e-9 * max(map(abs, there)) + 1e-300
    assert min(there) - slack <= found.value <= max(there) + slack
    assert 0.0 <= found.kl <= -math.log(min(p for p in toy.probabilities if p > 0)) + 1e-9
    assert not math.isnan(found.log_z)
    mean, variance = moments(toy.probabilities, toy.rewards)
    assert min(there) <= mean <= max(there) and variance >= 0


@given(toys(), lambdas, st.floats(-1e6, 1e6))
def test_a_constant_added_to_every_reward_changes_log_z_and_nothing_else(
    toy: Toy, lambda_: float, added: float
) -> None:
    here = optimal(toy.probabilities, toy.rewards, lambda_)
    there = optimal(toy.probabilities, [r + added for r in toy.rewards], lambda_)
    slack = 1e-8 / lambda_ + 1e-9
    assert there.probabilities == pytest.approx(here.probabilities, abs=slack)
    assert there.value - here.value == pytest.approx(added, abs=1e-6)


@given(toys())
def test_moments_are_those_of_the_distribution(toy: Toy) -> None:
    mean, variance = moments(toy.probabilities, toy.rewards)
    with decimal.localcontext(DIGITS):
        total = sum(map(Decimal, toy.probabilities))
        pairs = [
            (Decimal(p) / total, Decimal(r)) for p, r in zip(toy.probabilities, toy.rewards, strict=True)
        ]
        exact = sum((p * r for p, r in pairs), Decimal(0))
        spread = sum((p * (r - exact) ** 2 for p, r in pairs), Decimal(0))
    assert near(mean, exact) and near(variance, spread)


@pytest.mark.parametrize(
    ("probabilities", "rewards", "lambda_"),
    [
        ((0.5, 0.6), (1.0, 2.0), 1.0),
        ((1.5, -0.5), (1.0, 2.0), 1.0),
        ((0.5, 0.5), (1.0,), 1.0),
        ((0.5, 0.5), (1.0, math.nan), 1.0),
        ((0.5, 0.5), (1.0, math.inf), 1.0),
        ((0.5, 0.5), (1.0, 2.0), 0.0),
        ((0.5, 0.5), (1.0, 2.0), math.inf),
        ((0.5, 0.5), (1.0, 2.0), math.nan),
        ((), (), 1.0),
    ],
)
def test_what_is_no_problem_is_refused(
    probabilities: Sequence[float], rewards: Sequence[float], lambda_: float
) -> None:
    with pytest.raises(ValueError, match=r"expected|probabilities"):
        optimal(probabilities, rewards, lambda_)


def test_mass_where_the_reference_has_none_is_infinitely_bad() -> None:
    assert divergence((0.5, 0.5), (1.0, 0.0)) == math.inf
    assert objective((0.5, 0.5), (1.0, 0.0), (0.0, 9.0), 1.0) == -math.inf
