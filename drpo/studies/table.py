"""A study as a Markdown table, from the plain values of its table.json. Texts of others stay texts."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
SIMULATED = "Simulated models: these figures say nothing about real ones."
_MARKS = frozenset("\\`*_{}[]<>|#~&")
_FAILED = "failed"
_SHOWN = 300


def markdown(table: Json) -> str:
    """The text of table.md."""
    return "\n".join(_lines(table)) + "\n"


def plain(text: str, mark: bool = True) -> str:
    """A text of somebody else's as one line without control characters, its Markdown marks escaped."""
    seen = "".join(c if not unicodedata.category(c).startswith("C") else " " for c in text)
    line = " ".join(seen.split())
    return "".join(f"\\{c}" if c in _MARKS else c for c in line) if mark else line


def number(value: float | None, digits: int = 2) -> str:
    """A figure as it is shown."""
    return "-" if value is None else f"{value:.{digits}f}"


def _lines(table: Json) -> Iterator[str]:
    rows: Sequence[Json] = table["rows"]
    simulated = " (simulated)" if table["simulated"] else ""
    yield f"# {table['title']}{simulated}"
    yield ""
    if table["simulated"]:
        yield f"**{SIMULATED}**"
        yield ""
    yield from _table(table, rows)
    yield ""
    yield from (f"- {note}" for note in _notes(table, rows))
    failed = [(row, message) for row in rows for message in row["failed"]]
    if failed:
        yield ""
        yield "Failed, and therefore without a figure:"
        yield ""
        yield from dict.fromkeys(f"- {_name(row)}: {_shortened(message)}" for row, message in failed)


def _table(table: Json, rows: Sequence[Json]) -> Iterator[str]:
    aspects = next((list(row["general"]["aspects"]) for row in rows if row["general"]), [])
    repeats = table["repeats"]
    level = f"{table['level']:.0%}"
    heads = [*table["head"], *aspects, "overall", f"{level} interval"]
    heads += ["range"] * (repeats > 1) + ["difference", f"{level} interval"]
    heads += ["variance", "wins", f"{level} interval"] * bool(table.get("tells_wins"))
    heads += ["safety", f"{level} interval"] * any(row["safety"] for row in rows)
    heads += ["queries"] + ["prompts tried"] * bool(table["counts_prompts"])
    heads += ["search calls", "evaluation calls"]
    yield _line(heads)
    yield _line(["---"] * len(table["head"]) + ["---:"] * (len(heads) - len(table["head"])))
    for row in rows:
        yield _line(
            [*map(plain, row["columns"]), *_cells(row, len(heads) - len(table["head"]), table, aspects)]
        )


def _cells(row: Json, width: int, table: Json, aspects: Sequence[str]) -> Iterator[str]:
    """What stands in a row behind its first columns: `width` cells."""
    general, safety, count = row["general"], row["safety"], max(1, row["repeats"])
    if general is None:
        yield from [_FAILED] * (len(aspects) + 1)
        yield from ["-"] * (width - len(aspects) - 1)
        return
    yield from (number(general["aspects"][aspect]["mean"]) for aspect in aspects)
    yield number(general["overall"]["mean"]) + f" ({len(row['failed'])} failed)" * bool(row["failed"])
    yield _interval(general["overall"])
    if table["repeats"] > 1:
        known = [mean for mean in general["repeats"] if mean is not None]
        yield f"{min(known):.2f} to {max(known):.2f}" if len(known) > 1 else "-"
    yield from _difference(row)
    if table.get("tells_wins"):
        yield number(row["variance"])
        yield from _wins(row)
    if any(other["safety"] for other in table["rows"]):
        yield "-" if safety is None else number(safety["overall"]["mean"])
        yield "-" if safety is None else _interval(safety["overall"])
    yield f"{general['queries']} + {safety['queries']}" if safety else str(general["queries"])
    if table["counts_prompts"]:
        yield f"{sum(row['prompts']) / count:.0f}"
    yield from (f"{row[part]['calls'] / count:.0f}" for part in ("searches", "evaluations"))


def _difference(row: Json) -> Iterator[str]:
    if row["against"] is None:
        yield from ("\\*", "")
        return
    found = row["difference"]
    if found is None or found["mean"] is None:
        yield from ("-", "-")
        return
    yield f"{found['mean']:+.2f}"
    yield "-" if found["low"] is None else f"[{found['low']:+.2f}, {found['high']:+.2f}]"


def _wins(row: Json) -> Iterator[str]:
    found = row["wins"]
    if found is None or found["mean"] is None:
        yield from ("\\*" if row["against"] is None else "-", "" if row["against"] is None else "-")
        return
    yield f"{found['mean']:.1%}"
    yield "-" if found["low"] is None else f"[{found['low']:.1%}, {found['high']:.1%}]"


def _interval(estimate: Json) -> str:
    return "-" if estimate["low"] is None else f"[{estimate['low']:.2f}, {estimate['high']:.2f}]"


def _notes(table: Json, rows: Sequence[Json]) -> Iterator[str]:
    yield from table["notes"]
    several = table["repeats"] > 1
    yield (
        "Scores of one judge, 1 to 5, of greedy responses to the same queries; overall: the mean of the "
        "aspects' means on the general queries; safety: the mean on the safety queries, which stand apart; "
        "difference: overall less that of the row marked \\*, query by query."
    )
    yield (
        "Intervals are bootstrapped over the queries: they say how well these queries tell what these "
        "prompts are worth, and nothing of what other searches would find."
    )
    if several:
        yield (
            f"Searches differ by luck: a row of {table['repeats']} searches shows the mean of each query "
            "over them, and the range from the worst to the best of them. A difference smaller than the "
            "ranges may be luck, whatever its interval."
        )
    kept = [(row, row["kept_initial"]) for row in rows if row["kept_initial"]]
    for row, count in kept:
        yield (
            f"{_name(row)}: after {count} of {row['repeats']} searches the validation found nothing "
            "better than the initial prompt, which is what was evaluated."
        )
    cost = table["cost"]
    usd = "not every price is known" if cost["usd"] is None else f"${cost['usd']:.2f}"
    yield (
        "Calls are per search and per evaluation, answered ones of all roles. The figures took "
        f"{cost['runs']} runs, some of them shared between rows, with {cost['calls']:,} calls, "
        f"{usd} altogether."
    )
    yield (
        f"Base models: {_told(table['models'])}; judge: {_told(table['judges'])}; queries: "
        f"{plain(table['data'])}."
    )


def _shortened(message: str) -> str:
    return plain(message if len(message) <= _SHOWN else f"{message[: _SHOWN - 1]}…")


def _told(names: Sequence[str]) -> str:
    return ", ".join(map(plain, names))


def _name(row: Json) -> str:
    return ", ".join(map(plain, row["columns"]))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
