"""`--dry-run` of `drpo study`: its runs, what is there of each, and what all of them would take together."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from drpo.commands.dry_run import look_ahead
from drpo.commands.dry_run_facts import DryRun, Played, State, refusals_of, servers_of
from drpo.commands.dry_run_measuring import look_ahead_measuring
from drpo.commands.dry_run_supposed import (
    forecast_of_evaluation,
    supposed_evaluation,
    supposed_search,
    with_subject,
)
from drpo.commands.setting_sources import settings_of
from drpo.config_judging import NONE
from drpo.estimate.adding import Part, perhaps, settled, together
from drpo.estimate.ranges import Range
from drpo.estimate.roles import Recorded, RunForecast
from drpo.live import is_lasting
from drpo.llm.base import ROLES
from drpo.llm.ledger import LEDGER_NAME, Spent, read_ledger
from drpo.measuring.plan import MeasuringPlan
from drpo.measuring.subject import Subject
from drpo.plan import Plan, RunPlan, digest_of, run_path
from drpo.results import EXAMPLES_NAME, is_finished
from drpo.studies.cells import Cell, Row, Search
from drpo.studies.planning import limited
from drpo.studies.running import StudyPlan
from drpo.tariffs import tariffs_of
from drpo.templates import Templates


def look_ahead_study(
    plan: StudyPlan, which: str, environment: Mapping[str, str], flags: Mapping[str, Any], file: Path | None
) -> DryRun:
    """What the command would do with this plan. Nothing is sent, started or written.

    A run that begins with what another one has yet to find is reckoned by what that can be. Raises as
    `drpo.commands.dry_run.look_ahead`, for any run of the study.
    """
    looking = _Looking(plan, environment)
    looking.all()
    config, told = plan.config, looking.told
    parts, refused = list(looking.parts.values()), [refusal for one in told for refusal in one.refusals]
    for each in plan.plans:
        bounded = limited(each, config.concurrency, config.max_calls, config.max_usd)
        refused += refusals_of(bounded, environment)
    said = together(parts, _spent(plan, parts))
    is_done = all(part.state == "finished" for part in parts)
    state: State = "finished" if is_done else "resume" if said.recorded.calls else "begin"
    servers = [] if is_done else [line for each in plan.plans for line in servers_of(each, environment)]
    played = _played(plan, environment)
    return DryRun(
        plan=RunPlan(
            config=config,
            models={one.role: one.choice for one in reversed(played)},
            inputs=plan.plans[0].inputs,
            embedder=next((each.embedder for each in plan.plans if each.embedder), ""),
            identity={"command": f"study {which}"},
        ),
        path=plan.folder,
        state=state,
        process=None,
        settings=settings_of(config, environment, flags, file),
        forecast=said,
        refusals=() if is_done else tuple(dict.fromkeys(refused)),
        servers=tuple(dict.fromkeys(servers)),
        notes=tuple(dict.fromkeys(note for one in told for note in one.notes)),
        players=played,
    )


def _played(plan: StudyPlan, environment: Mapping[str, str]) -> tuple[Played, ...]:
    """Who plays which role in any of the runs, by role."""
    found: dict[tuple[str, str], Played] = {}
    for each in plan.plans:
        tariffs = tariffs_of(each, environment)
        for role, choice in each.models.items():
            found.setdefault((role, choice.identity), Played(role, choice, tariffs.get(role)))
    return tuple(sorted(found.values(), key=lambda one: ROLES.index(one.role)))


def _spent(plan: StudyPlan, parts: list[Part]) -> Recorded:
    """What the parts have recorded, and what counts against the limits: all runs in the study's folder."""
    calls: dict[str, int] = {}
    for part in parts:
        for role, number in part.forecast.recorded.calls.items():
            calls[role] = calls.get(role, 0) + number
    books = [read_ledger(file) for file in sorted(plan.folder.glob(f"*/{LEDGER_NAME}"))]
    spent = sum((counts for roles in books for counts in roles.values()), Spent())
    reused = sum(part.forecast.recorded.reused for part in parts)
    return Recorded(calls, reused=reused, spent_calls=spent.calls, spent_usd=spent.usd + spent.held_usd)


