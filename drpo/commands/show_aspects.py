"""The aspects of a run: how often each was chosen, and how well the responses did on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from drpo.commands.show_node import choose_tree, query_of
from drpo.commands.terminal import columns, line_of, print_json
from drpo.errors import InputError
from drpo.run_view import RunView, Tree
from drpo.types import left_to_right_sum


@dataclass(frozen=True, slots=True)
class AspectUse:
    """One aspect over all evaluations of a run. queries: the different ones for which it was chosen. scores:
    1 to 5, in the order of nodes; not_applicable: how often "N/A" stood there."""

    aspect: str
    queries: tuple[str, ...]
    scores: tuple[float, ...]
    not_applicable: int

    @property
    def mean(self) -> float | None:
        """None where it was never scored."""
        return left_to_right_sum(self.scores) / len(self.scores) if self.scores else None


def aspect_uses(view: RunView, trees: tuple[Tree, ...]) -> list[AspectUse]:
    """The aspects of all evaluations in `trees`, those with the lowest mean first, unscored ones last."""
    queries: dict[str, dict[str, None]] = {}
    scores: dict[str, list[float | None]] = {}
    for tree in trees:
        for node in tree.nodes:
            query = query_of(view, tree, node)
            for aspect, entry in (node.state["evaluation"] or {}).items():
                score = entry["score"]
                queries.setdefault(aspect, {})[query] = None
                scores.setdefault(aspect, []).append(score if isinstance(score, (int, float)) else None)
    uses = [
        AspectUse(
            aspect,
            tuple(queries[aspect]),
            tuple(score for score in found if score is not None),
            found.count(None),
        )
        for aspect, found in scores.items()
    ]
    return sorted(uses, key=lambda use: (float("inf") if use.mean is None else use.mean, use.aspect))


def print_aspects(view: RunView, example: int | None, as_json: bool) -> None:
    """The table on stdout, of one example's search where one is named."""
    is_one = view.command != "optimize-examples" or example is not None
    trees = (choose_tree(view, example),) if is_one else view.trees
    uses = aspect_uses(view, trees)
    evaluated = sum(node.state["evaluation"] is not None for tree in trees for node in tree.nodes)
    if as_json:
        rows = [_row_json(use) for use in uses]
        print_json({"run": str(view.path), "example": example, "evaluations": evaluated, "aspects": rows})
        return
    if not uses and not any(tree.levels for tree in trees):
        raise InputError(
            f"{view.path}: expected evaluations by aspects, found only a result: how it came about is not in "
            "events.jsonl yet, where examples come in their order. Its command, given again, goes on"
        )
    if not uses:
        raise InputError(f"{view.path}: expected evaluations by aspects, found none: no response was scored")
    rows_ = [
        (
            line_of(use.aspect),
            "-" if use.mean is None else f"{use.mean:.2f}",
            f"{min(use.scores):g}" if use.scores else "-",
            str(len(use.scores) + use.not_applicable),
            str(len(use.queries)),
            str(use.not_applicable or "-"),
        )
        for use in uses
    ]
    headings = ("aspect", "mean", "lowest", "chosen", "queries", "N/A")
    of_queries = len({query for use in uses for query in use.queries})
    click.echo("\n".join(columns(headings, rows_, headings[1:])))
    click.echo()
    click.echo(
        f"chosen: in how many of {evaluated} evaluations; queries: for how many of {of_queries}. "
        "Scores are 1 to 5, the lowest mean stands first."
    )


def _row_json(use: AspectUse) -> dict[str, Any]:
    return {
        "aspect": use.aspect,
        "chosen": len(use.scores) + use.not_applicable,
        "mean": use.mean,
        "lowest": min(use.scores, default=None),
        "not_applicable": use.not_applicable,
        "queries": list(use.queries),
    }
