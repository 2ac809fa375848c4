"""A run: open or resume its directory, search, write the result. To resume is to search over the record."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from drpo.alignment import FILE_NAME, Alignment, read_alignment
from drpo.config import ExamplesConfig
from drpo.data import read_examples, write_examples
from drpo.errors import BudgetSpent, DrpoError, InputError, Interrupted, Stopped
from drpo.events import Event, EventFile
from drpo.example_searches import search_examples
from drpo.following import Following, Observer, Outside
from drpo.jsonl import write_atomically
from drpo.live import Notice, Resources
from drpo.llm.ledger import Ledger, Limits
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.monitor import Monitor
from drpo.plan import Plan, run_path
from drpo.results import (
    EXAMPLES_NAME,
    RESULT_NAME,
    ExamplesResult,
    OptimizeResult,
    examples_json,
    is_finished,
    read_examples_result,
)
from drpo.run_dir import RunDirectory
from drpo.search_events import BestSoFar
from drpo.searches import search_prompt
from drpo.tariffs import refuse_unpriced, tariffs_of
from drpo.tracking import open_trackers
from drpo.types import Example
from drpo.validating_examples import ImprovedSet
from drpo.wiring import OwnCall

T = TypeVar("T")
GRACE_S = 30.0  # how long the calls in the air are awaited once a run is asked to end
_FOREVER_S = 3.15e9
log = logging.getLogger("drpo")


@dataclass(frozen=True, slots=True)
class Hooks:
    """What comes from outside a run: who watches, who stops it, a reward of the user's own.

    monitor: one that is shown while the run goes on; None: the run keeps one of its own.
    """

    observers: tuple[Observer, ...] = ()
    stop: Stop = field(default_factory=Stop)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    own_reward: OwnCall | None = None
    notice: Notice = log.info
    grace_s: float = GRACE_S
    monitor: Monitor | None = None


async def run_optimize(plan: Plan, environment: Mapping[str, str], hooks: Hooks) -> OptimizeResult:
    """Search a system prompt in the plan's run directory; a finished run is read, not repeated.

    Raises BudgetSpent where a limit on calls or money ends it; alignment.json then holds the best so far, if
    a level was done.
    """
    path = run_path(plan)
    with _directory(plan, environment) as directory:
        if is_finished(path):
            return OptimizeResult(path, read_alignment(path), {}, finished_before=True)
        async with _opened(directory, plan, environment, hooks) as (resources, following):
            events = EventFile(directory.events)
            best_so_far = BestSoFar[Alignment]()

            def emit(new: Sequence[Event]) -> None:
                events.emit(new)
                following.tell(new)

            try:
                search = search_prompt(plan, resources, hooks.own_reward, emit, best_so_far)
                alignment = await supervise(search, resources, hooks)
            except BudgetSpent as spent:
                if (best := best_so_far.get()) is None:
                    raise _without_result(spent) from None
                best.save(path / FILE_NAME)
                following.result = best
                raise
            events.finish()
            alignment.save(path / FILE_NAME)
            following.result = alignment
            _tell_servers(plan, resources)
            return OptimizeResult(path, alignment, dict(resources.record.sent))


async def run_examples(plan: Plan, environment: Mapping[str, str], hooks: Hooks) -> ExamplesResult:
    """Improve the responses of all examples at once; each is a search of its own.

    Raises BudgetSpent where a limit ends it; the run's result.json and examples.jsonl then hold the best so
    far, and the file that the user asked for is not written.
    """
    config = plan.config
    assert isinstance(config, ExamplesConfig)
    path = run_path(plan)
    if not is_finished(path):
        _refuse_to_overwrite(config.out)  # now, and not when everything is paid for
    with _directory(plan, environment) as directory:
        if is_finished(path):
            known = read_examples_result(path)
            out = _write_out(config.out, path, [item.after for item in known.examples])
            return replace(known, out=out, finished_before=True)
        async with _opened(directory, plan, environment, hooks) as (resources, following):
            events = EventFile(directory.events)
            best_so_far = BestSoFar[ImprovedSet]()

            def save(improved: ImprovedSet) -> ExamplesResult:
                calls = resources.record.calls_by_role()
                file = path / EXAMPLES_NAME
                write_examples(file, improved.result, overwrite=True)
                write_atomically(path / RESULT_NAME, examples_json(plan, improved, calls))
                return ExamplesResult(
                    path, improved.examples, file, calls, plan.simulated, validation=improved.validation
                )

            try:
                search = search_examples(
                    plan, resources, hooks.own_reward, events.emit, following.tell, best_so_far
                )
                improved = await supervise(search, resources, hooks)
            except BudgetSpent as spent:
                if (best := best_so_far.get()) is None:
                    raise _without_result(spent) from None
                following.result = save(best)
                raise
            events.finish()
            _tell_servers(plan, resources)
            result = save(improved)
            following.result = replace(result, out=_write_out(config.out, path, improved.result))
            return following.result


@contextlib.contextmanager
def _directory(plan: Plan, environment: Mapping[str, str]) -> Iterator[RunDirectory]:
    """The run's directory, held by this process; what ends the run early stands in its log."""
    refuse_unpriced(plan, environment)
    directory = RunDirectory(run_path(plan), plan)
    try:
        yield directory
    except BaseException as error:
        log_failure(error)
        raise
    finally:
        directory.close()


