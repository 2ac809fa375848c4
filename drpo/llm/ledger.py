"""The books of a run: every request to a model, before it is sent and once it is answered.

ledger.jsonl has a line when a request is about to go out, with the most it can cost, and one when its answer
is there. What has only the first of them got no answer, which may have been charged: it counts as a call and
at the most it can cost, for good. So the sum of the file never falls below what was really spent, whenever
the process was killed. Nothing but the limits on calls and money reads it: a run resumes without it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from drpo.errors import BudgetSpent, InputError, RecordDamaged, StorageError
from drpo.jsonl import Journal, read_lines
from drpo.llm.base import Usage
from drpo.llm.limits import Stop

LEDGER_NAME = "ledger.jsonl"
Ending = Literal["answered", "failed", "unsent", "unknown"]


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
    that those unknown and in the air can cost. seconds: from sending to the answer, summed.
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
class Ticket:
    """A request that may be sent now. at_most_usd: None where it cannot be told."""

    number: int
    role: str
    model: str
    at_most_usd: float | None
    again: bool
    began_s: float


@dataclass(frozen=True, slots=True)
class CallDone:
    """One request and how it ended, for whoever follows the calls. Times in seconds, `began_s` since 1970.

    operation: chat, text_completion or embeddings, as OpenTelemetry names them. problem: what went wrong.
    """

    role: str
    model: str
    operation: str
    began_s: float
    took_s: float
    ending: Ending
    again: bool = False
    usage: Usage | None = None
    usd: float | None = None
    finish_reasons: tuple[str, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    problem: str | None = None


class Ledger:
    """The books of one run, kept by its one process. `told` hears of each request that has ended.

    A request is let out when what was spent, what is held for requests without an answer, and the most that
    it can cost itself are within the limits. Where they are not, it waits for those in the air: they mostly
    cost less than is held for them. When none is left, the budget is spent: `BudgetSpent`.
    """

    def __init__(
        self,
        path: Path,
        tariffs: Mapping[str, Tariff],
        limits: Limits,
        stop: Stop,
        told: Callable[[CallDone], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        lines = read_lines(path)
        books = _Books()
        for line in lines.records:
            books.take_in(line, path)
        self.limits = limits
        self._spent = books.spent()
        self._number = books.last
        self._tariffs, self._stop, self._clock = tariffs, stop, clock
        self._told = told or (lambda call: None)
        self._journal = Journal(path, lines.sound_bytes)
        self._in_air = 0
        self._waiting: list[asyncio.Future[bool]] = []

    @property
    def spent(self) -> dict[str, Spent]:
        """Per role, all processes of this run together."""
        return dict(sorted(self._spent.items()))

    @property
    def total(self) -> Spent:
        """All roles together."""
        return sum(self._spent.values(), Spent())

    async def open(self, role: str, model: str, most: Usage | None, *, again: bool = False) -> Ticket:
        """Let a request out that can use `most` at most (None: that cannot be told).

        Its line is in the file before this returns, durably where there is a limit. Raises BudgetSpent, or
        Stopped when the run ends meanwhile.
        """
        tariff = self._tariffs.get(role)
        at_most = None if tariff is None or most is None else tariff.usd(most)
        if self.limits.max_usd is not None and at_most is None:
            raise BudgetSpent(
                f"a request of the {role} to {model} has no known highest price: nothing more is sent. "
                f"Give --price {role}=IN/OUT and --max-tokens, or leave --max-usd out"
            )
        while not self._fits(at_most):
            await self._wait(role, at_most)
        self._stop.check()
        self._number += 1
        ticket = Ticket(self._number, role, model, at_most, again, self._clock())
        self._in_air += 1
        self._add(role, Spent(in_air=1, retried=int(again), held_usd=at_most or 0.0))
        try:
            line = {"kind": "sent", "id": ticket.number, "role": role, "model": model, "at_most_usd": at_most}
            await self._journal.append({**line, "again": again}, durable=bool(self.limits))
        except StorageError:
            self._close(ticket, Spent(retried=-int(again)))
            raise
        except BaseException:  # cancelled, but the line is on its way
            self.unsent(ticket)
            raise
        return ticket

    def answered(self, ticket: Ticket, usage: Usage) -> float | None:
        """The reply is there. Returns what it cost, None where that is unknown."""
        tariff = self._tariffs.get(ticket.role)
        told = usage.prompt_tokens > 0 or usage.completion_tokens > 0
        usd = tariff.usd(usage) if tariff is not None and told else None
        tokens = [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens]
        took_s = self.seconds_since(ticket)
        line = {"kind": "answered", "id": ticket.number, "usage": tokens, "usd": usd, "took_s": took_s}
        self._journal.note(line)
        self._close(ticket, _answered(usage, usd, ticket.at_most_usd, took_s))
        return usd

    def failed(self, ticket: Ticket) -> None:
        """The model's server said no: a call without a reply, which is not charged."""
        took_s = self.seconds_since(ticket)
        self._journal.note({"kind": "failed", "id": ticket.number, "took_s": took_s})
        self._close(ticket, Spent(failed=1, seconds=took_s))

    def unsent(self, ticket: Ticket) -> None:
        """It never left: no call at all."""
        self._journal.note({"kind": "unsent", "id": ticket.number})
        self._close(ticket, Spent(retried=-int(ticket.again)))

    def unknown(self, ticket: Ticket) -> None:
        """No answer came, and none will: it stays a call, at the most it can cost."""
        self._close(ticket, Spent(unknown=1, held_usd=ticket.at_most_usd or 0.0))

    def tell(self, call: CallDone) -> None:
        """Pass a call on to whoever follows them."""
        self._told(call)

    def seconds_since(self, ticket: Ticket) -> float:
        """How long ago the request was let out."""
        return round(max(0.0, self._clock() - ticket.began_s), 4)

    async def close(self) -> None:
        """Write what is pending and release the file."""
        await self._journal.close()

    def _fits(self, at_most: float | None) -> bool:
        limits = self.limits
        if not limits:
            return True
        total = self.total
        if limits.max_calls is not None and total.calls + 1 > limits.max_calls:
            return False
        return limits.max_usd is None or total.usd + total.held_usd + (at_most or 0.0) <= limits.max_usd

    async def _wait(self, role: str, at_most: float | None) -> None:
        """Until a request in the air has ended."""
        if not self._in_air:
            raise BudgetSpent(self._why(role, at_most))
        self._stop.check()
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(ended)
        self._stop.wake(ended)
        if not await ended:
            self._stop.check()

    def _why(self, role: str, at_most: float | None) -> str:
        total, limits = self.total, self.limits
        if limits.max_calls is not None and total.calls >= limits.max_calls:
            return (
                f"the limit of {limits.max_calls:,} calls is reached. Raise --max-calls and run the same "
                "command again to go on"
            )
        held = f", ${total.held_usd:.4f} may have been for {total.unknown} requests that got no answer"
        return (
            f"the budget of ${limits.max_usd:g} is spent: ${total.usd:.4f} was"
            f"{held if total.unknown else ''}, and the next request of the {role} can cost ${at_most:.4f}. "
            "Raise --max-usd and run the same command again to go on"
        )

    def _close(self, ticket: Ticket, came_to: Spent) -> None:
        self._in_air -= 1
        self._add(ticket.role, Spent(in_air=-1, held_usd=-(ticket.at_most_usd or 0.0)) + came_to)
        waiting, self._waiting = self._waiting, []
        for ended in waiting:
            if not ended.done():
                ended.set_result(True)

    def _add(self, role: str, spent: Spent) -> None:
        self._spent[role] = self._spent.get(role, Spent()) + spent


