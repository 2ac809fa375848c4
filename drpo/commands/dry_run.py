"""`--dry-run` of the commands that begin a run: what they would do and take, without doing any of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from drpo.choices import ModelChoice
from drpo.commands.setting_sources import Setting, settings_of
from drpo.config import ExamplesConfig, OptimizeConfig
from drpo.errors import InputError, ReplayMissed
from drpo.estimate.counts import replies_may_be_cut
from drpo.estimate.forecast import Enough, Forecast, Recorded, forecast, read_recorded
from drpo.jsonl import read_lines
from drpo.live import cache_folder, endpoints_of, is_lasting, without_keys
from drpo.llm.adapt import Adapt
from drpo.llm.base import Completion, Request, request_key
from drpo.llm.books import limited_books
from drpo.llm.catalog import GPU_MEMORY_GB
from drpo.llm.client import Connections
from drpo.llm.ledger import LEDGER_NAME, Limits, Spent, read_ledger
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.llm.reuse import Store
from drpo.llm.vllm.gpus import gpus_needed, visible_gpus_gb
from drpo.llm.vllm.launch import Installation, find_vllm, server_command, shown_command
from drpo.plan import Plan, run_path
from drpo.progress import PROGRESS_NAME, read_progress
from drpo.results import is_finished
from drpo.reward import EvaluatorReward
from drpo.run import _refuse_to_overwrite
from drpo.run_dir import _refuse_foreign, _refuse_others
from drpo.run_file import RUN_NAME
from drpo.tariffs import refuse_unpriced, tariffs_of, unknown_prices
from drpo.types import Query
from drpo.wiring import EmbeddingLimits, build_retriever, build_reward

State = Literal["begin", "resume", "finished", "running"]
Verdict = Enough | Literal["used up"]
_SHOWN_PORT = 8000


@dataclass(frozen=True, slots=True)
class DryRun:
    """All that is told of a run beforehand. refusals: why it would end before its first request; servers:
    lines for a shell that start what drpo would start; notes: what else is to be known."""

    plan: Plan
    path: Path
    state: State
    process: int | None
    settings: tuple[Setting, ...]
    forecast: Forecast
    refusals: tuple[str, ...]
    servers: tuple[str, ...]
    notes: tuple[str, ...]

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


def look_ahead(
    plan: Plan, environment: Mapping[str, str], flags: Mapping[str, Any], file: Path | None
) -> DryRun:
    """What the command would do with this plan. Nothing is sent, started or written.

    Raises what the command itself would raise before its first request: for a folder that is none of its
    runs or belongs to other settings (RunConflict), for settings that cannot be used (InputError). A missing
    key or price is told, and no error: the figures are of use without.
    """
    path = run_path(plan)
    state, process = _state_of(path, plan)
    _check_embedder(plan, environment)
    refusals = () if state == "finished" else tuple(_refusals(plan, environment))
    spent, refused = _spent(path, plan, environment, finished=state == "finished")
    recorded = _recorded(path, plan, environment, spent, finished=state == "finished")
    said = forecast(plan, recorded, environment)
    return DryRun(
        plan=plan,
        path=path,
        state=state,
        process=process,
        settings=settings_of(plan.config, environment, flags, file),
        forecast=said,
        refusals=(*refusals, *refused),
        servers=() if state == "finished" else tuple(_servers(plan, environment)),
        notes=tuple(_notes(plan, said)),
    )


def _state_of(path: Path, plan: Plan) -> tuple[State, int | None]:
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


def _check_embedder(plan: Plan, environment: Mapping[str, str]) -> None:
    """Raises where the embedder is misspelt; no model is loaded and no endpoint asked."""
    if isinstance(plan.config, OptimizeConfig) and plan.embedder != "lexical":
        examples = plan.inputs.examples.examples
        build_retriever(plan.embedder, examples, Connections(), environment, Stop(), EmbeddingLimits())


# What is recorded


def _spent(
    path: Path, plan: Plan, environment: Mapping[str, str], *, finished: bool
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


def _recorded(
    path: Path, plan: Plan, environment: Mapping[str, str], spent: Spent, *, finished: bool
) -> Recorded:
    """What the run holds, by its record and its books."""
    file = path / "calls.jsonl"
    return replace(
        read_recorded(file),
        reused=_reusable(plan, environment, Record(file, writable=False)),
        spent_calls=spent.calls,
        spent_usd=spent.usd + spent.held_usd,
        finished=finished,
    )


class _Known:
    """Stands for the selector, whose questions it counts: recorded, or answered in another run."""

    def __init__(self, record: Record, store: Store) -> None:
        self._record, self._store = record, store
        self.reusable = 0

    async def complete(self, request: Request) -> Completion:
        """Never: nothing is sent."""
        if not self._record.holds(request) and self._store.get(request_key(request)) is not None:
            self.reusable += 1
        raise ReplayMissed("a dry run sends nothing")


def _reusable(plan: Plan, environment: Mapping[str, str], record: Record) -> int:
    """For how many of the queries that are surely used another run has chosen the aspects; their questions
    are made by what makes them in a run."""
    config, choice = plan.config, plan.models.get("selector")
    if choice is None or config.reward == "static" or not config.reuse or not is_lasting(choice):
        return 0
    if choice.provider == "reward":
        return 0
    store = Store(cache_folder(environment) / "selections.jsonl")
    known = _Known(record, store)
    queries = [Query(example.query) for example in plan.inputs.examples.examples]
    if isinstance(config, OptimizeConfig):
        queries = list(plan.inputs.queries[: config.depth])

    async def ask_all() -> None:
        model = Adapt(known, record, _refused(choice), config.max_thinking_tokens)
        reward = build_reward(plan, {"selector": model, "evaluator": model}, record)
        assert isinstance(reward, EvaluatorReward)
        await asyncio.gather(*(reward.selector.choose(q) for q in queries), return_exceptions=True)

    asyncio.run(ask_all())
    return known.reusable


def _refused(choice: ModelChoice) -> list[str]:
    return sorted(choice.entry.refuses) if choice.entry else []


# What is told besides


def _refusals(plan: Plan, environment: Mapping[str, str]) -> list[str]:
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


def _notes(plan: Plan, said: Forecast) -> list[str]:
    found = [f"seeds: {note}" for note in plan.inputs.notes]
    if replies_may_be_cut(plan.config, said.habits):
        found.append(
            f"--max-tokens {plan.config.max_tokens}: many replies may be cut off and lost. A search whose "
            "replies cannot be read ends after four levels, so `at least` reckons with that"
        )
    return found


def _servers(plan: Plan, environment: Mapping[str, str]) -> list[str]:
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
