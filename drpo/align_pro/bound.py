"""Theorem 6.1 of Align-Pro: how much of an aligned (RLHF) policy's reward a prompter leaves out, at most.

J(pi*) - J(rho*) <= r_max E d_TV(pi*(.|x), pi_F(.|x))     policy term: how far the frozen model is from it
                  + r_max E d_TV(pi_F(.|x), pi_F(.|x'))   rewriting term, x' from rho_sft
                  - lambda E KL(rho*(.|x)||rho_sft(.|x))  KL term: what choosing among rewrites wins back

r_max is the width of the reward's range. A term that nobody can know is None, and so is the bound. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

Scored = Sequence[tuple[float, float]]
"""Answers as log-probabilities, (under the one that they were sampled from, under the other)."""


@dataclass(frozen=True, slots=True)
class Distance:
    """A total-variation distance, 0 to 1. error: its standard error, 0 where it is exact, None for one
    answer."""

    value: float
    error: float | None


@dataclass(frozen=True, slots=True)
class Bound:
    """The terms with their signs, in units of the reward; None: not known. value: their sum, the most
    that a prompter can fall short by; None unless all of them are known."""

    policy: float | None
    rewriting: float | None
    kl: float

    @property
    def value(self) -> float | None:
        if self.policy is None or self.rewriting is None:
            return None
        return self.policy + self.rewriting + self.kl


def total_variation(of_one: Scored, of_other: Scored = ()) -> Distance:
    """d_TV of two distributions p and q over answers, by log-probabilities of answers of p (and of q).

    d_TV = E_p max(0, 1 - q/p) = E_q max(0, 1 - p/q): a mean of numbers from 0 to 1, without bias where
    answers are plain samples (temperature 1, nothing cut off) and log-probabilities are of whole answers,
    their end included. Of both sides the mean counts. Raises ValueError without answers, and for a
    log-probability above 0 or nan, or of -inf under the one that the answer came from.
    """
    sides = [[_lost(own, other) for own, other in side] for side in (of_one, of_other) if side]
    if not sides:
        raise ValueError("expected answers with their log-probabilities, came none")
    value = fmean(fmean(side) for side in sides)
    if min(map(len, sides)) < 2:
        return Distance(value, None)
    squares = sum(variance(side) / len(side) for side in sides)
    return Distance(value, math.sqrt(squares) / len(sides))


def greedy_distance(answer: str, other: str) -> Distance:
    """d_TV of two models that answer greedily: 0 where their answers are the same text, else 1."""
    return Distance(float(answer != other), 0.0)


def bound(
    lambda_: float,
    divergences: Sequence[float],
    reward_range: float | None,
    rewriting: Sequence[float] | None = None,
    policy: Sequence[float] | None = None,
) -> Bound:
    """The theorem's terms as means over queries. divergences: KL(rho*||rho_sft) of each. rewriting: of each
    d_TV(pi_F(.|x), pi_F(.|x')), averaged over its rewrites. policy: of each d_TV(pi*(.|x), pi_F(.|x)).
    None: not known. Raises ValueError without queries, and for a reward_range below 0.
    """
    if not divergences or (reward_range is not None and not 0 <= reward_range < math.inf):
        raise ValueError(f"{len(divergences)} queries, a reward range of {reward_range}")

    def term(distances: Sequence[float] | None) -> float | None:
        return None if reward_range is None or not distances else reward_range * fmean(distances)

    return Bound(term(policy), term(rewriting), -lambda_ * fmean(divergences))


def _lost(own: float, other: float) -> float:
    if not -math.inf < own <= 0 or not other <= 0:
        raise ValueError(f"expected log-probabilities, came {own} and {other}")
    return max(0.0, -math.expm1(min(0.0, other - own)))
