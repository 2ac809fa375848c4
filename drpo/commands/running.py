"""What the commands that run a search share: signals, progress lines, the opening words."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from drpo.commands.terminal import safe
from drpo.errors import Interrupted
from drpo.events import Event, LevelDone, NodeMade, ProposalDropped
from drpo.llm.prices import price_per_million
from drpo.plan import OPENAI_URL, ModelChoice, Plan, run_path
from drpo.run import GRACE_S, Hooks

T = TypeVar("T")


def run_with_signals(work: Callable[[Hooks], Coroutine[Any, Any, T]], *, quiet: bool) -> T:
    """Run `work`; the first Ctrl-C (or SIGTERM) lets the calls in the air end, the second one does not."""

    async def main() -> T:
        hooks = Hooks() if quiet else Hooks(observers=(ProgressLines(),), notice=tell)
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
            hooks.stop.set(Interrupted("interrupted; run the same command again to resume"))

        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, asked_to_stop)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(asked_to_stop))
        return await work(hooks)

    return asyncio.run(main())


def tell(message: str) -> None:
    """Say it on stderr; text of servers among it is shown, never obeyed."""
    click.echo(safe(message), err=True)


def introduce(plan: Plan) -> None:
    """Say on stderr which models play, at what price where drpo chose them, and where the run is."""
    for role, choice in plan.models.items():
        chosen = f"  (drpo's choice: {_cost(choice)}; --{role} names another)" if choice.defaulted else ""
        click.echo(f"{role + ':':<11}{choice.identity}{chosen}", err=True)
    if plan.simulated:
        click.echo("Models named demo are simulated: their figures say nothing about real models.", err=True)
    for note in plan.inputs.notes:
        click.echo(f"seeds: {note}", err=True)
    click.echo(f"{'run:':<11}{run_path(plan)}", err=True)


def _cost(choice: ModelChoice) -> str:
    price = price_per_million(choice.name) if choice.urls == (OPENAI_URL,) else None
    if price is None:
        return "price unknown"
    return f"${price.input_usd:g} in, ${price.output_usd:g} out per million tokens"


class ProgressLines:
    """One line on stderr per level."""

    def __init__(self) -> None:
        self._scores: dict[tuple[int | None, int], float | None] = {}
        self._made = self._dropped = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, NodeMade):
            # The start is outside of the path score, as in the published runs; its reward is still of use.
            self._scores[event.subject, event.id] = event.reward if event.parent is None else event.score
            self._made += 1
        elif isinstance(event, ProposalDropped):
            self._dropped += 1
        elif isinstance(event, LevelDone):
            self._say(event)
            self._made = self._dropped = 0

    def _say(self, level: LevelDone) -> None:
        score = self._scores.get((level.subject, level.beam[0]))
        name = "reward" if level.level == 0 or level.subject is not None else "best path score"
        best = "not scored" if score is None else f"{name} {score:.2f}"
        subject = "" if level.subject is None else f"example {level.subject + 1:>2}, "
        dropped = f", {self._dropped} dropped" if self._dropped else ""
        stalled = ", no proposal could be evaluated: going on with its parents" if level.stalled else ""
        done = f"{subject}level {level.level + 1} of {level.limit}: {self._made} tried{dropped}, {best}"
        click.echo(done + stalled, err=True)