class _Looking:
    """Goes through the cells of all tables as the engine does. parts: by their directory, or by what they are
    made from where that has yet to be found; told: what the dry runs of those with a directory say."""

    def __init__(self, plan: StudyPlan, environment: Mapping[str, str]) -> None:
        self._planner, self._environment, self._studies = plan.planner, environment, plan.studies
        self._supposed: dict[Hashable, RunForecast] = {}
        self._selectors: set[str] = set()
        self.parts: dict[Hashable, Part] = {}
        self.told: list[DryRun] = []

    def all(self) -> None:
        for label, cell in self._cells():
            search = None if cell.search is None else self._search(cell.search, label)
            self._evaluation(cell, label, search)

    def _cells(self) -> Iterator[tuple[str, Cell]]:
        for study in self._studies:
            for row in study.rows:
                for number, cell in enumerate(row.cells, 1):
                    yield _label(row, number), cell

    # Searches

    def _search(self, search: Search, label: str) -> tuple[Plan, Plan | None, Path | None]:
        """The plan of the search, that of the improvement of its examples where there is one to come, and the
        directory of what it has found, None where it has not yet."""
        improving: Plan | None = None
        made: Path | None = None
        if search.examples is not None:
            improving = self._planner.examples(search.examples)
            folder = run_path(improving)
            self._known(improving, f"{search.examples.reward}, seed {search.examples.seed}")
            if is_finished(folder):
                improving, made = None, folder / EXAMPLES_NAME
        plan = self._planner.search(search, made)
        if improving is None:
            self._known(plan, label)
            folder = run_path(plan)
            return plan, None, folder if is_finished(folder) else None
        if search not in self.parts:
            said = self._once_chosen(plan, supposed_search(plan, improving, self._environment, Recorded()))
            self.parts[search] = Part(label, "optimize", None, "begin", said, _kin(plan))
        return plan, improving, None

    def _known(self, plan: Plan | MeasuringPlan, label: str) -> None:
        """Note a run that has a directory."""
        path = run_path(plan)
        if path in self.parts:
            return
        if isinstance(plan, MeasuringPlan):
            told = look_ahead_measuring(plan, self._environment, {}, None)
        else:
            told = look_ahead(plan, self._environment, {}, None)
        said = settled(told.forecast) if told.state == "finished" else told.forecast
        if isinstance(plan, Plan) and told.state != "finished":
            said = self._once_chosen(plan, said)
        self.told.append(told)
        command = str(plan.identity["command"])
        self.parts[path] = Part(label, command, path.name, told.state, said, _kin(plan))

    def _once_chosen(self, plan: Plan, said: RunForecast) -> RunForecast:
        """Aspects that one search has had chosen, another one may find again."""
        choice = plan.models.get("selector")
        if choice is None or not plan.config.reuse or not is_lasting(choice):
            return said
        if choice.identity not in self._selectors:
            self._selectors.add(choice.identity)
            return said
        roles = tuple(perhaps(role) if role.role == "selector" else role for role in said.roles)
        return replace(said, roles=roles)

    # Evaluations

    def _evaluation(
        self, cell: Cell, label: str, found: tuple[Plan, Plan | None, Path | None] | None
    ) -> None:
        if found is None:
            self._known(self._planner.evaluation(cell, cell.baseline), label)
            return
        search, improving, folder = found
        shots = getattr(search.config, "shots", 0) if cell.shots is None else cell.shots
        if folder is None:
            plan, more = supposed_evaluation(
                self._planner.evaluation(_alone(cell), NONE),
                search,
                shots,
                improving,
                basic_prompt=cell.basic_prompt,
            )
            key = (_alone(cell), shots, cell.basic_prompt, improving and run_path(improving))
            self._not_begun(cell, label, plan, key, more)
        elif not cell.basic_prompt:
            self._known(self._planner.evaluation(cell, str(folder)), label)
        else:
            self._derived(cell, label, folder, shots)

    def _derived(self, cell: Cell, label: str, folder: Path, shots: int) -> None:
        """The plain prompt in the place of the found one; its file is written by the study itself."""
        file, alignment = self._planner.derived_of(folder)
        if file.exists():
            self._known(self._planner.evaluation(cell, str(file)), label)
            return
        subject = Subject(
            name=str(file),
            system_prompt=alignment.system_prompt,
            examples=alignment.examples,
            shots=shots,
            embedder=alignment.embedder,
            templates=Templates(self._planner.config.prompts),
            prompt_form=alignment.prompt_form,
            answer_end=alignment.answer_end,
            found_for=alignment.models.get("base"),
        )
        plan = with_subject(self._planner.evaluation(_alone(cell), NONE), subject)
        self._not_begun(cell, label, plan, (_alone(cell), file), Range())

    def _not_begun(self, cell: Cell, label: str, plan: MeasuringPlan, key: Hashable, more: Range) -> None:
        """Note an evaluation whose directory follows from what is found; equal ones are reckoned once."""
        if cell in self.parts:
            return
        if key not in self._supposed:
            nowhere = self._planner.folder / "not-begun" / "calls.jsonl"
            self._supposed[key] = forecast_of_evaluation(plan, more, nowhere, self._environment)
        self.parts[cell] = Part(label, "evaluate", None, "begin", self._supposed[key], _kin(plan))


def _alone(cell: Cell) -> Cell:
    """The model of the cell with its rewriter, and no alignment."""
    return Cell(cell.model, rewriter=cell.rewriter, rewriting=cell.rewriting)


def _label(row: Row, number: int) -> str:
    several = f" [{number}/{len(row.cells)}]" if len(row.cells) > 1 else ""
    return f"{', '.join(row.columns)}{several}"


def _kin(plan: RunPlan) -> str:
    """Equal for runs that may be one, once it is known what they begin with."""
    identity = {name: value for name, value in plan.identity.items() if name != "embedder"}
    digests = {
        name: value
        for name, value in plan.identity["digests"].items()
        if name not in ("examples", "alignment")
    }
    shots = plan.sides[0].subject.shots if isinstance(plan, MeasuringPlan) else 0
    return digest_of([{**identity, "digests": digests}, shots])
