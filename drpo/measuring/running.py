"""A measurement while it goes on: its directory, models and books, and who hears of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from drpo.errors import BudgetSpent
from drpo.live import Resources
from drpo.llm.ledger import Ledger, Limits
from drpo.llm.recorder import Record
from drpo.measuring.progress import Counting, KeptProgress
from drpo.plan import RunPlan, run_path
from drpo.run import Hooks, log_failure, supervise
from drpo.run_dir import RunDirectory
from drpo.tariffs import refuse_unpriced, tariffs_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opened:
    """What a measurement works with. counting: is told of each item that is done."""

    directory: RunDirectory
    resources: Resources
    counting: Counting


async def measure(
    plan: RunPlan,
    environment: Mapping[str, str],
    hooks: Hooks,
    counting: Counting,
    work: Callable[[Opened], Awaitable[T]],
) -> T:
    """The result of `work`, over a run directory that resumes: what is recorded is not asked again.

    Raises BudgetSpent where a limit ends it: there is no result then, and a higher limit goes on.
    """
    refuse_unpriced(plan, environment)
    directory = RunDirectory(run_path(plan), plan)
    try:
        async with _opened(plan, directory, environment, hooks, counting) as opened:
            return await supervise(work(opened), opened.resources, hooks)
    except BudgetSpent as spent:
        raise BudgetSpent(f"{spent}. There is no result yet; a higher limit goes on from here") from None
    except BaseException as error:
        log_failure(error)
        raise
    finally:
        directory.close()


@contextlib.asynccontextmanager
async def _opened(
    plan: RunPlan,
    directory: RunDirectory,
    environment: Mapping[str, str],
    hooks: Hooks,
    counting: Counting,
) -> AsyncIterator[Opened]:
    def notice(said: str) -> None:
        counting.notice(said)
        hooks.notice(said)

    tariffs, limits = tariffs_of(plan, environment), Limits(plan.config.max_calls, plan.config.max_usd)
    ledger = Ledger(directory.ledger, tariffs, limits, hooks.stop, calls=directory.calls, notice=notice)
    record = Record(directory.calls)
    resources = Resources(
        record, hooks.stop, environment, plan.config, folder=directory.path, notice=notice, ledger=ledger
    )
    counting.attach(ledger, record)
    async with KeptProgress(directory.path, counting):
        try:
            yield Opened(directory, resources, counting)
        finally:
            await resources.close()
            directory.note_spent(ledger.spent)
