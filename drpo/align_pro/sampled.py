"""Lemma 5.1 without training: rho* estimated from samples of the reference prompter, self-normalised.

N rewrites are drawn from rho_sft, equal ones counted by how often they came, and each has m evaluations
of its reward. The estimate is the closed form over what was drawn: weights ~ exp(mean reward / lambda).
Pure.

Where it is biased, and what is done about it:

- *Few samples.* Ratios of means are biased by terms of the order 1/N. KL can never come out above log N,
  which is what it tends to for lambda -> 0 (best of N). `Off.bias` has the leading terms of this bias.
- *Noisy rewards.* With m answers sampled, exp(reward / lambda) of a noisy mean is too large on average,
  and what was chosen for its reward owes part of it to luck. The first adds about noise / (2 lambda^2) to
  log Z: the spread of the m evaluations tells how much, and it is in `Off` as well, as long as it is
  small. Of the second `honest` is free: each evaluation is weighted by the others of its rewrite only.
  With one evaluation neither can be told; neither is there where rewards have no noise: greedy answers, a
  reward that is a function.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from drpo.align_pro.closed_form import moments, optimal

REFERENCE, BEST = 1e300, 1e-300
"""Lambdas at which rho* is the reference prompter, and the best of the samples."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A rewrite that was drawn `count` times, with at least one evaluation of its reward."""

    text: str
    count: int
    rewards: tuple[float, ...]

    @property
    def reward(self) -> float:
        """The estimate of R(x, x'): the mean of the evaluations."""
        return _moments(self.rewards)[0]

    @property
    def noise(self) -> float:
        """The variance of that estimate; 0 where one evaluation cannot tell."""
        times = len(self.rewards)
        return _moments(self.rewards)[1] / (times - 1) if times > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Reference:
    """The reference prompter: the mean of R over what it draws, with its standard error, and the variance
    of R from rewrite to rewrite, less what noise adds; both None for one sample."""

    mean: float
    error: float | None
    variance: float | None


@dataclass(frozen=True, slots=True)
class Off:
    """How far off an estimate is: its bias to leading order (to be subtracted), and its standard error by
    the delta method. A jackknife would see no error at all where one sample has all the weight."""

    bias: float
    error: float


@dataclass(frozen=True, slots=True)
class Tilted:
    """rho* at one lambda, estimated.

    weights: per `Drawn`, they sum to 1. mean: the expected reward under them; too large where rewards are
    noisy. honest: the same without that, for weights from one evaluation less; None where there is one
    only. effective: (sum w)^2 / sum w^2 over the samples, 1 to N. log_z: infinite where reward / lambda
    is no number any more. kl: KL(rho*||rho_sft) in nats. log_z_off, kl_off: None for one sample, and
    where the noise of a reward is above lambda.
    """

    lambda_: float
    weights: tuple[float, ...]
    mean: float
    honest: float | None
    effective: float
    log_z: float
    log_z_off: Off | None
    kl: float
    kl_off: Off | None


def reference(drawn: Sequence[Drawn]) -> Reference:
    """What the reference prompter comes to. Raises ValueError where nothing was drawn."""
    shares, count = _shares(drawn), _size(drawn)
    mean, spread = moments(shares, [one.reward for one in drawn])
    if count < 2:
        return Reference(mean, None, None)
    spread *= count / (count - 1)
    noise = math.fsum(p * one.noise for p, one in zip(shares, drawn, strict=True))
    return Reference(mean, math.sqrt(spread / count), max(0.0, spread - noise))


def tilt(drawn: Sequence[Drawn], lambda_: float) -> Tilted:
    """rho* at `lambda_` by what was drawn. Raises ValueError as `closed_form.optimal`."""
    shares, count = _shares(drawn), _size(drawn)
    found = optimal(shares, [one.reward for one in drawn], lambda_)
    weights = found.probabilities
    effective = 1 / math.fsum(w * w / one.count for w, one in zip(weights, drawn, strict=True))
    noises = [one.noise / lambda_ / lambda_ for one in drawn]  # in units of lambda
    is_told = count > 1 and all(noise <= 1 for w, noise in zip(weights, noises, strict=True) if w > 0)
    log_z_off, kl_off = _how_far_off(shares, weights, noises, count) if is_told else (None, None)
    return Tilted(
        lambda_=lambda_,
        weights=weights,
        mean=found.mean,
        honest=honest(drawn, lambda_, [one.rewards for one in drawn]),
        effective=min(float(count), max(1.0, effective)),
        log_z=found.log_z,
        log_z_off=log_z_off,
        kl=found.kl,
        kl_off=kl_off,
    )


