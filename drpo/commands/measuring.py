"""What the commands that measure share: opening words, what is shown meanwhile, the last word."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from drpo.commands.running import introduce, run_with_signals
from drpo.commands.terminal import safe
from drpo.measuring.progress import Counting
from drpo.plan import RunPlan, run_path
from drpo.progress import UNITS
from drpo.run import Hooks

T = TypeVar("T")


def run_measuring(
    plan: RunPlan,
    source: str,
    of: int,
    work: Callable[[Hooks, Counting], Coroutine[Any, Any, T]],
    *,
    quiet: bool,
) -> T:
    """The result of `work`, shown and stopped as a search is. of: how many items or questions there are."""
    if not quiet:
        introduce(plan)
        unit = UNITS[str(plan.identity["command"])]
        click.echo(safe(f"{'data:':<11}{source}: {of} {unit}"), err=True)
    counting = Counting(plan, run_path(plan), of)
    return run_with_signals(counting, Hooks(), lambda hooks: work(hooks, counting), quiet=quiet)


def say_where(plan: RunPlan, files: str, sent: dict[str, int], *, quiet: bool) -> None:
    """Say on stderr what was written, and where nothing had to be sent."""
    if quiet:
        return
    if not sent:
        click.echo("All of it was recorded; nothing was sent.", err=True)
    click.echo(safe(f"written: {run_path(plan)} ({files})"), err=True)
