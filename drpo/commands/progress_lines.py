"""Where a run stands, as plain lines: what is shown where there is no terminal to draw on."""

from __future__ import annotations

import click

from drpo.commands.role_rows import clock
from drpo.events import Event, LevelDone, NodeMade, ProposalDropped
from drpo.measured import COMMANDS
from drpo.money import dollars
from drpo.progress import UNITS, Snapshot


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


def state_line(snapshot: Snapshot) -> str:
    """The whole state in one line, for a run of another process."""
    is_mean = snapshot.command in UNITS
    unit, score = (UNITS[snapshot.command], "mean") if is_mean else ("level", "best path score")
    if not is_mean and len(snapshot.path) < 2:
        score = "reward"  # of the start, which is outside of the path score
    limit = "?" if snapshot.limit is None else snapshot.limit
    best = "not scored yet" if snapshot.best is None else f"{score} {snapshot.best:.2f}"
    cost = "cost unknown" if snapshot.usd is None else dollars(snapshot.usd)
    tried = "" if snapshot.command in COMMANDS else f"{snapshot.nodes} tried, "
    goes_on = snapshot.state in ("running", "stopping")
    left = f", about {clock(snapshot.left_s)} left" if goes_on and snapshot.left_s is not None else ""
    return (
        f"{unit} {snapshot.levels} of {limit}: {tried}{best}, {snapshot.calls} calls, "
        f"{cost}, {clock(snapshot.elapsed_s)} so far{left}"
    )
