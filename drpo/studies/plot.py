"""A study as an SVG, from the plain values of its table.json: equal values give equal bytes.

Colours are of Okabe and Ito's palette, which colour-blind readers can tell apart; marks differ in shape too.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drpo.studies.table import SIMULATED, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Json = Mapping[str, Any]
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "drpo",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.unicode_minus": False,
}
_LONGEST_LABEL = 60
_SCALE = "mean score of the general queries (1 to 5)"


def draw(table: Json) -> str:
    """The text of plot.svg. Raises ImportError where matplotlib is not installed."""
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as NewFigure

    with style.context(["default", _STYLE]):  # whatever the user's own matplotlibrc says
        rows = table["rows"]
        height = 4.0 if table["sweep"] else 1.6 + 0.32 * len(rows)
        figure = NewFigure(figsize=(7.0, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        (_sweep if table["sweep"] else _dots)(axes, table, rows)
        figure.suptitle(
            table["title"] + " (simulated)" * bool(table["simulated"]), fontsize=10, parse_math=False
        )
        if table["simulated"]:
            axes.set_title(SIMULATED, fontsize=7, color=GREY)
        _legend(figure, table)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _dots(axes: Axes, table: Json, rows: Sequence[Json]) -> None:
    """A line per row: mean and interval, and its single searches."""
    for place, row in enumerate(rows):
        _point(axes, row, place, along=True)
    labels = [plain(", ".join(row["columns"]), mark=False)[:_LONGEST_LABEL] for row in rows]
    axes.set_yticks(range(len(rows)), labels, parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_ylabel(", ".join(table["head"]), parse_math=False)
    axes.set_xlabel(_SCALE)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)


def _sweep(axes: Axes, table: Json, rows: Sequence[Json]) -> None:
    """A line over the values of the first column, which are numbers."""
    known = [row for row in rows if _has_mean(row)]
    for row in known:
        _point(axes, row, float(row["columns"][0]), along=False)
    places = [float(row["columns"][0]) for row in known]
    axes.plot(places, [row["general"]["overall"]["mean"] for row in known], color=BLUE, linewidth=1)
    axes.set_xticks([int(row["columns"][0]) for row in rows])
    axes.set_xlabel("K: examples shown with each query", parse_math=False)
    axes.set_ylabel(_SCALE)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)


def _point(axes: Axes, row: Json, place: float, *, along: bool) -> None:
    if not _has_mean(row):
        told = "failed" if row["general"] is None else "no score"
        axes.text(*_at(0.02, place, along), told, color=GREY, transform=_across(axes, along))
        return
    overall = row["general"]["overall"]
    singles = [mean for mean in row["general"]["repeats"] if mean is not None]
    if len(singles) > 1:
        x, y = (singles, [place] * len(singles)) if along else ([place] * len(singles), singles)
        axes.plot(x, y, linestyle="", marker="x", color=ORANGE, markersize=5, zorder=3)
    if overall["low"] is not None:
        ends, both = [overall["low"], overall["high"]], [place, place]
        axes.plot(*(ends, both) if along else (both, ends), color=BLUE, linewidth=1.6)
    axes.plot(*_at(overall["mean"], place, along), marker="o", color=BLUE, markersize=5, zorder=2)


def _has_mean(row: Json) -> bool:
    return row["general"] is not None and row["general"]["overall"]["mean"] is not None


def _at(value: float, place: float, along: bool) -> tuple[float, float]:
    return (value, place) if along else (place, value)


def _across(axes: Axes, along: bool) -> Any:
    return axes.get_yaxis_transform() if along else axes.get_xaxis_transform()


def _legend(figure: Figure, table: Json) -> None:
    """Below the axes, where it hides no mark."""
    from matplotlib.lines import Line2D

    label = f"mean and {table['level']:.0%} interval over queries"
    marks = [Line2D([], [], color=BLUE, marker="o", markersize=5, linewidth=1.6, label=label)]
    if table["repeats"] > 1:
        marks.append(
            Line2D([], [], color=ORANGE, marker="x", linestyle="", markersize=5, label="each single search")
        )
    figure.legend(handles=marks, fontsize=7, loc="outside lower center", ncols=2, frameon=False)
