"""drpo optimize-examples"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.commands.dry_run import look_ahead
from drpo.commands.dry_run_text import print_dry_run
from drpo.commands.examples_table import print_examples
from drpo.commands.flags import run_flags
from drpo.commands.running import introduce, run_search
from drpo.config import ExamplesConfig
from drpo.errors import BudgetSpent, GateRefused
from drpo.plan import examples_plan, run_path
from drpo.results import RESULT_NAME, read_examples_result
from drpo.run import run_examples
from drpo.settings import environment, resolve
from drpo.validating_examples import examples_sentence


@click.command("optimize-examples", epilog="Every flag is also a variable: --depth is DRPO_DEPTH.")
@run_flags(ExamplesConfig, as_json="Print the result as one JSON document.")
def command(config: Path | None, as_json: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """Improve the responses of in-context examples (DRPO, Algorithm 1), all at once.

    Writes a new examples file for `drpo optimize --examples` and prints each example's reward before and
    after. With --validate a base model then answers seed queries with the improved examples as shots and with
    the original ones; where the former are not surely better, the latter are the result (exit code 4).
    """
    env = environment()
    settings = resolve(ExamplesConfig, flags, env, config)
    plan = examples_plan(settings, env)
    if dry_run:
        print_dry_run(look_ahead(plan, env, flags, config), as_json=as_json)
        return
    if not quiet:
        introduce(plan)
    try:
        result = run_search(plan, lambda hooks: run_examples(plan, env, hooks), quiet=quiet)
    except BudgetSpent:
        if (run_path(plan) / RESULT_NAME).exists():
            print_examples(read_examples_result(run_path(plan)), as_json)
        raise
    if result.finished_before and not quiet:
        click.echo("This run has finished before; nothing was sent.", err=True)
    print_examples(result, as_json)
    if not quiet:
        click.echo(f"written: {result.out}", err=True)
    if result.validation is not None and not result.validation.better:
        raise GateRefused(
            f"{examples_sentence(result.validation)}; the result is the original examples. --validate 0, in "
            "a run of its own, hands over what the search itself came to"
        )
