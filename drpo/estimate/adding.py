"""Several runs as one forecast: their sum, exact where a run has ended, with equal runs counted once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from drpo.estimate.ranges import Range, exactly, total
from drpo.estimate.roles import Recorded, RoleForecast, RunForecast, paid
from drpo.llm.base import ROLES, Usage
from drpo.tariffs import EMBEDDER_ROLE


@dataclass(frozen=True, slots=True)
class Part:
    """One run of several. what: which it is, in words; name: of its directory, None where that follows from
    what other runs find; state: as in a dry run. kin: equal for runs that may turn out to be one."""

    what: str
    command: str
    name: str | None
    state: str
    forecast: RunForecast
    kin: Hashable


@dataclass(frozen=True, slots=True)
class StudyForecast(RunForecast):
    """What several runs take together. parts: each of them, in the order in which they are needed."""

    parts: tuple[Part, ...]


def settled(said: RunForecast) -> RunForecast:
    """The forecast of a run that has ended: what it took, by its record."""
    return replace(said, roles=tuple(_settled(role, said.recorded) for role in said.roles))


def _settled(role: RoleForecast, recorded: Recorded) -> RoleForecast:
    used, nothing = recorded.usage.get(role.role, Usage()), Range()
    return replace(
        role,
        calls=exactly(recorded.calls.get(role.role, 0)),
        prompt_tokens=exactly(used.prompt_tokens),
        completion_tokens=exactly(used.completion_tokens),
        usd=exactly(paid(role.tariff, used)) if role.tariff.known else None,
        left=nothing,
        left_usd=nothing if role.tariff.known else None,
    )


def together(parts: Sequence[Part], spent: Recorded) -> StudyForecast:
    """The forecast of all parts. spent: what counts against the limits of the whole.

    The least counts runs that may turn out to be one as one: those without a name that are of one kin, or
    kin to one that has a name.
    """
    parts = tuple(_at_least_once(parts))
    to_come = [part.forecast for part in parts if part.forecast.left.most != 0]
    return StudyForecast(
        roles=tuple(_sum_of_roles([part.forecast for part in parts])),
        thinking=tuple(role for role in ROLES if any(role in part.forecast.thinking for part in parts)),
        first_calls=min(1, len(to_come)),
        recorded=replace(spent, finished=not to_come),
        parts=parts,
    )


def _at_least_once(parts: Sequence[Part]) -> Iterable[Part]:
    known = {part.kin for part in parts if part.name is not None}
    for part in parts:
        if part.name is None and part.kin in known:
            roles = tuple(perhaps(role) for role in part.forecast.roles)
            part = replace(part, forecast=replace(part.forecast, roles=roles))
        known.add(part.kin)
        yield part


def perhaps(role: RoleForecast) -> RoleForecast:
    """The same where it may turn out that nothing of it is needed."""

    def none_at_least(said: Range) -> Range:
        return replace(said, least=0.0)

    return replace(
        role,
        calls=none_at_least(role.calls),
        prompt_tokens=none_at_least(role.prompt_tokens),
        completion_tokens=none_at_least(role.completion_tokens),
        usd=None if role.usd is None else none_at_least(role.usd),
        left=none_at_least(role.left),
        left_usd=None if role.left_usd is None else none_at_least(role.left_usd),
    )


def _sum_of_roles(forecasts: Sequence[RunForecast]) -> Iterable[RoleForecast]:
    for name in (*ROLES, EMBEDDER_ROLE):
        roles = [role for said in forecasts for role in said.roles if role.role == name]
        if roles:
            yield _sum_of(roles)


def _sum_of(roles: Sequence[RoleForecast]) -> RoleForecast:
    """One role over all runs. Money is that of the runs whose price is known; the tariff is one without a
    price where any run has none."""
    unknown = next((role.tariff for role in roles if not role.tariff.known), None)
    priced = [role.usd for role in roles if role.usd is not None]
    left = [role.left_usd for role in roles if role.left_usd is not None]
    held = [role.held_usd for role in roles if role.held_usd is not None and role.left.most != 0]
    dearest = max((role.tariff for role in roles), key=lambda tariff: tariff.output_usd)
    return RoleForecast(
        role=roles[0].role,
        tariff=unknown or dearest,
        calls=total(role.calls for role in roles),
        paper=None,
        prompt_tokens=total(role.prompt_tokens for role in roles),
        completion_tokens=total(role.completion_tokens for role in roles),
        usd=total(priced) if priced else None,
        done=sum(role.done for role in roles),
        left=total(role.left for role in roles),
        left_usd=total(left) if left else None,
        held_usd=min(held, default=None),
        thousand_usd=sum(role.thousand_usd for role in roles),
    )


def spread(least: RunForecast, expected: RunForecast, most: RunForecast) -> RunForecast:
    """One run of which it is not known how long its texts are: forecasts of it with the shortest, the usual
    and the longest ones."""
    triples = zip(least.roles, expected.roles, most.roles, strict=True)
    return replace(expected, roles=tuple(_spread(*triple) for triple in triples))


def _spread(least: RoleForecast, expected: RoleForecast, most: RoleForecast) -> RoleForecast:
    def of(low: Range, usual: Range, high: Range) -> Range:
        return Range(low.least, usual.expected, high.most).ordered()

    def of_money(low: Range | None, usual: Range | None, high: Range | None) -> Range | None:
        return None if low is None or usual is None or high is None else of(low, usual, high)

    return replace(
        expected,
        calls=of(least.calls, expected.calls, most.calls),
        prompt_tokens=of(least.prompt_tokens, expected.prompt_tokens, most.prompt_tokens),
        completion_tokens=of(least.completion_tokens, expected.completion_tokens, most.completion_tokens),
        usd=of_money(least.usd, expected.usd, most.usd),
        left=of(least.left, expected.left, most.left),
        left_usd=of_money(least.left_usd, expected.left_usd, most.left_usd),
        held_usd=least.held_usd,
    )
