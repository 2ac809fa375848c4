"""The forecast of a run: calls, tokens and money per role, what of them is recorded, and what limits say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from drpo.config import ExamplesConfig, OptimizeConfig
from drpo.errors import RecordDamaged
from drpo.estimate.counts import Counts, calls_of, counts_of, paper_counts
from drpo.estimate.habits import Habits, habits_of
from drpo.estimate.ranges import Range, exactly, total
from drpo.estimate.sizes import Size, sizes_of, thinks
from drpo.jsonl import read_lines
from drpo.llm.base import ROLES, Role, Usage
from drpo.plan import Plan, asked_of_base
from drpo.tariffs import EMBEDDER_ROLE, RoleTariff, tariffs_of

Enough = Literal["enough", "may end early", "will likely end early", "will end early", "too little to begin"]
_TEXTS_A_REQUEST = 256  # of an embedding endpoint: `drpo.llm.embed`
_TOKENS_A_TEXT = 8


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a run directory holds already: per role, calls with a reply and their tokens. reused: queries
    whose aspects another run has chosen, of those that are not recorded. spent_calls and spent_usd: what
    counts against the limits by the run's own books, money held for requests without an answer included.
    finished: nothing more is to come."""

    calls: Mapping[str, int] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    reused: int = 0
    spent_calls: int = 0
    spent_usd: float = 0.0
    finished: bool = False


@dataclass(frozen=True, slots=True)
class RoleForecast:
    """One role's share. calls, prompt_tokens, completion_tokens and usd: of the whole run; usd None where
    no price is known. paper: calls by Appendix A.5. done: calls that are recorded or reused. left: calls
    still to come, left_usd what they cost. held_usd: what is set aside at least before a request is sent,
    None where that cannot be told. thousand_usd: what 1,000 more tokens in each reply cost."""

    role: str
    tariff: RoleTariff
    calls: Range
    paper: int | None
    prompt_tokens: Range
    completion_tokens: Range
    usd: Range | None
    done: int
    left: Range
    left_usd: Range | None
    held_usd: float | None = None
    thousand_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run takes. levels: of one search, the root's included; searches: how many there are (one, or
    one per example). habits: by which `expected` was reckoned. thinking: roles whose models think, which
    is charged as written text and of which `expected` knows nothing."""

    roles: tuple[RoleForecast, ...]
    levels: Range
    searches: int
    habits: Habits
    thinking: tuple[str, ...]
    first_level_calls: int
    recorded: Recorded

    @property
    def calls(self) -> Range:
        return total(role.calls for role in self.roles)

    @property
    def left(self) -> Range:
        return total(role.left for role in self.roles)

    @property
    def usd(self) -> Range:
        """Of the roles that have a price."""
        return total(role.usd for role in self.roles if role.usd is not None)

    @property
    def left_usd(self) -> Range:
        """Of the roles that have a price."""
        return total(role.left_usd for role in self.roles if role.left_usd is not None)

    @property
    def unpriced(self) -> tuple[str, ...]:
        return tuple(role.role for role in self.roles if not role.tariff.known)

    @property
    def thinking_usd(self) -> float:
        """What 1,000 tokens of thinking in each reply of those models add to the expected cost."""
        return sum(role.thousand_usd for role in self.roles if role.role in self.thinking)

    def calls_suffice(self, limit: int) -> Enough:
        """What --max-calls means for the run, those sent before counted."""
        sent = self.recorded.spent_calls
        first = 0 if self.recorded.calls else self.first_level_calls
        return _suffices(limit - sent, self.left, first)

    def usd_suffices(self, limit: float) -> Enough:
        """What --max-usd means for the run, what was spent before counted."""
        rest = limit - self.recorded.spent_usd
        first = 0.0 if self.recorded.calls else max((r.held_usd or 0.0 for r in self.roles), default=0.0)
        return _suffices(rest, self.left_usd, first)


def _suffices(rest: float, left: Range, first: float) -> Enough:
    if rest < first:
        return "too little to begin"
    if left.most is not None and rest >= left.most:
        return "enough"
    if rest < left.least:
        return "will end early"
    return "may end early" if rest >= left.expected else "will likely end early"


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
        roles.append(_of_embedder(plan, habits, tariffs[EMBEDDER_ROLE]))
    config = plan.config
    examples = len(plan.inputs.examples.examples) if isinstance(config, ExamplesConfig) else 1
    return Forecast(
        tuple(roles),
        counts.levels,
        examples,
        habits,
        tuple(role for role in sizes if thinks(plan, role)),
        _first_level(counts, examples, plan),
        recorded,
    )


def read_recorded(calls: Path) -> Recorded:
    """The calls that the record of a run holds; none where there is none. Raises RecordDamaged."""
    number: dict[str, int] = {}
    usage: dict[str, Usage] = {}
    for line in read_lines(calls).records:
        if line.get("kind") != "call":
            continue
        try:
            role, tokens = str(line["role"]), Usage(*line["usage"])
        except (KeyError, TypeError) as error:
            raise RecordDamaged(f"{calls}: expected calls with role and usage, {error!r}") from None
        number[role] = number.get(role, 0) + 1
        usage[role] = usage.get(role, Usage()) + tokens
    return Recorded(number, usage)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Calls of one kind, and the tokens of each."""

    calls: Range
    prompt: Range
    completion: Range

    def usd(self, tariff: RoleTariff) -> Range | None:
        """None where no price is known. Each call is priced by itself: long prompts have their own tier."""
        least = tariff.usd(Usage(math.floor(self.prompt.least), math.floor(self.completion.least)))
        expected = tariff.usd(Usage(round(self.prompt.expected), round(self.completion.expected)))
        if least is None or expected is None:
            return None
        return self.calls.times(Range(least, expected, self._most_usd(tariff)))

    def _most_usd(self, tariff: RoleTariff) -> float | None:
        if tariff.input_usd == 0 == tariff.output_usd:
            return 0.0
        if self.prompt.most is None or self.completion.most is None:
            return None
        return tariff.usd(Usage(math.ceil(self.prompt.most), math.ceil(self.completion.most)))


