"""A run: open or resume its directory, search, write the result. To resume is to search over the record."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from drpo.alignment import FILE_NAME, read_alignment
from drpo.config import ExamplesConfig
from drpo.data import read_examples, write_examples
from drpo.errors import DrpoError, InputError, Interrupted, Stopped
from drpo.events import Event, EventFile, LevelDone
from drpo.jsonl import write_atomically
from drpo.live import Notice, Resources
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.plan import Plan, run_path
from drpo.results import (
    EXAMPLES_NAME,
    RESULT_NAME,
    ExamplesResult,
    OptimizeResult,
    examples_json,
    read_examples_result,
)
from drpo.run_dir import RunDirectory
from drpo.searches import Emit, ImprovedExample, search_examples, search_prompt
from drpo.wiring import OwnCall

T = TypeVar("T")
GRACE_S = 30.0  # how long the calls in the air are awaited once a run is asked to end
_FOREVER_S = 3.15e9
Observer = Callable[[Event], None]
log = logging.getLogger("drpo")


@dataclass(frozen=True, slots=True)
class Hooks:
    """What comes from outside a run: who watches, who stops it, a reward of the user's own."""

    observers: tuple[Observer, ...] = ()
    stop: Stop = field(default_factory=Stop)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    own_reward: OwnCall | None = None
    notice: Notice = log.info
    grace_s: float = GRACE_S


async def run_optimize(plan: Plan, environment: Mapping[str, str], hooks: Hooks) -> OptimizeResult:
    """Search a system prompt in the plan's run directory; a finished run is read, not repeated."""
    path = run_path(plan)
    directory = RunDirectory(path, plan)
    try:
        if (path / FILE_NAME).exists():
            return OptimizeResult(path, read_alignment(path), {}, finished_before=True)
        resources = _resources(directory, plan, environment, hooks)
        events = EventFile(directory.events)
        emit = _emitter(events, hooks.observers)
        try:
            alignment = await supervise(
                search_prompt(plan, resources, hooks.own_reward, emit), resources, hooks
            )
        finally:
            await resources.close()
        events.finish()
        alignment.save(path / FILE_NAME)
        _tell_servers(plan, resources)
        return OptimizeResult(path, alignment, dict(resources.record.sent))
    except BaseException as error:
        _log_failure(error)
        raise
    finally:
        directory.close()


async def run_examples(plan: Plan, environment: Mapping[str, str], hooks: Hooks) -> ExamplesResult:
    """Improve the responses of all examples at once; each is a search of its own."""
    config = plan.config
    assert isinstance(config, ExamplesConfig)
    path = run_path(plan)
    finished = (path / RESULT_NAME).exists()
    if not finished:
        _refuse_to_overwrite(config.out)  # now, and not when everything is paid for
    directory = RunDirectory(path, plan)
    try:
        if finished:
            known = read_examples_result(path)
            improved, calls = known.examples, known.calls
        else:
            resources = _resources(directory, plan, environment, hooks)
            events = EventFile(directory.events)
            tell = _teller(hooks.observers)
            try:
                improved = await supervise(
                    search_examples(plan, resources, hooks.own_reward, events.emit, tell), resources, hooks
                )
            finally:
                await resources.close()
            events.finish()
            _tell_servers(plan, resources)
            calls = resources.record.calls_by_role()
            write_examples(path / EXAMPLES_NAME, [item.after for item in improved], overwrite=True)
            write_atomically(path / RESULT_NAME, examples_json(plan, improved, calls))
        out = _write_out(config.out, path, improved)
        return ExamplesResult(path, improved, out, calls, plan.simulated, finished_before=finished)
    except BaseException as error:
        _log_failure(error)
        raise
    finally:
        directory.close()


def _resources(
    directory: RunDirectory, plan: Plan, environment: Mapping[str, str], hooks: Hooks
) -> Resources:
    return Resources(
        Record(directory.calls),
        hooks.stop,
        environment,
        plan.config,
        folder=directory.path,
        notice=hooks.notice,
    )


def _tell_servers(plan: Plan, resources: Resources) -> None:
    """Say how several servers shared the requests, and how much of the prompts vLLM servers knew already, by
    their own figures."""
    sent: Counter[str] = Counter()
    for spread in resources.spreads:  # one per role
        sent.update(spread.sent)
    if sent:
        shared = ", ".join(f"{url} {count}" for url, count in sorted(sent.items()))
        resources.notice(f"requests by server: {shared}")
    for model in dict.fromkeys(c.identity for c in plan.models.values() if c.provider == "vllm"):
        usage = resources.record.usage.get(model)
        if usage is None or not usage.prompt_tokens:
            continue
        told = f"{usage.cached_tokens:,} of {usage.prompt_tokens:,} prompt tokens"
        share = usage.cached_tokens / usage.prompt_tokens
        resources.notice(f"prefix cache of {model}: {told} ({share:.0%}) had been computed before")


def _refuse_to_overwrite(out: Path | None) -> None:
    if out is not None and (out.exists() or out.is_symlink()):
        raise InputError(f"--out {out}: there is such a file and nothing is written over; name another")


def _write_out(out: Path | None, path: Path, improved: Sequence[ImprovedExample]) -> Path:
    """The file that the user asked for, made from the finished run; it may be there from the same run."""
    examples = [item.after for item in improved]
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


def _emitter(file: EventFile, observers: Sequence[Observer]) -> Emit:
    tell = _teller(observers)

    def emit(events: Sequence[Event]) -> None:
        file.emit(events)
        tell(events)

    return emit


def _teller(observers: Sequence[Observer]) -> Emit:
    def tell(events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, LevelDone):
                subject = "" if event.subject is None else f"example {event.subject + 1}, "
                log.info("%slevel %d done, limit %d", subject, event.level, event.limit)
            for observer in observers:
                observer(event)

    return tell


def _log_failure(error: BaseException) -> None:
    if isinstance(error, DrpoError):
        log.error("%s: %s", type(error).__name__, error)
    elif not isinstance(error, asyncio.CancelledError):
        log.error("a bug of drpo", exc_info=error)
