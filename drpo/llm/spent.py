"""What a request can cost, what it did cost, and what of both makes a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from drpo.llm.base import Usage

_MUCH = Usage(1_000_000, 1_000_000)


class Tariff(Protocol):
    """What the calls of one role cost."""

    def usd(self, usage: Usage) -> float | None:
        """US dollars, None where no price is known."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a run may send and spend, over all its processes; None: no limit."""

    max_calls: int | None = None
    max_usd: float | None = None

    def __bool__(self) -> bool:
        return self.max_calls is not None or self.max_usd is not None


@dataclass(frozen=True, slots=True)
class Spent:
    """What the requests of one role came to.

    answered: with a reply. failed: with an error, which is a call but costs no money. unknown: sent, and no
    answer came. in_air: sent, and none came yet. retried: how many of all these were sent again after a
    failure. unpriced: answered ones whose cost cannot be told. usd: of the priced ones. held_usd: the most
    that those unknown, unpriced and in the air can cost. seconds: from sending to the answer, summed.
    """

    answered: int = 0
    failed: int = 0
    unknown: int = 0
    in_air: int = 0
    retried: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    unpriced: int = 0
    usd: float = 0.0
    held_usd: float = 0.0
    seconds: float = 0.0

    @property
    def calls(self) -> int:
        """The requests that reached a model, or may have."""
        return self.answered + self.failed + self.unknown + self.in_air

    def __add__(self, other: Spent) -> Spent:
        cached = Usage(cached_tokens=self.cached_tokens) + Usage(cached_tokens=other.cached_tokens)
        summed = {
            name: getattr(self, name) + getattr(other, name)
            for name in self.__slots__
            if name != "cached_tokens"
        }
        return Spent(**summed, cached_tokens=cached.cached_tokens)


@dataclass(frozen=True, slots=True)
class Growth:
    """How many times the most tokens of a request were used, at worst; 1 where no request used more."""

    prompt: float = 1.0
    completion: float = 1.0

    def of(self, most: Usage) -> Usage:
        """The most tokens of a request, reckoned by the worst."""
        return Usage(_times(most.prompt_tokens, self.prompt), _times(most.completion_tokens, self.completion))

    def worse(self, other: Growth) -> Growth:
        return Growth(max(self.prompt, other.prompt), max(self.completion, other.completion))


def growth_of(usage: Usage, most: Usage) -> Growth:
    """By how much a request used more than it could."""
    return Growth(
        max(1.0, usage.prompt_tokens / most.prompt_tokens) if most.prompt_tokens else 1.0,
        max(1.0, usage.completion_tokens / most.completion_tokens) if most.completion_tokens else 1.0,
    )


def is_whole(usage: Usage, texts: Sequence[str]) -> bool:
    """Whether a usage tells all that a reply came to. Some servers tell no tokens, or the prompt's only."""
    return usage.prompt_tokens > 0 and (usage.completion_tokens > 0 or not any(texts))


def at_most_usd(tariff: Tariff | None, most: Usage | None) -> float | None:
    """The most that a request can cost; None where that cannot be told. Where all is free, nothing."""
    if tariff is None:
        return None
    if most is not None:
        return tariff.usd(most)
    return 0.0 if tariff.usd(_MUCH) == 0.0 else None


def answered_spent(usage: Usage, usd: float | None, most_usd: float | None, took_s: float) -> Spent:
    """An answered request. One whose server does not tell the tokens is held at the most it can cost."""
    spent = Spent(
        answered=1,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        seconds=took_s,
    )
    if usd is None:
        return replace(spent, unpriced=1, held_usd=most_usd or 0.0)
    return replace(spent, usd=usd)


def _times(tokens: int, factor: float) -> int:
    return tokens if factor == 1.0 else int(tokens * factor) + 1
