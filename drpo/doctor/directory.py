"""Whether a run could claim its directory and go on from what is in it. Nothing of it is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from drpo.doctor.check import Check, of_error, ok, problem
from drpo.doctor.limits import limit_checks
from drpo.doctor.prepare import Prepared
from drpo.errors import DrpoError, InputError, RecordDamaged, ReplayMissed, RunConflict, StorageError
from drpo.estimate.forecast import Recorded, read_recorded
from drpo.events import Event, event_line
from drpo.jsonl import read_lines
from drpo.live import Resources
from drpo.llm.base import Request
from drpo.llm.books import LEDGER_NAME, limited_books
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.llm.spent import Limits, Spent
from drpo.plan import Plan, run_path
from drpo.results import is_finished
from drpo.run_dir import differences
from drpo.run_file import RUN_NAME, read_run
from drpo.searches import search_prompt
from drpo.tariffs import RoleTariff, tariffs_of, unknown_prices

_ANOTHER = "Give another --run-dir"
_FROM_A_COPY = "Restore it from a copy, or give another --run-dir"


def run_checks(prepared: Prepared) -> Iterator[Check]:
    """What a run would find in its directory, and whether its limits let it go on from there."""
    plan = prepared.plan
    if plan is None or not prepared.whole:
        return
    path = run_path(plan)
    if (refused := _refused(path, plan)) is not None:
        yield refused
    elif not (path / RUN_NAME).exists():
        yield ok("run", f"{path}: new")
        yield from limit_checks(prepared, Recorded())
    elif is_finished(path):
        yield ok("run", f"{path}: has a result, which the command would show")
    else:
        yield ok("run", f"{path}: begun before, the command would resume it")
        yield from _recorded_checks(prepared, plan, path)


def _refused(path: Path, plan: Plan) -> Check | None:
    """Why the directory cannot be claimed, in the order in which a run looks."""
    is_run = (path / RUN_NAME).exists()
    there = sorted(p.name for p in path.iterdir() if p.name[0] != ".") if path.is_dir() else []
    if there and not is_run:
        said = f"{path}: expected a run or an empty folder, found {there[0]}"
        return problem("run", said, _ANOTHER, RunConflict)
    if (refused := _locked(path)) is not None or not is_run:
        return refused
    try:
        differing = differences(read_run(path)["identity"], plan.identity)
    except InputError as error:
        return problem("run", str(error), _ANOTHER, RunConflict)
    if differing:
        said = f"{path} belongs to other settings: {'; '.join(differing[:5])}"
        return problem("run", said, "Give these settings, or another --run-dir", RunConflict)
    return None


def _locked(path: Path) -> Check | None:
    """Whether another process holds the directory. Where there is no file to lock, none does."""
    file = path / ".lock"
    if not file.exists():
        return None
    try:
        with FileLock(file, timeout=0, is_singleton=False):
            return None
    except Timeout:
        said = f"{path}: another process is running in this directory"
        return problem("run", said, "Wait for it, stop it, or give another --run-dir", RunConflict)
    except OSError as error:
        said = f"{path}: cannot be locked: {error.strerror}"
        return problem("run", said, "Free or unlock the disk", StorageError)


def _recorded_checks(prepared: Prepared, plan: Plan, path: Path) -> Iterator[Check]:
    """What the run would go on from, by the readers that it uses itself."""
    broken: list[Check] = []
    recorded, spent, replayed = Recorded(), Spent(), _Replayed()
    try:
        record = Record(path / "calls.jsonl", writable=False)
        recorded = read_recorded(path / "calls.jsonl")
        replayed = asyncio.run(_replay(plan, record))
        broken += _other_events(path / "events.jsonl", replayed)
    except DrpoError as error:
        broken.append(of_error("record", error, _FROM_A_COPY))
    try:
        spent = _spent(prepared, plan, path)
    except DrpoError as error:
        broken.append(of_error("ledger", error, _FROM_A_COPY))
    if broken:
        yield from broken
        return
    calls = sum(recorded.calls.values())
    yield ok("record", f"{calls:,} calls; record, ledger and events can be read and agree")
    recorded = replace(recorded, spent_calls=spent.calls, spent_usd=spent.usd + spent.held_usd)
    if not replayed.complete:
        yield from limit_checks(prepared, recorded, replayed.missing)


def _spent(prepared: Prepared, plan: Plan, path: Path) -> Spent:
    """What the run has spent as its limits would count it. Raises as the run would."""
    ledger, config = path / LEDGER_NAME, plan.config
    limits = Limits(config.max_calls, config.max_usd)
    tariffs: dict[str, RoleTariff] = {}
    try:
        tariffs = tariffs_of(plan, prepared.environment)
        if unknown_prices(tariffs):
            limits = Limits(config.max_calls)
    except InputError:
        limits = Limits()  # the checks of prices say so
    books = limited_books(read_lines(ledger), ledger, path / "calls.jsonl", tariffs, limits)
    return sum(books.spent().values(), Spent())


@dataclass(frozen=True, slots=True)
class _Replayed:
    """How far the recorded calls lead. missing: what would be asked next. complete: nothing would be."""

    events: bytes = b""
    missing: tuple[Request, ...] = ()
    complete: bool = False


async def _replay(plan: Plan, record: Record) -> _Replayed:
    """The search over the record alone, as a run does it first."""
    if not len(record):  # nothing could come of it, and a local embedding model might be loaded for it
        return _Replayed()
    events: list[Event] = []
    resources = Resources(record, Stop(), {}, plan.config, live=False)
    try:
        await search_prompt(plan, resources, None, events.extend)
        complete = not record.missed  # aspects for levels that were not reached are chosen all the same
    except ReplayMissed:
        complete = False
    finally:
        await resources.close()
    text = "".join(map(event_line, events)).encode("utf-8", "backslashreplace")
    return _Replayed(text, tuple(record.missed.values()), complete)


def _other_events(file: Path, replayed: _Replayed) -> Iterator[Check]:
    """Where the file says something else than the record leads to, as `drpo.events.EventFile` would find."""
    try:
        there = file.read_bytes() if file.exists() else b""
    except OSError as error:
        yield of_error("events", StorageError(f"{file}: cannot be read: {error.strerror}"), "Unlock it")
        return
    expected = replayed.events
    if expected.startswith(there) or (not replayed.complete and there.startswith(expected)):
        return
    pairs = zip(there.splitlines(), expected.splitlines(), strict=False)
    agreeing = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), expected.count(b"\n"))
    said = f"{file}:{agreeing + 1}: expected the events that the recorded calls lead to, found another one"
    remedy = "Delete the file and run again: it is rebuilt from the recorded calls"
    yield problem("events", said, remedy, RecordDamaged)
