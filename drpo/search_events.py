"""A search as events, and the best that it has come to so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from drpo.events import Event, LevelDone, NodeMade, ProposalDropped, SearchDone
from drpo.problems import (
    describe_state,
)
from drpo.search.engine import Level, Outcome
from drpo.search.strategy import Strategy
from drpo.search.tree import Node
from drpo.types import State
from drpo.validating_examples import ImprovedExample as ImprovedExample

Emit = Callable[[Sequence[Event]], None]
T = TypeVar("T")


class BestSoFar(Generic[T]):
    """What a search would give if it ended with its last completed level; None before the first."""

    def __init__(self) -> None:
        self._make: Callable[[], T] | None = None

    def reach(self, make: Callable[[], T]) -> None:
        """A level is done, `make` gives the result as of now."""
        self._make = make

    def get(self) -> T | None:
        return None if self._make is None else self._make()


class SoFar(Generic[State]):
    """The outcome of a search that ends with its last completed level, because its budget is spent."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._nodes: list[Node[State]] = []
        self._beam: tuple[Node[State], ...] = ()

    def add(self, level: Level[State]) -> None:
        self._nodes += level.nodes
        self._beam = level.beam

    def outcome(self) -> Outcome[State]:
        best = self._strategy.best(self._beam, self._nodes)
        levels = self._beam[0].depth + 1
        return Outcome(best, self._strategy.score(best), tuple(self._nodes), levels, "budget")


def level_events(level: Level[Any], strategy: Strategy, subject: int | None = None) -> list[Event]:
    """A level as events: its nodes, its dropped proposals, its beam."""
    events: list[Event] = [
        NodeMade(
            id=node.id,
            place=node.place,
            parent=None if node.parent is None else node.parent.id,
            depth=node.depth,
            kept=node.kept,
            reward=node.reward,
            score=strategy.score(node),
            state=describe_state(node.state),
            failure=node.failure.reason if node.failure else None,
            subject=subject,
        )
        for node in level.nodes
    ]
    events += [
        ProposalDropped(d.place, d.parent_id, d.failure.reason, d.failure.raw, subject) for d in level.dropped
    ]
    beam = tuple(node.id for node in level.beam)
    return [*events, LevelDone(level.number, level.limit, beam, level.stalled, subject)]


def end_event(outcome: Outcome[Any], subject: int | None = None) -> SearchDone:
    """The end of a search as an event."""
    return SearchDone(
        outcome.best.id, outcome.score, len(outcome.nodes), outcome.levels, outcome.ended, subject
    )