def curve(drawn: Sequence[Drawn], lambdas: Sequence[float]) -> tuple[Tilted, ...]:
    """`tilt` at each lambda, in the order given."""
    return tuple(tilt(drawn, lambda_) for lambda_ in lambdas)


def honest(drawn: Sequence[Drawn], lambda_: float, values: Sequence[Sequence[float]]) -> float | None:
    """The mean of `values` (per rewrite one for each of its evaluations, such as the rewards themselves)
    under weights that did not see the evaluation that a value belongs to. Unbiased, at any lambda, for what
    weights from one evaluation less come to. Where some have more evaluations than others, the first ones
    count, as many as all have; None where these are less than two.
    """
    times = min(len(value) for value in values)
    if times < 2:
        return None
    shares, means = _shares(drawn), []
    for left_out in range(times):
        others = [_moments(_without(one.rewards[:times], left_out))[0] for one in drawn]
        weights = optimal(shares, others, lambda_).probabilities
        means.append(math.fsum(w * value[left_out] for w, value in zip(weights, values, strict=True)))
    return math.fsum(means) / len(means)


def _without(rewards: tuple[float, ...], place: int) -> tuple[float, ...]:
    return rewards[:place] + rewards[place + 1 :]


def pick(weights: Sequence[float], seed: int) -> int:
    """The place of a rewrite drawn by its weight; the same for the same seed on every machine."""
    sums = list(itertools.accumulate(weights))
    place = bisect.bisect_right(sums, random.Random(seed).random() * sums[-1])
    return min(place, max(n for n, weight in enumerate(weights) if weight > 0))


def best(drawn: Sequence[Drawn]) -> int:
    """The place of the rewrite with the highest reward; of equal ones the one that was drawn most often,
    then the first. It is what is left of rho* for lambda -> 0."""
    return max(range(len(drawn)), key=lambda n: (drawn[n].reward, drawn[n].count, -n))


def _how_far_off(
    shares: Sequence[float], weights: Sequence[float], noises: Sequence[float], count: int
) -> tuple[Off, Off]:
    """Of log Z and of KL. With W = w / p, t = log W, whose mean under w is KL, and v the noise of a
    reward in units of lambda:

    influence of a sample on log Z: W - 1; on KL: W (t - KL - 1) + 1
    leading bias by N samples of log Z: -Var(W) / 2N; of KL: (Var(W) / 2 - E[W^2 (t - KL)]) / N
    by noise of log Z: sum v w (1 - w) / 2; of KL: sum v w ((1 - 2w) (t - KL) + 1 - w) / 2
    """
    rows = [
        (p, w, w / p, math.log(w / p) if w > 0 else 0.0, v)  # W t is 0 where W is
        for p, w, v in zip(shares, weights, noises, strict=True)
    ]
    kl = math.fsum(w * t for _, w, _, t, _ in rows)
    spread = math.fsum(p * (ratio - 1) ** 2 for p, _, ratio, _, _ in rows)
    lean = math.fsum(w * ratio * (t - kl) for _, w, ratio, t, _ in rows)
    influence = math.fsum(p * (ratio * (t - kl - 1) + 1) ** 2 for p, _, ratio, t, _ in rows)
    noisy = [(w, t - kl, v) for _, w, _, t, v in rows if w > 0]
    log_z = Off(
        bias=math.fsum(v * w * (1 - w) for w, _, v in noisy) / 2 - spread / (2 * count),
        error=math.sqrt(spread / (count - 1) + math.fsum(v * w * w for w, _, v in noisy)),
    )
    bias = math.fsum(v * w * ((1 - 2 * w) * t + 1 - w) for w, t, v in noisy) / 2
    error = influence / (count - 1) + math.fsum(v * w * w * t * t for w, t, v in noisy)
    return log_z, Off(bias + (spread / 2 - lean) / count, math.sqrt(error))


def _moments(rewards: Sequence[float]) -> tuple[float, float]:
    if len(rewards) == 1:
        return rewards[0], 0.0
    return moments((1 / len(rewards),) * len(rewards), rewards)


def _size(drawn: Sequence[Drawn]) -> int:
    return sum(one.count for one in drawn)


def _shares(drawn: Sequence[Drawn]) -> tuple[float, ...]:
    """How often each was drawn, as shares."""
    size = _size(drawn)
    if size < 1 or any(one.count < 1 or not one.rewards for one in drawn):
        raise ValueError("expected rewrites that were drawn, each with a reward")
    return tuple(one.count / size for one in drawn)
