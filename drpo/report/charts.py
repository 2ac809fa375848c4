"""Rewards as two small drawings, each with its figures for a table beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drpo.report.facts import NodeFacts, TreeFacts
from drpo.types import left_to_right_sum

LOWEST, HIGHEST = 1, 5
_PLOT_HEIGHT, _TOP, _LEFT, _RIGHT = 168, 12, 30, 16
_WIDEST_STEP, _NARROWEST_STEP, _WANTED_WIDTH = 52, 22, 640


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis, in CSS pixels."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A reward on the drawing; `kind` is its CSS class."""

    x: float
    y: float
    kind: str


@dataclass(frozen=True, slots=True)
class LevelFigures:
    """What a level came to. number: from 1, the start. tried: nodes made, kept ones included. best, mean:
    of their rewards. on_path: the reward of the node on the path to the best. score: of the beam's best."""

    number: int
    tried: int
    dropped: int
    best: float | None
    mean: float | None
    on_path: float | None
    score: float | None
    limit: int
    stalled: bool


@dataclass(frozen=True, slots=True)
class RewardChart:
    """Rewards by level. `path` and `means` are the points of two lines; where a reward is missing they are
    interrupted, so each is several stretches."""

    width: int
    height: int
    bottom: int
    left: int
    xs: tuple[Tick, ...]
    ys: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    path: tuple[str, ...]
    means: tuple[str, ...]


def level_figures(tree: TreeFacts) -> tuple[LevelFigures, ...]:
    """The figures of each level that is done."""
    on_path = {node.depth: node.reward for node in tree.path}
    figures: list[LevelFigures] = []
    for level in tree.levels:
        nodes = [node for node in tree.nodes if node.depth == level.level]
        rewards = [node.reward for node in nodes if node.reward is not None]
        figures.append(
            LevelFigures(
                number=level.level + 1,
                tried=len(nodes),
                dropped=sum(tree.by_id[d.parent].depth + 1 == level.level for d in tree.dropped),
                best=max(rewards, default=None),
                mean=mean(rewards),
                on_path=on_path.get(level.level),
                score=tree.by_id[level.beam[0]].score if level.beam else None,
                limit=level.limit,
                stalled=level.stalled,
            )
        )
    return tuple(figures)


def mean(values: Sequence[float]) -> float | None:
    """Their mean, None where there are none."""
    return left_to_right_sum(values) / len(values) if values else None


def reward_chart(tree: TreeFacts, figures: Sequence[LevelFigures]) -> RewardChart:
    """The rewards of all nodes, the means of the levels and the path to the best."""
    levels = len(figures)
    step = min(_WIDEST_STEP, max(_NARROWEST_STEP, _WANTED_WIDTH // max(1, levels)))

    def x(level: int) -> float:
        return _LEFT + step * (level + 0.5)

    dots = {Dot(x(n.depth), height_of(n.reward), "any") for n in tree.nodes if n.reward is not None}
    dots |= {Dot(x(f.number - 1), height_of(f.mean), "mean") for f in figures if f.mean is not None}
    dots |= {Dot(x(n.depth), height_of(n.reward), "path") for n in tree.path if n.reward is not None}
    every = max(1, -(-26 // step) if levels > 9 else 1)  # labels of two digits need some 26 pixels
    bottom = _TOP + _PLOT_HEIGHT
    return RewardChart(
        width=_LEFT + step * max(1, levels) + _RIGHT,
        height=bottom + 36,
        bottom=bottom,
        left=_LEFT,
        xs=tuple(Tick(x(f.number - 1), str(f.number)) for f in figures if (f.number - 1) % every == 0),
        ys=tuple(Tick(height_of(reward), str(reward)) for reward in range(LOWEST, HIGHEST + 1)),
        dots=tuple(sorted(dots, key=lambda dot: (["any", "mean", "path"].index(dot.kind), dot.x, dot.y))),
        path=_stretches([f.on_path for f in figures], x),
        means=_stretches([f.mean for f in figures], x),
    )


def height_of(reward: float) -> float:
    """Where a reward stands, from above; one below 1 (`--unreadable zero`) stands at the bottom."""
    share = (max(LOWEST, reward) - LOWEST) / (HIGHEST - LOWEST)
    return round(_TOP + _PLOT_HEIGHT * (1 - share), 1)


def _stretches(rewards: Sequence[float | None], x: Callable[[int], float]) -> tuple[str, ...]:
    """Polylines through what is there."""
    stretches: list[list[str]] = [[]]
    for level, reward in enumerate(rewards):
        if reward is None:
            stretches.append([])
        else:
            stretches[-1].append(f"{x(level)},{height_of(reward)}")
    return tuple(" ".join(points) for points in stretches if len(points) > 1)


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """An example before and after; `best` is None before its first level is done, else the best so far.

    x_before, x_after: where the rewards stand on a line, in CSS pixels.
    """

    number: int
    tree: TreeFacts | None
    query: str
    before: float | None
    after: float | None
    x_before: float | None
    x_after: float | None
    y: int

    @property
    def best(self) -> NodeFacts | None:
        """The response as it stands now, None before the first level."""
        return self.tree.best if self.tree else None


@dataclass(frozen=True, slots=True)
class ExamplesChart:
    """Rewards before and after, one line for each example. Sizes in CSS pixels."""

    width: int
    height: int
    xs: tuple[Tick, ...]
    rows: tuple[ExampleRow, ...]


_ROW_HEIGHT, _NAMES, _SPAN = 22, 34, 250


def examples_chart(queries: Sequence[str], trees: Sequence[TreeFacts]) -> ExamplesChart:
    """All examples in their order, also those that have not begun."""
    by_subject = {tree.subject: tree for tree in trees}

    def x(reward: float | None) -> float | None:
        share = None if reward is None else (max(LOWEST, reward) - LOWEST) / (HIGHEST - LOWEST)
        return None if share is None else round(_NAMES + _SPAN * share, 1)

    rows: list[ExampleRow] = []
    for subject, query in enumerate(queries):
        tree = by_subject.get(subject)
        before = tree.root.reward if tree and tree.root else None
        after = tree.best.reward if tree and tree.best else None
        y = 24 + subject * _ROW_HEIGHT
        rows.append(ExampleRow(subject + 1, tree, query, before, after, x(before), x(after), y))
    ticks = tuple(Tick(_NAMES + _SPAN * n / 4, str(n + LOWEST)) for n in range(5))
    return ExamplesChart(_NAMES + _SPAN + 14, 24 + len(rows) * _ROW_HEIGHT, ticks, tuple(rows))
