"""rho* from samples: the closed form over what was drawn, its rate, its errors, and what noise does to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from drpo.align_pro.closed_form import optimal
from drpo.align_pro.sampled import (
    BEST,
    REFERENCE,
    Drawn,
    Tilted,
    best,
    curve,
    honest,
    pick,
    reference,
    tilt,
)

SHARES = (0.4, 0.25, 0.15, 0.1, 0.07, 0.03)
REWARDS = (1.0, 1.6, 0.4, 2.2, 1.1, 2.9)
LAMBDA = 0.8
EXACT = optimal(SHARES, REWARDS, LAMBDA)


@dataclass(frozen=True)
class World:
    """A reference prompter over six rewrites whose rewards are known, up to noise in each evaluation."""

    noise: float = 0.0
    times: int = 1
    rewards: tuple[float, ...] = REWARDS

    def drawn(self, count: int, draw: np.random.Generator) -> list[Drawn]:
        counts = draw.multinomial(count, SHARES)
        return [
            Drawn(f"rewrite {n}", int(times), self.evaluations(n, draw))
            for n, times in enumerate(counts)
            if times
        ]

    def evaluations(self, place: int, draw: np.random.Generator) -> tuple[float, ...]:
        if not self.noise:
            return (self.rewards[place],) * self.times
        return tuple((self.rewards[place] + self.noise * draw.standard_normal(self.times)).tolist())


def repeated(world: World, count: int, times: int, seed: int = 7) -> list[Tilted]:
    draw = np.random.default_rng(seed)
    return [tilt(world.drawn(count, draw), LAMBDA) for _ in range(times)]


@st.composite
def draws(draw: st.DrawFn) -> list[Drawn]:
    size = draw(st.integers(1, 6))
    rewards = st.lists(st.floats(-20, 20), min_size=2, max_size=2).map(tuple)
    return [Drawn(f"rewrite {n}", draw(st.integers(1, 4)), draw(rewards)) for n in range(size)]


def size_of(drawn: Sequence[Drawn]) -> int:
    return sum(one.count for one in drawn)


any_lambda = st.floats(-6.0, 6.0).map(lambda power: 10.0**power)


@given(draws(), any_lambda)
def test_it_is_the_closed_form_over_what_was_drawn(drawn: list[Drawn], lambda_: float) -> None:
    found, count = tilt(drawn, lambda_), size_of(drawn)
    wanted = optimal([one.count / count for one in drawn], [one.reward for one in drawn], lambda_)
    assert found.weights == wanted.probabilities
    assert (found.log_z, found.kl, found.mean) == (wanted.log_z, wanted.kl, wanted.mean)
    assert 0 <= found.kl <= math.log(count) + 1e-12  # more than that N samples cannot show
    assert 1 <= found.effective <= count


@given(draws(), any_lambda)
def test_a_rewrite_that_came_twice_counts_as_two_samples(drawn: list[Drawn], lambda_: float) -> None:
    apart = [Drawn(one.text, 1, one.rewards) for one in drawn for _ in range(one.count)]
    one, other = tilt(drawn, lambda_), tilt(apart, lambda_)
    for name in ("mean", "honest", "effective", "log_z", "kl"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9, abs=1e-9), name
    means = [reference(found) for found in (drawn, apart)]
    assert means[0].mean == pytest.approx(means[1].mean, abs=1e-9)
    variances = [math.nan if mean.variance is None else mean.variance for mean in means]
    assert variances[0] == pytest.approx(variances[1], rel=1e-9, abs=1e-9, nan_ok=True)


RATES: dict[str, Callable[[Tilted], float]] = {
    "log Z": lambda found: found.log_z - EXACT.log_z,
    "KL": lambda found: found.kl - EXACT.kl,
    "mean": lambda found: found.mean - EXACT.mean,
}


@pytest.fixture(scope="module")
def errors() -> dict[int, list[Tilted]]:
    return {count: repeated(World(), count, 150) for count in (32, 64, 128, 256, 512, 1024, 2048, 4096)}


@pytest.mark.parametrize("figure", RATES)
def test_the_error_falls_as_one_over_the_root_of_the_samples(
    errors: dict[int, list[Tilted]], figure: str
) -> None:
    off = [math.sqrt(sum(RATES[figure](one) ** 2 for one in found) / len(found)) for found in errors.values()]
    slope = float(np.polyfit(np.log(list(errors)), np.log(off), 1)[0])
    assert -0.58 < slope < -0.42
    assert off[-1] < 0.05


def test_errors_and_biases_are_what_many_repetitions_show(errors: dict[int, list[Tilted]]) -> None:
    for figure in ("log_z", "kl"):
        values = [getattr(one, figure) for one in errors[512]]
        told = [getattr(one, f"{figure}_off").error for one in errors[512]]
        assert float(np.mean(told)) == pytest.approx(float(np.std(values)), rel=0.15)
        few = repeated(World(), 48, 1500)
        off = float(np.mean([getattr(one, figure) for one in few])) - getattr(EXACT, figure)
        expected = float(np.mean([getattr(one, f"{figure}_off").bias for one in few]))
        assert abs(off) > 0.004 and expected == pytest.approx(off, rel=0.4)


def test_noise_in_the_rewards_is_in_the_biases_and_errors() -> None:
    """The rewrites stand in their true shares; each noise comes with its opposite: means tell soon."""
    draw, times, many = np.random.default_rng(5), 6, list[Tilted]()
    for _ in range(250):
        noise = 0.6 * draw.standard_normal((len(SHARES), times))
        for sign in (1, -1):
            rows = [
                Drawn(f"rewrite {n}", round(10_000 * share), tuple((REWARDS[n] + sign * noise[n]).tolist()))
                for n, share in enumerate(SHARES)
            ]
            many.append(tilt(rows, LAMBDA))
    for figure in ("log_z", "kl"):
        values = [getattr(one, figure) for one in many]
        off = float(np.mean(values)) - getattr(EXACT, figure)
        offs = [found for one in many if (found := getattr(one, f"{figure}_off")) is not None]
        assert len(offs) > 0.95 * len(many)
        assert off > 0.005 and float(np.mean([one.bias for one in offs])) == pytest.approx(off, rel=0.3)
        spread = math.sqrt(float(np.mean([one.error**2 for one in offs])))
        assert spread == pytest.approx(float(np.std(values)), rel=0.15)


def test_where_all_is_noise_the_honest_mean_claims_no_gain() -> None:
    """Every rewrite is worth 0: what the weights of a small lambda seem to gain is luck."""
    world, draw = World(noise=1.0, times=4, rewards=(0.0,) * 6), np.random.default_rng(3)
    found = [tilt(world.drawn(64, draw), 0.05) for _ in range(250)]
    assert float(np.mean([one.mean for one in found])) > 0.5
    honest_means = [one.honest for one in found if one.honest is not None]
    assert len(honest_means) == 250
    assert abs(float(np.mean(honest_means))) < 3 * float(np.std(honest_means)) / 250**0.5
    variances = [reference(world.drawn(64, draw)).variance for _ in range(250)]
    assert float(np.mean([v for v in variances if v is not None])) < 0.1 < 1.0 / 4


def test_with_one_evaluation_nothing_honest_can_be_told_and_of_uneven_ones_the_first_count() -> None:
    assert honest([Drawn("a", 1, (1.0,)), Drawn("b", 1, (2.0,))], 1.0, [(1.0,), (2.0,)]) is None
    assert honest([Drawn("a", 1, (1.0,)), Drawn("b", 1, (2.0, 3.0))], 1.0, [(1.0,), (2.0, 3.0)]) is None
    uneven = [Drawn("a", 1, (0.0, 10.0, 99.0)), Drawn("b", 1, (1.0, 1.0))]
    assert honest(uneven, 1e-6, [one.rewards for one in uneven]) == pytest.approx(0.5)


def test_the_honest_mean_weighs_each_evaluation_by_the_others() -> None:
    drawn = [Drawn("a", 1, (0.0, 10.0)), Drawn("b", 1, (1.0, 1.0))]
    # By the second evaluation a is chosen, whose first one is 0; by the first one b.
    assert honest(drawn, 1e-6, [one.rewards for one in drawn]) == pytest.approx((0.0 + 1.0) / 2)


def test_noise_above_lambda_leaves_the_errors_untold() -> None:
    drawn = [Drawn("a", 3, (0.0, 4.0)), Drawn("b", 2, (3.0, 3.5))]
    assert tilt(drawn, 100.0).kl_off is not None
    assert tilt(drawn, 0.1).kl_off is None and tilt(drawn, 1e-300).log_z_off is None


@given(draws())
def test_both_limits_hold(drawn: list[Drawn]) -> None:
    """lambda -> infinity: the samples as they came; lambda -> 0: best of N."""
    count, rewards = size_of(drawn), [one.reward for one in drawn]
    assume(all(r == max(rewards) or max(rewards) - r > 1e-290 for r in rewards))  # nearer ones: no limit yet
    low, high = curve(drawn, (BEST, REFERENCE))
    assert high.weights == pytest.approx([one.count / count for one in drawn])
    assert high.effective == pytest.approx(count) and high.kl == 0
    assert high.mean == pytest.approx(reference(drawn).mean, abs=1e-9)
    of_best = sum(one.count for one in drawn if one.reward == max(rewards))
    assert low.mean == max(rewards) == drawn[best(drawn)].reward
    assert low.effective == pytest.approx(of_best)
    assert low.kl == pytest.approx(math.log(count / of_best), abs=1e-9)


def test_the_best_of_equal_ones_is_the_one_that_came_most_often_then_the_first() -> None:
    drawn = [Drawn("a", 1, (2.0,)), Drawn("b", 3, (2.0,)), Drawn("c", 3, (2.0,)), Drawn("d", 9, (1.0,))]
    assert best(drawn) == 1


def test_rewrites_are_picked_by_weight_and_the_same_for_the_same_seed() -> None:
    weights = (0.5, 0.0, 0.3, 0.2, 0.0)
    picked = [pick(weights, seed) for seed in range(4000)]
    shares = [picked.count(n) / 4000 for n in range(5)]
    assert shares == pytest.approx(weights, abs=0.03) and shares[1] == shares[4] == 0
    assert picked[:50] == [pick(weights, seed) for seed in range(50)]


def test_one_sample_has_no_error_and_no_samples_are_refused() -> None:
    alone = tilt([Drawn("a", 1, (3.0,))], 1.0)
    assert (alone.mean, alone.kl, alone.log_z, alone.kl_off, alone.log_z_off) == (3.0, 0.0, 3.0, None, None)
    only = reference([Drawn("a", 1, (3.0,))])
    assert (only.mean, only.error, only.variance) == (3.0, None, None)
    for nothing in ([], [Drawn("a", 0, (1.0,))], [Drawn("a", 1, ())]):
        with pytest.raises(ValueError, match="drawn"):
            tilt(nothing, 1.0)
