"""`--dry-run` of `drpo generate`: what it would ask and take, without asking anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from drpo.commands.dry_run_facts import DryRun, check_embedder, dry_run_of
from drpo.compose import Sampling
from drpo.config_use import GenerateConfig
from drpo.estimate.habits import response_habits
from drpo.estimate.pending import PERHAPS, Ahead, Noted
from drpo.estimate.roles import Recorded
from drpo.live import Resources
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.measured import ANSWERS_NAME
from drpo.measuring.answering import made_for_another, wanted_form
from drpo.measuring.base_ahead import open_base_ahead
from drpo.measuring.forecasting import MeasuringForecast, forecast_ahead
from drpo.rewriting.ahead import open_rewriter_ahead
from drpo.use.generating import refuse_folder
from drpo.use.plan import UsePlan


def look_ahead_generate(
    plan: UsePlan, environment: Mapping[str, str], flags: Mapping[str, Any], file: Path | None
) -> DryRun:
    """What the command would do with this plan. Nothing is sent, started or written.

    What the run directory holds is taken off: the queries are gone through over its record, so what is left
    is known by the request. Raises as `drpo.commands.dry_run.look_ahead`.
    """
    assert isinstance(plan.config, GenerateConfig)
    for out in (plan.config.out, plan.config.sft):
        refuse_folder(out)

    def foresee(path: Path, recorded: Recorded) -> tuple[MeasuringForecast, list[str]]:
        if plan.embedder:
            check_embedder(plan.embedder, plan.subject.examples, environment)
        record = Record(path / "calls.jsonl", writable=False)
        ahead = asyncio.run(_ahead(plan, record, environment))
        return _forecast(plan, ahead, recorded, environment), list(_notes(plan))

    told = dry_run_of(plan, environment, flags, file, foresee)
    return finished_by(told, ANSWERS_NAME)


def finished_by(told: DryRun, name: str) -> DryRun:
    """The same of a command whose run has finished once nothing is to come and the file `name` is there."""
    has_all = told.state == "resume" and told.forecast.left.most == 0
    return replace(told, state="finished") if has_all and (told.path / name).exists() else told


def _notes(plan: UsePlan) -> list[str]:
    assert isinstance(plan.config, GenerateConfig)
    subject = plan.subject
    notes = [f"alignment: {subject.name}, {subject.shots} examples shown with a query"]
    notes += [f"queries: {note}" for note in plan.inputs.notes]
    if (moved := made_for_another(plan.subject, plan.choice)) is not None:
        notes.append(moved)
    notes += written_over("--out", plan.config.out) + written_over("--sft", plan.config.sft)
    return notes


def written_over(flag: str, out: Path | None) -> list[str]:
    """A note where the file for the answers is there."""
    if out is None or not out.exists():
        return []
    return [
        f"{flag} {out}: there is such a file and nothing is written over: unless it holds these very "
        "answers, the command ends with exit code 2 once it has them"
    ]


def _forecast(
    plan: UsePlan, ahead: Ahead, recorded: Recorded, environment: Mapping[str, str]
) -> MeasuringForecast:
    habits = response_habits(plan.choice, wanted_form(plan.config, plan.subject, plan.choice))
    return forecast_ahead(
        plan,
        ahead,
        recorded,
        environment,
        items=len(plan.items),
        about=habits.about,
        characters_per_token=habits.characters_per_token,
    )


async def _ahead(plan: UsePlan, record: Record, environment: Mapping[str, str]) -> Ahead:
    """What the command has yet to ask by its record, which is only read."""
    config, noted = plan.config, Noted()
    resources = Resources(record, Stop(), environment, config, live=False)
    sampling = Sampling(config.temperature, config.top_p, config.base_max_tokens)
    base = await open_base_ahead(plan, "base", plan.subject, sampling, resources, noted)
    queries = [query.text for query in plan.inputs.queries]
    if plan.rewriting is None:
        await base.look_up(queries)
        for query in queries:
            await base.answer(query)
        return noted.ahead(len(queries))
    rewriter = await open_rewriter_ahead(plan, plan.rewriting, resources, noted)
    for one in await rewriter.all(queries, base):
        if one.rewrite is not None:
            await base.answer(one.rewrite.text)
        elif one.is_answered:  # unless none of the rewrites can be rewarded
            await base.answer(one.query, PERHAPS)
        else:
            await base.suppose(("rewritten", one.query), one.query, one.size)
    return noted.ahead(len(queries))
