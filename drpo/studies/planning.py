"""From the cells of a study to plans of runs, each in a directory of its own inside the study's folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from drpo.alignment import Alignment, read_alignment
from drpo.config import INITIAL_PROMPT, ExamplesConfig, OptimizeConfig, RunConfig
from drpo.config_judging import NONE, EvaluateConfig
from drpo.config_study import StudyConfig
from drpo.errors import InputError
from drpo.measuring.plan import MeasuringPlan, evaluate_plan
from drpo.plan import Plan, RunPlan, default_name, digest_of, examples_plan, optimize_plan
from drpo.settings import resolve
from drpo.studies.catalogue import models_of
from drpo.studies.cells import Cell, ExamplesSearch, Search, Study

AnyPlan = TypeVar("AnyPlan", bound=RunPlan)
_OWN = {
    "models",
    "repeats",
    "out",
    "name",
    "run_dir",
    "runs_dir",
    "preset",
    "max_calls",
    "max_usd",
    "examples_depth",
}
_OF_SEARCH_ONLY = {"shots", "samples", "lambda_", "rewriter"}
"""What an evaluation knows under the same name, but takes from the alignment, or means of a rewriter."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes plans by the study's settings. folder: where their run directories are."""

    config: StudyConfig
    environment: Mapping[str, str]
    folder: Path

    def examples(self, search: ExamplesSearch) -> Plan:
        """The plan of an `optimize-examples`."""
        config = self.config
        model = "demo" if config.model == "demo" else None
        values = {
            **_shared(config, ExamplesConfig, {"width", "samples", "depth", "model", "validate"}),
            "depth": config.examples_depth,
            "reward": search.reward,
            "random_seed": search.seed,
            **({} if model is None else {"model": model}),
        }
        return examples_plan(resolve(ExamplesConfig, self._placed(values), {}), self.environment)

    def search(self, search: Search, examples: Path | None = None) -> Plan:
        """The plan of an `optimize`, its shots from the file `examples` where that is given."""
        values = {
            **_shared(self.config, OptimizeConfig),
            "model": search.model.name,
            "demo_seed": search.model.demo_seed,
            "random_seed": search.seed,
            "validate": self.config.validate,
            **dict(search.settings),
            **({} if examples is None else {"examples": examples}),
        }
        return optimize_plan(resolve(OptimizeConfig, self._placed(values), {}), self.environment)

    def evaluation(self, cell: Cell, alignment: str) -> MeasuringPlan:
        """The plan of an `evaluate` of `alignment`: a baseline's name, a run or a file."""
        values = {
            **_shared(self.config, EvaluateConfig, _OF_SEARCH_ONLY),
            "model": cell.model.name,
            "demo_seed": cell.model.demo_seed,
            "alignment": alignment,
            **({} if cell.shots is None else {"shots": cell.shots}),
            **({"rewriter": cell.rewriter, **dict(cell.rewriting)} if cell.rewriter else {}),
        }
        if self.config.judge is None:
            if cell.model.name != "demo":
                raise InputError("who judges? give --judge (openai/NAME, vllm/REPO@URL or demo)")
            values["judge"] = "demo"
        return evaluate_plan(resolve(EvaluateConfig, self._placed(values), {}), self.environment)

    def derived(self, run: Path) -> Path:
        """The alignment of a search with the plain system prompt instead, as a file in the study's folder."""
        file, found = self.derived_of(run)
        file.parent.mkdir(parents=True, exist_ok=True)
        found.save(file)
        return file

    def derived_of(self, run: Path) -> tuple[Path, Alignment]:
        """The same without writing it: where it is or would be, and what it is."""
        found = replace(read_alignment(run), system_prompt=INITIAL_PROMPT, validation=None)
        return self.folder / "alignments" / f"{digest_of(found.as_dict())}.json", found

    def check(self, study: Study) -> tuple[RunPlan, ...]:
        """The plans that can be made before anything is found. Raises InputError for what cannot be used."""
        cells = [cell for row in study.rows for cell in row.cells]
        searches = dict.fromkeys(cell.search for cell in cells if cell.search is not None)
        plans: list[RunPlan] = []
        for search in searches:
            plan = self.search(search)
            known = len(plan.inputs.examples.examples)
            most = max((cell.shots or 0 for cell in cells if cell.search == search), default=0)
            if most > known:
                raise InputError(
                    f"--examples: `drpo study {study.name}` shows up to {most} of them, "
                    f"{plan.inputs.examples.source} has {known}; give more"
                )
            plans.append(plan)
        plans += [self.examples(s.examples) for s in searches if s.examples is not None]
        rewriting = dict.fromkeys(replace(cell, search=None) for cell in cells if cell.rewriter)
        plans += [self.evaluation(cell, NONE) for cell in rewriting]
        for model in dict.fromkeys(cell.model for cell in cells):
            measured = self.evaluation(Cell(model), NONE)
            if all(item.safety for item in measured.items):
                raise InputError(
                    f"{measured.source}: expected general queries, of which the tables are, found safety "
                    "ones only; give others by --data, or a higher --limit"
                )
            plans.append(measured)
        return tuple(plans)

    def _placed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {**values, "runs_dir": self.folder}


def study_folder(config: StudyConfig, environment: Mapping[str, str]) -> Path:
    """Where the runs of all studies with these settings are, whichever study it is: they share them.

    --run-dir or --name, else a name made from the model and the settings, inside the runs folder.
    """
    if config.run_dir is not None and config.name is not None:
        raise InputError("--run-dir and --name both say where the study is; give one of them")
    if config.run_dir is not None:
        return config.run_dir
    if config.name is not None:
        return config.runs_dir / config.name
    planner, model = Planner(config, environment, config.runs_dir), models_of(config)[0]
    plan = planner.search(Search(model, config.random_seed))
    measured = planner.evaluation(Cell(model), NONE)
    made_of = [plan.identity, measured.identity, config.examples_depth]
    return config.runs_dir / f"study-{default_name(plan).rpartition('-')[0]}-{digest_of(made_of)[:8]}"


def limited(plan: AnyPlan, concurrency: int, max_calls: int | None, max_usd: float | None) -> AnyPlan:
    """The same run with other limits, which decide nothing about what it finds."""
    limits = {"concurrency": concurrency, "max_calls": max_calls, "max_usd": max_usd}
    return replace(plan, config=plan.config.model_copy(update=limits))


def _shared(config: StudyConfig, kind: type[RunConfig], without: Collection[str] = ()) -> dict[str, Any]:
    """What was set of the settings that `kind` has as well."""
    values = config.model_dump(exclude_unset=True)
    return {
        name: value
        for name, value in values.items()
        if name in kind.model_fields and name not in _OWN and name not in without
    }
