"""Studies from their settings to their files: one engine for all of them, so that they share their runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drpo.config_study import StudyConfig
from drpo.errors import DrpoError, InputError, StorageError
from drpo.jsonl import write_atomically
from drpo.plan import RunPlan
from drpo.run import Hooks, calm_collector
from drpo.run_log import between_runs
from drpo.studies.catalogue import PAPERS, STUDIES, repeats_of, study_named
from drpo.studies.cells import Cell, Study
from drpo.studies.engine import AT_ONCE, Engine
from drpo.studies.planning import Planner, limited, study_folder
from drpo.studies.plot import draw
from drpo.studies.progress import StudyProgress
from drpo.studies.result import Outcome, StudyResult, figures_of
from drpo.studies.rewriters import NAME as REWRITERS
from drpo.studies.rewriters import source_of, with_own_queries
from drpo.studies.table import markdown
from drpo.tariffs import refuse_unpriced

ALL = "all"
TABLE_NAME, JSON_NAME, PLOT_NAME = "table.md", "table.json", "plot.svg"
WITHOUT_PLOT = (
    "plot.svg was not drawn: it takes matplotlib; pip install 'drpo[study]' and the same command draw it"
)


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """Studies before their first request. folder: where all their runs are; plans: of those runs that can be
    told by now."""

    config: StudyConfig
    studies: tuple[Study, ...]
    planner: Planner
    plans: tuple[RunPlan, ...]

    @property
    def folder(self) -> Path:
        return self.planner.folder

    @property
    def simulated(self) -> bool:
        """Whether any figure comes from simulated models."""
        return any(plan.simulated for plan in self.plans)

    @property
    def cells(self) -> int:
        """How many cells all the tables have."""
        return len(dict.fromkeys(cell for study in self.studies for row in study.rows for cell in row.cells))


def study_plan(name: str, config: StudyConfig, environment: Mapping[str, str]) -> StudyPlan:
    """The plan of the study of this name, or of `all`. Raises InputError for whatever cannot be used."""
    if name != ALL and name not in STUDIES:
        raise InputError(f"study {name!r}: expected {', '.join(STUDIES)} or {ALL}")
    config = with_own_queries(config) if name == REWRITERS else config
    studies = tuple(study_named(each, config) for each in (PAPERS if name == ALL else (name,)))
    planner = Planner(config, environment, study_folder(config, environment))
    plans = tuple(plan for study in studies for plan in planner.check(study))
    return StudyPlan(config, studies, planner, plans)


async def run_studies(
    plan: StudyPlan, environment: Mapping[str, str], hooks: Hooks, progress: StudyProgress | None = None
) -> tuple[StudyResult, ...]:
    """The tables, each written to its folder. The same call again reads the runs and sends nothing.

    What fails is in the results. Raises the cause where the whole is stopped, and InputError before anything
    is made where --max-usd bounds what has no price.
    """
    config = plan.config
    for each in plan.plans:
        refuse_unpriced(limited(each, config.concurrency, config.max_calls, config.max_usd), environment)
    progress = progress or StudyProgress(plan.folder, plan.cells, plan.simulated, hooks.notice)
    cells = dict.fromkeys(cell for study in plan.studies for row in study.rows for cell in row.cells)
    with calm_collector(), between_runs():
        async with Engine(plan.planner, environment, hooks, progress, _at_once(plan)) as engine:
            found = dict(zip(cells, await asyncio.gather(*map(engine.outcome, cells)), strict=True))
    if hooks.stop.cause is not None:
        raise hooks.stop.cause
    return tuple(_written(_result(study, plan, found), config) for study in plan.studies)


def _at_once(plan: StudyPlan) -> int:
    """A limit is kept by what is left of it, and a server that drpo runs fills its GPUs: then one by one."""
    config = plan.config
    if config.max_calls is not None or config.max_usd is not None:
        return 1
    if any(choice.server is not None for each in plan.plans for choice in each.models.values()):
        return 1
    return min(AT_ONCE, config.concurrency, plan.cells)


def _result(study: Study, plan: StudyPlan, found: Mapping[Cell, Outcome]) -> StudyResult:
    config = plan.config
    outcomes = [[found[cell] for cell in row.cells] for row in study.rows]
    rows = figures_of(study, outcomes, config.level, config.random_seed)
    folder = (config.out or plan.folder) / study.name
    return StudyResult(study, rows, _facts(study, plan), plan.simulated, folder)


def _facts(study: Study, plan: StudyPlan) -> dict[str, Any]:
    """What was measured with what."""
    config, planner = plan.config, plan.planner
    models = dict.fromkeys(cell.model for row in study.rows for cell in row.cells)
    measured = [planner.evaluation(Cell(model), Cell(model).baseline) for model in models]
    return {
        "models": [each.models["base"].identity for each in measured],
        "judges": list(dict.fromkeys(each.models["judge"].identity for each in measured)),
        "data": f"{source_of(measured[0].source)} ({len(measured[0].items)})",
        "repeats": repeats_of(config),
        "level": config.level,
        "sweep": study.sweep,
        "counts_prompts": study.counts_prompts,
        **({"tells_wins": True} if study.tells_wins else {}),
    }


def _written(result: StudyResult, config: StudyConfig) -> StudyResult:
    """The result, its files written."""
    table = result.as_dict()
    try:
        result.folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{result.folder}: expected a folder for the table, found a file") from None
    except OSError as error:
        raise StorageError(
            f"{result.folder}: cannot be made: {error.strerror}. Free or unlock the disk"
        ) from None
    write_atomically(result.folder / TABLE_NAME, markdown(table))
    write_atomically(result.folder / JSON_NAME, json.dumps(table, ensure_ascii=False, indent=2) + "\n")
    try:
        drawn = draw(table)
    except ImportError:
        (result.folder / PLOT_NAME).unlink(missing_ok=True)  # an older one would not be of this table
        return replace(result, plotted=False)
    write_atomically(result.folder / PLOT_NAME, drawn)
    return result


def first_failure(results: Sequence[StudyResult]) -> DrpoError | None:
    """What the first failed cell has failed by."""
    return next((error for result in results for error in result.failures), None)
