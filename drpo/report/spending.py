"""Calls, tokens, money and time per role, in words: what is unknown is called so and never 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drpo.llm.ledger import Spent
from drpo.money import dollars
from drpo.report.scale import count, duration, plural

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SpentRow:
    """What the requests of one role came to, each figure as it is shown.

    calls: all that reached a model, or may have. open: those without an answer. money: what is known of it,
    with what may come on top. time: from sending to the answer, summed.
    """

    role: str
    calls: str
    answered: str
    failed: str
    open: str
    retried: str
    prompt_tokens: str
    completion_tokens: str
    cached_tokens: str
    money: str
    time: str
    each: str


@dataclass(frozen=True, slots=True)
class SpentTable:
    """A row for each role, and their sum, None where there is only one."""

    rows: tuple[SpentRow, ...]
    total: SpentRow | None


@dataclass(frozen=True, slots=True)
class Bill:
    """Money: `usd` was spent; `bounded` calls of unknown cost come to `held_usd` at most, and of the cost of
    `unbounded` ones nothing is known."""

    usd: float = 0.0
    held_usd: float = 0.0
    bounded: int = 0
    unbounded: int = 0

    def __add__(self, other: Bill) -> Bill:
        return Bill(
            self.usd + other.usd,
            self.held_usd + other.held_usd,
            self.bounded + other.bounded,
            self.unbounded + other.unbounded,
        )

    def __str__(self) -> str:
        if self.unbounded and not self.usd and not self.bounded:
            return UNKNOWN
        said = dollars(self.usd)
        if self.bounded:
            said += (
                f", at most {dollars(self.held_usd)} more for {plural(self.bounded, 'call')} of unknown cost"
            )
        return f"{said}, {UNKNOWN} for {plural(self.unbounded, 'call')}" if self.unbounded else said


def bill(spent: Spent) -> Bill:
    """What the requests of one role cost. Those that failed cost nothing."""
    loose = spent.unknown + spent.in_air + spent.unpriced
    if spent.held_usd > 0:
        return Bill(spent.usd, spent.held_usd, bounded=loose)
    is_free = not spent.usd and spent.answered > spent.unpriced
    return Bill(spent.usd, unbounded=0 if is_free else loose)


def total_bill(spent: Mapping[str, Spent]) -> Bill:
    """What the requests of all roles cost."""
    return sum((bill(of_role) for of_role in spent.values()), Bill())


def spent_table(spent: Mapping[str, Spent]) -> SpentTable:
    """The table of a ledger."""
    rows = tuple(_row(role, of_role, bill(of_role)) for role, of_role in spent.items())
    total = sum(spent.values(), Spent())
    return SpentTable(rows, _row("all roles", total, total_bill(spent)) if len(rows) > 1 else None)


def _row(role: str, spent: Spent, cost: Bill) -> SpentRow:
    told = spent.prompt_tokens or spent.completion_tokens or not spent.answered
    ended = spent.answered + spent.failed
    cached = spent.cached_tokens
    return SpentRow(
        role=role,
        calls=count(spent.calls),
        answered=count(spent.answered),
        failed=count(spent.failed),
        open=count(spent.unknown + spent.in_air),
        retried=count(spent.retried),
        prompt_tokens=count(spent.prompt_tokens) if told else UNKNOWN,
        completion_tokens=count(spent.completion_tokens) if told else UNKNOWN,
        cached_tokens=UNKNOWN if cached is None else count(cached),
        money=str(cost),
        time=duration(spent.seconds),
        each=duration(spent.seconds / ended) if ended else "–",
    )
