"""What `optimize-examples` found, on stdout."""

from __future__ import annotations

import shutil

from rich.table import Table

from drpo.commands.terminal import print_json, print_table, safe
from drpo.results import ExamplesResult


def print_examples(result: ExamplesResult, as_json: bool) -> None:
    """Each example's reward before and after: a table for people, or JSON."""
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
        data = {
            "out": str(result.out),
            "simulated": result.simulated,
            "calls": result.calls,
            "examples": rows,
        }
        print_json(data)
        return
    table = Table(title="Rewards, 1 to 5" + (" (simulated models)" if result.simulated else ""))
    others = 38  # what the other columns and the lines between them take
    width = min(60, max(20, shutil.get_terminal_size().columns - others))
    table.add_column("example", overflow="ellipsis", no_wrap=True, max_width=width)
    for heading in ("before", "after"):
        table.add_column(heading, justify="right")
    table.add_column("response")
    for item in result.examples:
        changed = "improved" if item.after != item.before else "unchanged"
        table.add_row(
            safe(" ".join(item.before.query.split())),
            _number(item.reward_before),
            _number(item.reward_after),
            changed,
        )
    print_table(table)


def _number(reward: float | None) -> str:
    return "-" if reward is None else f"{reward:.2f}"
