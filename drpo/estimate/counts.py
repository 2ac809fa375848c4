"""How many calls a search makes, from its settings: at least, expected, at most, and as the paper counts.

At least: the shortest search that comes to its end with replies that can be read; prompts are kept where that
is possible and equal requests, which are asked once, are as many as they can be. At most: every level there
can be with as many different requests as it can have; levels without a readable evaluation, which try their
parents again; every reply repaired as often as allowed; an endpoint that gives one choice a request. What is
sent again after a failure comes on top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from drpo.choices import ModelChoice
from drpo.config import CommonConfig, ExamplesConfig, OptimizeConfig
from drpo.estimate.habits import Habits
from drpo.estimate.ranges import Range, exactly
from drpo.estimate.validating import chosen, tried
from drpo.llm.base import Role
from drpo.plan import Plan, reach_of
from drpo.search.engine import STALLED_LEVELS
from drpo.types import HIGHEST_SCORE

_SURE = 1e-9


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests without repairs: to the base model, to the evaluator, orders to the optimizer (for M choices
    each), queries whose aspects are chosen. levels: of one search, the root's included."""

    base: Range
    evaluations: Range
    orders: Range
    selections: Range
    levels: Range


@dataclass(frozen=True, slots=True)
class _Shape:
    """One beam search: `limit` levels at first, `most_limit` at most, both of them within the queries."""

    width: int
    samples: int
    limit: int
    most_limit: int
    can_keep: bool
    goes_on_unread: bool
    patience: int | None
    first_gains: int  # levels that cannot but pass what was before


def counts_of(plan: Plan, habits: Habits) -> Counts:
    """The counts of a plan. Unreadable replies count at least where they must be expected: short ones."""
    config = plan.config
    short = replies_may_be_cut(config, habits)
    if isinstance(config, ExamplesConfig):
        counts = _of_examples(config, len(plan.inputs.examples.examples), habits, short)
    else:
        assert isinstance(config, OptimizeConfig)
        reach = reach_of(plan.inputs, config) // config.queries_per_level
        if config.search == "monte-carlo":
            counts = _of_monte_carlo(config, reach, habits, short)
        else:
            counts = _of_beam(config, reach, habits, short)
    per_level = exactly(getattr(config, "queries_per_level", 1))
    evaluations = counts.evaluations.ordered().times(per_level) + tried(plan).times(
        exactly(config.evaluations)
    )
    evaluates = "evaluator" in plan.models and plan.models["evaluator"].provider != "reward"
    dynamic = evaluates and config.reward == "dynamic"
    return Counts(
        counts.base.ordered().times(per_level) + tried(plan),
        evaluations.ordered() if evaluates else Range(),
        counts.orders.ordered(),
        counts.selections.ordered().times(per_level) + chosen(plan) if dynamic else Range(),
        counts.levels.ordered(),
    )


def replies_may_be_cut(config: CommonConfig, habits: Habits) -> bool:
    """Whether --max-tokens is so short that many replies may be lost."""
    longest = max(habits.longest_prompt + habits.thought, habits.evaluation * habits.aspects)
    return config.max_tokens < 2 * max(longest, habits.selection)


def calls_of(counts: Counts, plan: Plan, habits: Habits) -> dict[Role, tuple[Range, Range]]:
    """Per role its first requests and those on top: repairs. To the optimizer requests for one choice are
    among the first ones at most; to the base model one chat on top may be tried to learn whether it takes
    any."""
    config, base = plan.config, plan.models.get("base")
    asked_again = Range(0.0, habits.repairs(config.repairs), config.repairs)
    samples = getattr(config, "samples", 1)
    choices = counts.orders.times(exactly(samples))
    tried = base is not None and may_try_chat(base, getattr(config, "prompt_form", "auto"))
    return {
        "base": (counts.base, Range(0, 0, 1 if tried else 0)),
        "optimizer": (
            Range(counts.orders.least, counts.orders.expected, choices.most),
            choices.times(asked_again),
        ),
        "evaluator": (counts.evaluations, counts.evaluations.times(asked_again)),
        "selector": (counts.selections, counts.selections.times(asked_again)),
    }