def _batches(plan: Plan, role: Role, calls: tuple[Range, Range], size: Size) -> tuple[_Batch, _Batch]:
    """First requests, and repairs, each of which repeats all turns before it."""
    first, repairs = calls
    turns = plan.config.repairs
    longer = size.prompt + size.repair.times(Range(1, 1, turns))
    return _Batch(first, size.prompt, size.completion), _Batch(repairs, longer, size.choice)


def _of_role(
    role: Role,
    tariff: RoleTariff,
    batches: tuple[_Batch, ...],
    paper: int | None,
    recorded: Recorded,
) -> RoleForecast:
    calls = total(batch.calls for batch in batches).ordered()
    prices = [batch.usd(tariff) for batch in batches]
    usd = None if None in prices else total(price for price in prices if price is not None)
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


def _with_single_requests(role: RoleForecast, size: Size, first: Range, plan: Plan) -> RoleForecast:
    """With what one request sets aside at least, and what longer replies cost."""
    tariff, longest = role.tariff, size.choice.most
    choices = getattr(plan.config, "samples", 1) if role.role == "optimizer" else 1
    held: float | None = None
    if longest is not None:
        held = tariff.usd(Usage(math.floor(size.prompt.least), math.ceil(choices * longest)))
    thousand = first.expected * choices * 1_000 * tariff.output_usd / 1_000_000
    return replace(role, held_usd=held, thousand_usd=thousand)


def _share(left: Range, calls: Range) -> tuple[float, float, float]:
    def part(rest: float | None, whole: float | None) -> float:
        return 1.0 if rest is None or not whole else rest / whole

    return part(left.least, calls.least), part(left.expected, calls.expected), part(left.most, calls.most)


def _of_embedder(plan: Plan, habits: Habits, tariff: RoleTariff) -> RoleForecast:
    """Queries and examples are embedded in a batch each; the examples' vectors may be cached, and those of
    a run that goes on are recorded."""
    config = plan.config
    assert isinstance(config, OptimizeConfig)
    groups = [
        [query.text for query in asked_of_base(plan.inputs, config)],
        [example.query for example in plan.inputs.examples.examples],
    ]
    if not config.shots:
        groups = []
    requests = [-(-len(texts) // _TEXTS_A_REQUEST) for texts in groups]
    characters = [sum(map(len, texts)) for texts in groups]
    size = sum(len(text.encode("utf-8", "replace")) for texts in groups for text in texts)
    most = size + _TOKENS_A_TEXT * sum(map(len, groups))
    tokens = Range(0, sum(characters) / habits.characters_per_token, most)
    usd = None
    if tariff.known:
        usd = tokens.times(exactly(tariff.input_usd / 1_000_000))
    calls = Range(0, sum(requests), sum(requests))
    return RoleForecast(
        role=EMBEDDER_ROLE,
        tariff=tariff,
        calls=calls,
        paper=None,
        prompt_tokens=tokens,
        completion_tokens=Range(),
        usd=usd,
        done=0,
        left=calls,
        left_usd=usd,
    )


def _first_level(counts: Counts, searches: int, plan: Plan) -> int:
    """The calls without which no search gets anywhere: the start and one step from it, tried and evaluated;
    of examples, the start alone."""
    levels = min(2, round(counts.levels.least))
    base = levels if counts.base.most else 0
    evaluated = levels * plan.config.evaluations if counts.evaluations.most else 0
    return searches * (base + evaluated + (1 if counts.selections.most else 0))
