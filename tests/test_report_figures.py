"""The figures of a report: money that is unknown, aspects that stay low, a tree without crossings, shades."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drpo.events import Event, LevelDone, NodeMade, ProposalDropped, SearchDone
from drpo.llm.ledger import Spent
from drpo.money import dollars
from drpo.report.charts import level_figures, reward_chart
from drpo.report.facts import Memory, TreeFacts, read_facts
from drpo.report.heat import heat_map
from drpo.report.layout import LINE_MOST, TILE_HEIGHT, TILE_WIDTH, Tile, picture
from drpo.report.scale import duration, shade
from drpo.report.spending import bill, spent_table, total_bill
from drpo.run_view import RunView, Tree
from drpo.types import Example
from tests.support.report_runs import large_events, mixed_events, node, state


def facts_of(events: list[Event]) -> tuple[TreeFacts, Memory]:
    """The one search of these events."""
    tree = Tree(
        None,
        tuple(event for event in events if isinstance(event, NodeMade)),
        tuple(event for event in events if isinstance(event, ProposalDropped)),
        tuple(event for event in events if isinstance(event, LevelDone)),
        next((event for event in events if isinstance(event, SearchDone)), None),
    )
    run = {"identity": {"command": "optimize", "models": {}, "embedder": "", "settings": {}, "digests": {}}}
    shots = (Example("q", "r"), Example("q", "r"))
    view = RunView(Path("run"), "optimize", run, (), shots, (tree,), None, None, None, None)
    memory = Memory()
    return read_facts(view, memory)[0], memory


@pytest.mark.parametrize(
    ("spent", "says"),
    [
        (Spent(), "$0"),
        (Spent(failed=3), "$0"),
        (Spent(answered=4, usd=0.25), "$0.2500"),
        (Spent(answered=4, usd=12.5), "$12.50"),
        (Spent(answered=4, usd=0.00001), "<$0.0001"),
        (Spent(answered=4), "$0"),  # free: drpo runs it itself
        (Spent(answered=4, unknown=2), "$0"),
        (Spent(answered=4, unpriced=4), "unknown"),
        (Spent(unknown=2), "unknown"),
        (Spent(in_air=1), "unknown"),
        (Spent(unknown=1, held_usd=0.5), "$0, at most $0.5000 more for 1 call of unknown cost"),
        (
            Spent(answered=9, usd=2.0, unknown=1, in_air=1, held_usd=0.5),
            "$2.00, at most $0.5000 more for 2 calls of unknown cost",
        ),
        (
            Spent(answered=9, usd=2.0, unpriced=3, held_usd=0.75),
            "$2.00, at most $0.7500 more for 3 calls of unknown cost",
        ),
        (Spent(answered=9, usd=2.0, unknown=1), "$2.00, unknown for 1 call"),
    ],
)
def test_unknown_money_is_called_unknown_and_never_0(spent: Spent, says: str) -> None:
    assert str(bill(spent)) == says


def test_one_role_of_unknown_cost_makes_the_sum_unknown_in_part() -> None:
    spent = {"base": Spent(answered=5, usd=1.0), "optimizer": Spent(answered=2, unpriced=2, unknown=1)}
    assert str(total_bill(spent)) == "$1.00, unknown for 3 calls"
    table = spent_table(spent)
    assert [row.money for row in table.rows] == ["$1.00", "unknown"]
    assert table.total is not None and table.total.calls == "8"


def test_tokens_and_caches_that_were_not_told_are_unknown() -> None:
    (row,) = spent_table({"base": Spent(answered=5, unpriced=5, seconds=10.0)}).rows
    assert (row.prompt_tokens, row.completion_tokens, row.cached_tokens) == ("unknown",) * 3
    assert (row.time, row.each) == ("10.0 s", "2.0 s")
    (row,) = spent_table({"base": Spent(answered=1, prompt_tokens=1200, cached_tokens=0)}).rows
    assert (row.prompt_tokens, row.completion_tokens, row.cached_tokens) == ("1,200", "0", "0")


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0.0, "0 ms"),
        (0.035, "35 ms"),
        (3.21, "3.2 s"),
        (59.97, "1 min 00 s"),
        (245, "4 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations_are_told_in_units_that_fit(seconds: float, says: str) -> None:
    assert duration(seconds) == says


@given(st.floats(0.0001, 1e6))
def test_no_sum_that_was_spent_looks_like_none(usd: float) -> None:
    assert float(dollars(usd).replace("$", "").replace(",", "")) > 0


def test_an_aspect_stays_low_by_the_later_half_of_its_queries() -> None:
    def scored(query: str, **scores: float | str) -> dict[str, object]:
        told = {name: {"rationale": "", "score": score} for name, score in scores.items()}
        return state("p", query, "r", evaluation=told)

    events: list[Event] = [
        node(0, None, 0, 3.0, scored("a", Low=2, Grown=1, Once=1)),
        node(1, 0, 1, 3.0, scored("b", Low=3, Grown=4)),
        node(2, 0, 1, 3.0, scored("b", Low=4, Silent="N/A")),
        node(3, 1, 2, 3.0, scored("c", Low=3, Grown=5)),
    ]
    facts, memory = facts_of(events)
    heat = heat_map([facts], memory.queries)
    rows = {row.name: row for row in heat.rows}
    assert [row.name for row in heat.low] == ["Low"]
    assert rows["Low"].chosen == 3 and rows["Low"].later == (3.5 + 3) / 2
    assert [cell and cell.mean for cell in rows["Low"].cells] == [2, 3.5, 3]
    assert [cell and cell.mean for cell in rows["Once"].cells] == [1, None, None]
    silent = rows["Silent"].cells[1]
    assert silent is not None and (silent.mean, silent.given) == (None, 0)
    assert heat.queries == ("a", "b", "c")


def test_levels_have_their_figures_also_where_a_reward_is_missing() -> None:
    facts, _ = facts_of(mixed_events())
    first, second, third = level_figures(facts)
    assert (first.tried, first.mean, first.dropped) == (1, 3.0, 0)
    assert (second.tried, second.best, second.mean, second.dropped) == (2, 4.75, 3.5, 1)
    assert (third.tried, third.on_path, third.dropped, third.stalled, third.limit) == (2, 3.5, 1, True, 5)
    unscored = replace(facts, path=(*facts.path[:1], replace(facts.path[1], reward=None), *facts.path[2:]))
    assert len(reward_chart(unscored, level_figures(unscored)).path) == 0  # no line through what is not there
    assert len(reward_chart(facts, level_figures(facts)).path) == 1


def test_every_reward_stands_inside_its_drawing() -> None:
    facts, _ = facts_of(large_events(300, 10))
    drawn = reward_chart(facts, level_figures(facts))
    assert all(0 < dot.x < drawn.width and 0 < dot.y < drawn.bottom + 1 for dot in drawn.dots)
    labels = [tick.at for tick in drawn.xs]
    assert all(right - left >= 22 for left, right in pairwise(labels))


@settings(max_examples=25)
@given(st.lists(st.integers(0, 10_000), max_size=60), st.lists(st.integers(0, 10_000), max_size=10))
def test_tiles_do_not_overlap_and_edges_do_not_cross(parents: list[int], dropped: list[int]) -> None:
    depths = {0: 0}
    events: list[Event] = [node(0, None, 0, 3.0, state("p", "q", "r"))]
    for number, parent in enumerate(parents, 1):
        depths[number] = depths[parent % number] + 1
        events.append(node(number, parent % number, depths[number], 3.0, state("p", "q", "r")))
    events += [ProposalDropped("r", number % len(depths), "why", "raw") for number in dropped]
    drawn = picture(facts_of(events)[0])
    assert len(drawn.tiles) == 1 + len(parents) + len(dropped) and len(drawn.edges) == len(drawn.tiles) - 1
    corners = sorted((tile.y, tile.x) for tile in drawn.tiles)
    for (upper, left), (lower, right) in pairwise(corners):
        assert lower - upper >= TILE_HEIGHT or right - left >= TILE_WIDTH
    assert all(t.x + TILE_WIDTH <= drawn.width and t.y + TILE_HEIGHT <= drawn.height for t in drawn.tiles)
    order = {
        tile.number: place
        for place, tile in enumerate(sorted(nodes_of(drawn.tiles), key=lambda t: (t.y, t.x)))
    }
    for depth in set(depths.values()):
        row = sorted((tile.y, tile.x, order[tile.parent or 0]) for tile in drawn.tiles if tile.depth == depth)
        places = [parent for _, _, parent in row]
        assert places == sorted(places)  # the children stand in the order of their parents


def nodes_of(tiles: Sequence[Tile]) -> list[Tile]:
    return [tile for tile in tiles if tile.node is not None]


def test_a_level_of_many_nodes_takes_several_lines() -> None:
    events: list[Event] = [node(0, None, 0, 3.0, state("p", "q", "r"))]
    events += [node(number, 0, 1, 2.0, state("p", "q", "r")) for number in range(1, 31)]
    drawn = picture(facts_of(events)[0])
    lines = [tile.y for tile in drawn.tiles if tile.depth == 1]
    assert sorted({lines.count(y) for y in lines}) == [10] and max(lines.count(y) for y in lines) <= LINE_MOST


def test_a_search_of_thousands_of_levels_can_be_drawn() -> None:
    events: list[Event] = [node(0, None, 0, 3.0, state("p", "q", "r"))]
    events += [node(number, number - 1, number, 2.0, state("p", "q", "r")) for number in range(1, 3_000)]
    assert len(picture(facts_of(events)[0]).rows) == 3_000


@pytest.mark.parametrize(
    ("reward", "look"), [(0, "r0"), (1, "r0"), (1.5, "r1"), (3, "r4"), (4.9, "r8"), (5, "r8")]
)
def test_rewards_have_nine_shades(reward: float, look: str) -> None:
    assert shade(reward) == look


STYLE = (files("drpo.report") / "templates" / "report.css").read_text(encoding="utf-8")
TEXTS = [
    *(("ink", page) for page in ("page", "card", "quiet-bg")),
    *(("soft", page) for page in ("page", "card", "quiet-bg")),
    *(("ins-ink", "ins"), ("del-ink", "del"), ("mark-ink", "mark"), ("link", "page"), ("page", "ink")),
]
SHAPES = [("way", "page"), ("focus", "page"), ("focus", "quiet-bg"), ("tile-line", "page"), ("soft", "page")]


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2 between two colours such as #1b1f27, 1 to 21."""

    def luminance(colour: str) -> float:
        shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_differ_enough_to_be_read(scheme: str) -> None:
    blocks = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", STYLE, re.S)
    ]
    colours = blocks[0] | (blocks[1] if scheme == "dark" else {})
    for text, behind in TEXTS:
        assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
    for shape, behind in SHAPES:
        assert contrast(colours[shape], colours[behind]) >= 3, (shape, behind)


def test_shades_grow_lighter_step_by_step_and_their_numbers_can_be_read() -> None:
    shades = re.findall(r"\.r(\d) \{ --shade: (#\w{6}); --on: (#\w{6}); \}", STYLE)
    assert [number for number, _, _ in shades] == [str(number) for number in range(9)]
    assert all(contrast(colour, text) >= 4.5 for _, colour, text in shades)
    lightness = [contrast(colour, "#000000") for _, colour, _ in shades]
    assert all(lighter > darker * 1.1 for darker, lighter in pairwise(lightness))
