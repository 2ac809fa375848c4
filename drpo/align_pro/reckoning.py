"""The figures of an estimate: per query and over all of them, from what was answered and rewarded. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from drpo.align_pro.bound import bound
from drpo.align_pro.plan import EstimatePlan
from drpo.align_pro.results import Estimation, Explored, Kind, Row, Side, Tried, Weighed
from drpo.align_pro.sampled import BEST, REFERENCE, Tilted, honest, pick, reference, tilt
from drpo.ask import derived_seed
from drpo.bootstrap import bootstrap_mean
from drpo.statistics import Estimate


def estimation_of(
    plan: EstimatePlan,
    run_dir: Path,
    explored: Sequence[Explored],
    reward: str,
    form: str,
    sent: dict[str, int],
) -> Estimation:
    """All figures of what was asked. reward: how the reward is called. form: how the frozen model was
    asked."""
    config = plan.config
    weighed = tuple(_weighed(one, config.lambda_, config.random_seed) for one in explored)
    used = [one for one in weighed if one.reference is not None]
    return Estimation(
        run_dir=run_dir,
        facts={
            "alignment": plan.subject.name,
            "subject": plan.subject.digest,
            "shots": plan.subject.shots,
            "prompt_form": form,
            "models": plan.identity["models"],
            "reward": reward,
            "reward_range": plan.reward_range,
            "data": plan.source,
            "samples": config.samples,
            "answers": config.answers,
            "digests": plan.identity["digests"],
            "settings": plan.identity["settings"],
        },
        weighed=weighed,
        own=_side(plan, [one.explored.own for one in used]),
        policy=_side(plan, _policies(used)) if "against" in plan.models else None,
        rows=tuple(_rows(plan, used)) if used else (),
        simulated=plan.simulated,
        sent=sent,
    )


def _weighed(explored: Explored, lambdas: Sequence[float], seed: int) -> Weighed:
    if not explored.is_usable:
        return Weighed(explored)
    drawn = explored.drawn
    tilts = tuple(tilt(drawn, lambda_) for lambda_ in lambdas)
    chosen = [
        pick(found.weights, derived_seed(seed, f"pick {found.lambda_!r}: {explored.item.query}"))
        for found in tilts
    ]
    return Weighed(explored, reference(drawn), tilts, tuple(chosen))


def _rows(plan: EstimatePlan, used: Sequence[Weighed]) -> list[Row]:
    """The reference prompter, each lambda from the largest, the best of the samples."""
    points: list[tuple[Kind, float, list[Tilted]]] = [("reference", REFERENCE, _at(used, REFERENCE))]
    for place in reversed(range(len(plan.config.lambda_))):
        points.append(("lambda", plan.config.lambda_[place], [one.tilts[place] for one in used]))
    points.append(("best", BEST, _at(used, BEST)))
    distances = _Distances(_rewriting_distances(used), _policy_distances(used))
    return [_row(plan, used, kind, tilts, distances) for kind, _, tilts in points]


def _at(used: Sequence[Weighed], lambda_: float) -> list[Tilted]:
    return [tilt(one.explored.drawn, lambda_) for one in used]


@dataclass(frozen=True, slots=True)
class _Distances:
    """Per query, of the bound's first two terms; None where they cannot be known."""

    rewriting: list[float] | None
    policy: list[float] | None