@contextlib.asynccontextmanager
async def _opened(
    directory: RunDirectory, plan: Plan, environment: Mapping[str, str], hooks: Hooks
) -> AsyncIterator[tuple[Resources, Following]]:
    """What the run holds open, and who follows it; both are closed in the end, the followers last."""
    monitor = hooks.monitor or Monitor(plan, directory.path)

    def notice(said: str) -> None:
        monitor.notice(said)
        hooks.notice(said)

    tariffs, limits = tariffs_of(plan, environment), Limits(plan.config.max_calls, plan.config.max_usd)
    trackers = open_trackers(plan.config.track, environment, notice)
    ledger = Ledger(
        directory.ledger, tariffs, limits, hooks.stop, trackers.call, calls=directory.calls, notice=notice
    )
    record = Record(directory.calls)
    resources = Resources(
        record, hooks.stop, environment, plan.config, folder=directory.path, notice=notice, ledger=ledger
    )
    outside = Outside(hooks.observers, notice, hooks.hurry)
    following = Following(directory, plan, monitor, ledger, record, trackers, outside)
    async with following:
        try:
            yield resources, following
        finally:
            await resources.close()


def _without_result(spent: BudgetSpent) -> BudgetSpent:
    """The same, told of a search that has not got anywhere."""
    return BudgetSpent(f"{spent}. No level was done, so there is no result yet")


def _tell_servers(plan: Plan, resources: Resources) -> None:
    """Say how several servers shared the requests, and how much of the prompts vLLM servers knew already, by
    their own figures where they give some."""
    sent: Counter[str] = Counter()
    for spread in resources.spreads:  # one per role
        sent.update(spread.sent)
    if sent:
        shared = ", ".join(f"{url} {count}" for url, count in sorted(sent.items()))
        resources.notice(f"requests by server: {shared}")
    for model in dict.fromkeys(c.identity for c in plan.models.values() if c.provider == "vllm"):
        usage = resources.record.usage.get(model)
        if usage is None or not usage.prompt_tokens or usage.cached_tokens is None:
            continue
        told = f"{usage.cached_tokens:,} of {usage.prompt_tokens:,} prompt tokens"
        share = usage.cached_tokens / usage.prompt_tokens
        resources.notice(f"prefix cache of {model}: {told} ({share:.0%}) had been computed before")


def _refuse_to_overwrite(out: Path | None) -> None:
    if out is not None and (out.exists() or out.is_symlink()):
        raise InputError(f"--out {out}: there is such a file and nothing is written over; name another")


def _write_out(out: Path | None, path: Path, examples: Sequence[Example]) -> Path:
    """The file that the user asked for, made from the finished run; it may be there from the same run."""
    if out is None:
        return path / EXAMPLES_NAME
    if out.is_file() and read_examples(out).examples == tuple(examples):
        return out
    _refuse_to_overwrite(out)
    write_examples(out, examples)
    return out


async def supervise(work: Awaitable[T], resources: Resources, hooks: Hooks) -> T:
    """The result of `work`. Once the run is asked to stop, calls in the air are awaited and recorded.

    Raises the cause of the stop. `hooks.hurry` ends the waiting at once, after which the message says how
    many calls were abandoned.
    """
    task = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(hooks.stop.wait(_FOREVER_S))
    abandoned = 0
    try:
        with calm_collector():
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and (task.cancelled() or task.exception()):
            hooks.stop.set(Stopped("the run has failed"))  # what it began in the background sends no more
        if hooks.stop.is_set:
            abandoned = await _wind_down(task, resources, hooks)
        return await _outcome(task, hooks.stop, abandoned)
    finally:
        stopping.cancel()
        if not task.done():  # whoever awaits the run was cancelled
            hooks.stop.set(Interrupted("cancelled; the same call again resumes"))
            await _wind_down(task, resources, hooks)
        await asyncio.gather(task, stopping, return_exceptions=True)


@contextlib.contextmanager
def calm_collector() -> Iterator[None]:
    """Fewer garbage collections meanwhile: a search keeps what it makes, and by the default thresholds all of
    it is looked through again and again (a tenth of the CPU time at W=5 M=16: `benchmarks/speed.py`)."""
    young, *older = gc.get_threshold()
    if young:  # 0: whoever embeds us has switched it off
        gc.set_threshold(max(young, 20_000), *older)
    try:
        yield
    finally:
        gc.set_threshold(young, *older)


async def _wind_down(task: asyncio.Future[T], resources: Resources, hooks: Hooks) -> int:
    """Await the calls in the air, up to the grace or until `hurry`; returns how many were abandoned."""

    async def all_calls() -> None:
        await asyncio.wait({task})
        await resources.record.drain(_FOREVER_S)

    ending = asyncio.ensure_future(all_calls())
    hurry = asyncio.ensure_future(hooks.hurry.wait())
    try:
        await asyncio.wait({ending, hurry}, timeout=hooks.grace_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ending.cancel()
        hurry.cancel()
        task.cancel()
    return await resources.record.drain(0)


async def _outcome(task: asyncio.Future[T], stop: Stop, abandoned: int) -> T:
    try:
        return await task
    except (Stopped, asyncio.CancelledError):
        cause = stop.cause
        if cause is None:
            raise
        if isinstance(cause, Interrupted) and abandoned:
            raise Interrupted(f"{cause}; {abandoned} calls in the air were abandoned") from None
        raise cause from None


def log_failure(error: BaseException) -> None:
    """Write into the run's log what has ended it; a bug with its traceback."""
    if isinstance(error, DrpoError):
        log.error("%s: %s", type(error).__name__, error)
    elif not isinstance(error, asyncio.CancelledError):
        log.error("a bug of drpo", exc_info=error)
