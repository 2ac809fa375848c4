"""The rules of the search: what is made, kept, dropped, chosen (numbers: SEMANTICS of the published runs)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from drpo.search.engine import Level, Outcome, search
from drpo.search.problem import Keep
from drpo.search.strategy import Beam, MonteCarlo, Strategy
from drpo.types import Failed
from tests.support.scripted_tree import Children, ScriptedTree, Value

THREE = (3.0, 3.0, 3.0)


async def run(
    problem: ScriptedTree, strategy: Strategy, **settings: Any
) -> tuple[Outcome[str], list[Level[str]]]:
    levels: list[Level[str]] = []

    async def observe(level: Level[str]) -> None:
        levels.append(level)

    return await search(problem, strategy, observe=observe, **settings), levels


def beams(levels: list[Level[str]]) -> list[list[str]]:
    return [[node.state for node in level.beam] for level in levels]


def beam(width: int = 2, samples: int = 3, depth: int = 4, trials: int = 180, **settings: Any) -> Beam:
    return Beam(width, samples, depth, settings.pop("extra", 10), trials, **settings)


async def test_all_nodes_of_a_depth_see_the_query_of_that_depth() -> None:  # rule 2
    problem = ScriptedTree(lambda state, depth: THREE)
    await run(problem, beam())
    assert all(trial == state.count(".") for state, trial in problem.tried)


async def test_the_root_is_scored_but_its_reward_is_in_no_path() -> None:  # rules 4 and 5
    outcome, _ = await run(ScriptedTree({"r": (2.0, 1.0)}, root=5.0), beam(depth=2))
    assert outcome.nodes[0].reward == 5.0
    assert outcome.best.path_rewards() == (2.0,)
    assert outcome.score == 2.0


async def test_a_kept_state_gets_exactly_one_child_with_the_same_state() -> None:  # rule 6
    problem = ScriptedTree({"r": Keep(), "rk": THREE})
    outcome, levels = await run(problem, beam(depth=3, extra=0))
    assert beams(levels) == [["r"], ["rk"], ["rk.0", "rk.1"]]
    assert [node.kept for node in outcome.nodes] == [False, True, False, False, False]
    assert outcome.nodes[1].place == "r/k"


async def test_nodes_are_created_in_beam_order_then_order_of_proposals() -> None:  # rule 8
    tree: dict[str, Children] = {"r": (1.0, 5.0, 3.0), "r.1": (1.0, 2.0), "r.2": (3.0, 4.0, 5.0)}
    outcome, levels = await run(ScriptedTree(tree), beam(depth=3))
    assert beams(levels)[1] == ["r.1", "r.2"]
    made = [node.state for node in outcome.nodes]
    assert made == ["r", "r.0", "r.1", "r.2", "r.1.0", "r.1.1", "r.2.0", "r.2.1", "r.2.2"]
    assert [node.id for node in outcome.nodes] == list(range(9))


async def test_the_next_beam_is_chosen_among_all_children_and_ties_go_to_the_first() -> None:  # rule 9
    tree: dict[str, Children] = {"r": (3.0, 3.0, 3.0), "r.0": (3.0, 1.0, 1.0), "r.1": (4.0, 3.0, 1.0)}
    _, levels = await run(ScriptedTree(tree), beam(depth=3))
    assert beams(levels) == [["r"], ["r.0", "r.1"], ["r.1.0", "r.0.0"]]


async def test_a_beam_is_as_short_as_its_level() -> None:  # rule 9
    tree: dict[str, Children] = {"r": Keep(), "rk": (2.0, "no", "no"), "rk.0": (1.0, "no", 2.0)}
    _, levels = await run(ScriptedTree(tree), beam(width=5, depth=4, extra=0))
    assert beams(levels) == [["r"], ["rk"], ["rk.0"], ["rk.0.2", "rk.0.0"]]


@pytest.mark.parametrize("width", [1, 2])
async def test_the_limit_grows_once_per_level_however_many_nodes_kept(width: int) -> None:  # rule 10
    def children(state: str, depth: int) -> Children:
        return THREE if depth == 0 else Keep()

    _, levels = await run(ScriptedTree(children), beam(width=width, depth=3, extra=2))
    assert [level.limit for level in levels] == [3, 3, 4, 5, 5]
    assert levels[-1].number == 4, "a tree has as many levels as the limit says"


async def test_a_kept_root_raises_the_limit_and_the_cap_holds() -> None:  # rule 10
    _, levels = await run(ScriptedTree(lambda state, depth: Keep()), beam(depth=20))
    assert [level.limit for level in levels][:11] == [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30]
    assert {level.limit for level in levels[10:]} == {30}
    assert len(levels) == 30


async def test_the_limit_grows_on_unscored_kept_states_too() -> None:  # rule 10
    def kept(state: str, trial: int) -> Value:
        return None

    problem = ScriptedTree({"r": Keep(), "rk": THREE}, root=None, kept=kept)
    _, levels = await run(problem, beam(depth=2, extra=1), unreadable="zero")
    assert [level.limit for level in levels] == [2, 3, 3]


async def test_a_search_ends_when_the_queries_run_out() -> None:  # rule 10
    outcome, levels = await run(ScriptedTree(lambda state, depth: THREE), beam(depth=20, trials=3))
    assert (len(levels), outcome.levels, outcome.ended) == (3, 3, "queries")


async def test_two_searches_with_one_strategy_start_from_the_same_limit() -> None:  # rule 13 mended
    strategy = beam(depth=2, extra=3)
    limits = [(await run(ScriptedTree(lambda s, d: Keep()), strategy))[1][0].limit for _ in range(2)]
    assert limits == [2, 2]


async def test_the_result_is_the_first_of_the_last_beam_not_the_best_ever_seen() -> None:  # rule 12
    tree: dict[str, Children] = {"r": (5.0, 1.0), "r.0": (2.0, 2.0), "r.1": (1.0,)}
    outcome, _ = await run(ScriptedTree(tree), beam(depth=3))
    assert outcome.best.state == "r.0.0"
    assert outcome.score == 3.5


async def test_an_unreadable_evaluation_drops_the_candidate() -> None:
    outcome, levels = await run(ScriptedTree({"r": (None, 2.0, "broken")}), beam(depth=2))
    assert [node.state for node in outcome.nodes] == ["r", "r.1"]
    assert [(d.place, d.failure.reason) for d in levels[1].dropped] == [
        ("r/0.0", "no evaluation"),
        ("r/0.2", "broken"),
    ]
    assert outcome.nodes[1].id == 1, "ids have no gaps"


async def test_an_unreadable_evaluation_is_zero_where_published_runs_are_reproduced() -> None:  # rule 4
    outcome, levels = await run(ScriptedTree({"r": (None, 2.0, "broken")}), beam(depth=2), unreadable="zero")
    assert [(node.state, node.reward) for node in outcome.nodes[1:]] == [("r.0", 0.0), ("r.1", 2.0)]
    assert outcome.nodes[1].failure is not None
    assert [d.place for d in levels[1].dropped] == ["r/0.2"], "what could not be made is no node in any mode"


async def test_a_kept_state_or_root_that_could_not_be_scored_goes_on_unscored() -> None:
    def children(state: str, depth: int) -> Children:
        return THREE if state == "rkk" else Keep()

    def kept(state: str, trial: int) -> Value:
        return None if trial == 1 else 4.0

    problem = ScriptedTree(children, root=None, kept=kept)
    outcome, levels = await run(problem, beam(depth=2, extra=2))
    assert beams(levels) == [["r"], ["rk"], ["rkk"], ["rkk.0", "rkk.1"]]
    assert [node.reward for node in outcome.nodes[:3]] == [None, None, 4.0]
    assert outcome.score == 3.5, "unscored nodes are in no mean"


async def test_a_failed_expansion_is_a_dropped_proposal() -> None:
    tree: dict[str, Children] = {"r": THREE, "r.0": Failed("refused", "sorry"), "r.1": THREE}
    _, levels = await run(ScriptedTree(tree), beam(depth=3))
    assert [(d.place, d.parent_id, d.failure.raw) for d in levels[2].dropped] == [("r/0.0/0", 1, "sorry")]
    assert beams(levels)[2] == ["r.1.0", "r.1.1"]


async def test_patience_and_a_perfect_score_end_a_search_early() -> None:
    flat = ScriptedTree(lambda state, depth: THREE)
    outcome, levels = await run(flat, beam(depth=20, patience=3))
    assert (outcome.ended, levels[-1].number) == ("patience", 4)
    perfect = ScriptedTree(lambda state, depth: (2.0, 5.0))
    outcome, levels = await run(perfect, beam(1, 2, 20, perfect=5.0, path_score="last"))
    assert (outcome.ended, outcome.best.state, levels[-1].number) == ("perfect", "r.1", 1)


async def test_a_perfect_start_is_not_searched_at_all() -> None:
    problem = ScriptedTree({}, root=5.0)
    strategy = beam(1, 1, 6, perfect=5.0, path_score="last", result="best seen")
    outcome, _ = await run(problem, strategy)
    assert (outcome.ended, outcome.best.state, problem.draws) == ("perfect", "r", [])


async def test_greedy_search_is_a_beam_of_one() -> None:
    tree: dict[str, Children] = {"r": (3.0, 4.0, 4.0), "r.1": (1.0, 2.0)}
    outcome, levels = await run(ScriptedTree(tree), beam(width=1, depth=3))
    assert beams(levels) == [["r"], ["r.1"], ["r.1.1"]]
    assert outcome.score == 3.0


async def test_monte_carlo_samples_one_step_from_the_start() -> None:
    width, samples, depth = 2, 3, 4
    problem = ScriptedTree(lambda state, depth: THREE)
    outcome, levels = await run(problem, MonteCarlo(width, samples, depth, 180))
    trials = [trial for state, trial in problem.tried if state != "r"]
    assert len(outcome.nodes) == 1 + width * samples * depth
    assert trials == [1 + i % (depth - 1) for i in range(width * samples * depth)]
    assert {node.depth for node in outcome.nodes[1:]} == {1}
    assert len({node.place for node in outcome.nodes}) == len(outcome.nodes)
    assert [len(level.beam) for level in levels] == [1, 1]


async def test_monte_carlo_ranks_by_its_own_reward_and_drops_what_has_none() -> None:
    def children(state: str, depth: int) -> Children:
        return (None, 2.0, "broken")

    outcome, levels = await run(ScriptedTree(children, root=5.0), MonteCarlo(1, 3, 2, 180))
    assert [node.reward for node in outcome.nodes[1:]] == [2.0, 2.0]
    assert outcome.best.id == 1
    assert len(levels[1].dropped) == 4


async def test_monte_carlo_with_nothing_readable_ends_with_the_start_after_three_levels() -> None:
    problem = ScriptedTree(lambda state, depth: ("broken", None))
    outcome, levels = await run(problem, MonteCarlo(2, 2, 3, 180))
    assert outcome.best.state == "rkkk"
    assert outcome.ended == "stalled"
    assert [level.stalled for level in levels[1:]] == [True] * 3
    assert len(levels[1].dropped) == 12


async def test_monte_carlo_samples_from_the_next_query_when_the_start_could_not_be_evaluated() -> None:
    def children(state: str, depth: int) -> Children:
        return Keep() if state == "r" else (2.0, 4.0)

    outcome, levels = await run(ScriptedTree(children, root=None), MonteCarlo(2, 2, 3, 180))
    assert [len(level.nodes) for level in levels] == [1, 1, 12]
    assert outcome.best.reward == 4.0


async def test_one_search_may_be_observed_by_nobody() -> None:
    outcome = await asyncio.wait_for(search(ScriptedTree({"r": THREE}), beam(depth=2)), 5)
    assert outcome.best.state == "r.0"