def _row(
    plan: EstimatePlan, used: Sequence[Weighed], kind: Kind, tilts: Sequence[Tilted], distances: _Distances
) -> Row:
    explored, lambda_ = [one.explored for one in used], tilts[0].lambda_
    rewards = [_expected(one, found, lambda r, own: r) for one, found in zip(explored, tilts, strict=True)]
    wins = [_expected(one, found, _won) for one, found in zip(explored, tilts, strict=True)]
    gains = [reward - fmean(one.own.rewards) for reward, one in zip(rewards, explored, strict=True)]
    kls, has_z = [found.kl for found in tilts], kind == "lambda"
    gap = None
    if "against" in plan.models:
        gap = _estimate(plan, [
            fmean(one.policy.rewards) - reward if one.policy is not None and one.policy.rewards else None
            for reward, one in zip(rewards, explored, strict=True)
        ])  # fmt: skip
    return Row(
        kind=kind,
        lambda_=lambda_,
        reward=_estimate(plan, rewards),
        gain=_estimate(plan, gains),
        variance=_variance([_single_rewards(one, found) for one, found in zip(explored, tilts, strict=True)]),
        win_rate=_estimate(plan, wins),
        effective=fmean(found.effective for found in tilts),
        kl=_estimate(plan, kls),
        kl_bias=_mean_bias([found.kl_off.bias if found.kl_off else None for found in tilts]),
        log_z=_estimate(plan, [_or_none(found.log_z) for found in tilts]) if has_z else None,
        log_z_bias=_mean_bias([found.log_z_off.bias if found.log_z_off else None for found in tilts]),
        bound=bound(lambda_, kls, plan.reward_range, distances.rewriting, distances.policy)
        if has_z
        else None,
        gap=gap,
    )


def _expected(one: Explored, found: Tilted, value: Callable[[float, float], float]) -> float:
    """The expectation of value(reward of an answer, reward of the answer of the same number to the query
    itself) under the weights; with several answers, by weights that the answer had no part in."""
    drawn, own = one.drawn, one.own.rewards
    values = [[value(r, o) for r, o in zip(row.rewards, own, strict=False)] for row in drawn]
    fair = honest(drawn, found.lambda_, values)
    if fair is not None:
        return fair
    return math.fsum(w * fmean(row) for w, row in zip(found.weights, values, strict=True))


def _won(reward: float, own: float) -> float:
    return 0.5 if reward == own else float(reward > own)


def _single_rewards(one: Explored, found: Tilted) -> list[tuple[float, float]]:
    """(weight, reward) of every single answer; the weights sum to 1."""
    return [
        (weight / len(row.rewards), reward)
        for weight, row in zip(found.weights, one.drawn, strict=True)
        for reward in row.rewards
    ]


def _variance(queries: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """The variance of a single reward over equally likely queries, with n - 1 of them."""
    if len(queries) < 2:
        return None
    mean = fmean(math.fsum(w * reward for w, reward in rows) for rows in queries)
    squares = [math.fsum(w * (reward - mean) * (reward - mean) for w, reward in rows) for rows in queries]
    return math.fsum(squares) / (len(queries) - 1)


def _side(plan: EstimatePlan, tried: Sequence[Tried]) -> Side:
    rewarded = [one for one in tried if one.rewards]
    means = [fmean(one.rewards) if one.rewards else None for one in tried]
    singles = [[(1 / len(one.rewards), reward) for reward in one.rewards] for one in rewarded]
    return Side(_estimate(plan, means), _variance(singles))


def _rewriting_distances(used: Sequence[Weighed]) -> list[float] | None:
    """d_TV of the frozen model's answers to the query and to its rewrites, as they are drawn."""
    return _all_known([_rewriting_distance(one.explored) for one in used])


def _rewriting_distance(explored: Explored) -> float | None:
    answered = [(tried.distance, count) for tried, count in explored.rewrites if tried.answers]
    known = [(distance.value, count) for distance, count in answered if distance is not None]
    if len(known) < len(answered):
        return None
    return math.fsum(value * count for value, count in known) / sum(count for _, count in known)


def _policy_distances(used: Sequence[Weighed]) -> list[float] | None:
    """The same of an aligned policy's answers and the frozen model's, both to the query itself."""
    found = [None if one.explored.policy is None else one.explored.policy.distance for one in used]
    return _all_known([None if distance is None else distance.value for distance in found])


def _all_known(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def _policies(used: Sequence[Weighed]) -> list[Tried]:
    return [one.explored.policy for one in used if one.explored.policy is not None]


def _estimate(plan: EstimatePlan, values: Sequence[float | None]) -> Estimate:
    return bootstrap_mean(values, plan.config.level, seed=plan.config.random_seed)


def _mean_bias(biases: Sequence[float | None]) -> float | None:
    known = [bias for bias in biases if bias is not None]
    return fmean(known) if len(known) == len(biases) else None


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
