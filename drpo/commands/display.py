"""Where a run stands, drawn for a terminal of any size."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from drpo.commands.change_lines import cells, change_lines, cut, cut_before, one_line
from drpo.commands.role_rows import LABEL, clock, in_order, label, role_rows
from drpo.measured import COMMANDS
from drpo.money import dollars
from drpo.progress import UNITS, Snapshot

LEAST_WIDTH, NO_HEIGHT = 20, 10_000
_WITHOUT_SCORES = ("compare", "audit-judge", "generate")
_SCORES = {"optimize-examples": "reward", "evaluate": "score"}
_LEAST_BAR, _LONGEST_BAR = 8, 40
_NO_USD = 1e-9
"""What sums of dollars may be beside nothing when all that went into them has come out again."""
_LEAST_CHANGE, _MOST_CHANGE = 6, 11
_STATES = {
    "running": ("running", "bold green"),
    "stopping": ("stopping", "bold yellow"),
    "finished": ("finished", "bold green"),
    "budget": ("budget spent", "bold yellow"),
    "interrupted": ("interrupted", "bold yellow"),
    "failed": ("failed", "bold red"),
}


@dataclass(frozen=True, slots=True)
class _Block:
    """Lines that are shown together or not at all. rank: the lower, the longer it is kept as room gets less.
    spaced: an empty line stands before it where there is room."""

    rank: int
    lines: tuple[Text, ...]
    spaced: bool = False


def render(snapshot: Snapshot, width: int, now_s: float, height: int = NO_HEIGHT) -> Text:
    """The run as at most `height` lines, each narrower than `width` columns, so that no terminal wraps one.

    now_s: seconds since 1970, by which a run whose process is gone is told from one that goes on.
    """
    width = max(width, LEAST_WIDTH) - 1
    blocks = list(_blocks(snapshot, width, now_s))
    kept: list[_Block] = []
    left = max(1, height)
    for block in sorted(blocks, key=lambda block: block.rank):
        if len(block.lines) <= left:
            kept.append(block)
            left -= len(block.lines)
    most = min(left, _most_change_lines(height))
    change = _change(snapshot, width, most)
    left -= len(change)
    gaps = [block for block in kept if block.spaced][: max(0, left)]
    lines: list[Text] = []
    for block in blocks:
        if block in kept:
            lines += [Text()] * (block in gaps) + list(block.lines)
    return Text("\n").join([*lines, *change])


def state_words(snapshot: Snapshot, now_s: float) -> tuple[str, str]:
    """What the run does, and the style that goes with it."""
    if snapshot.state in ("running", "stopping") and not snapshot.is_alive(now_s):
        return "gone", "bold red"
    return _STATES[snapshot.state]


def last_seen(snapshot: Snapshot, now_s: float) -> str:
    """When the process of a run was seen last, by the clock and as an age."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.updated_s))
    return f"{at}, {clock(now_s - snapshot.updated_s)} ago"


def _blocks(snapshot: Snapshot, width: int, now_s: float) -> Iterator[_Block]:
    """In the order in which they stand, the change of the prompt left out."""
    yield _Block(0, (_head(snapshot, width, now_s),))
    yield _Block(1, (_levels(snapshot, width),))
    if snapshot.command not in _WITHOUT_SCORES:
        yield _Block(2, (_best(snapshot, width),))
    if len(snapshot.path) > 1:
        yield _Block(6, (_path(snapshot.path, width),))
    yield _Block(4, (_labelled("time", _times(snapshot, now_s), width),))
    yield _Block(5, (_labelled("calls", _calls(snapshot), width),))
    yield _Block(3, (_cost(snapshot, width),))
    if snapshot.roles:
        yield _Block(7, tuple(role_rows(snapshot, width)), spaced=True)
    if snapshot.said:
        yield _Block(8, (_labelled("notice", one_line(snapshot.said), width),), spaced=True)


def _head(snapshot: Snapshot, width: int, now_s: float) -> Text:
    word, style = state_words(snapshot, now_s)
    line = Text().append(cut(f"drpo {one_line(snapshot.command)}", width - len(word) - 2), "bold")
    line.append("  ").append(word, style)
    simulated = "simulated" if snapshot.simulated else ""
    room = width - cells(line.plain) - 2 - (len(simulated) + 2 if simulated else 0)
    run = cut_before(one_line(snapshot.run), room)
    if run:
        line.append(f"  {run}", "dim")
    gap = width - cells(line.plain) - len(simulated)
    if simulated and gap > 0:
        line.append(" " * gap).append(simulated, "magenta")
    return line


