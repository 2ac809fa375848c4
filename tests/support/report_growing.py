"""Runs that are told level by level, as to a report that follows them."""

from __future__ import annotations

from pathlib import Path

from drpo.events import Event
from drpo.run_view import Tree
from tests.support.report_page import Document


def levels_of(tree: Tree) -> list[list[Event]]:
    """The events of a search, level by level as they were told."""
    above = {node.id: node.depth for node in tree.nodes}
    levels: list[list[Event]] = [
        [
            *(node for node in tree.nodes if node.depth == level.level),
            *(dropped for dropped in tree.dropped if above[dropped.parent] + 1 == level.level),
            level,
        ]
        for level in tree.levels
    ]
    return levels if tree.end is None else [*levels, [tree.end]]


def tiles(path: Path) -> int:
    """How many nodes the report in a run directory has."""
    page = Document((path / "report.html").read_text(encoding="utf-8"))
    return sum(element.attributes.get("role") == "treeitem" for element in page.elements)
