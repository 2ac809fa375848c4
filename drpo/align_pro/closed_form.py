"""Lemma 5.1 of Align-Pro over a finite set of rewrites: rho*(i) = p(i) exp(R(i) / lambda) / Z.

p is the reference prompter's distribution (rho_sft), R(i) the expected reward of the frozen model's answers
to rewrite i. Pure. Rewards are any finite numbers, lambda is any number from 1e-300 to 1e300: nothing
overflows, and what is below the smallest number becomes 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_SUM_SLACK = 1e-6
"""By so much the probabilities of a distribution may miss 1; they are divided by their sum."""
_SMALL = 1e-3
"""Below this a series is more exact than the difference that it stands for."""


@dataclass(frozen=True, slots=True)
class Optimal:
    """rho* at one lambda, in the order of the rewrites.

    probabilities: they sum to 1. log_z: the logarithm of Z, which is infinite where max R / lambda is no
    number any more. kl: KL(rho*||p) in nats. mean: the expected reward under rho*. value: what the
    objective E[R] - lambda KL comes to at rho*, its maximum; it equals lambda log Z and is always finite.
    """

    probabilities: tuple[float, ...]
    log_z: float
    kl: float
    mean: float
    value: float


def optimal(probabilities: Sequence[float], rewards: Sequence[float], lambda_: float) -> Optimal:
    """rho* and what belongs to it. A rewrite of probability 0 keeps it, whatever its reward.

    Raises ValueError for what is no distribution, a reward that is not finite, or a lambda that is not a
    finite number above 0.
    """
    prior = _checked(probabilities, rewards)
    check_lambda(lambda_)
    best = max(reward for p, reward in zip(prior, rewards, strict=True) if p > 0)
    # In units of lambda below the best: 0 for the best, -inf at most. Never a sum that could overflow.
    below = [
        (reward - best) / lambda_ if p > 0 else -math.inf for p, reward in zip(prior, rewards, strict=True)
    ]
    log_sum = _log_mean_exp(prior, below)
    tilts = [x - log_sum for x in below]  # log(rho* / p)
    found = [math.exp(math.log(p) + t) if p > 0 else 0.0 for p, t in zip(prior, tilts, strict=True)]
    total = math.fsum(found)
    found = [q / total for q in found]
    kl = max(0.0, math.fsum(_kl_term(p, q, t) for p, q, t in zip(prior, found, tilts, strict=True)))
    return Optimal(
        tuple(found), best / lambda_ + log_sum, kl, _mean(found, rewards), best + lambda_ * log_sum
    )


def moments(probabilities: Sequence[float], rewards: Sequence[float]) -> tuple[float, float]:
    """Mean and variance of the reward under a distribution. A variance beyond the largest number is inf."""
    prior = _checked(probabilities, rewards)
    mean = _mean(prior, rewards)
    apart = [reward - mean for p, reward in zip(prior, rewards, strict=True) if p > 0]
    widest = max(map(abs, apart))
    if widest == 0 or math.isinf(widest):
        return mean, widest
    shares = [p for p in prior if p > 0]
    relative = math.fsum(p * (x / widest) * (x / widest) for p, x in zip(shares, apart, strict=True))
    return mean, relative * widest * widest


def divergence(distribution: Sequence[float], reference: Sequence[float]) -> float:
    """KL(distribution||reference) in nats; inf where the reference rules out what the other does not."""
    ones, others = _normalised(distribution), _normalised(reference)
    if any(q > 0 and p == 0 for q, p in zip(ones, others, strict=True)):
        return math.inf
    terms = [
        _kl_term(p, q, math.log(q) - math.log(p) if q > 0 else -math.inf)
        for q, p in zip(ones, others, strict=True)
    ]
    return max(0.0, math.fsum(terms))


def objective(
    distribution: Sequence[float], probabilities: Sequence[float], rewards: Sequence[float], lambda_: float
) -> float:
    """E[R] - lambda KL(distribution||reference), which rho* maximises; -inf beyond the reference's support.

    What any distribution falls short of `Optimal.value` by is lambda KL(distribution||rho*).
    """
    check_lambda(lambda_)
    _checked(probabilities, rewards)
    kl = divergence(distribution, probabilities)
    return _mean(_normalised(distribution), rewards) - lambda_ * kl if kl < math.inf else -math.inf


def check_lambda(lambda_: float) -> None:
    """Raises ValueError where it is not a finite number above 0."""
    if not 0 < lambda_ < math.inf:
        raise ValueError(f"expected a finite lambda above 0, came {lambda_}")


def _log_mean_exp(prior: Sequence[float], below: Sequence[float]) -> float:
    """log sum p exp(x) for x <= 0 of which one is 0, exact for small |x| too: there it is about sum p x."""
    lost = math.fsum(p * math.expm1(x) for p, x in zip(prior, below, strict=True) if p > 0)
    if lost > -0.5:
        return math.log1p(lost)
    return math.log(math.fsum(p * math.exp(x) for p, x in zip(prior, below, strict=True) if p > 0))


def _kl_term(p: float, q: float, tilt: float) -> float:
    """p (t e^t - e^t + 1) with t = log(q / p): never below 0, so that nothing cancels in the sum."""
    if p == 0:
        return 0.0
    if abs(tilt) < _SMALL:
        return p * tilt * tilt * (1 / 2 + tilt * (1 / 3 + tilt * (1 / 8 + tilt / 30)))
    return (q * tilt if q > 0 else 0.0) - q + p


def _mean(distribution: Sequence[float], rewards: Sequence[float]) -> float:
    largest = max(abs(reward) for reward in rewards)
    if largest == 0:
        return 0.0
    had = [reward for q, reward in zip(distribution, rewards, strict=True) if q > 0]
    mean = math.fsum(q * (reward / largest) for q, reward in zip(distribution, rewards, strict=True))
    return min(max(mean * largest, min(had)), max(had))


def _checked(probabilities: Sequence[float], rewards: Sequence[float]) -> tuple[float, ...]:
    if len(probabilities) != len(rewards):
        raise ValueError(f"{len(probabilities)} probabilities for {len(rewards)} rewards")
    odd = next((reward for reward in rewards if not math.isfinite(reward)), None)
    if odd is not None:
        raise ValueError(f"expected finite rewards, came {odd}")
    return _normalised(probabilities)


def _normalised(probabilities: Sequence[float]) -> tuple[float, ...]:
    total = math.fsum(probabilities)
    if not all(p >= 0 for p in probabilities) or not abs(total - 1) <= _SUM_SLACK:
        raise ValueError(f"expected probabilities that sum to 1, came {list(probabilities)}")
    return tuple(p / total for p in probabilities)
