"""The lambda curve as an SVG, from the plain values of summary.json: equal values give equal bytes.

Colours are of Okabe and Ito's palette, which colour-blind readers can tell apart; marks differ too.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Json = Mapping[str, Any]
NAME = "curve.svg"
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "drpo",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.unicode_minus": False,
}
_LEVELS = (("reference", "reference prompter", BLUE, ":"), ("best", "best of the samples", GREEN, "-."))


def draw(summary: Json) -> str:
    """The text of curve.svg: reward and KL over lambda. Raises ImportError without matplotlib."""
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):  # whatever the user's own matplotlibrc says
        figure = Figure(figsize=(7.0, 5.0), layout="constrained")
        FigureCanvasSVG(figure)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        points = [row for row in summary["rows"] if row["kind"] == "lambda"]
        _rewards(above, summary, points)
        _divergences(below, points)
        if summary["simulated"]:
            above.set_title("simulated models", fontsize=7, color=GREY)
        figure.legend(fontsize=7, loc="outside lower center", ncols=4, frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _rewards(axes: Axes, summary: Json, points: Sequence[Json]) -> None:
    _line(axes, points, "reward", BLUE, "o", "rho*")
    by_kind = {row["kind"]: row["reward"]["mean"] for row in summary["rows"]}
    levels = [(by_kind.get(kind), label, colour, dash) for kind, label, colour, dash in _LEVELS]
    levels.append((summary["own"]["reward"]["mean"], "no prompter", GREY, "--"))
    if summary["policy"] is not None:
        levels.append((summary["policy"]["reward"]["mean"], "aligned policy", ORANGE, "-"))
    for mean, label, colour, dash in levels:
        if mean is not None:
            axes.axhline(mean, color=colour, linestyle=dash, linewidth=1, label=label)
    axes.set_ylabel("mean reward")
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)


def _divergences(axes: Axes, points: Sequence[Json]) -> None:
    _line(axes, points, "kl", ORANGE, "s", "KL(rho*||reference)")
    axes.set_xscale("log")
    axes.set_xlabel("lambda", parse_math=False)
    axes.set_ylabel("KL, nats")
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)


def _line(axes: Axes, points: Sequence[Json], name: str, colour: str, mark: str, label: str) -> None:
    """Means over lambda with their intervals."""
    places = [row["lambda"] for row in points]
    means = [row[name]["mean"] for row in points]
    axes.plot(places, means, color=colour, marker=mark, markersize=4, label=label)
    for place, row in zip(places, points, strict=True):
        if row[name]["low"] is not None:
            axes.plot([place, place], [row[name]["low"], row[name]["high"]], color=colour, linewidth=1.4)