def may_try_chat(base: ModelChoice, form: str) -> bool:
    """Whether a chat may be tried, once, to learn how a base model wants to be asked."""
    known = base.entry is not None and base.entry.form != "auto"
    return base.provider == "vllm" and form == "auto" and not known


def paper_counts(plan: Plan) -> dict[Role, int]:
    """The calls of Appendix A.5: each of W x M x D samples is one call to each of the three models there."""
    config = plan.config
    dynamic = config.reward == "dynamic"
    if isinstance(config, ExamplesConfig):
        examples = len(plan.inputs.examples.examples)
        sampled = config.width * config.samples * config.depth * examples
        return {"optimizer": sampled, "evaluator": sampled, "selector": examples if dynamic else 0}
    assert isinstance(config, OptimizeConfig)
    width = 1 if config.search == "greedy" else config.width
    sampled = width * config.samples * config.depth
    selected = config.depth if dynamic else 0
    return {"base": sampled, "optimizer": sampled, "evaluator": sampled, "selector": selected}


def _of_beam(config: OptimizeConfig, reach: int, habits: Habits, short: bool) -> Counts:
    shape = _Shape(
        width=1 if config.search == "greedy" else config.width,
        samples=config.samples,
        limit=min(config.depth, reach),
        most_limit=reach,
        can_keep=config.keep_above < HIGHEST_SCORE,
        goes_on_unread=config.unreadable == "zero",
        patience=config.patience,
        first_gains=1 if config.path_score == "mean" else 0,
    )
    kept = habits.share_above(config.keep_above)
    least = shortest = _least_levels(shape)
    if short and not shape.goes_on_unread:
        shortest = min(least, 1 + STALLED_LEVELS, 1 + (config.patience or STALLED_LEVELS))
    most_tries, most_orders = _most(shape)
    levels, tries, orders = _expected(shape, kept, habits)
    distinct = _distinct(tries, levels, habits)
    evaluations = distinct * tries if config.evaluations == 1 else habits.distinct_prompts * tries
    must_ask = 0 if shape.can_keep or short else least - 1
    unread = short and config.reward == "dynamic"  # without aspects nothing is evaluated
    return Counts(
        base=Range(shortest, habits.distinct_prompts * tries, most_tries),
        evaluations=Range(0 if unread else shortest, evaluations, most_tries).times(
            exactly(config.evaluations)
        ),
        orders=Range(must_ask, orders, most_orders),
        selections=Range(shape.limit, min(reach, max(shape.limit, levels)), reach),
        levels=Range(shortest, levels, reach),
    )


def _of_monte_carlo(config: OptimizeConfig, reach: int, habits: Habits, short: bool) -> Counts:
    """All prompts are made from the start: W x D orders for M each; a lost level is tried again twice."""
    orders = config.width * config.depth if min(config.depth, reach) > 1 else 0
    sampled = orders * config.samples
    rounds = STALLED_LEVELS
    most = 1 + (rounds * (sampled + 1) + STALLED_LEVELS if orders else 0)
    queries = min(config.depth, reach)
    tried_on = 1 + min(queries - 1, sampled)  # of all prompts alike, one request per query is left
    short_least = min(tried_on, 2)
    # A greedy optimizer that is asked for one choice answers all orders alike: they are one request.
    alike = config.optimizer_temperature == 0 and config.samples == 1
    asked = min(orders, 1) if alike else orders
    usual = tried_on - 1 if alike else sampled
    per_query = usual / max(1, queries - 1)
    distinct = max(1.0, per_query) ** -habits.repeats if config.evaluations == 1 else habits.distinct_prompts
    unread = short and config.reward == "dynamic"
    return Counts(
        base=Range(short_least if short else tried_on, 1 + habits.distinct_prompts * usual, most),
        evaluations=Range(
            0 if unread else short_least if short else tried_on, 1 + distinct * usual, most
        ).times(exactly(config.evaluations)),
        orders=Range(0 if short else asked, asked, orders * rounds),
        selections=exactly(queries),
        levels=Range(2 if orders else 1, 2 if orders else 1, 1 + 2 * rounds if orders else 1),
    )


