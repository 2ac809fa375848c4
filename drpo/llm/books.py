"""What the requests of a run came to: by the lines of its ledger, and by its record where those are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from drpo.errors import InputError, RecordDamaged
from drpo.jsonl import Lines, read_lines
from drpo.llm.base import ROLES, Usage
from drpo.llm.spent import Growth, Limits, Spent, Tariff, answered_spent, at_most_usd, is_whole

LEDGER_NAME = "ledger.jsonl"
_NOT_ANSWERED = ("context_length", "content_filter")


@dataclass(frozen=True, slots=True)
class _Call:
    """A request that has ended, by the ledger or by the record. whole: whether usage tells all of it."""

    role: str
    usage: Usage = field(default_factory=Usage)
    whole: bool = False
    usd: float | None = None
    most_usd: float | None = None
    took_s: float = 0.0
    again: bool = False
    failed: bool = False

    @property
    def spent(self) -> Spent:
        again = Spent(retried=int(self.again))
        if self.failed:
            return again + Spent(failed=1, seconds=self.took_s)
        return again + answered_spent(self.usage, self.usd, self.most_usd, self.took_s)

    def priced(self, tariff: Tariff | None) -> _Call:
        """With what it costs by that tariff, where it has no price and can be given one."""
        if self.failed or self.usd is not None or tariff is None:
            return self
        if self.whole and (usd := tariff.usd(self.usage)) is not None:
            return replace(self, usd=usd)
        return self if self.most_usd is not None else replace(self, most_usd=at_most_usd(tariff, None))


class Books:
    """What the lines of a ledger add up to. last: the highest number of a request. growth: per role.

    Raises RecordDamaged for lines that are none of a ledger.
    """

    def __init__(self, lines: Lines, path: Path) -> None:
        self.last = 0
        self.growth: dict[str, Growth] = {}
        self._open: dict[int, dict[str, Any]] = {}
        self._calls: list[_Call] = []  # in the order in which they ended: sums of floats depend on it
        for line in lines.records:
            self._take_in(line, path)

    def spent(self) -> dict[str, Spent]:
        """Per role, what has no ending as unknown."""
        found: dict[str, Spent] = {}
        for call in self._calls:
            found[call.role] = found.get(call.role, Spent()) + call.spent
        for sent in self._open.values():
            unknown = Spent(unknown=1, retried=int(sent["again"]), held_usd=sent["at_most_usd"] or 0.0)
            found[sent["role"]] = found.get(sent["role"], Spent()) + unknown
        return dict(sorted(found.items()))

    def price(self, tariffs: Mapping[str, Tariff]) -> None:
        """Give a price to what was sent without one, by its usage and today's tariffs."""
        self._calls = [call.priced(tariffs.get(call.role)) for call in self._calls]
        for number, sent in self._open.items():
            if sent["at_most_usd"] is None:
                self._open[number] = {**sent, "at_most_usd": at_most_usd(tariffs.get(sent["role"]), None)}

    def add_recorded(self, calls: Path, tariffs: Mapping[str, Tariff]) -> Counter[str]:
        """Book what the record of the run holds and the ledger does not. Returns, per role, how many may be
        missing that the record does not tell either."""
        recorded, failed, embedded = _read_record(calls)
        has_lost = not self.last
        known = Counter((call.role, call.usage) for call in self._calls if not call.failed)
        spare = Counter(str(sent["role"]) for sent in self._open.values())
        missing: list[_Call] = []
        for call in recorded:
            known[call.role, call.usage] -= 1
            if known[call.role, call.usage] < 0:
                missing.append(call.priced(tariffs.get(call.role)))
        # One that was answered when its process was killed stands in the ledger as one without an answer.
        for call in sorted(missing, key=lambda call: call.usd or 0.0):
            if spare[call.role] > 0:
                spare[call.role] -= 1
            else:
                self._calls.append(call)
                has_lost = True
        failed.subtract(call.role for call in self._calls if call.failed)
        self._calls += [_Call(role, failed=True) for role in (+failed).elements()]
        # Embedding requests are not recorded, what was found by them is.
        told = {*ROLES, *(call.role for call in self._calls)}
        return Counter(role for role in tariffs if role not in told and has_lost and embedded)

    def without_price(self) -> Counter[str]:
        """Per role, how many requests were or may have been charged, and nobody can tell what."""
        charged = (call for call in self._calls if not call.failed)
        found = Counter(call.role for call in charged if call.usd is None and call.most_usd is None)
        found.update(str(sent["role"]) for sent in self._open.values() if sent["at_most_usd"] is None)
        return found

    def _take_in(self, line: dict[str, Any], path: Path) -> None:
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
        role, again, took_s = str(sent["role"]), bool(sent["again"]), line["took_s"]
        if kind == "failed":
            self._calls.append(_Call(role, took_s=took_s, again=again, failed=True))
            return
        usage = Usage(*line["usage"])
        whole = line.get("whole", usage.prompt_tokens > 0 and usage.completion_tokens > 0)
        self._calls.append(_Call(role, usage, whole, line["usd"], sent["at_most_usd"], took_s, again))
        if "growth" in line:
            self.growth[role] = self.growth.get(role, Growth()).worse(Growth(*line["growth"]))


