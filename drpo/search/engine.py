"""The search: level after level, each chain at its own pace, one barrier where the beam is chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from drpo.errors import DrpoError, Stopped
from drpo.search.problem import Action, Draw, Keep, Problem
from drpo.search.strategy import Strategy
from drpo.search.tree import Dropped, Node
from drpo.types import Failed, Scored, State, State_co, Unscored

Unreadable = Literal["drop", "zero"]
Ended = Literal["depth", "queries", "stalled", "patience", "perfect", "budget"]
STALLED_LEVELS = 3
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Level(Generic[State_co]):
    """What one level made, in candidate order. `number` is the depth of its nodes (0: the root's level)."""

    number: int
    limit: int
    nodes: tuple[Node[State_co], ...]
    dropped: tuple[Dropped, ...]
    beam: tuple[Node[State_co], ...]
    stalled: bool = False


@dataclass(frozen=True, slots=True)
class Outcome(Generic[State_co]):
    """The end of a search. `nodes` in order of creation; `score` is the strategy's for `best`; `levels`
    counts the root's too. ended: "budget" is what a caller says who could not pay for the next level."""

    best: Node[State_co]
    score: float | None
    nodes: tuple[Node[State_co], ...]
    levels: int
    ended: Ended


@dataclass(frozen=True, slots=True)
class _Attempt(Generic[State]):
    parent: Node[State]
    place: str
    kept: bool
    result: Scored[State] | Unscored[State] | Failed


async def search(
    problem: Problem[State, Action],
    strategy: Strategy,
    *,
    unreadable: Unreadable = "drop",
    observe: Callable[[Level[State]], Awaitable[None]] | None = None,
) -> Outcome[State]:
    """Search `problem` by `strategy`. `observe` is called at each level's barrier, the root's first.

    unreadable: what becomes of a candidate whose response could not be evaluated: "drop", or "zero", which
    gives it the reward 0 as the published runs did (their rule 4) and must not be used for anything else.
    """
    root = _root(await problem.root(), unreadable)
    nodes: list[Node[State]] = [root]
    beam: tuple[Node[State], ...] = (root,)
    limit, stalled, gains = strategy.first_limit(), 0, [strategy.score(root)]
    if observe:
        await observe(Level(0, limit, beam, (), beam))
    while True:
        ended: Any = strategy.enough(gains)
        if stalled == STALLED_LEVELS:
            ended = "stalled"
        draws = [(node, draw) for node in beam for draw in strategy.draws(node, limit)]
        if ended or not draws:
            best = strategy.best(beam, nodes)
            levels = beam[0].depth + 1
            ended = ended or ("queries" if levels < limit else "depth")
            return Outcome(best, strategy.score(best), tuple(nodes), levels, ended)
        attempts = _once(await settle(_attempts(problem, node, draw) for node, draw in draws))
        any_kept, level_stalled = any(a.kept for a in attempts), _is_stalled(attempts, unreadable)
        if level_stalled:
            attempts = await _with_parents(problem, beam, attempts)
        made, dropped = _grow(attempts, len(nodes), unreadable)
        nodes += made
        stalled = stalled + 1 if level_stalled else 0
        limit = strategy.next_limit(limit, any_kept)
        beam = strategy.select(made)
        gains.append(strategy.score(beam[0]))
        if observe:
            await observe(Level(beam[0].depth, limit, tuple(made), tuple(dropped), beam, level_stalled))


async def settle(work: Iterable[Awaitable[T]]) -> list[T]:
    """All results in order. After a failure the rest is still awaited: their calls are paid for.

    Of several failures the most telling one is raised: `Stopped` and a cancelled call (abandoned when the
    run ends) only say that another one came first.
    """
    results = await asyncio.gather(*work, return_exceptions=True)
    failures = [r for r in results if isinstance(r, BaseException)]
    if failures:
        raise min(failures, key=_how_telling)
    return [r for r in results if not isinstance(r, BaseException)]


def _how_telling(failure: BaseException) -> int:
    if isinstance(failure, (Stopped, asyncio.CancelledError)):
        return 2
    return 1 if isinstance(failure, DrpoError) else 0


async def _attempts(
    problem: Problem[State, Action], node: Node[State], draw: Draw
) -> Sequence[_Attempt[State]]:
    """One attempt per sample of the draw, each carried to its end without waiting for the others."""
    actions = await problem.expand(node, draw)
    if isinstance(actions, Failed):
        return [_Attempt(node, draw.place, False, actions)]
    if isinstance(actions, Keep):
        return [_Attempt(node, f"{node.place}/k", True, await problem.step(node, actions, draw.trials[0]))]

    async def attempt(index: int, action: Action) -> _Attempt[State]:
        result = await problem.step(node, action, draw.trials[index])
        return _Attempt(node, f"{draw.place}.{index}", False, result)

    return await settle(attempt(index, action) for index, action in enumerate(actions.actions))


def _is_stalled(attempts: Sequence[_Attempt[State]], unreadable: Unreadable) -> bool:
    """No proposal could be evaluated; where all states were kept, none of those could.

    Without the second half an evaluator that never writes anything readable would cost the whole depth: an
    unscored node is kept, so there are no proposals to be lost.
    """
    lost = (Failed,) if unreadable == "zero" else (Failed, Unscored)
    new = [a for a in attempts if not a.kept]
    return all(isinstance(a.result, lost) for a in new or attempts)


async def _with_parents(
    problem: Problem[State, Action], parents: Sequence[Node[State]], attempts: Sequence[_Attempt[State]]
) -> list[_Attempt[State]]:
    """The attempts of a stalled level, with every parent that was not kept going on as if it were."""
    kept = {a.parent for a in attempts if a.kept}
    orphans = [parent for parent in parents if parent not in kept]
    results = await settle(problem.step(p, Keep(), p.depth + 1) for p in orphans)
    carried = [_Attempt(p, f"{p.place}/k", True, result) for p, result in zip(orphans, results, strict=True)]
    order = {parent: number for number, parent in enumerate(parents)}
    return sorted([*attempts, *carried], key=lambda a: order[a.parent])


def _grow(
    attempts: Sequence[_Attempt[State]], next_id: int, unreadable: Unreadable
) -> tuple[list[Node[State]], list[Dropped]]:
    """Nodes and dropped proposals, numbered in candidate order: beam order, then order of proposals."""
    made: list[Node[State]] = []
    dropped: list[Dropped] = []
    for a in attempts:
        if isinstance(a.result, Failed):
            dropped.append(Dropped(a.place, a.parent.id, a.result))
            continue
        if isinstance(a.result, Unscored) and unreadable == "drop" and not a.kept:
            dropped.append(Dropped(a.place, a.parent.id, a.result.failure))
            continue
        reward, failure = _reward(a.result, unreadable)
        depth, number = a.parent.depth + 1, next_id + len(made)
        made.append(Node(number, a.place, depth, a.result.state, reward, a.parent, a.kept, failure))
    return made, dropped


def _reward(
    result: Scored[State] | Unscored[State], unreadable: Unreadable
) -> tuple[float | None, Failed | None]:
    if isinstance(result, Scored):
        return result.reward, None
    return (0.0 if unreadable == "zero" else None), result.failure


def _root(result: Scored[State] | Unscored[State], unreadable: Unreadable) -> Node[State]:
    reward, failure = _reward(result, unreadable)
    return Node(0, "r", 0, result.state, reward, None, failure=failure)


def _once(groups: Iterable[Sequence[_Attempt[State]]]) -> list[_Attempt[State]]:
    """The attempts of all draws in order; a node that several draws kept is kept once."""
    return list({(a.parent, a.place): a for group in groups for a in group}.values())
