"""The forecast of a measurement: calls, tokens and money per role, recorded and to come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drpo.estimate.judge_habits import judge_habits_of
from drpo.estimate.pending import Ahead, roles_ahead
from drpo.estimate.rewriting_habits import rewriting_habits_of
from drpo.estimate.roles import Recorded, RunForecast
from drpo.estimate.texts import thinks
from drpo.judging.audit import questions
from drpo.measuring.plan import MeasuringPlan
from drpo.plan import RunPlan
from drpo.tariffs import tariffs_of


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
    habits = judge_habits_of(plan.models.get("judge"))
    about = habits.about if plan.identity["command"] == "evaluate" else habits.about_verdicts
    rewarded = getattr(plan.config, "reward_model", None) is not None
    return forecast_ahead(
        plan,
        ahead,
        recorded,
        environment,
        items=len(plan.items) or len(questions(plan.cases)),
        about=about,
        characters_per_token=habits.reading.characters_per_token,
        rewards=ahead.responses if rewarded else 0,
    )


def forecast_ahead(
    plan: RunPlan,
    ahead: Ahead,
    recorded: Recorded,
    environment: Mapping[str, str],
    *,
    items: int,
    about: str,
    characters_per_token: float,
    rewards: int = 0,
) -> MeasuringForecast:
    """The forecast of any plan by its requests still to come. rewards: besides those that weigh rewrites."""
    if "rewriter" in plan.models:
        rewriting = rewriting_habits_of(plan.models["rewriter"]).about
        about = f"{about}, {rewriting}" if about else rewriting
    return MeasuringForecast(
        roles=roles_ahead(plan, ahead, recorded, tariffs_of(plan, environment), characters_per_token),
        thinking=tuple(role for role in plan.models if thinks(plan, role)),
        first_calls=0 if recorded.finished else len({one.role for one in ahead.pending}),
        recorded=recorded,
        items=items,
        about=about,
        rewards=rewards + ahead.weighed,
    )
