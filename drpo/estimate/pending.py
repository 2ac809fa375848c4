"""Requests still to come, as they will be sent, and what they take."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from drpo.estimate.habits import response_habits
from drpo.estimate.judge_habits import judge_habits_of
from drpo.estimate.ranges import Range, exactly
from drpo.estimate.roles import Batch, Recorded, RoleForecast, embedder_forecast, with_recorded
from drpo.estimate.texts import repair_tokens, request_tokens
from drpo.llm.base import ROLES, Request, Role, request_key
from drpo.llm.metered import most_tokens
from drpo.plan import RunPlan
from drpo.tariffs import EMBEDDER_ROLE, RoleTariff

ONCE, PERHAPS, NOTHING = exactly(1), Range(0, 0, 1), Range()


@dataclass(frozen=True, slots=True)
class Pending:
    """A request still to come, as it will be sent. calls: how often (0 to 1 where it may not be needed).

    In tokens: reply; unknown: of the texts in it that are not there yet. repairs: how often it may be asked
    again. shortest, longest: what bounds it where its shots, or its query, are not known. is_trial: it only
    learns how a base model wants to be asked.
    """

    role: Role
    request: Request
    reply: Range
    calls: Range = ONCE
    unknown: Range = NOTHING
    repairs: int = 0
    shortest: Request | None = None
    longest: Request | None = None
    is_trial: bool = False


@dataclass(frozen=True, slots=True)
class Ahead:
    """All that is still to come. embedded: texts for an embedding model, by group; embedded_unknown: tokens
    of those that are not there yet. responses: how many there are or will be. weighed: of them, those that a
    reward model is given to weigh rewrites."""

    pending: tuple[Pending, ...]
    embedded: tuple[tuple[str, ...], ...]
    responses: int
    embedded_unknown: Range = NOTHING
    weighed: int = 0


@dataclass(slots=True)
class Noted:
    """Collects what is still to come. Equal requests are asked once, so they are noted once."""

    pending: dict[Hashable, Pending] = field(default_factory=dict)
    embedded: list[tuple[str, ...]] = field(default_factory=list)
    embedded_unknown: Range = NOTHING
    weighed: float = 0.0

    def known(self, one: Pending) -> None:
        """Note a request whose every word is known. It is as sure as whoever needs it most says."""
        key = request_key(one.request)
        if key not in self.pending or self.pending[key].calls.least < one.calls.least:
            self.pending[key] = one

    def supposed(self, key: Hashable, one: Pending) -> None:
        """Note a request of which something is supposed; `key` tells it from others."""
        self.pending.setdefault(("supposed", key), one)

    def ahead(self, responses: int) -> Ahead:
        """All of it."""
        return Ahead(
            tuple(self.pending.values()),
            tuple(self.embedded),
            responses,
            self.embedded_unknown,
            round(self.weighed),
        )


def roles_ahead(
    plan: RunPlan,
    ahead: Ahead,
    recorded: Recorded,
    tariffs: Mapping[str, RoleTariff],
    characters_per_token: float,
) -> tuple[RoleForecast, ...]:
    """Each role's share, and the embedder's. characters_per_token: of the texts that are embedded."""
    asked = () if recorded.finished else ahead.pending
    roles = [
        _of_role(plan, role, tariffs[role], [one for one in asked if one.role == role], recorded)
        for role in ROLES
        if role in plan.models
    ]
    if EMBEDDER_ROLE in tariffs:
        groups = () if recorded.finished else ahead.embedded
        more = NOTHING if recorded.finished else ahead.embedded_unknown
        roles.append(embedder_forecast(groups, characters_per_token, tariffs[EMBEDDER_ROLE], more))
    return tuple(roles)


def _of_role(
    plan: RunPlan, role: Role, tariff: RoleTariff, asked: Sequence[Pending], recorded: Recorded
) -> RoleForecast:
    batches = [batch for one in asked for batch in _batches(plan, one)]
    held = [usd for usd in (_held(one, tariff) for one in asked) if usd is not None]
    return with_recorded(role, tariff, batches, recorded, min(held, default=None))


def _batches(plan: RunPlan, one: Pending) -> Iterator[Batch]:
    """The request itself and its repairs, each of which repeats all turns before it."""
    judge, choice = judge_habits_of(plan.models[one.role]), plan.models[one.role]
    is_judge = one.role == "judge"
    habits = judge.reading if is_judge else response_habits(choice, "auto")
    prompt = request_tokens(one.request, habits)
    if one.shortest is not None:
        prompt = Range(request_tokens(one.shortest, habits).least, prompt.expected, prompt.most)
    if one.longest is not None:
        prompt = Range(prompt.least, prompt.expected, request_tokens(one.longest, habits).most)
    prompt += one.unknown
    yield Batch(one.calls, prompt, one.reply)
    if one.repairs:
        again = repair_tokens(plan.inputs.templates, habits, one.reply)
        longer = prompt + again.times(Range(1, 1, one.repairs))
        expected = judge.repairs(one.repairs) if is_judge else habits.repairs(one.repairs)
        yield Batch(one.calls.times(Range(0, expected, one.repairs)), longer, one.reply)


def _held(one: Pending, tariff: RoleTariff) -> float | None:
    """What the books set aside for the request, at least; None where that cannot be told."""
    usage = most_tokens(one.shortest or one.request)
    return None if usage is None else tariff.usd(usage)
