"""drpo align-pro estimate"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.align_pro import plot
from drpo.align_pro.estimating import run_estimate
from drpo.align_pro.plan import estimate_plan
from drpo.align_pro.results import doubt
from drpo.commands.dry_run_align_pro import look_ahead_estimate
from drpo.commands.dry_run_text import print_dry_run
from drpo.commands.flags import run_flags
from drpo.commands.measuring import run_measuring, say_where
from drpo.commands.measuring_text import print_summary
from drpo.config_align_pro import EstimateConfig
from drpo.errors import GateRefused
from drpo.jsonl import write_atomically
from drpo.measured import SUMMARY_NAME
from drpo.measuring.results import ITEMS_NAME
from drpo.settings import environment, resolve


@click.command("estimate", epilog="Every flag is also a variable: --lambda is DRPO_LAMBDA.")
@run_flags(EstimateConfig)
def command(config: Path | None, as_json: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """What the best prompter near a reference would gain, at each --lambda, without training one.

    Per query the reference prompter draws N rewrites, the frozen model answers each, the reward judges the
    answers for the user's own query, and the rewrites are weighed by exp(reward / lambda). Small lambdas
    come to the best of N, large ones to the reference prompter. The same command run again resumes; with
    another --lambda it reckons anew from what is recorded. Keys as for optimize: OPENAI_API_KEY, or
    DRPO_BASE_API_KEY and DRPO_REWRITER_API_KEY for models named by @URL.
    """
    env = environment()
    plan = estimate_plan(resolve(EstimateConfig, flags, env, config), env)
    if dry_run:
        print_dry_run(look_ahead_estimate(plan, env, flags, config), as_json=as_json)
        return
    result = run_measuring(
        plan,
        plan.source,
        len(plan.items),
        lambda hooks, count: run_estimate(plan, env, hooks, count),
        quiet=quiet,
    )
    summary, files = result.as_dict(), f"{SUMMARY_NAME}, {ITEMS_NAME}"
    if result.rows and _is_drawn(summary, result.run_dir / plot.NAME):
        files += f", {plot.NAME}"
    print_summary(summary, as_json=as_json)
    say_where(plan, files, result.sent, quiet=quiet)
    if (why := doubt(result)) is not None:
        raise GateRefused(f"{why}. The figures are of the others only")


def _is_drawn(summary: dict[str, Any], file: Path) -> bool:
    """Whether the plot was written: matplotlib is an extra, and the figures are all there without."""
    try:
        text = plot.draw(summary)
    except ImportError:
        return False
    write_atomically(file, text)
    return True