def read_ledger(path: Path) -> dict[str, Spent]:
    """Per role, what the file says was spent; empty where there is none. A request without an answer is
    `unknown` here, also while its run still waits for it. Raises InputError where the file is damaged."""
    books = _Books()
    try:
        for line in read_lines(path).records:
            books.take_in(line, path)
    except RecordDamaged as damaged:
        raise InputError(str(damaged)) from None
    return dict(sorted(books.spent().items()))


class _Books:
    """What the lines of a ledger add up to."""

    def __init__(self) -> None:
        self.last = 0
        self._open: dict[int, dict[str, Any]] = {}
        self._spent: dict[str, Spent] = {}

    def take_in(self, line: dict[str, Any], path: Path) -> None:
        kind, number = line.get("kind"), line.get("id")
        if kind == "sent" and isinstance(number, int):
            self.last = max(self.last, number)
            self._open[number] = line
            return
        sent = self._open.pop(number, None) if isinstance(number, int) else None
        if sent is None or kind not in ("answered", "failed", "unsent"):
            raise RecordDamaged(
                f"{path}: expected requests and their endings, found {kind!r} of request {number}. Restore "
                "the file from a copy; without it what was spent so far cannot be known"
            )
        if kind == "unsent":
            return
        again = Spent(retried=int(sent["again"]))
        if kind == "failed":
            self._add(sent["role"], again + Spent(failed=1, seconds=line["took_s"]))
            return
        came_to = _answered(Usage(*line["usage"]), line["usd"], sent["at_most_usd"], line["took_s"])
        self._add(sent["role"], again + came_to)

    def spent(self) -> dict[str, Spent]:
        """Per role, what has no ending as unknown."""
        found = dict(self._spent)
        for sent in self._open.values():
            unknown = Spent(unknown=1, retried=int(sent["again"]), held_usd=sent["at_most_usd"] or 0.0)
            found[sent["role"]] = found.get(sent["role"], Spent()) + unknown
        return found

    def _add(self, role: str, spent: Spent) -> None:
        self._spent[role] = self._spent.get(role, Spent()) + spent


def _answered(usage: Usage, usd: float | None, at_most_usd: float | None, took_s: float) -> Spent:
    """An answered request. One whose server does not tell the tokens is held at the most it can cost."""
    spent = Spent(
        answered=1,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        seconds=took_s,
    )
    if usd is None:
        return replace(spent, unpriced=1, held_usd=at_most_usd or 0.0)
    return replace(spent, usd=usd)
