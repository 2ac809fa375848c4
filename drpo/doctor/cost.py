"""What the roles cost, as far as that is known, and what the doctor itself has sent."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from drpo.doctor.check import Check, of_error, ok
from drpo.doctor.endpoints import Answered
from drpo.doctor.prepare import Prepared
from drpo.errors import InputError
from drpo.llm.base import Role, Usage
from drpo.money import dollars
from drpo.plan import Plan
from drpo.tariffs import RoleTariff, read_prices, refuse_unpriced, tariffs_of

_REMEDY = "Give --price ROLE=IN/OUT, dollars a million tokens"


def price_checks(prepared: Prepared) -> Iterator[Check]:
    """The price of each role, and whether --max-usd could hold a run to it."""
    if prepared.plan is None:
        return
    usable: list[str] = []
    for text in prepared.plan.config.price:
        try:
            read_prices([text])
            usable.append(text)
        except InputError as error:
            yield of_error("price", error, _REMEDY)
    plan = _of_these_roles(prepared.plan, prepared.roles, usable)
    groups: dict[RoleTariff, list[str]] = {}
    for role, tariff in tariffs_of(plan, prepared.environment).items():
        groups.setdefault(tariff, []).append(role)
    for tariff, roles in groups.items():
        hint = "" if tariff.known else f" (--max-usd would need --price {roles[0]}=IN/OUT)"
        yield ok(f"price {', '.join(roles)}", f"{tariff}{hint}")
    try:
        refuse_unpriced(plan, prepared.environment)
    except InputError as error:
        yield of_error("price", error, _REMEDY)


def _of_these_roles(plan: Plan, roles: Collection[Role], prices: Sequence[str]) -> Plan:
    models = {role: choice for role, choice in plan.models.items() if role in roles}
    return replace(plan, models=models, config=plan.config.model_copy(update={"price": tuple(prices)}))


def own_checks(prepared: Prepared, answers: Sequence[Answered], facts: int, embedded: int) -> Iterator[Check]:
    """What the doctor has sent. facts: questions to servers about themselves. embedded: to the embedder."""
    sent = embedded + sum(answer.sent for answer in answers)
    if not sent and not facts:
        yield ok("requests", "none was sent")
        return
    usage = sum((answer.usage for answer in answers), Usage())
    said = (
        f"{sent} sent by this doctor, {usage.prompt_tokens} tokens read and {usage.completion_tokens} written"
    )
    usd = _usd(prepared, answers)
    if usd is not None:
        said += f", {dollars(usd)}"
    if facts:
        said += f"; {facts} questions to servers about themselves, which cost nothing"
    yield ok("requests", said)


def _usd(prepared: Prepared, answers: Sequence[Answered]) -> float | None:
    if prepared.plan is None:
        return None
    try:
        plan = _of_these_roles(prepared.plan, prepared.roles, prepared.plan.config.price)
        tariffs = tariffs_of(plan, prepared.environment)
    except InputError:
        return None
    known = [tariffs[answer.question.roles[0]].usd(answer.usage) for answer in answers]
    return None if not known or None in known else sum(usd for usd in known if usd is not None)
