"""The forecast of a run: calls, tokens and money per role, what of them is recorded, and what limits say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from drpo.config import ExamplesConfig, ValidationConfig
from drpo.estimate.counts import Counts, calls_of, counts_of, paper_counts
from drpo.estimate.habits import Habits, habits_of
from drpo.estimate.ranges import Range, total
from drpo.estimate.roles import Batch, RoleForecast, RunForecast, embedder_forecast, priced
from drpo.estimate.roles import Enough as Enough
from drpo.estimate.roles import Recorded as Recorded
from drpo.estimate.roles import read_recorded as read_recorded
from drpo.estimate.sizes import Size, sizes_of
from drpo.estimate.texts import thinks
from drpo.llm.base import ROLES, Role, Usage
from drpo.plan import Plan, asked_of_base
from drpo.tariffs import EMBEDDER_ROLE, RoleTariff, tariffs_of


@dataclass(frozen=True, slots=True)
class Forecast(RunForecast):
    """What a search takes. levels: of one search, the root's included; searches: how many there are (one, or
    one per example). habits: by which `expected` was reckoned."""

    levels: Range
    searches: int
    habits: Habits


def forecast(
    plan: Plan, recorded: Recorded | None = None, environment: Mapping[str, str] | None = None
) -> Forecast:
    """The forecast of a plan, by what is recorded of it. Raises InputError for a --price that is none.

    environment: may say that OpenAI's models are served elsewhere, at prices of its own.
    """
    recorded = recorded or Recorded()
    habits, tariffs = habits_of(plan), tariffs_of(plan, environment or {})
    counts = counts_of(plan, habits)
    sizes = sizes_of(plan, habits, counts.levels.expected)
    calls, paper = calls_of(counts, plan, habits), paper_counts(plan)
    roles = []
    for role in ROLES:
        if role not in sizes or role not in tariffs:
            continue
        batches = _batches(plan, role, calls[role], sizes[role])
        found = _of_role(role, tariffs[role], batches, paper.get(role), recorded)
        roles.append(_with_single_requests(found, sizes[role], batches[0].calls, plan))
    if EMBEDDER_ROLE in tariffs:
        roles.append(_of_embedder(plan, habits, tariffs[EMBEDDER_ROLE], finished=recorded.finished))
    config = plan.config
    examples = len(plan.inputs.examples.examples) if isinstance(config, ExamplesConfig) else 1
    return Forecast(
        roles=tuple(roles),
        thinking=tuple(role for role in sizes if thinks(plan, role)),
        first_calls=_first_level(counts, examples, plan),
        recorded=recorded,
        levels=counts.levels,
        searches=examples,
        habits=habits,
    )


def _batches(plan: Plan, role: Role, calls: tuple[Range, Range], size: Size) -> tuple[Batch, Batch]:
    """First requests, and repairs, each of which repeats all turns before it."""
    first, repairs = calls
    turns = plan.config.repairs
    longer = size.prompt + size.repair.times(Range(1, 1, turns))
    return Batch(first, size.prompt, size.completion), Batch(repairs, longer, size.choice)


def _of_role(
    role: Role,
    tariff: RoleTariff,
    batches: tuple[Batch, ...],
    paper: int | None,
    recorded: Recorded,
) -> RoleForecast:
    calls = total(batch.calls for batch in batches).ordered()
    usd = priced(batches, tariff)
    done = recorded.calls.get(role, 0) + (recorded.reused if role == "selector" else 0)
    left = Range() if recorded.finished else calls.less(done)
    share = Range(*(_share(left, calls)))
    return RoleForecast(
        role=role,
        tariff=tariff,
        calls=calls,
        paper=paper,
        prompt_tokens=total(batch.calls.times(batch.prompt) for batch in batches).ordered(),
        completion_tokens=total(batch.calls.times(batch.completion) for batch in batches).ordered(),
        usd=None if usd is None else usd.ordered(),
        done=done,
        left=left,
        left_usd=None if usd is None else usd.scaled(share).ordered(),
    )


def _share(left: Range, calls: Range) -> tuple[float, float, float]:
    def part(rest: float | None, whole: float | None) -> float:
        return 1.0 if rest is None or not whole else rest / whole

    return part(left.least, calls.least), part(left.expected, calls.expected), part(left.most, calls.most)


def _with_single_requests(role: RoleForecast, size: Size, first: Range, plan: Plan) -> RoleForecast:
    """With what one request sets aside at least, and what longer replies cost."""
    tariff, longest = role.tariff, size.choice.most
    choices = getattr(plan.config, "samples", 1) if role.role == "optimizer" else 1
    held: float | None = None
    if longest is not None:
        held = tariff.usd(Usage(math.floor(size.prompt.least), math.ceil(choices * longest)))
    thousand = first.expected * choices * 1_000 * tariff.output_usd / 1_000_000
    return replace(role, held_usd=held, thousand_usd=thousand)


def _of_embedder(plan: Plan, habits: Habits, tariff: RoleTariff, *, finished: bool) -> RoleForecast:
    """Queries and examples are embedded in a batch each."""
    config = plan.config
    assert isinstance(config, ValidationConfig)
    groups = [
        [query.text for query in asked_of_base(plan.inputs, config)],
        [example.query for example in plan.inputs.examples.examples],
    ]
    if not config.shots or finished:
        groups = []
    return embedder_forecast(groups, habits.characters_per_token, tariff)


def _first_level(counts: Counts, searches: int, plan: Plan) -> int:
    """The calls without which no search gets anywhere: the start and one step from it, tried and evaluated;
    of examples, the start alone."""
    levels = min(2, round(counts.levels.least))
    base = levels if counts.base.most else 0
    evaluated = levels * plan.config.evaluations if counts.evaluations.most else 0
    return searches * (base + evaluated + (1 if counts.selections.most else 0))
