"""Runs the cells of studies: what a cell needs is run first, equal runs are one, and what fails is told.

Every search and evaluation is a run of its own in the study's folder and resumes by itself, so the same study
again sends nothing. The engine adds what only the whole can know: how many runs are in flight, what is left
of a limit, and which models have refused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from drpo.alignment import Alignment
from drpo.config_study import StudyConfig
from drpo.errors import BudgetSpent, DrpoError, GateRefused, ProviderDown, ProviderRefused, StorageError
from drpo.llm.ledger import LEDGER_NAME, Spent, read_ledger
from drpo.llm.limits import Stop
from drpo.measuring.evaluating import run_evaluate
from drpo.measuring.results import Evaluation, doubt
from drpo.plan import RunPlan, run_path
from drpo.results import EXAMPLES_NAME, is_finished
from drpo.run import Hooks, run_examples, run_optimize
from drpo.studies.cells import Cell, ExamplesSearch, Search
from drpo.studies.planning import AnyPlan, Planner, limited
from drpo.studies.progress import StudyProgress
from drpo.studies.result import Cost, Measured, Missing, Outcome

T = TypeVar("T")
AT_ONCE = 4
"""So many runs are in flight at most: a search waits for its levels, and others fill the gaps."""


class Engine:
    """Runs cells in the planner's folder. Use as an async context; `hooks.stop` ends every run."""

    def __init__(
        self,
        planner: Planner,
        environment: Mapping[str, str],
        hooks: Hooks,
        progress: StudyProgress,
        at_once: int,
    ) -> None:
        self._planner, self._environment, self._hooks, self._progress = planner, environment, hooks, progress
        self._config: StudyConfig = planner.config
        self._slots = asyncio.Semaphore(at_once)
        self._concurrency = max(1, self._config.concurrency // at_once)
        self._runs: dict[Path, asyncio.Task[Any]] = {}
        self._stops: set[Stop] = set()
        self._refused: dict[frozenset[str], DrpoError] = {}

    async def __aenter__(self) -> Engine:
        self._relaying = asyncio.create_task(self._relay())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [self._relaying, *self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def outcome(self, cell: Cell) -> Outcome:
        """The cell's evaluation with all it needs, or why there is none. A bug is raised."""
        try:
            measured = await self._measured(cell)
        except DrpoError as error:
            self._progress.cell_done(failed=True)
            return Missing(error)
        self._progress.cell_done()
        return measured

    async def _measured(self, cell: Cell) -> Measured:
        searches: tuple[tuple[str, Cost], ...] = ()
        alignment, prompts, kept_initial = cell.baseline, 0, False
        if cell.search is not None:
            folders, found = await self._search(cell.search)
            alignment = str(self._planner.derived(folders[-1]) if cell.basic_prompt else folders[-1])
            if not cell.basic_prompt:  # which owes the search its settings only, whatever that has found
                searches = tuple((folder.name, self._cost(folder)) for folder in folders)
                prompts = found.found.nodes
                kept_initial = found.validation is not None and not found.validation.better
        plan = self._planner.evaluation(cell, alignment)
        evaluation: Evaluation = await self._run(
            plan, lambda limits, hooks: run_evaluate(limits, self._environment, hooks)
        )
        if (why := doubt(evaluation)) is not None:
            raise GateRefused(why)
        return Measured(evaluation, searches, self._cost(evaluation.run_dir), prompts, kept_initial)

    async def _search(self, search: Search) -> tuple[tuple[Path, ...], Alignment]:
        """What was found, and the directories of the runs that it took, its own one last."""
        made = () if search.examples is None else (await self._examples(search.examples),)
        plan = self._planner.search(search, made[0] / EXAMPLES_NAME if made else None)
        result = await self._run(plan, lambda limits, hooks: run_optimize(limits, self._environment, hooks))
        return (*made, result.run_dir), result.alignment

    async def _examples(self, search: ExamplesSearch) -> Path:
        plan = self._planner.examples(search)
        result = await self._run(plan, lambda limits, hooks: run_examples(limits, self._environment, hooks))
        return result.run_dir

    async def _run(self, plan: AnyPlan, work: Callable[[AnyPlan, Hooks], Awaitable[T]]) -> T:
        """The result of the run, which is run once however many cells need it."""
        path = run_path(plan)
        if path not in self._runs:
            self._runs[path] = asyncio.create_task(self._once(plan, path, work))
        result: T = await asyncio.shield(self._runs[path])
        return result

    async def _once(self, plan: AnyPlan, path: Path, work: Callable[[AnyPlan, Hooks], Awaitable[T]]) -> T:
        async with self._slots, self._stopping() as stop:
            self._refuse_known(plan)
            calls, usd = self._left(path)
            finished = is_finished(path)
            self._progress.run_begun(path, plan, finished)
            hooks = Hooks(
                stop=stop,
                hurry=self._hooks.hurry,
                notice=lambda said: self._hooks.notice(f"{path.name}: {said}"),
                grace_s=self._hooks.grace_s,
            )
            try:
                return await work(limited(plan, self._concurrency, calls, usd), hooks)
            except BudgetSpent as spent:
                raise BudgetSpent(f"the study's limit is reached: {spent}") from None
            except (ProviderRefused, ProviderDown, StorageError) as error:
                self._refused[_asked(plan, error)] = error
                raise
            finally:
                self._progress.run_ended(path, self._spent([path]))

    def _refuse_known(self, plan: RunPlan) -> None:
        """A wrong key or a full disk costs one run, not one for each cell."""
        for asked, error in self._refused.items():
            if asked <= {choice.identity for choice in plan.models.values()}:
                raise error

    def _left(self, path: Path) -> tuple[int | None, float | None]:
        """The limits of the run in `path`, what it has sent before included: those of the study less what all
        other runs in its folder came to. Raises BudgetSpent where nothing is left and there is more to do."""
        config = self._config
        if (config.max_calls is None and config.max_usd is None) or is_finished(path):
            return None, None
        others = [file.parent for file in sorted(self._planner.folder.glob(f"*/{LEDGER_NAME}"))]
        spent = self._spent([folder for folder in others if folder != path])
        calls = None if config.max_calls is None else config.max_calls - spent.calls
        usd = None if config.max_usd is None else config.max_usd - spent.usd - spent.held_usd
        if (calls is not None and calls < 1) or (usd is not None and usd <= 0):
            told = "--max-calls" if calls is not None and calls < 1 else "--max-usd"
            raise BudgetSpent(
                f"the study's limit is reached: {told} is spent by the other runs in "
                f"{self._planner.folder}; a higher limit goes on from here"
            )
        return calls, usd

    def _spent(self, folders: Sequence[Path]) -> Spent:
        books = [read_ledger(folder / LEDGER_NAME) for folder in folders if (folder / LEDGER_NAME).exists()]
        return sum((counts for roles in books for counts in roles.values()), Spent())

    def _cost(self, folder: Path) -> Cost:
        spent = self._spent([folder])
        return Cost(spent.answered, None if spent.unpriced else spent.usd)

    @contextlib.asynccontextmanager
    async def _stopping(self) -> AsyncIterator[Stop]:
        """A stop for one run: its end must not be the end of others, but the end of all is its own."""
        if self._hooks.stop.cause is not None:
            raise self._hooks.stop.cause
        stop = Stop()
        self._stops.add(stop)
        try:
            yield stop
        finally:
            self._stops.discard(stop)

    async def _relay(self) -> None:
        await self._hooks.stop.wait(None)
        cause = self._hooks.stop.cause
        assert cause is not None
        for stop in self._stops:
            stop.set(cause)


def _asked(plan: RunPlan, error: DrpoError) -> frozenset[str]:
    """Which models a run must ask to meet the same error again; a disk refuses every run."""
    if isinstance(error, StorageError):
        return frozenset()
    return frozenset(choice.identity for choice in plan.models.values())
