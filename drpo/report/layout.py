"""Where the nodes of a search stand on the page: a level is a row, and no two edges cross."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from drpo.events import ProposalDropped
from drpo.report.facts import NodeFacts, TreeFacts
from drpo.report.scale import shade

LINE_MOST = 12
"""A level of more nodes takes several lines."""
TILE_WIDTH, TILE_HEIGHT = 40, 26
_CELL_WIDTH, _LINE_HEIGHT, _LEVEL_GAP, _LABEL_WIDTH, _MARGIN = 46, 34, 26, 34, 6


@dataclass(frozen=True, slots=True)
class Tile:
    """A node, or (`node` is None) a dropped proposal, `number` of them being `dropped` in the tree.

    x, y: its upper left corner. look: CSS classes. place, places: which of its siblings it is, from 1. says:
    what it is, in words, without any foreign text.
    """

    node: NodeFacts | None
    number: int
    depth: int
    parent: int | None
    x: int
    y: int
    look: str
    label: str
    place: int
    places: int
    says: str


@dataclass(frozen=True, slots=True)
class Edge:
    """A line from a node to one made from it. d: an SVG path. look: CSS classes."""

    d: str
    look: str


@dataclass(frozen=True, slots=True)
class Row:
    """A level: its name and the middle of its first line."""

    name: str
    y: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A search as a drawing. Sizes in CSS pixels; tiles depth first, as a screen reader goes through them."""

    width: int
    height: int
    rows: tuple[Row, ...]
    edges: tuple[Edge, ...]
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class _Item:
    """Something that gets a tile."""

    node: NodeFacts | None
    dropped: ProposalDropped | None
    number: int
    depth: int
    parent: int | None
    place: int
    places: int


def picture(tree: TreeFacts) -> Picture:
    """The drawing of a search; of no size before the first level is done."""
    items = _depth_first(tree)
    levels: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(items):  # depth first keeps the order of the parents within each level
        levels[item.depth].append(index)
    lines = {depth: _lines(indices) for depth, indices in levels.items()}
    columns = max((len(line) for level in lines.values() for line in level), default=0)
    width = _LABEL_WIDTH + columns * _CELL_WIDTH + _MARGIN
    at: dict[int, tuple[int, int]] = {}
    rows: list[Row] = []
    bounds: list[tuple[int, int]] = []  # per level: where the one above it ends, where it begins
    y = _MARGIN
    for depth in sorted(lines):
        rows.append(Row(str(depth + 1), y + TILE_HEIGHT // 2))
        bounds.append((y - _LEVEL_GAP - _LINE_HEIGHT + TILE_HEIGHT, y))
        for line in lines[depth]:
            left = _LABEL_WIDTH + (columns - len(line)) * _CELL_WIDTH // 2 + (_CELL_WIDTH - TILE_WIDTH) // 2
            for place, index in enumerate(line):
                at[index] = (left + place * _CELL_WIDTH, y)
            y += _LINE_HEIGHT
        y += _LEVEL_GAP
    path = {node.id for node in tree.path}
    corners = {item.node.id: at[index] for index, item in enumerate(items) if item.node is not None}
    tiles = tuple(_tile(item, at[index], tree, path) for index, item in enumerate(items))
    edges = [
        _edge(tile, corners[tile.parent], bounds[tile.depth], tree, path)
        for tile in tiles
        if tile.parent is not None
    ]
    edges.sort(key=lambda edge: len(edge.look))  # what matters more is drawn above the rest
    return Picture(width, max(0, y - _LEVEL_GAP), tuple(rows), tuple(edges), tiles)


def _depth_first(tree: TreeFacts) -> list[_Item]:
    """Nodes and dropped proposals, each behind its parent; the proposals that became nothing stand last."""
    children: dict[int, list[tuple[NodeFacts | None, ProposalDropped | None, int]]] = defaultdict(list)
    for node in tree.nodes:
        if node.parent is not None:
            children[node.parent].append((node, None, node.id))
    for number, dropped in enumerate(tree.dropped):
        children[dropped.parent].append((None, dropped, number))
    items: list[_Item] = []
    waiting = [_Item(tree.root, None, tree.root.id, 0, None, 1, 1)] if tree.root else []
    while waiting:
        item = waiting.pop()
        items.append(item)
        if item.node is not None:
            found = children[item.node.id]
            waiting += [
                _Item(node, dropped, number, item.depth + 1, item.number, place, len(found))
                for place, (node, dropped, number) in reversed(list(enumerate(found, 1)))
            ]
    return items


def _lines(indices: Sequence[int]) -> list[Sequence[int]]:
    count = math.ceil(len(indices) / LINE_MOST)
    each = math.ceil(len(indices) / count)
    return [indices[start : start + each] for start in range(0, len(indices), each)]


def _tile(item: _Item, at: tuple[int, int], tree: TreeFacts, path: set[int]) -> Tile:
    node = item.node
    if node is None:
        look, label, said = "n gone", "✕", [f"dropped proposal {item.number + 1}"]
    else:
        look, label, said = _node_look(node, tree, path)
    return Tile(
        node, item.number, item.depth, item.parent, *at, look, label, item.place, item.places, ", ".join(said)
    )


def _node_look(node: NodeFacts, tree: TreeFacts, path: set[int]) -> tuple[str, str, list[str]]:
    looks, said = ["n"], [f"node {node.id}"]
    label = "?" if node.reward is None else f"{node.reward:.2f}"
    if node.reward is None:
        looks.append("unscored")
        said.append("no reward")
    else:
        looks.append(shade(node.reward))
        said.append(f"reward {node.reward:.2f}")
    if node.kept:
        looks.append("kept")
        said.append("kept unchanged")
    if node.id in tree.beam:
        looks.append("beam")
        said.append("in the beam")
    if node.id in path:
        looks.append("path")
        said.append("on the path to the best")
    if tree.best is not None and node.id == tree.best.id:
        looks.append("best")
        said.append("the result" if tree.end else "the best so far")
    return " ".join(looks), label, said


def _edge(
    tile: Tile, above: tuple[int, int], bounds: tuple[int, int], tree: TreeFacts, path: set[int]
) -> Edge:
    """Straight down behind the lines of both levels, bent within `bounds`: between the two."""
    (x, y), (bottom, top) = (above[0] + TILE_WIDTH // 2, above[1] + TILE_HEIGHT), bounds
    to_x, middle = tile.x + TILE_WIDTH // 2, (bottom + top) // 2
    look = "e"
    if tile.node is not None and tile.number in tree.beam:
        look = "e beam path" if tile.number in path else "e beam"
    start = f"M{x},{y}" if y == bottom else f"M{x},{y}V{bottom}"
    end = "" if tile.y == top else f"V{tile.y}"
    return Edge(f"{start}C{x},{middle} {to_x},{middle} {to_x},{top}{end}", look)
