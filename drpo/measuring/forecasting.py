"""The forecast of a measurement: calls, tokens and money per role, recorded and to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drpo.estimate.judge_habits import judge_habits_of
from drpo.estimate.ranges import Range
from drpo.estimate.roles import Batch, Recorded, RoleForecast, RunForecast, embedder_forecast, with_recorded
from drpo.estimate.texts import repair_tokens, request_tokens, thinks
from drpo.judging.audit import questions
from drpo.llm.base import ROLES, Role
from drpo.llm.metered import most_tokens
from drpo.measuring.ahead import Ahead, Pending, response_habits
from drpo.measuring.plan import MeasuringPlan
from drpo.tariffs import EMBEDDER_ROLE, RoleTariff, tariffs_of


@dataclass(frozen=True, slots=True)
class MeasuringForecast(RunForecast):
    """What a measurement takes. items: queries, or an audit's questions. about: by whose habits `expected`
    was reckoned. rewards: responses that a reward model is given, 0 where none is asked."""

    items: int
    about: str
    rewards: int


def measuring_forecast(
    plan: MeasuringPlan, ahead: Ahead, recorded: Recorded, environment: Mapping[str, str]
) -> MeasuringForecast:
    """The forecast of a plan, by what it has yet to ask. Raises InputError for a --price that is none."""
    tariffs = tariffs_of(plan, environment)
    habits = judge_habits_of(plan.models.get("judge"))
    asked = () if recorded.finished else ahead.pending
    roles = [
        _of_role(plan, role, tariffs[role], [one for one in asked if one.role == role], recorded)
        for role in ROLES
        if role in plan.models
    ]
    if EMBEDDER_ROLE in tariffs:
        groups = () if recorded.finished else ahead.embedded
        characters = habits.reading.characters_per_token
        roles.append(embedder_forecast(groups, characters, tariffs[EMBEDDER_ROLE]))
    rewarded = getattr(plan.config, "reward_model", None) is not None
    return MeasuringForecast(
        roles=tuple(roles),
        thinking=tuple(role for role in plan.models if thinks(plan, role)),
        first_calls=len({one.role for one in asked}),
        recorded=recorded,
        items=len(plan.items) or len(questions(plan.cases)),
        about=habits.about if plan.identity["command"] == "evaluate" else habits.about_verdicts,
        rewards=ahead.responses if rewarded else 0,
    )


def _of_role(
    plan: MeasuringPlan, role: Role, tariff: RoleTariff, asked: Sequence[Pending], recorded: Recorded
) -> RoleForecast:
    batches = [batch for one in asked for batch in _batches(plan, one)]
    held = [usd for usd in (_held(one, tariff) for one in asked) if usd is not None]
    return with_recorded(role, tariff, batches, recorded, min(held, default=None))


def _batches(plan: MeasuringPlan, one: Pending) -> tuple[Batch, Batch]:
    """The request itself and, of a judge, its repairs, each of which repeats all turns before it."""
    judge = judge_habits_of(plan.models.get("judge"))
    habits = judge.reading if one.role == "judge" else response_habits(plan.models[one.role], "auto")
    prompt = request_tokens(one.request, habits)
    if one.shortest is not None:
        prompt = Range(request_tokens(one.shortest, habits).least, prompt.expected, prompt.most)
    if one.longest is not None:
        prompt = Range(prompt.least, prompt.expected, request_tokens(one.longest, habits).most)
    prompt += one.unknown
    again = repair_tokens(plan.inputs.templates, habits, one.reply)
    longer = prompt + again.times(Range(1, 1, one.repairs))
    repairs = one.calls.times(Range(0, judge.repairs(one.repairs), one.repairs))
    return Batch(one.calls, prompt, one.reply), Batch(repairs, longer, one.reply)


def _held(one: Pending, tariff: RoleTariff) -> float | None:
    """What the books set aside for the request, at least; None where that cannot be told."""
    usage = most_tokens(one.shortest or one.request)
    return None if usage is None else tariff.usd(usage)
