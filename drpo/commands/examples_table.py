"""What `optimize-examples` found, on stdout."""

from __future__ import annotations

import shutil
from typing import Any

import click
from rich.table import Table

from drpo.commands.terminal import print_json, print_table, safe
from drpo.results import ExamplesResult
from drpo.validating_examples import ImprovedExample, examples_sentence
from drpo.validation.result import FloorCheck, Validation, interval_text


def print_examples(result: ExamplesResult, as_json: bool) -> None:
    """Each example's reward before and after, and what a validation came to: for people, or as JSON."""
    if as_json:
        data = {
            "out": str(result.out),
            "simulated": result.simulated,
            "calls": result.calls,
            **examples_data(result),
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
        table.add_row(
            safe(" ".join(item.before.query.split())),
            _number(item.reward_before),
            _number(item.reward_after if item.found is None else item.reward_found),
            _changed(item),
        )
    print_table(table)
    for line in validation_lines(result.validation):
        click.echo(line)


def examples_data(result: ExamplesResult) -> dict[str, Any]:
    """The rows of the table and the validation as plain JSON values."""
    rows = [
        {
            "query": item.before.query,
            "reward_before": item.reward_before,
            "reward_after": item.reward_after,
            "response": item.after.response,
            "ended": item.ended or None,
            **_found(item),
        }
        for item in result.examples
    ]
    validation = result.validation
    return {"examples": rows, "validation": None if validation is None else validation.as_dict()}


def _found(item: ImprovedExample) -> dict[str, Any]:
    if item.found is None:
        return {}
    return {"found": item.found.response, "reward_found": item.reward_found}


def validation_lines(validation: Validation | None) -> list[str]:
    """What the validation came to, in a few lines; none where there was none."""
    if validation is None:
        return []
    result = "improved" if validation.better else "original"
    lines = [
        f"validated   {examples_sentence(validation)}",
        f"            the result is the {result} examples",
    ]
    if validation.missing:
        lines.append(f"            {validation.missing} of {validation.asked} rewards could not be had")
    return [*lines, *map(_floor_line, validation.floors)]


def _floor_line(check: FloorCheck) -> str:
    change = "nothing could be measured" if check.change is None else f"{check.change:+.2f}"
    verdict = f", more than {check.allowed:g} below: they are refused" if check.refused else ""
    name = "safety" if check.name == "red-team" else "refusals"
    return f"{name:<12}{check.name} queries {change} {interval_text(check.low, check.high)}{verdict}"


def _changed(item: ImprovedExample) -> str:
    """What became of the response; one that the search improved may still not be handed over."""
    if item.found is not None and item.found != item.before:
        return "not kept"
    return "improved" if item.after != item.before else "unchanged"


def _number(reward: float | None) -> str:
    return "-" if reward is None else f"{reward:.2f}"
