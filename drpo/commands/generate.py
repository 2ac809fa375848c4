"""drpo generate"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.commands.dry_run_generate import look_ahead_generate
from drpo.commands.dry_run_text import print_dry_run
from drpo.commands.flags import run_flags
from drpo.commands.measuring import run_measuring
from drpo.commands.terminal import line_of, safe
from drpo.config_use import GenerateConfig
from drpo.errors import GateRefused
from drpo.jsonl import plain_lines
from drpo.measuring.results import MOST_MISSING
from drpo.settings import environment, resolve
from drpo.types import Failed
from drpo.use.generating import run_generate
from drpo.use.plan import use_plan


@click.command("generate", epilog="Every flag is also a variable: --out is DRPO_OUT.")
@click.argument("alignment")
@run_flags(GenerateConfig, as_json="Print the answers as JSON lines.")
@click.option("--in", "given_in", metavar="FILE", help="The same as --queries.")
def command(
    alignment: str,
    config: Path | None,
    as_json: bool,
    quiet: bool,
    dry_run: bool,
    given_in: str | None,
    **flags: Any,
) -> None:
    """Answer many queries with ALIGNMENT (a run, an alignment file, none or urial), in their order.

    The same command run again resumes. Each line of the file has the query, the response, why it ended and
    which examples were shown. Key of the model: OPENAI_API_KEY, or DRPO_BASE_API_KEY for one named by @URL.
    """
    env = environment()
    if given_in is not None:
        flags["queries"] = given_in
    plan = use_plan("generate", alignment, resolve(GenerateConfig, flags, env, config), env)
    if dry_run:
        print_dry_run(look_ahead_generate(plan, env, flags, config), as_json=as_json)
        return
    result = run_measuring(
        plan,
        plan.source,
        len(plan.items),
        lambda hooks, count: run_generate(plan, env, hooks, count),
        quiet=quiet,
    )
    if as_json:
        click.echo(plain_lines(answer.as_dict() for answer in result.answers), nl=False)
    if not quiet:
        if not result.sent:
            click.echo("All of it was recorded; nothing was sent.", err=True)
        click.echo(safe(f"written: {result.out} ({len(result.answers)} answers)"), err=True)
    if len(result.failed) > MOST_MISSING * len(result.answers):
        first = result.failed[0].answer
        reason = first.reason if isinstance(first, Failed) else ""
        raise GateRefused(
            f"{len(result.failed)} of {len(result.answers)} queries have no answer, more than "
            f"{MOST_MISSING:.0%}: {line_of(reason)}"
        )
