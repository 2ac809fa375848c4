"""A measurement while it goes on: its directory, models and books, and who hears of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from drpo.ask import Asker
from drpo.compose import Sampling
from drpo.errors import BudgetSpent
from drpo.live import Resources
from drpo.llm.ledger import Ledger, Limits
from drpo.llm.recorder import Record
from drpo.measuring.judge import Judge
from drpo.measuring.plan import MeasuringPlan
from drpo.measuring.progress import Counting, KeptProgress
from drpo.plan import run_path
from drpo.run import Hooks, log_failure, supervise
from drpo.run_dir import RunDirectory
from drpo.tariffs import refuse_unpriced, tariffs_of
from drpo.wiring import open_model, structured_for

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Measuring:
    """What a measurement works with. counting: is told of each item that is done."""

    plan: MeasuringPlan
    directory: RunDirectory
    resources: Resources
    counting: Counting

    async def judge(self) -> Judge:
        """The judge of the plan, behind its wrappers."""
        plan, config = self.plan, self.plan.config
        choice = plan.models["judge"]
        llm = await open_model(choice, self.resources)
        asker = Asker(llm, plan.inputs.templates, config.repairs, structured_for(plan, "judge"))
        sampling = Sampling(temperature=0.0, max_tokens=config.max_tokens)
        return Judge(asker, choice.identity, sampling, plan.judge_templates, config.random_seed)


async def measure(
    plan: MeasuringPlan,
    environment: Mapping[str, str],
    hooks: Hooks,
    counting: Counting,
    work: Callable[[Measuring], Awaitable[T]],
) -> T:
    """The result of `work`, over a run directory that resumes: what is recorded is not asked again.

    Raises BudgetSpent where a limit ends it: there is no result then, and a higher limit goes on.
    """
    refuse_unpriced(plan, environment)
    directory = RunDirectory(run_path(plan), plan)
    try:
        async with _opened(plan, directory, environment, hooks, counting) as measuring:
            return await supervise(work(measuring), measuring.resources, hooks)
    except BudgetSpent as spent:
        raise BudgetSpent(f"{spent}. There is no result yet; a higher limit goes on from here") from None
    except BaseException as error:
        log_failure(error)
        raise
    finally:
        directory.close()


@contextlib.asynccontextmanager
async def _opened(
    plan: MeasuringPlan,
    directory: RunDirectory,
    environment: Mapping[str, str],
    hooks: Hooks,
    counting: Counting,
) -> AsyncIterator[Measuring]:
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
            yield Measuring(plan, directory, resources, counting)
        finally:
            await resources.close()
            directory.note_spent(ledger.spent)
