"""Whether --max-calls and --max-usd let a run come to its end, as far as that is certain beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from drpo.config import OptimizeConfig
from drpo.doctor.check import Check, ok, problem
from drpo.doctor.prepare import Prepared
from drpo.errors import BudgetSpent, InputError
from drpo.estimate.forecast import Enough, Forecast, Recorded, forecast
from drpo.live import is_lasting
from drpo.llm.base import Request
from drpo.llm.metered import most_tokens
from drpo.llm.spent import at_most_usd
from drpo.money import dollars
from drpo.plan import Plan
from drpo.tariffs import RoleTariff

_CERTAIN: tuple[Enough, ...] = ("will end early", "too little to begin")


def limit_checks(prepared: Prepared, recorded: Recorded, missing: Sequence[Request] = ()) -> Iterator[Check]:
    """A problem for each limit that will end the run, if no other problem does. missing: what a begun run
    would ask next. Nothing where no limit is set, or where a price that is needed is wrong or unknown."""
    plan = prepared.plan
    if plan is None:
        return
    config = plan.config
    if config.max_calls is None and config.max_usd is None:
        return
    try:
        said = forecast(plan, _with_reused(recorded, plan), prepared.environment)
    except InputError:
        return  # the checks of prices say so
    found = [_of_calls(config.max_calls, said, missing), _of_money(config.max_usd, said, missing)]
    if problems := [told for told in found if told]:
        for told, limit in problems:
            remedy = f"Raise {limit}, or have the best so far; the same command with a higher one goes on"
            yield problem("limits", told, remedy, BudgetSpent)
    else:
        had = f"{recorded.spent_calls:,} calls are spent; " if recorded.spent_calls else ""
        yield ok("limits", f"{had}what is left may be enough (--dry-run tells how much is expected)")


def _of_calls(limit: int | None, said: Forecast, missing: Sequence[Request]) -> tuple[str, str] | None:
    if limit is None:
        return None
    spent = said.recorded.spent_calls
    if spent >= limit:
        return (
            f"the limit of {limit:,} calls is reached: {spent:,} are spent, and more are needed",
            "--max-calls",
        )
    needed = sum(request.role != "selector" for request in missing)  # those another run may have paid for
    if spent + needed > limit or said.calls_suffice(limit) in _CERTAIN:
        had = f", {spent:,} of which are spent," if spent else ""
        return f"the limit of {limit:,} calls{had} will end the run early", "--max-calls"
    return None


def _of_money(limit: float | None, said: Forecast, missing: Sequence[Request]) -> tuple[str, str] | None:
    if limit is None or said.unpriced:
        return None
    spent = said.recorded.spent_usd
    tariffs = {role.role: role.tariff for role in said.roles}
    costs = [_most_usd(request, tariffs) for request in missing]
    if costs and all(usd is None or spent + usd > limit for usd in costs):
        least = min((usd for usd in costs if usd is not None), default=0.0)
        told = (
            f"the budget of ${limit:g} is spent: {dollars(spent)} was, and the next request can cost "
            f"{dollars(least)}"
        )
        return told, "--max-usd"
    if said.usd_suffices(limit) in _CERTAIN:
        had = f", {dollars(spent)} of which are spent," if spent else ""
        return f"the budget of ${limit:g}{had} will end the run early", "--max-usd"
    return None


def _most_usd(request: Request, tariffs: dict[str, RoleTariff]) -> float | None:
    """What the books would set aside for the request; None where that cannot be told, and it is not sent."""
    return at_most_usd(tariffs.get(request.role), most_tokens(request))


def _with_reused(recorded: Recorded, plan: Plan) -> Recorded:
    """As many aspects chosen by other runs as there could be: only what is certain is to be told."""
    config, selector = plan.config, plan.models.get("selector")
    assert isinstance(config, OptimizeConfig)
    if selector is None or not config.reuse or not is_lasting(selector):
        return recorded
    return replace(recorded, reused=config.depth + config.max_extra_depth)
