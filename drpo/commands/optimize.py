"""drpo optimize"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.alignment import FILE_NAME, read_alignment
from drpo.commands.dry_run import look_ahead
from drpo.commands.dry_run_text import print_dry_run
from drpo.commands.flags import run_flags
from drpo.commands.running import introduce, run_search
from drpo.commands.show import print_alignment
from drpo.config import OptimizeConfig
from drpo.errors import BudgetSpent, GateRefused
from drpo.plan import optimize_plan, run_path
from drpo.run import run_optimize
from drpo.settings import environment, resolve


@click.command("optimize", epilog="Every flag is also a variable: --width is DRPO_WIDTH.")
@run_flags(OptimizeConfig, as_json="Print the result as one JSON document.")
def command(config: Path | None, as_json: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """Search for the system prompt that aligns a frozen model (DRPO, Algorithm 2).

    The same command run again resumes its run, or shows the result of a finished one. Keys come from the
    environment or a .env file: OPENAI_API_KEY for OpenAI, DRPO_BASE_API_KEY, DRPO_OPTIMIZER_API_KEY,
    DRPO_EVALUATOR_API_KEY and DRPO_SELECTOR_API_KEY for endpoints named by @URL.
    """
    env = environment()
    settings = resolve(OptimizeConfig, flags, env, config)
    plan = optimize_plan(settings, env)
    if dry_run:
        print_dry_run(look_ahead(plan, env, flags, config), as_json=as_json)
        return
    if not quiet:
        introduce(plan)
    try:
        result = run_search(plan, lambda hooks: run_optimize(plan, env, hooks), quiet=quiet)
    except BudgetSpent:
        if (run_path(plan) / FILE_NAME).exists():
            print_alignment(read_alignment(run_path(plan)), as_json=as_json)
        raise
    if result.finished_before and not quiet:
        click.echo("This run has finished before; nothing was sent. Another --run-dir starts anew.", err=True)
    print_alignment(result.alignment, as_json=as_json)
    if not quiet:
        click.echo(f"written: {result.run_dir / 'alignment.json'}", err=True)
    validation = result.alignment.validation
    if validation is not None and not validation.better:
        raise GateRefused(
            f"{validation.sentence}; the result is the initial prompt. --validate 0, in a run of its own, "
            "hands over what the search itself likes best"
        )