def read_ledger(path: Path) -> dict[str, Spent]:
    """Per role, what the file says was spent; empty where there is none. A request without an answer is
    `unknown` here, also while its run still waits for it. Raises InputError where the file is damaged."""
    try:
        return Books(read_lines(path), path).spent()
    except RecordDamaged as damaged:
        raise InputError(str(damaged)) from None


def limited_books(
    lines: Lines, path: Path, calls: Path | None, tariffs: Mapping[str, Tariff], limits: Limits
) -> Books:
    """The books by which limits are kept: what an earlier process spent counts, priced or not.

    calls: the record of the run, for what the ledger has lost. Without limits the lines alone count. Raises
    InputError where a limit could not hold, since nobody can tell what was sent or spent before.
    """
    books = Books(lines, path)
    if not limits:
        return books
    lost = Counter[str]() if calls is None else books.add_recorded(calls, tariffs)
    if limits.max_calls is None:
        lost = Counter({role: n for role, n in lost.items() if at_most_usd(tariffs[role], None) != 0.0})
    if lost:
        flag = "--max-calls" if limits.max_usd is None else f"--max-usd {limits.max_usd:g}"
        raise InputError(
            f"{path}: expected the books of the run, found none, and the record beside it does not tell what "
            f"the {' and the '.join(lost)} was sent: {flag} could not hold. Restore the file from a copy, "
            "begin anew with another --run-dir, or leave the limit out"
        )
    if limits.max_usd is None:
        return books
    books.price(tariffs)
    if unknown := books.without_price():
        shown = ", ".join(f"{number} of the {role}" for role, number in sorted(unknown.items()))
        raise InputError(
            f"--max-usd {limits.max_usd:g}: {path.parent} holds requests that were sent without a price and "
            f"of which no answer or no whole usage came ({shown}): what they cost cannot be known. Begin "
            "anew with another --run-dir, or leave --max-usd out"
        )
    return books


def _read_record(path: Path) -> tuple[list[_Call], Counter[str], bool]:
    """What a record of calls says was sent: answered calls, per role failed ones, and whether shots were
    looked for. A refused parameter is recorded without a role: it is that of the model's other calls."""
    calls: list[_Call] = []
    failed: Counter[str] = Counter()
    refused: list[str] = []
    role_of: dict[str, str] = {}
    embedded = False
    try:
        for line in read_lines(path).records:
            if line.get("kind") == "refused":
                refused.append(line["model"])
            elif line.get("kind") == "fact":
                embedded = embedded or line["name"].startswith("shots ")
            elif line.get("kind") == "call" and line["served_model"] != "reused":
                role, usage = str(line["role"]), Usage(*line["usage"])
                role_of.setdefault(line["request"]["model"], role)
                if _was_turned_away(line, usage):
                    failed[role] += 1
                else:
                    calls.append(_Call(role, usage, is_whole(usage, [text for text, _ in line["choices"]])))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RecordDamaged(f"{path}: expected calls with role, choices and usage, {error!r}") from None
    failed.update(role_of.get(model, ROLES[0]) for model in refused)
    return calls, failed, embedded


def _was_turned_away(line: Mapping[str, Any], usage: Usage) -> bool:
    """Whether a recorded call is an HTTP error in truth: no text, no usage, no model that would sign it."""
    told = usage.prompt_tokens or usage.completion_tokens or line["served_model"]
    return not told and all(not text and reason in _NOT_ANSWERED for text, reason in line["choices"])
