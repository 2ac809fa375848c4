"""drpo compare"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.commands.dry_run_measuring import look_ahead_measuring
from drpo.commands.dry_run_text import print_dry_run
from drpo.commands.flags import run_flags
from drpo.commands.measuring import run_measuring, say_where
from drpo.commands.measuring_text import print_summary
from drpo.config_judging import CompareConfig
from drpo.errors import GateRefused
from drpo.measured import SUMMARY_NAME
from drpo.measuring.comparing import run_compare
from drpo.measuring.plan import compare_plan
from drpo.measuring.results import ITEMS_NAME, MOST_MISSING
from drpo.settings import environment, resolve


@click.command("compare", epilog="Every flag is also a variable: --judge is DRPO_JUDGE.")
@run_flags(CompareConfig)
def command(config: Path | None, as_json: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """Let a judge say which of two alignments is preferred, by the criteria of Align-Pro (arXiv 2501.03486).

    Every pair is judged in both orders; a pair whose verdict changes with the order is a tie and counted as a
    flip. The two sides may differ in the alignment, in the base model (--against-model), or in both.
    """
    env = environment()
    plan = compare_plan(resolve(CompareConfig, flags, env, config), env)
    if dry_run:
        print_dry_run(look_ahead_measuring(plan, env, flags, config), as_json=as_json)
        return
    result = run_measuring(
        plan,
        plan.source,
        len(plan.items),
        lambda hooks, count: run_compare(plan, env, hooks, count),
        quiet=quiet,
    )
    print_summary(result.as_dict(), as_json=as_json)
    say_where(plan, f"{SUMMARY_NAME}, {ITEMS_NAME}", result.sent, quiet=quiet)
    if not result.is_believable:
        first = next(pair.problem for pair in result.pairs if pair.problem)
        raise GateRefused(
            f"{result.missing} of {len(result.pairs)} pairs have no outcome, more than {MOST_MISSING:.0%} "
            f"({first}). The figures are of the others only"
        )
