"""What the commands that run a search share: signals, what is shown meanwhile, the opening words."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import click

from drpo.choices import OPENAI_URL, ModelChoice
from drpo.commands.live_display import LiveDisplay, Watched
from drpo.commands.painter import draws_on
from drpo.commands.progress_lines import ProgressLines
from drpo.commands.terminal import safe
from drpo.errors import Interrupted
from drpo.llm.prices import price_per_million
from drpo.measured import COMMANDS
from drpo.monitor import Monitor
from drpo.plan import Plan, RunPlan, run_path
from drpo.progress import RunState
from drpo.run import GRACE_S, Hooks

T = TypeVar("T")


class Shown(Watched, Protocol):
    """What a display shows of a run, and is told that it stops."""

    state: RunState


def run_search(plan: Plan, work: Callable[[Hooks], Coroutine[Any, Any, T]], *, quiet: bool) -> T:
    """The result of a search, shown and stopped as `run_with_signals` does it: where stderr is no terminal,
    by a line per level."""
    monitor = Monitor(plan, run_path(plan))
    drawn = quiet or draws_on(sys.stderr, os.environ)
    hooks = Hooks(monitor=monitor, observers=() if drawn else (ProgressLines(),))
    return run_with_signals(monitor, hooks, work, quiet=quiet)


def run_with_signals(
    monitor: Shown, hooks: Hooks, work: Callable[[Hooks], Coroutine[Any, Any, T]], *, quiet: bool
) -> T:
    """Run `work`; the first Ctrl-C (or SIGTERM) lets the calls in the air end, the second one does not.

    Unless quiet, stderr shows where the run stands, where it is a terminal, and what there is to tell.
    """

    async def main() -> T:
        nonlocal hooks
        drawn = not quiet and draws_on(sys.stderr, os.environ)
        if not quiet:
            hooks = replace(hooks, notice=tell)
        loop = asyncio.get_running_loop()

        def asked_to_stop() -> None:
            if hooks.stop.is_set:
                hooks.hurry.set()
                return
            click.echo(
                "stopping: no new request; calls in the air are awaited for up to "
                f"{GRACE_S:.0f} s and recorded (once more: stop at once)",
                err=True,
            )
            monitor.state = "stopping"
            hooks.stop.set(Interrupted("interrupted; run the same command again to resume"))

        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, asked_to_stop)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(asked_to_stop))
        async with LiveDisplay(monitor, sys.stderr) if drawn else contextlib.nullcontext():
            return await work(hooks)

    return asyncio.run(main())


def tell(message: str) -> None:
    """Say it on stderr; text of servers among it is shown, never obeyed."""
    click.echo(safe(message), err=True)


def introduce(plan: RunPlan, *, where: bool = True) -> None:
    """Say on stderr which models play, at what price where drpo chose them, and (`where`) in which run."""
    for role, choice in plan.models.items():
        chosen = f"  (drpo's choice: {_cost(choice)}; --{role} names another)" if choice.defaulted else ""
        click.echo(f"{role + ':':<11}{safe(choice.identity + chosen)}", err=True)
    if plan.simulated:
        click.echo("Models named demo are simulated: their figures say nothing about real models.", err=True)
    for note in plan.inputs.notes:
        click.echo(safe(f"{'data' if plan.identity['command'] in COMMANDS else 'seeds'}: {note}"), err=True)
    if where:
        click.echo(safe(f"{'run:':<11}{run_path(plan)}"), err=True)


def _cost(choice: ModelChoice) -> str:
    price = price_per_million(choice.name) if choice.urls == (OPENAI_URL,) else None
    if price is None:
        return "price unknown"
    return f"${price.input_usd:g} in, ${price.output_usd:g} out per million tokens"
