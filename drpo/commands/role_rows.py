"""The requests of each role as rows of figures, and how figures are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.text import Text

from drpo.commands.change_lines import cut, one_line
from drpo.llm.base import ROLES
from drpo.money import dollars
from drpo.progress import RoleProgress, Snapshot

LABEL = 10
"""Columns that the name of a line takes."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table. least: the width of the line from which on it is shown."""

    name: str
    width: int
    least: int


_WIDE = (
    *(_Column("in the air", 11, 0), _Column("done", 8, 0), _Column("failed", 8, 0), _Column("retried", 9, 0)),
    *(_Column("tokens in", 11, 0), _Column("out", 8, 0), _Column("cost", 11, 0), _Column("s a call", 10, 88)),
)
_NARROW = (
    *(_Column("air", 5, 0), _Column("done", 6, 21), _Column("failed", 7, 28), _Column("retried", 8, 36)),
    *(_Column("in", 7, 52), _Column("out", 7, 59), _Column("cost", 9, 45)),
)
_WIDE_FROM = 78


def role_rows(snapshot: Snapshot, width: int) -> Iterator[Text]:
    """A row per role and one for all of them."""
    columns = [column for column in (_WIDE if width >= _WIDE_FROM else _NARROW) if column.least <= width]
    names = "".join(f"{column.name:>{column.width}}" for column in columns)
    yield label("role", "dim").append(names, "dim")
    rows = [(role, snapshot.roles[role]) for role in in_order(snapshot.roles)]
    if len(rows) > 1:
        rows.append(("all", _sum(snapshot)))
    for role, counts in rows:
        figures = dict(zip((column.name for column in _WIDE), _figures(counts), strict=True))
        figures.update({"air": figures["in the air"], "in": figures["tokens in"]})
        line = label(cut(one_line(role), LABEL - 1), "")
        for column in columns:
            text, style = figures[column.name]
            line.append(f"{text:>{column.width}}", style)
        if role == "all":
            line.stylize("bold")
        yield line


def _figures(counts: RoleProgress) -> tuple[tuple[str, str], ...]:
    """The cells of a row with their styles, in the order of the wide columns."""
    answered = counts.done + counts.failed
    mean = f"{counts.seconds / answered:.2f}" if answered else "-"
    return (
        (count(counts.in_air), "cyan" if counts.in_air else "dim"),
        (count(counts.done), ""),
        (count(counts.failed), "red" if counts.failed else "dim"),
        (count(counts.retried), "yellow" if counts.retried else "dim"),
        (count(counts.prompt_tokens), ""),
        (count(counts.completion_tokens), ""),
        ("unknown" if counts.usd is None else dollars(counts.usd), ""),
        (mean, "dim"),
    )


def in_order(roles: Mapping[str, RoleProgress]) -> list[str]:
    """The names of `roles`, those of a search first."""
    return [role for role in ROLES if role in roles] + [role for role in roles if role not in ROLES]


def _sum(snapshot: Snapshot) -> RoleProgress:
    """All roles together; the money as the run itself sums it."""
    names = ("in_air", "done", "failed", "retried", "prompt_tokens", "completion_tokens", "seconds")
    sums = {name: sum(getattr(counts, name) for counts in snapshot.roles.values()) for name in names}
    return RoleProgress(**sums, usd=snapshot.usd)


def label(name: str, style: str = "cyan") -> Text:
    """The first column. A `Text` of its own, so that what follows has no style of it."""
    return Text().append(f"{name:<{LABEL}}", style)


def clock(seconds: float) -> str:
    """65 -> 1:05, 3725 -> 1:02:05."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: int) -> str:
    """999 -> 999, 12345 -> 12.3k, 1234567 -> 1.23M: at most six characters up to a billion."""
    if number < 10_000:
        return str(number)
    return f"{number / 1e3:.1f}k" if number < 999_950 else f"{number / 1e6:.2f}M"
