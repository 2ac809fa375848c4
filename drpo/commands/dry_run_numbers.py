"""Figures and sentences of a dry run as text."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

from drpo.estimate.ranges import Range
from drpo.money import dollars


def wrapped(text: str, indent: str) -> list[str]:
    """Lines as wide as the terminal, 60 to 100 columns; all but the first begin with `indent`."""
    width = min(100, max(60, shutil.get_terminal_size().columns))
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def three(said: Range) -> tuple[float, float, float | None]:
    """Least, expected, most."""
    return said.least, said.expected, said.most


def whole(said: Range) -> list[str]:
    """Least, expected and most as whole numbers."""
    most = "no limit" if said.most is None else f"{said.most:,.0f}"
    return [f"{said.least:,.0f}", f"{said.expected:,.0f}", most]


def short(tokens: float | None) -> str:
    """12k, 3.4M: two figures are what these are good for."""
    if tokens is None:
        return "no limit"
    for size, mark in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size * 0.9995:
            return f"{tokens / size:.1f}{mark}" if tokens < 10 * size else f"{tokens / size:,.0f}{mark}"
    return f"{tokens:.0f}"


def money(usd: float | None) -> str:
    """A sum of dollars; None: nothing bounds it."""
    return "no limit" if usd is None else dollars(usd)
