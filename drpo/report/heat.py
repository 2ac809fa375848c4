"""Which aspects were chosen for which query, how they were scored, and which stay low."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drpo.report.charts import mean
from drpo.report.facts import TreeFacts
from drpo.report.scale import shade

LOW_BELOW = 3.5
FEWEST_QUERIES = 2
"""What was looked at only once does not stay anything."""


@dataclass(frozen=True, slots=True)
class Cell:
    """An aspect and a query: `mean` of the scores that were given for it, `given` of them; None and 0 where
    the aspect was chosen and every score was "N/A"."""

    mean: float | None
    given: int
    look: str


@dataclass(frozen=True, slots=True)
class AspectRow:
    """An aspect. chosen: for how many queries. mean: over their means. later: over the later half of them.
    low: whether it was chosen for at least two queries and is, in their later half, still below 3.5."""

    name: str
    chosen: int
    mean: float | None
    later: float | None
    low: bool
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Aspects by queries; `queries` are the texts of the columns, in the order in which they were used."""

    queries: tuple[str, ...]
    rows: tuple[AspectRow, ...]

    @property
    def low(self) -> tuple[AspectRow, ...]:
        """What stays low, the lowest first."""
        return tuple(sorted((row for row in self.rows if row.low), key=lambda row: row.later or 0.0))


def heat_map(trees: Sequence[TreeFacts], numbers: Mapping[str, int]) -> HeatMap:
    """The aspects of all nodes; most chosen first, among equals the lower ones."""
    given: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for tree in trees:
        for node in tree.nodes:
            for score in node.scores:
                scores = given[score.aspect][numbers[node.query]]
                if score.score is not None:
                    scores.append(score.score)
    rows = [_row(name, by_query, len(numbers)) for name, by_query in given.items()]
    rows.sort(key=lambda row: (-row.chosen, row.mean or 0.0))
    return HeatMap(tuple(numbers), tuple(rows))


def _row(name: str, by_query: Mapping[int, Sequence[float]], queries: int) -> AspectRow:
    cells = tuple(_cell(by_query[index]) if index in by_query else None for index in range(queries))
    means = [cell.mean for cell in cells if cell is not None and cell.mean is not None]
    later = mean(means[len(means) // 2 :])
    low = len(means) >= FEWEST_QUERIES and later is not None and later < LOW_BELOW
    return AspectRow(name, len(by_query), mean(means), later, low, cells)


def _cell(scores: Sequence[float]) -> Cell:
    average = mean(scores)
    return Cell(average, len(scores), "none" if average is None else shade(average))
