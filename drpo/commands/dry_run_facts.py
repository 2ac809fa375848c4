"""What a dry run tells of any run: what stands in its folder, what is spent, what would refuse or start."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from drpo.choices import ModelChoice
from drpo.commands.setting_sources import Setting, settings_of
from drpo.config import ExamplesConfig
from drpo.errors import InputError
from drpo.estimate.roles import Enough, Recorded, RunForecast, read_recorded
from drpo.jsonl import read_lines
from drpo.live import endpoints_of, without_keys
from drpo.llm.base import Role
from drpo.llm.books import limited_books
from drpo.llm.catalog import GPU_MEMORY_GB
from drpo.llm.connections import Connections
from drpo.llm.ledger import LEDGER_NAME, Limits, Spent, read_ledger
from drpo.llm.limits import Stop
from drpo.llm.vllm.gpus import gpus_needed, visible_gpus_gb
from drpo.llm.vllm.launch import Installation, find_vllm, server_command, shown_command
from drpo.plan import RunPlan, run_path
from drpo.progress import PROGRESS_NAME, read_progress
from drpo.results import is_finished
from drpo.run import _refuse_to_overwrite
from drpo.run_dir import _refuse_foreign, _refuse_others
from drpo.run_file import RUN_NAME
from drpo.tariffs import RoleTariff, refuse_unpriced, tariffs_of, unknown_prices
from drpo.types import Example
from drpo.wiring import EmbeddingLimits, build_retriever

State = Literal["begin", "resume", "finished", "running"]
Verdict = Enough | Literal["used up"]
_SHOWN_PORT = 8000


@dataclass(frozen=True, slots=True)
class Played:
    """Who plays a role, and at which price; None where there is none."""

    role: Role
    choice: ModelChoice
    tariff: RoleTariff | None


@dataclass(frozen=True, slots=True)
class DryRun:
    """All that is told of a run beforehand. refusals: why it would end before its first request; servers:
    lines for a shell that start what drpo would start; notes: what else is to be known; players: who plays
    which role, in a study several models one role. is_kept: whether the command leaves its run behind."""

    plan: RunPlan
    path: Path
    state: State
    process: int | None
    settings: tuple[Setting, ...]
    forecast: RunForecast
    refusals: tuple[str, ...]
    servers: tuple[str, ...]
    notes: tuple[str, ...]
    players: tuple[Played, ...]
    is_kept: bool = True

    @property
    def calls_verdict(self) -> Verdict | None:
        """What --max-calls means for the run; used up: its next request would be refused. None: no limit."""
        limit, said = self.plan.config.max_calls, self.forecast
        if limit is None:
            return None
        sent = said.recorded.spent_calls
        return "used up" if 0 < sent >= limit and said.left.most != 0 else said.calls_suffice(limit)

    @property
    def usd_verdict(self) -> Verdict | None:
        """What --max-usd means for the run. None: no limit, or nothing can be said of it."""
        limit, said = self.plan.config.max_usd, self.forecast
        if limit is None or said.unpriced or self.refusals:
            return None
        next_usd = min((role.held_usd or 0.0 for role in said.roles if role.left.most != 0), default=0.0)
        spent = said.recorded.spent_usd
        if spent and spent + next_usd > limit and said.left.most != 0:
            return "used up"
        return said.usd_suffices(limit)


def check_embedder(embedder: str, examples: tuple[Example, ...], environment: Mapping[str, str]) -> None:
    """Raises InputError where the embedder is misspelt; no model is loaded and no endpoint asked."""
    if embedder != "lexical":
        build_retriever(embedder, examples, Connections(), environment, Stop(), EmbeddingLimits())


def dry_run_of(
    plan: RunPlan,
    environment: Mapping[str, str],
    flags: Mapping[str, Any],
    file: Path | None,
    foresee: Callable[[Path, Recorded], tuple[RunForecast, list[str]]],
) -> DryRun:
    """What a command would do with its plan. foresee: the forecast and what else is to be known, by the run's
    directory and what it holds. Raises as `drpo.commands.dry_run.look_ahead`."""
    path = run_path(plan)
    state, process = _state_of(path, plan)
    finished = state == "finished"
    refusals = [] if finished else refusals_of(plan, environment)
    spent, refused = _spent(path, plan, environment, finished=finished)
    recorded = replace(
        read_recorded(path / "calls.jsonl"),
        spent_calls=spent.calls,
        spent_usd=spent.usd + spent.held_usd,
        finished=finished,
    )
    said, notes = foresee(path, recorded)
    tariffs = {role.role: role.tariff for role in said.roles}
    return DryRun(
        plan=plan,
        path=path,
        state=state,
        process=process,
        settings=settings_of(plan.config, environment, flags, file),
        forecast=said,
        refusals=(*refusals, *refused),
        servers=() if finished else tuple(servers_of(plan, environment)),
        notes=tuple(notes),
        players=tuple(Played(role, choice, tariffs.get(role)) for role, choice in plan.models.items()),
    )


def _state_of(path: Path, plan: RunPlan) -> tuple[State, int | None]:
    """What the command would find, and the process that runs there. Raises as the command would."""
    there = next((folder for folder in (path, *path.parents) if folder.exists()), None)
    if there is not None and not there.is_dir():
        raise InputError(
            f"{path}: expected a folder for the run, found a file in its place; give another --run-dir"
        )
    begun = (path / RUN_NAME).exists()
    if path.is_dir():
        _refuse_foreign(path)
    if begun:
        _refuse_others(path, plan)
        if is_finished(path):
            return "finished", None
    if isinstance(plan.config, ExamplesConfig):
        _refuse_to_overwrite(plan.config.out)
    if not begun:
        return "begin", None
    shown = read_progress(path / PROGRESS_NAME)
    if shown is not None and shown.is_alive(time.time()):
        return "running", shown.pid
    return "resume", None


def _spent(
    path: Path, plan: RunPlan, environment: Mapping[str, str], *, finished: bool
) -> tuple[Spent, tuple[str, ...]]:
    """What the run has spent as its limits would count it, and why they could not hold, if so."""
    config, ledger = plan.config, path / LEDGER_NAME
    tariffs = tariffs_of(plan, environment)
    max_usd = None if unknown_prices(tariffs) else config.max_usd  # without prices, that is told already
    limits = Limits() if finished else Limits(config.max_calls, max_usd)
    try:
        books = limited_books(read_lines(ledger), ledger, path / "calls.jsonl", tariffs, limits)
    except InputError as error:
        return sum(read_ledger(ledger).values(), Spent()), (str(error),)
    return sum(books.spent().values(), Spent()), ()


def refusals_of(plan: RunPlan, environment: Mapping[str, str]) -> list[str]:
    """Why the run would end before its first request, though its settings can be read."""
    found: dict[str, None] = {}
    for choice in plan.models.values():
        try:
            endpoints_of(choice, environment)
        except InputError as error:
            found[str(error)] = None
    try:
        refuse_unpriced(plan, environment)
    except InputError as error:
        found[str(error)] = None
    return list(found)


def servers_of(plan: RunPlan, environment: Mapping[str, str]) -> list[str]:
    """The vLLM servers that the run would start, as lines for a shell."""
    lines: list[str] = []
    started = {choice.server: choice for choice in plan.models.values() if choice.server is not None}
    for server, choice in started.items():
        assert server is not None
        command = plan.config.vllm_command
        try:
            installation = find_vllm(command, environment, server.label)
        except InputError:
            if command is not None:
                raise
            installation = Installation(("vllm", "serve"))
            lines.append("# vLLM is not installed here, the run would end with that")
        gpus_gb = visible_gpus_gb(without_keys(environment, plan.config))
        tensor = server.parallel.tensor or gpus_needed(server.weights_gb, gpus_gb)
        if server.parallel.tensor is None and not gpus_gb and not installation.cpu and choice.entry:
            tensor = max(1, choice.entry.gpus)
            lines.append(f"# no GPU to be seen here: sized for cards of {GPU_MEMORY_GB} GB")
        words = server_command(server, installation, "127.0.0.1", _SHOWN_PORT, [server.label], tensor)
        lines.append(shown_command(words))
    return lines
