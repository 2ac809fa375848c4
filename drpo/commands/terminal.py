"""Text of models on a terminal: shown, never obeyed."""

from __future__ import annotations

import json
import sys
import unicodedata

import click
from rich.console import Console
from rich.table import Table


def safe(text: str) -> str:
    """`text` with control characters (escape sequences, bells, direction overrides) made visible."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else f"\\u{ord(c):04x}"
        for c in text
    )


def print_json(value: object) -> None:
    """One JSON document on stdout; escapes where the output cannot hold every character."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, ensure_ascii=True, indent=2, allow_nan=False)
    click.echo(text)


def print_table(table: Table, least_width: int = 0) -> None:
    """The table on stdout, as wide as the terminal, but no narrower than `least_width`. Not by rich itself,
    which ends a program with exit code 1 when whoever reads it leaves."""
    console = Console(markup=False, highlight=False)
    console.width = max(console.width, least_width)
    with console.capture() as captured:
        console.print(table)
    click.echo(captured.get(), nl=False)
