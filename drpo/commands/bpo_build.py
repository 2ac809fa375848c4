"""drpo bpo build"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.bpo.building import PAIRS_NAME, build_plan, run_build
from drpo.commands.dry_run_rewriting import look_ahead_build
from drpo.commands.dry_run_text import print_dry_run
from drpo.commands.flags import run_flags
from drpo.commands.measuring import run_measuring
from drpo.commands.measuring_text import print_summary
from drpo.commands.terminal import safe
from drpo.config_bpo import BuildConfig
from drpo.errors import GateRefused
from drpo.settings import environment, resolve


@click.command("build", epilog="Every flag is also a variable: --pairs is DRPO_PAIRS.")
@run_flags(BuildConfig)
@click.option("-o", "given_out", metavar="DIR", type=click.Path(path_type=Path), help="The same as --out.")
def command(
    config: Path | None, as_json: bool, quiet: bool, dry_run: bool, given_out: Path | None, **flags: Any
) -> None:
    """Turn human preferences into pairs of prompts to train a rewriter on.

    The optimizer compares a preferred response with the other one and rewrites the instruction so that a
    model would answer like the preferred. Pairs that are too short, too long, or hold what does not belong
    into a prompt are left out and counted. The same command run again resumes. Key of the optimizer:
    OPENAI_API_KEY, or DRPO_OPTIMIZER_API_KEY for an endpoint named by @URL.
    """
    env = environment()
    if given_out is not None:
        flags["out"] = given_out
    plan = build_plan(resolve(BuildConfig, flags, env, config), env)
    if dry_run:
        print_dry_run(look_ahead_build(plan, env, flags, config), as_json=as_json)
        return
    found = run_measuring(
        plan,
        plan.preferences.source,
        len(plan.preferences.items),
        lambda hooks, count: run_build(plan, env, hooks, count),
        quiet=quiet,
    )
    print_summary(found.as_dict(), as_json=as_json)
    if not quiet:
        if not found.sent:
            click.echo("All of it was recorded; nothing was sent.", err=True)
        click.echo(safe(f"written: {found.out / PAIRS_NAME} ({len(found.kept)} pairs)"), err=True)
    if not found.is_believable:
        failed = sum(pair.left_out == "failed" for pair in found.pairs)
        raise GateRefused(
            f"{failed} of {len(found.pairs)} preferences have no readable reply; the data is of the others"
        )
