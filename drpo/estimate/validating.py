"""How many calls the validation after a search makes (`drpo.validating`, `drpo.validating_examples`)."""

from __future__ import annotations

from drpo.config import CommonConfig, ExamplesConfig, OptimizeConfig
from drpo.estimate.habits import Habits
from drpo.estimate.ranges import Range
from drpo.plan import Plan

_ASKED = 0.85
"""Share of the rewards that a race asks for on average, the clearly worse prompts being dropped early."""
_HELD_AGAINST = 0.8
"""How often a prompt is better, and so asked the safety queries, on average."""

_KEPT_APART = 0.7
"""Share of a level's samples that come to an evaluation of their own, roughly."""


def tried(plan: Plan) -> Range:
    """Responses, each evaluated: of the candidates and the initial prompt to the kept queries, then of one
    candidate (at most of all) and the initial prompt to the safety queries. None where nothing is validated,
    and at least none: a search may find no prompt but the initial one. Improved examples are one candidate,
    which is rarely dropped: there are no others that it could be behind."""
    config = plan.config
    if not plan.inputs.kept:
        return Range()
    candidates = config.candidates if isinstance(config, OptimizeConfig) else 1
    kept, safety = len(plan.inputs.kept), len(plan.inputs.safety)
    asked = _ASKED * candidates if candidates > 1 else 1
    expected = kept * (1 + asked) + _HELD_AGAINST * 2 * safety
    return Range(0, expected, (kept + safety) * (1 + candidates))


def aspects_of(plan: Plan, habits: Habits, levels: float) -> float:
    """Aspects of an evaluation on average: safety queries are evaluated on one, all others on some."""
    if not plan.inputs.safety:
        return habits.aspects
    searched = levels * _evaluated_a_level(plan.config, len(plan.inputs.examples.examples)) * _KEPT_APART
    on_one = _HELD_AGAINST * 2 * len(plan.inputs.safety)
    share = on_one / (searched + tried(plan).expected)
    return habits.aspects * (1 - share) + share


def _evaluated_a_level(config: CommonConfig, examples: int) -> int:
    if isinstance(config, ExamplesConfig):
        return config.width * config.samples * examples
    assert isinstance(config, OptimizeConfig)
    return config.width * config.samples * config.queries_per_level


def chosen(plan: Plan) -> Range:
    """Queries whose aspects are chosen for it: the kept ones. Safety queries have theirs."""
    kept = len(plan.inputs.kept)
    return Range(0, kept, kept)
