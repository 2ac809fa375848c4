"""drpo study"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.commands.dry_run_study import look_ahead_study
from drpo.commands.dry_run_text import print_dry_run
from drpo.commands.flags import run_flags
from drpo.commands.running import run_with_signals, tell
from drpo.commands.terminal import print_json, safe
from drpo.config_study import StudyConfig
from drpo.llm.base import Role
from drpo.run import Hooks
from drpo.settings import environment, resolve
from drpo.studies.catalogue import STUDIES
from drpo.studies.progress import StudyProgress
from drpo.studies.result import StudyResult
from drpo.studies.running import ALL, WITHOUT_PLOT, StudyPlan, first_failure, run_studies, study_plan
from drpo.studies.table import markdown


@click.command("study", epilog="Every flag is also a variable: --judge is DRPO_JUDGE.")
@click.argument("which", type=click.Choice((*STUDIES, ALL)), metavar=f"[{'|'.join((*STUDIES, ALL))}]")
@run_flags(StudyConfig)
def command(which: str, config: Path | None, as_json: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """Make one of the paper's tables, or all of them: a Markdown table, JSON and a plot.

    results: DRPO against its baselines (Table 1). transfer: prompts found for one model, used with another
    (Table 2). parts: without the found prompt, without the shots (Table 3). search: beam, greedy, Monte Carlo
    at equal calls (Table 4). reward: dynamic and static rewards (Table 5). shots: K from 0 to 5 (Figure 4).

    Every search and evaluation is a run in the study's folder; equal ones are run once, also between studies.
    The same command run again resumes, or reads. --max-calls and --max-usd bound all runs in that folder
    together, which then run one by one. A model that drpo serves itself (vllm/REPO without @URL) is started
    anew for each run: serve it by `drpo models serve` and name its URL. Keys: as for optimize and evaluate.
    """
    env = environment()
    plan = study_plan(which, resolve(StudyConfig, flags, env, config), env)
    if dry_run:
        print_dry_run(look_ahead_study(plan, which, env, flags, config), as_json=as_json)
        return
    if not quiet:
        _introduce(plan)
    told = (lambda said: None) if quiet else tell
    progress = StudyProgress(plan.folder, plan.cells, plan.simulated, told)
    results = run_with_signals(
        # Lines, not a drawing: what is drawn of a run are levels and rewards, which a study has not.
        progress, Hooks(notice=told), lambda hooks: run_studies(plan, env, hooks, progress), quiet=True
    )  # fmt: skip
    tables = [result.as_dict() for result in results]
    if as_json:
        print_json(tables[0] if which != ALL else tables)
    else:
        click.echo("\n".join(markdown(table) for table in tables), nl=False)
    _say_what_is_left(results, quiet)
    if (failure := first_failure(results)) is not None:
        raise failure


def _introduce(plan: StudyPlan) -> None:
    identities: dict[Role, dict[str, None]] = {}
    for each in plan.plans:
        for role, choice in each.models.items():
            identities.setdefault(role, {})[choice.identity] = None
    for role, known in identities.items():
        click.echo(f"{role + ':':<11}{safe(', '.join(known))}", err=True)
    if plan.simulated:
        click.echo("Models named demo are simulated: their figures say nothing about real models.", err=True)
    click.echo(f"{'study:':<11}{safe(str(plan.folder))} ({plan.cells} evaluations)", err=True)


def _say_what_is_left(results: tuple[StudyResult, ...], quiet: bool) -> None:
    failed = sum(len(result.failures) for result in results)
    if failed:
        click.echo(f"{failed} cells failed; the first of them decides the exit code", err=True)
    if quiet:
        return
    for result in results:
        click.echo(f"written: {safe(str(result.folder))}", err=True)
    if not all(result.plotted for result in results):
        click.echo(WITHOUT_PLOT, err=True)