def _of_examples(config: ExamplesConfig, examples: int, habits: Habits, short: bool) -> Counts:
    shape = _Shape(
        width=config.width,
        samples=config.samples,
        limit=config.depth + 1,
        most_limit=config.depth + 1,
        can_keep=True,
        goes_on_unread=config.unreadable == "zero",
        patience=config.patience,
        first_gains=0,
    )
    most_tries, most_orders = _most(shape)
    going_on, tries, orders, levels, parents = 1.0, 1.0, 0.0, 1.0, 1.0
    longest = 1 + _patience_levels(config.patience, habits)
    for level in range(config.depth):
        share = going_on * min(1.0, max(0.0, longest - level))
        made = parents * config.samples
        orders += share * parents
        tries += share * made
        levels += share
        going_on = share * (1 - habits.perfect) ** made
        parents = min(config.width, made)
        if going_on < _SURE:
            break
    within_level = max(1.0, (tries - 1) / max(1.0, levels - 1))
    distinct = habits.lasting * within_level**-habits.repeats if config.evaluations == 1 else 1.0
    unread = short and config.reward == "dynamic"
    each = Counts(
        base=Range(),
        evaluations=Range(0 if unread else 1, 1 + distinct * (tries - 1), most_tries).times(
            exactly(config.evaluations)
        ),
        orders=Range(0, orders, most_orders),
        selections=exactly(1),
        levels=Range(1, levels, shape.most_limit),
    )
    number = exactly(examples)
    return Counts(
        Range(),
        each.evaluations.times(number),
        each.orders.times(number),
        each.selections.times(number),
        each.levels,
    )


def _most(shape: _Shape) -> tuple[float, float]:
    """(states tried, orders), beams as full as they can be. Each level that was won by keeping a prompt
    has one chain without samples; a lost level (of three in a row the third is the last) tries its parents
    too."""
    levels = shape.most_limit - 1
    won = max(0, shape.most_limit - shape.limit)
    parents = _parents(shape, levels)
    lost = levels - (levels - 1) // STALLED_LEVELS if levels and not shape.goes_on_unread else 0
    again = sum(parents[levels - lost :])
    return 1 + shape.samples * sum(parents) - won * (shape.samples - 1) + again, sum(parents) - won


def _parents(shape: _Shape, levels: int) -> list[int]:
    """How many nodes are expanded on each level behind the root's, at most."""
    found, parents = [], 1
    for _ in range(levels):
        found.append(parents)
        parents = min(shape.width, parents * shape.samples)
    return found


def _least_levels(shape: _Shape) -> int:
    if shape.patience is None:
        return shape.limit
    return min(shape.limit, 1 + shape.first_gains + shape.patience)


def _expected(shape: _Shape, kept: float, habits: Habits) -> tuple[float, float, float]:
    """(levels, states tried, orders) of a search on average, the root included in the first two."""
    parents, tries, orders = 1.0, 1.0, 0.0
    full = min(shape.width, shape.samples**2)
    any_kept = 1 - (1 - kept) ** (1 + habits.together * (full - 1))
    first = shape.limit - 1
    behind = shape.most_limit - 1.0
    if any_kept < 1:
        behind = min(behind, first / (1 - any_kept))
    behind = min(behind, 1 + _patience_levels(shape.patience, habits))
    level = 0
    while level < behind:
        share = min(1.0, behind - level)
        made = parents * (kept + (1 - kept) * shape.samples)
        tries += share * made
        orders += share * parents * (1 - kept)
        parents = min(shape.width, max(1.0, made))
        level += 1
    return 1 + behind, tries, orders


def _patience_levels(patience: int | None, habits: Habits) -> float:
    """How many levels it takes on average until `patience` of them in a row bring no gain."""
    if patience is None:
        return math.inf
    no_gain = (1 - habits.gains) ** patience
    return (1 - no_gain) / (habits.gains * no_gain) if no_gain > _SURE else math.inf


def _distinct(tries: float, levels: float, habits: Habits) -> float:
    """The share of responses that no other one to the same query equals."""
    within_level = max(1.0, (tries - 1) / max(1.0, levels - 1))
    return float(within_level**-habits.repeats)