def _levels(snapshot: Snapshot, width: int) -> Text:
    line = label(UNITS.get(snapshot.command, "level"))
    done, limit = snapshot.levels, snapshot.limit
    told = f"{done} of {'?' if limit is None else limit}"
    nodes = "" if snapshot.command in COMMANDS else f"   {snapshot.nodes:,} tried"
    nodes += f", {snapshot.dropped:,} dropped" if snapshot.dropped else ""
    room = width - LABEL - len(told) - 2
    if room < len(nodes) + _LEAST_BAR:
        nodes = ""
    bar = min(_LONGEST_BAR, room - len(nodes))
    if bar >= _LEAST_BAR:
        full = 0 if not limit else max(0, min(bar, bar * done // limit))
        line.append("█" * full, "green").append("░" * (bar - full), "dim").append("  ")
    return line.append(told, "bold").append(nodes, "dim")


def _best(snapshot: Snapshot, width: int) -> Text:
    is_mean = snapshot.command in UNITS
    line = label("mean" if is_mean else "best")
    if snapshot.best is None:
        line.append("not scored yet")
    elif not is_mean and len(snapshot.path) < 2:
        return _cropped(line.append(f"{snapshot.best:.2f}", "bold").append(", the start's reward"), width)
    else:
        line.append(f"{snapshot.best:.2f}", "bold").append(f" {_SCORES.get(snapshot.command, 'path score')}")
    if snapshot.start_reward is not None:
        line.append(f", the start's reward {snapshot.start_reward:.2f}", "dim")
    return _cropped(line, width)


def _path(path: Sequence[float | None], width: int) -> Text:
    """The rewards from the start to the best; where there is no room, those in the middle are left out."""
    told = ["-" if reward is None else f"{reward:.2f}" for reward in path]
    arrow, room = " → ", width - LABEL
    shown = arrow.join(told)
    most = len(told) - 1
    while len(shown) > room and most > 1:
        most -= 1
        shown = arrow.join([told[0], "…", *told[-most:]])
    return _labelled("path", shown, width)


def _times(snapshot: Snapshot, now_s: float) -> str:
    so_far = clock(snapshot.elapsed_s)
    if not snapshot.is_alive(now_s):
        return so_far
    left = "not known yet" if snapshot.left_s is None else f"about {clock(snapshot.left_s)}"
    return f"{so_far} so far, left: {left}"


def _cost(snapshot: Snapshot, width: int) -> Text:
    """What was spent; what is not known is said to be so, never taken for nothing."""
    line = label("cost")
    line.append("unknown" if snapshot.usd is None else dollars(snapshot.usd), "bold")
    if snapshot.max_usd is not None:
        line.append(", the limit is " if snapshot.usd is None else " of ").append(dollars(snapshot.max_usd))
    told = []
    if snapshot.held_usd > _NO_USD:
        told.append(f"up to {dollars(snapshot.held_usd)} held for calls without an answer")
    if snapshot.usd is None:
        unpriced = [one_line(role) for role in in_order(snapshot.roles) if snapshot.roles[role].usd is None]
        told += [f"no price for {', '.join(unpriced)}"] if unpriced else []
    more = "".join(f", {part}" for part in told)
    if cells(line.plain + more) > width:
        more = more.replace(" for calls without an answer", "")
    return _cropped(line.append(more, "dim"), width)


def _calls(snapshot: Snapshot) -> str:
    told = f"{snapshot.calls:,}" + ("" if snapshot.max_calls is None else f" of {snapshot.max_calls:,}")
    return told + (f", {snapshot.recorded:,} more from the record" if snapshot.recorded else "")


def _change(snapshot: Snapshot, width: int, limit: int) -> list[Text]:
    """The newest prompt's change under an empty line, in at most `limit` lines altogether."""
    lines = change_lines(snapshot.change, width - LABEL, limit - 1)
    return [
        *([Text()] if lines else []),
        *(label("" if number else "change").append_text(line) for number, line in enumerate(lines)),
    ]


def _most_change_lines(height: int) -> int:
    """Lines for the change with the empty one above it: more on a high terminal, which has the room."""
    return _LEAST_CHANGE if height == NO_HEIGHT else min(_MOST_CHANGE, max(_LEAST_CHANGE, height // 3))


def _labelled(name: str, text: str, width: int) -> Text:
    return label(name).append(cut(text, width - LABEL))


def _cropped(line: Text, width: int) -> Text:
    """A line of ours, cut where it is too long."""
    return line if cells(line.plain) <= width else line[: width - 1].append("…")
