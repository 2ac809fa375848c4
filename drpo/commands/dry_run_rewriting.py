"""`--dry-run` of `drpo rewrite` and `drpo bpo build`: what they would ask and take; nobody is asked."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from drpo.ask import Asker
from drpo.bpo.building import BuildPlan, _pair, _refuse_other
from drpo.commands.dry_run_facts import DryRun, check_embedder, dry_run_of
from drpo.commands.dry_run_generate import finished_by, written_over
from drpo.compose import Sampling
from drpo.config_use import RewriteConfig
from drpo.estimate.habits import response_habits
from drpo.estimate.pending import Ahead, Noted, Pending
from drpo.estimate.ranges import Range
from drpo.estimate.rewriting_habits import rewriting_habits_of
from drpo.estimate.roles import Recorded
from drpo.estimate.texts import LEAST_REPLY, longest_reply
from drpo.live import Resources
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.measured import ANSWERS_NAME
from drpo.measuring.answering import made_for_another, wanted_form
from drpo.measuring.base_ahead import open_base_ahead
from drpo.measuring.forecasting import MeasuringForecast, forecast_ahead
from drpo.over_record import Missed, model_over, over
from drpo.rewriting.ahead import open_rewriter_ahead
from drpo.use.generating import refuse_folder
from drpo.use.rewording import RewritePlan
from drpo.wiring import structured_for


def unkept(settings: RewriteConfig) -> RewriteConfig:
    """The settings of a command that leaves no run behind: with a directory that is nowhere, so that none
    that is there is taken for its own."""
    nowhere = Path(tempfile.gettempdir()) / f"drpo-{secrets.token_hex(8)}"
    return settings.model_copy(update={"run_dir": nowhere})


def look_ahead_rewrite(
    plan: RewritePlan,
    environment: Mapping[str, str],
    flags: Mapping[str, Any],
    file: Path | None,
    *,
    is_kept: bool = True,
) -> DryRun:
    """What the command would do with this plan. Nothing is sent, started or written; no reward model is
    loaded. is_kept: whether the command leaves a run behind. Raises as `drpo.commands.dry_run.look_ahead`."""
    refuse_folder(plan.config.out)

    def foresee(path: Path, recorded: Recorded) -> tuple[MeasuringForecast, list[str]]:
        if plan.embedder and plan.subject is not None:
            check_embedder(plan.embedder, plan.subject.examples, environment)
        record = Record(path / "calls.jsonl", writable=False)
        ahead = asyncio.run(_rewrites_ahead(plan, record, environment))
        return _rewrite_forecast(plan, ahead, recorded, environment), list(_rewrite_notes(plan))

    told = dry_run_of(plan, environment, flags, file, foresee)
    if not is_kept:
        settings = tuple(one for one in told.settings if one.name != "run_dir")
        return replace(told, settings=settings, is_kept=False)
    return finished_by(told, ANSWERS_NAME)


async def _rewrites_ahead(plan: RewritePlan, record: Record, environment: Mapping[str, str]) -> Ahead:
    config, subject, noted = plan.config, plan.subject, Noted()
    resources = Resources(record, Stop(), environment, config, live=False)
    rewriter = await open_rewriter_ahead(plan, plan.rewriting, resources, noted)
    queries = [item.query for item in plan.items]
    if subject is None:
        for query in queries:
            await rewriter.rewrite(query, None)
    else:
        sampling = Sampling(config.temperature, config.top_p, config.base_max_tokens)
        base = await open_base_ahead(plan, "base", subject, sampling, resources, noted)
        await base.look_up(queries, free=True)
        for query in queries:
            await rewriter.rewrite(query, base)
    return noted.ahead(len(queries))


def _rewrite_forecast(
    plan: RewritePlan, ahead: Ahead, recorded: Recorded, environment: Mapping[str, str]
) -> MeasuringForecast:
    subject, base = plan.subject, plan.models.get("base")
    about, characters = "", response_habits(plan.rewriting.choice, "auto").characters_per_token
    if subject is not None and base is not None:
        about = response_habits(base, wanted_form(plan.config, subject, base)).about
    return forecast_ahead(
        plan,
        ahead,
        recorded,
        environment,
        items=len(plan.items),
        about=about,
        characters_per_token=characters,
    )


def _rewrite_notes(plan: RewritePlan) -> Iterator[str]:
    subject = plan.subject
    if subject is not None:
        yield f"alignment: {subject.name}, {subject.shots} examples shown with a query"
        if (moved := made_for_another(subject, plan.models["base"])) is not None:
            yield moved
    yield from (f"queries: {note}" for note in plan.inputs.notes)
    yield from written_over("--out", plan.config.out)


def look_ahead_build(
    plan: BuildPlan, environment: Mapping[str, str], flags: Mapping[str, Any], file: Path | None
) -> DryRun:
    """What `drpo bpo build` would do with this plan: one request a preference, and its repairs. Nothing is
    sent, started or written. Raises as `drpo.commands.dry_run.look_ahead`."""
    _refuse_other(plan)

    def foresee(path: Path, recorded: Recorded) -> tuple[MeasuringForecast, list[str]]:
        record = Record(path / "calls.jsonl", writable=False)
        ahead = asyncio.run(_pairs_ahead(plan, record, environment))
        optimizer = plan.models["optimizer"]
        said = forecast_ahead(
            plan,
            ahead,
            recorded,
            environment,
            items=len(plan.preferences.items),
            about=rewriting_habits_of(optimizer).about,
            characters_per_token=response_habits(optimizer, "auto").characters_per_token,
        )
        return said, [f"preferences: {note}" for note in plan.inputs.notes]

    return dry_run_of(plan, environment, flags, file, foresee)


async def _pairs_ahead(plan: BuildPlan, record: Record, environment: Mapping[str, str]) -> Ahead:
    config, choice, noted = plan.config, plan.models["optimizer"], Noted()
    resources = Resources(record, Stop(), environment, config, live=False)
    llm = await model_over(choice, resources)
    asker = Asker(llm, plan.inputs.templates, config.repairs, structured_for(plan, "optimizer"))
    habits, longest = rewriting_habits_of(choice), longest_reply(plan, "optimizer")
    characters = response_habits(choice, "auto").characters_per_token
    for one in plan.preferences.items:
        found = await over(record, _pair(plan, asker, choice.identity, one))
        if not isinstance(found, Missed):
            continue
        wanted = len(one.instruction) / characters + habits.added + habits.thought
        cut = wanted if longest is None else min(wanted, longest)
        repairs = config.repairs - (len(found[0].messages) - 1) // 2
        reply = Range(min(LEAST_REPLY, cut), cut, longest)
        noted.known(Pending("optimizer", found[0], reply, repairs=repairs))
    return noted.ahead(len(plan.preferences.items))
