"""drpo optimize-examples"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from drpo.api import environment
from drpo.commands.running import ProgressLines, introduce, run_with_signals
from drpo.config import ExamplesConfig, resolve
from drpo.options import settings_flags
from drpo.plan import examples_plan
from drpo.run import ExamplesResult, run_examples


@click.command("optimize-examples", epilog="Every flag is also a variable: --depth is DRPO_DEPTH.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@settings_flags(ExamplesConfig)
def command(config: Path | None, as_json: bool, quiet: bool, **flags: Any) -> None:
    """Improve the responses of in-context examples (DRPO, Algorithm 1), all at once.

    Writes a new examples file for `drpo optimize --examples` and prints each example's reward before and after.
    """
    env = environment()
    settings = resolve(ExamplesConfig, flags, env, config)
    plan = examples_plan(settings, env)
    if not quiet:
        introduce(plan, defaulted=settings.optimizer is None and settings.model is None)
    observers = () if quiet else (ProgressLines(),)
    result = run_with_signals(lambda hooks: run_examples(plan, env, hooks), observers)
    if result.finished_before and not quiet:
        click.echo("This run has finished before; nothing was sent.", err=True)
    _print(result, as_json)
    if not quiet:
        click.echo(f"written: {result.out}", err=True)


def _print(result: ExamplesResult, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "query": item.before.query,
                "reward_before": item.reward_before,
                "reward_after": item.reward_after,
                "response": item.after.response,
                "ended": item.ended,
            }
            for item in result.examples
        ]
        data = {"out": str(result.out), "simulated": result.simulated, "calls": result.calls, "examples": rows}
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
        return
    table = Table(title="Rewards, 1 to 5" + (" (simulated models)" if result.simulated else ""))
    table.add_column("example", overflow="ellipsis", no_wrap=True, max_width=60)
    for heading in ("before", "after"):
        table.add_column(heading, justify="right")
    table.add_column("response")
    for item in result.examples:
        changed = "improved" if item.after != item.before else "unchanged"
        table.add_row(" ".join(item.before.query.split()), _number(item.reward_before), _number(item.reward_after), changed)
    Console(markup=False, highlight=False).print(table)


def _number(reward: float | None) -> str:
    return "-" if reward is None else f"{reward:.2f}"
