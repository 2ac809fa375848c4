"""The books of a run: every request to a model, before it is sent and once it is answered.

ledger.jsonl has a line when a request is about to go out, with the most it can cost, and one when its answer
is there. What has only the first of them got no answer, which may have been charged: it counts as a call and
at the most it can cost, for good. So the sum of the file never falls below what was really spent, whenever
the process was killed. Nothing but the limits on calls and money reads it: a run resumes without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from drpo.errors import BudgetSpent, InputError, StorageError
from drpo.jsonl import Journal, read_lines
from drpo.llm.base import Usage
from drpo.llm.books import LEDGER_NAME as LEDGER_NAME
from drpo.llm.books import limited_books
from drpo.llm.books import read_ledger as read_ledger
from drpo.llm.limits import Stop
from drpo.llm.spent import Growth, Tariff, answered_spent, at_most_usd, growth_of
from drpo.llm.spent import Limits as Limits
from drpo.llm.spent import Spent as Spent

Ending = Literal["answered", "failed", "unsent", "unknown"]


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request that may be sent now. at_most_usd: None where it cannot be told. most: the tokens that it can
    use, as its parameters have it."""

    number: int
    role: str
    model: str
    at_most_usd: float | None
    again: bool
    began_s: float
    most: Usage | None = None


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

    The most that a request can cost relies on its server to keep max_tokens. One that does not is told of
    once, by `notice`; the most of later requests of that role is reckoned by the worst that was seen, so that
    a limit is passed by no more than what was in the air then.

    calls: the record of the run, which tells what the ledger has lost. Raises InputError where a limit could
    not hold: see `limited_books`.
    """

    def __init__(
        self,
        path: Path,
        tariffs: Mapping[str, Tariff],
        limits: Limits,
        stop: Stop,
        told: Callable[[CallDone], None] | None = None,
        clock: Callable[[], float] = time.time,
        *,
        calls: Path | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        lines = read_lines(path)
        books = limited_books(lines, path, calls, tariffs, limits)
        self.limits = limits
        self._spent = books.spent()
        self._number = books.last
        self._growth = books.growth
        self._tariffs, self._stop, self._clock = tariffs, stop, clock
        self._told = told or (lambda call: None)
        self._notice = notice or (lambda said: None)
        self._has_told_growth = False
        self._journal = Journal(path, lines.sound_bytes)
        # What is held for these is summed anew each time: added and taken away it would leave a residue.
        self._in_air: dict[int, Ticket] = {}
        self._waiting: list[asyncio.Future[bool]] = []

    @property
    def spent(self) -> dict[str, Spent]:
        """Per role, all processes of this run together."""
        found = dict(self._spent)
        for role in {ticket.role for ticket in self._in_air.values()}:
            tickets = [ticket for ticket in self._in_air.values() if ticket.role == role]
            held_usd = math.fsum(ticket.at_most_usd or 0.0 for ticket in tickets)
            in_air = Spent(
                in_air=len(tickets), retried=sum(ticket.again for ticket in tickets), held_usd=held_usd
            )
            found[role] = found.get(role, Spent()) + in_air
        return dict(sorted(found.items()))

    @property
    def total(self) -> Spent:
        """All roles together."""
        return sum(self.spent.values(), Spent())

    async def open(self, role: str, model: str, most: Usage | None, *, again: bool = False) -> Ticket:
        """Let a request out that can use `most` at most (None: that cannot be told).

        Its line is in the file before this returns, durably where there is a limit. Raises BudgetSpent,
        InputError where a limit on money cannot hold since nothing bounds the request, or Stopped when the
        run ends meanwhile.
        """
        at_most = self._at_most(role, model, most)
        while not self._fits(at_most):
            await self._wait(role, at_most)
            at_most = self._at_most(role, model, most)  # a server may have shown what it makes of max_tokens
        self._stop.check()
        self._number += 1
        ticket = Ticket(self._number, role, model, at_most, again, self._clock(), most)
        self._in_air[ticket.number] = ticket
        try:
            line = {"kind": "sent", "id": ticket.number, "role": role, "model": model, "at_most_usd": at_most}
            await self._journal.append({**line, "again": again}, durable=bool(self.limits))
        except BaseException:  # cancelled, but the line may be on its way
            self.unsent(ticket)
            raise
        return ticket

    def answered(self, ticket: Ticket, usage: Usage, *, whole: bool = True) -> float | None:
        """The reply is there. Returns what it cost, None where that is unknown.

        whole: False where the usage tells only a part of it, which is kept and not priced.
        """
        tariff = self._tariffs.get(ticket.role)
        whole = whole and (usage.prompt_tokens > 0 or usage.completion_tokens > 0)
        usd = tariff.usd(usage) if tariff is not None and whole else None
        tokens = [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens]
        took_s = self.seconds_since(ticket)
        line: dict[str, Any] = {"kind": "answered", "id": ticket.number, "usage": tokens, "whole": whole}
        line |= {"usd": usd, "took_s": took_s}
        growth = Growth() if ticket.most is None else growth_of(usage, ticket.most)
        if growth != Growth():
            line["growth"] = [growth.prompt, growth.completion]
            self._grow(ticket, usage, growth)
        self._close(ticket, line, answered_spent(usage, usd, ticket.at_most_usd, took_s))
        return usd

    def failed(self, ticket: Ticket) -> None:
        """The model's server said no: a call without a reply, which is not charged."""
        took_s = self.seconds_since(ticket)
        line = {"kind": "failed", "id": ticket.number, "took_s": took_s}
        self._close(ticket, line, Spent(failed=1, seconds=took_s))

    def unsent(self, ticket: Ticket) -> None:
        """It never left: no call at all."""
        self._close(ticket, {"kind": "unsent", "id": ticket.number}, None)

    def unknown(self, ticket: Ticket) -> None:
        """No answer came, and none will: it stays a call, at the most it can cost."""
        self._close(ticket, None, Spent(unknown=1, held_usd=ticket.at_most_usd or 0.0))

    def tell(self, call: CallDone) -> None:
        """Pass a call on to whoever follows them."""
        self._told(call)

    def seconds_since(self, ticket: Ticket) -> float:
        """How long ago the request was let out."""
        return round(max(0.0, self._clock() - ticket.began_s), 4)

    async def close(self) -> None:
        """Write what is pending and release the file."""
        await self._journal.close()

    def _at_most(self, role: str, model: str, most: Usage | None) -> float | None:
        """The most that a request can cost, by the worst that its role's server has made of max_tokens."""
        if most is not None and role in self._growth:
            most = self._growth[role].of(most)
        usd = at_most_usd(self._tariffs.get(role), most)
        if self.limits.max_usd is None or usd is not None:
            return usd
        if most is None:
            raise InputError(
                f"--max-usd {self.limits.max_usd:g}: {model} (the {role}) takes no max_tokens, so nothing "
                "bounds what a request to it can cost. Give --max-thinking-tokens, such as 8192, and a new "
                "--run-dir: it is a setting of the run. Or leave --max-usd out"
            )
        raise BudgetSpent(
            f"a request of the {role} to {model} has no known highest price: nothing more is sent. "
            f"Give --price {role}=IN/OUT, or leave --max-usd out"
        )

    def _grow(self, ticket: Ticket, usage: Usage, growth: Growth) -> None:
        assert ticket.most is not None
        self._growth[ticket.role] = self._growth.get(ticket.role, Growth()).worse(growth)
        if self.limits.max_usd is None or self._has_told_growth:
            return
        self._has_told_growth = True
        used, most, does = usage.completion_tokens, ticket.most.completion_tokens, "wrote"
        if growth.completion == 1.0:
            used, most, does = usage.prompt_tokens, ticket.most.prompt_tokens, "was charged for reading"
        self._notice(
            f"{ticket.model} (the {ticket.role}) {does} {used:,} tokens in a request of {most:,} at most: "
            "its server does not keep max_tokens. The true cost is booked, and later requests are reckoned "
            "by it; --max-usd can be passed by what is in the air now"
        )

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
        silent = total.unknown + total.unpriced
        without = "no answer" if not total.unpriced else "no answer or told no whole usage"
        held = f", ${total.held_usd:.4f} may have been for {silent} requests that got {without}"
        return (
            f"the budget of ${limits.max_usd:g} is spent: ${total.usd:.4f} was"
            f"{held if silent else ''}, and the next request of the {role} can cost ${at_most:.4f}. "
            "Raise --max-usd and run the same command again to go on"
        )

    def _close(self, ticket: Ticket, line: dict[str, Any] | None, came_to: Spent | None) -> None:
        """It is no longer in the air. Its line comes last: a disk that refuses it must not cost the reply,
        and is told by the next `open`. What has no line counts as unknown when it is read again."""
        self._in_air.pop(ticket.number, None)
        spent = self._spent.get(ticket.role, Spent())
        if came_to is not None:
            spent += Spent(retried=int(ticket.again)) + came_to
        self._spent[ticket.role] = spent
        waiting, self._waiting = self._waiting, []
        for ended in waiting:
            if not ended.done():
                ended.set_result(True)
        if line is not None:
            with contextlib.suppress(StorageError):
                self._journal.note(line)
