"""Nothing in a level waits but the choice of the beam; what comes out does not depend on who was faster."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.errors import BudgetSpent, DrpoError, ProviderDown, Stopped, StorageError
from drpo.search.engine import Level, search, settle
from drpo.search.problem import Keep
from drpo.search.strategy import Beam, MonteCarlo, Strategy
from tests.support.scripted_tree import Children, ScriptedTree, Turns, idle

BEAM = Beam(2, 2, 3, 0, 180)


async def test_a_slow_sibling_delays_nobody_but_the_next_beam() -> None:
    turns = Turns()
    work = asyncio.create_task(search(ScriptedTree(lambda s, d: (3.0, 3.0), latency=turns), BEAM))
    await idle()
    await turns.let("expand r")
    await turns.let("r.0", "r.1")
    assert set(turns.waiting) == {"expand r.0", "expand r.1"}, "both parents are expanded at once"
    await turns.let("expand r.1")
    assert set(turns.waiting) == {"expand r.0", "r.1.0", "r.1.1"}, "the fast chain goes on"
    await turns.let("r.1.1", "r.1.0")
    assert not work.done(), "the beam waits for the slow one"
    await turns.let("expand r.0")
    await turns.let("r.0.0", "r.0.1")
    assert (await work).best.state == "r.0.0"


async def test_a_slow_proposal_does_not_hold_back_the_others_of_its_parent() -> None:
    turns = Turns()
    tree: dict[str, Children] = {"r": (3.0, 4.0), "r.1": (3.0,), "r.0": (3.0,)}
    work = asyncio.create_task(search(ScriptedTree(tree, latency=turns), BEAM))
    await idle()
    await turns.let("expand r")
    await turns.let("r.0")
    assert set(turns.waiting) == {"r.1"}, "the barrier holds: no next level before the last of this one"
    await turns.let("r.1")
    assert set(turns.waiting) == {"expand r.0", "expand r.1"}
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_all_draws_of_monte_carlo_run_at_once() -> None:
    turns = Turns()
    problem = ScriptedTree(
        lambda s, d: (3.0, 3.0), latency=lambda name: turns(f"{name} {len(turns.waiting)}")
    )
    work = asyncio.create_task(search(problem, MonteCarlo(2, 2, 3, 180)))
    await idle()
    assert len(turns.waiting) == 6
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


def children_of_a_mixed_tree(state: str, depth: int) -> Children:
    """Every kind of outcome, decided by the state alone."""
    chance = random.Random(state)
    if depth and chance.random() < 0.25:
        return Keep()
    values = [chance.choice([1.0, 2.5, 3.0, 3.0, 10 / 3, None, "broken"]) for _ in range(3)]
    return tuple(values)


async def levels_of(strategy: Strategy, latency: Callable[[str], int]) -> list[object]:
    """All that observers see, with steps that take `latency` turns of the loop."""

    async def wait(name: str) -> None:
        for _ in range(latency(name)):
            await asyncio.sleep(0)

    seen: list[object] = []

    async def observe(level: Level[str]) -> None:
        nodes = [(n.id, n.place, n.state, n.reward, n.kept, n.parent and n.parent.id) for n in level.nodes]
        dropped = [(d.place, d.parent_id, d.failure) for d in level.dropped]
        seen.append((level.number, level.limit, nodes, dropped, [n.id for n in level.beam], level.stalled))

    outcome = await search(ScriptedTree(children_of_a_mixed_tree, latency=wait), strategy, observe=observe)
    return [*seen, outcome.best.id, outcome.score, outcome.ended]


@pytest.mark.parametrize("strategy", [Beam(3, 3, 6, 2, 180), MonteCarlo(2, 3, 4, 180)], ids=type)
@given(order=st.randoms(use_true_random=False))
def test_levels_are_the_same_in_whatever_order_steps_end(strategy: Strategy, order: random.Random) -> None:
    steady = asyncio.run(levels_of(strategy, lambda name: 0))
    assert asyncio.run(levels_of(strategy, lambda name: order.randrange(12))) == steady


async def test_a_failing_chain_does_not_cancel_its_siblings() -> None:
    turns = Turns()
    problem = ScriptedTree({"r": (3.0, ProviderDown("gone"), 4.0)}, latency=turns)
    work = asyncio.create_task(search(problem, Beam(2, 3, 2, 0, 180)))
    await idle()
    await turns.let("expand r")
    await turns.let("r.1")
    assert set(turns.waiting) == {"r.0", "r.2"}
    assert not work.done()
    await turns.let("r.0", "r.2")
    with pytest.raises(ProviderDown):
        await work


async def test_an_expansion_that_fails_leaves_the_other_parent_to_its_end() -> None:
    turns = Turns()
    tree: dict[str, Children] = {"r": (3.0, 3.0), "r.0": StorageError("full"), "r.1": (2.0,)}
    work = asyncio.create_task(search(ScriptedTree(tree, latency=turns), BEAM))
    await idle()
    for names in (["expand r"], ["r.0", "r.1"], ["expand r.0", "expand r.1"]):
        await turns.let(*names)
    assert set(turns.waiting) == {"r.1.0"}
    await turns.let("r.1.0")
    with pytest.raises(StorageError):
        await work


@pytest.mark.parametrize(
    ("failures", "raised"),
    [
        ([Stopped("a"), ProviderDown("b")], ProviderDown),
        ([Stopped("a"), asyncio.CancelledError(), BudgetSpent("b")], BudgetSpent),
        ([ProviderDown("a"), BudgetSpent("b")], ProviderDown),
        ([ProviderDown("a"), KeyError("a bug")], KeyError),
        ([asyncio.CancelledError(), KeyError("a bug")], KeyError),
        ([Stopped("a"), Stopped("b")], Stopped),
    ],
)
async def test_the_most_telling_failure_is_raised(
    failures: list[BaseException], raised: type[Exception]
) -> None:
    async def fail(error: BaseException) -> None:
        raise error

    with pytest.raises(raised):
        await settle(fail(error) for error in failures)


async def test_settled_results_stand_in_order() -> None:
    turns = Turns()

    async def work(name: str) -> str:
        await turns(name)
        return name

    task = asyncio.create_task(settle(work(name) for name in "abc"))
    await idle()
    await turns.let("c", "a", "b")
    assert await task == ["a", "b", "c"]
    assert await settle([]) == []


@pytest.mark.parametrize("cut", range(4))
async def test_a_cancelled_search_leaves_no_task_behind(cut: int) -> None:
    turns = Turns()
    work = asyncio.create_task(search(ScriptedTree(lambda s, d: (3.0, 3.0), latency=turns), BEAM))
    await idle()
    for names in (["expand r"], ["r.0", "r.1"], ["expand r.0"])[:cut]:
        await turns.let(*names)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not turns.waiting
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_failing_observer_ends_the_search() -> None:
    async def observe(level: Level[str]) -> None:
        raise StorageError("full")

    with pytest.raises(DrpoError):
        await search(ScriptedTree(lambda s, d: (3.0,)), BEAM, observe=observe)
