"""Levels on which no proposal could be evaluated: they go on with their parents, three in a row end it."""

from __future__ import annotations

import pytest

from drpo.search.engine import Level, Outcome, Unreadable, search
from drpo.search.problem import Keep
from drpo.search.strategy import Beam
from tests.support.scripted_tree import Children, ScriptedTree, Value

BEAM = Beam(2, 2, 20, 10, 180)
NOTHING: Children = (None, "broken")


async def run(
    problem: ScriptedTree, unreadable: Unreadable = "drop", strategy: Beam = BEAM
) -> tuple[Outcome[str], list[Level[str]]]:
    levels: list[Level[str]] = []

    async def observe(level: Level[str]) -> None:
        levels.append(level)

    return await search(problem, strategy, unreadable=unreadable, observe=observe), levels


def beams(levels: list[Level[str]]) -> list[list[str]]:
    return [[node.state for node in level.beam] for level in levels]


async def test_a_level_without_a_readable_proposal_goes_on_with_its_parents() -> None:
    def children(state: str, depth: int) -> Children:
        return NOTHING if depth == 1 else (4.0, 3.0)

    problem = ScriptedTree(children)
    _, levels = await run(problem, strategy=Beam(2, 2, 4, 10, 180))
    assert beams(levels)[:3] == [["r"], ["r.0", "r.1"], ["r.0k", "r.1k"]]
    assert [level.stalled for level in levels] == [False, False, True, False]
    assert ("r.0k", 2) in problem.tried, "a parent is tried on the query of the new level"
    assert len(levels[2].dropped) == 4
    assert levels[2].limit == 4, "a state carried on was not good enough to be kept"


async def test_a_stalled_level_goes_on_with_kept_states_and_parents_together() -> None:
    def children(state: str, depth: int) -> Children:
        return {"r": (3.0, 4.0), "r.1": NOTHING, "r.0": Keep()}.get(state, (1.0, 1.0))

    _, levels = await run(ScriptedTree(children, kept=lambda s, t: 3.0), strategy=Beam(2, 2, 3, 1, 180))
    assert [(n.id, n.state, n.kept) for n in levels[2].nodes] == [(3, "r.1k", True), (4, "r.0k", True)]
    assert levels[2].stalled
    assert levels[2].limit == 4, "a truly kept state raises the limit on a stalled level too"


async def test_three_stalled_levels_in_a_row_end_the_search() -> None:
    outcome, levels = await run(ScriptedTree(lambda state, depth: NOTHING if depth else (4.0, 3.0)))
    assert outcome.ended == "stalled"
    assert [level.stalled for level in levels] == [False, False, True, True, True]
    assert outcome.best.state == "r.0kkk"
    assert outcome.score == (4.0 + 3 * 3.0) / 4


async def test_a_good_level_starts_the_count_anew() -> None:
    def children(state: str, depth: int) -> Children:
        return (2.0, 2.0) if depth % 3 == 2 else NOTHING

    outcome, levels = await run(ScriptedTree(children), strategy=Beam(2, 2, 8, 0, 180))
    assert outcome.ended == "depth"
    assert [level.stalled for level in levels] == [False, True, True, False, True, True, False, True]


async def test_no_proposals_at_all_are_a_stalled_level() -> None:
    outcome, levels = await run(ScriptedTree(lambda state, depth: ()))
    assert (outcome.ended, beams(levels)[-1]) == ("stalled", ["rkkk"])


async def test_a_parent_without_any_proposal_goes_on_beside_one_whose_proposals_failed() -> None:
    tree: dict[str, Children] = {"r": (4.0, 3.0), "r.0": (), "r.1": NOTHING}
    _, levels = await run(ScriptedTree(tree), strategy=Beam(2, 2, 3, 0, 180))
    assert beams(levels)[2] == ["r.0k", "r.1k"]


async def test_an_evaluator_that_never_writes_anything_readable_ends_the_search_too() -> None:
    def children(state: str, depth: int) -> Children:
        return Keep()  # what a problem does with a state that has no evaluation

    def kept(state: str, trial: int) -> Value:
        return None

    outcome, levels = await run(ScriptedTree(children, root=None, kept=kept))
    assert outcome.ended == "stalled"
    assert len(levels) == 4
    assert outcome.score is None


async def test_an_evaluator_that_breaks_midway_ends_the_search_too() -> None:
    def children(state: str, depth: int) -> Children:
        return {0: (4.0, 3.0), 1: (None, None)}.get(depth, Keep())

    outcome, levels = await run(ScriptedTree(children, kept=lambda s, t: None))
    assert (outcome.ended, len(levels), outcome.score) == ("stalled", 5, 4.0)


async def test_kept_states_that_are_scored_are_no_stall() -> None:
    outcome, levels = await run(ScriptedTree(lambda s, d: Keep(), kept=lambda s, t: 5.0))
    assert (outcome.ended, len(levels)) == ("depth", 30)


@pytest.mark.parametrize(("unreadable", "ended"), [("zero", "depth"), ("drop", "stalled")])
async def test_unreadable_evaluations_stall_nothing_where_they_count_zero(
    unreadable: Unreadable, ended: str
) -> None:
    outcome, levels = await run(ScriptedTree(lambda s, d: (None, None)), unreadable)
    assert outcome.ended == ended
    assert any(level.stalled for level in levels) == (unreadable == "drop")


async def test_proposals_that_could_not_be_made_stall_in_every_mode() -> None:
    outcome, _ = await run(ScriptedTree(lambda s, d: ("broken",)), "zero")
    assert outcome.ended == "stalled"
