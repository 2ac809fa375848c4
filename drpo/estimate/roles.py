"""What any forecast is made of: the calls of each role with their tokens and money, what of them is recorded,
and what limits say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from drpo.errors import RecordDamaged
from drpo.estimate.ranges import Range, exactly, total
from drpo.jsonl import read_lines
from drpo.llm.base import Usage
from drpo.tariffs import EMBEDDER_ROLE, RoleTariff

Enough = Literal["enough", "may end early", "will likely end early", "will end early", "too little to begin"]
REWARD_FACT = "reward of "
"""How the facts begin that hold a reward model's values (`drpo.measuring.evaluating`)."""
_TEXTS_A_REQUEST = 256  # of an embedding endpoint: `drpo.llm.embed`
_TOKENS_A_TEXT = 8
_NOTHING = Range()


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a run directory holds already: per role, calls with a reply and their tokens. reused: queries
    whose aspects another run has chosen, of those that are not recorded. spent_calls and spent_usd: what
    counts against the limits by the run's own books, money held for requests without an answer included.
    rewards: what a reward model has given, by facts. finished: nothing more is to come."""

    calls: Mapping[str, int] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    reused: int = 0
    spent_calls: int = 0
    spent_usd: float = 0.0
    rewards: int = 0
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
class RunForecast:
    """What a run takes, whatever it asks models. thinking: roles whose models think, which is charged as
    written text and of which `expected` knows nothing. first_calls: those without which a run that begins
    gets nowhere."""

    roles: tuple[RoleForecast, ...]
    thinking: tuple[str, ...]
    first_calls: int
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
        first = 0 if self.recorded.calls else self.first_calls
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


def read_recorded(calls: Path) -> Recorded:
    """The calls that the record of a run holds; none where there is none. Raises RecordDamaged."""
    number: dict[str, int] = {}
    usage: dict[str, Usage] = {}
    rewards = 0
    for line in read_lines(calls).records:
        rewards += line.get("kind") == "fact" and str(line.get("name")).startswith(REWARD_FACT)
        if line.get("kind") != "call":
            continue
        try:
            role, tokens = str(line["role"]), Usage(*line["usage"])
        except (KeyError, TypeError) as error:
            raise RecordDamaged(f"{calls}: expected calls with role and usage, {error!r}") from None
        number[role] = number.get(role, 0) + 1
        usage[role] = usage.get(role, Usage()) + tokens
    return Recorded(number, usage, rewards=rewards)


@dataclass(frozen=True, slots=True)
class Batch:
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


def priced(batches: Sequence[Batch], tariff: RoleTariff) -> Range | None:
    """What they cost together; None where no price is known."""
    found = [batch.usd(tariff) for batch in batches]
    return None if None in found else total(price for price in found if price is not None)


def paid(tariff: RoleTariff, used: Usage) -> float:
    """What recorded tokens came to, 0 where no price is known. By the first tier of the list: the price that
    long prompts have is none for the sum of short ones."""
    return replace(tariff, listed="").usd(used) or 0.0


def with_recorded(
    role: str, tariff: RoleTariff, batches: Sequence[Batch], recorded: Recorded, held_usd: float | None = None
) -> RoleForecast:
    """A role's share where what is left (`batches`) is known by the request: the whole is that and what is
    recorded. held_usd: as in `RoleForecast`."""
    left, left_usd = total(batch.calls for batch in batches), priced(batches, tariff)
    done, used = recorded.calls.get(role, 0), recorded.usage.get(role, Usage())
    reads = total(batch.calls.times(batch.prompt) for batch in batches)
    writes = total(batch.calls.times(batch.completion) for batch in batches)
    return RoleForecast(
        role=role,
        tariff=tariff,
        calls=exactly(done) + left,
        paper=None,
        prompt_tokens=exactly(used.prompt_tokens) + reads,
        completion_tokens=exactly(used.completion_tokens) + writes,
        usd=None if left_usd is None else exactly(paid(tariff, used)) + left_usd,
        done=done,
        left=left,
        left_usd=left_usd,
        held_usd=held_usd,
        thousand_usd=left.expected * 1_000 * tariff.output_usd / 1_000_000,
    )


def embedder_forecast(
    groups: Sequence[Sequence[str]],
    characters_per_token: float,
    tariff: RoleTariff,
    unknown: Range = _NOTHING,
) -> RoleForecast:
    """An embedder's share: each group of texts in as few requests as hold it. At least none: vectors may be
    cached, and those of a run that goes on are recorded. unknown: tokens of texts that are not there yet, on
    top."""
    requests = [-(-len(texts) // _TEXTS_A_REQUEST) for texts in groups]
    characters = [sum(map(len, texts)) for texts in groups]
    size = sum(len(text.encode("utf-8", "replace")) for texts in groups for text in texts)
    most = size + _TOKENS_A_TEXT * sum(map(len, groups))
    tokens = Range(0, sum(characters) / characters_per_token, most) + replace(unknown, least=0.0)
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
