"""Rewards as shades, numbers and words that everybody can tell apart."""

from __future__ import annotations

SHADES = 9
"""From 1 to 5 in halves; the stylesheet has a class for each, light enough or dark enough for its text."""


def shade(reward: float) -> str:
    """The CSS class of a reward, `r0` (1 and less) to `r8` (5)."""
    return f"r{min(SHADES - 1, max(0, round((reward - 1) * 2)))}"


def number(value: float | None, digits: int = 2) -> str:
    """`3.50`, and an en dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def count(value: int) -> str:
    """`12,345`"""
    return f"{value:,}"


def duration(seconds: float) -> str:
    """`35 ms`, `3.2 s`, `4 min 05 s`, `2 h 07 min`"""
    if seconds < 0.95:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def plural(value: int, one: str, many: str | None = None) -> str:
    """`1 node`, `2 nodes`"""
    return f"{value:,} {one if value == 1 else many or one + 's'}"
