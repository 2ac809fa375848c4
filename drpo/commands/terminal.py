"""Text of models on a terminal: shown, never obeyed."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from drpo.text_diff import Part

_OF_CONTROL = ("Cc", "Cf", "Cs")
_MARKS = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
_STYLES: dict[str, dict[str, Any]] = {
    "same": {},
    "removed": {"fg": "red", "strikethrough": True},
    "added": {"fg": "green", "bold": True},
}


def safe(text: str) -> str:
    """`text` with control characters (escape sequences, bells, direction overrides) made visible."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in _OF_CONTROL else f"\\u{ord(c):04x}" for c in text
    )


def line_of(text: str) -> str:
    """`text` as one safe line, blanks and line breaks as single spaces."""
    return " ".join(safe(text).split())


def is_styled() -> bool:
    """Whether stdout shows styles: it is a terminal, and nobody has asked for none (NO_COLOR)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def styled(text: str, **style: Any) -> str:
    """`text` in a style of `click.style`, where stdout shows styles. Line by line, as pagers want it."""
    if not is_styled() or not style:
        return text
    return "\n".join(click.style(line, **style) if line else line for line in text.split("\n"))


def diff_text(parts: Sequence[Part]) -> str:
    """A change to be read with or without colours: what was removed and added is marked as by
    `git diff --word-diff`. Safe for a terminal."""
    told = []
    for part in parts:
        before, after = _MARKS[part.change]
        told.append(styled(f"{before}{safe(part.text)}{after}", **_STYLES[part.change]))
    return "".join(told)


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> list[str]:
    """Lines of a table, the headings first; those named in `right` stand on the right of their column.

    Nothing is cut or folded. Cells are taken as they are: they must be safe, and of one line.
    """
    table = [headings, *rows]
    widths = [max(_width(row[at]) for row in table) for at in range(len(headings))]
    lines = []
    for row in table:
        cells = []
        for heading, cell, width in zip(headings, row, widths, strict=True):
            blanks = " " * (width - _width(cell))
            cells.append(blanks + cell if heading in right else cell + blanks)
        lines.append("  ".join(cells).rstrip())
    return [styled(lines[0], bold=True), *lines[1:]]


def _width(text: str) -> int:
    """Columns of a terminal that `text` takes."""
    if text.isascii():
        return len(text)
    return sum(_columns_of(c) for c in text)


def _columns_of(c: str) -> int:
    if unicodedata.combining(c) or unicodedata.category(c) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def print_json(value: object) -> None:
    """One JSON document on stdout; escapes where the output cannot hold every character, and for what would
    drive a terminal."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, ensure_ascii=True, indent=2, allow_nan=False)
    click.echo("".join(c if _is_shown(c) else json.dumps(c)[1:-1] for c in text))


def _is_shown(c: str) -> bool:
    return c == "\n" or c.isascii() or unicodedata.category(c) not in _OF_CONTROL


def print_table(table: Table, least_width: int = 0) -> None:
    """The table on stdout, as wide as the terminal, but no narrower than `least_width`. Not by rich itself,
    which ends a program with exit code 1 when whoever reads it leaves."""
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    console.width = max(console.width, least_width)
    with console.capture() as captured:
        console.print(table)
    click.echo(captured.get(), nl=False)
