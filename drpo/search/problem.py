"""The seam between searching and what is searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from drpo.search.tree import Node
from drpo.types import Failed, Scored, State, Unscored

Action = TypeVar("Action")
Action_co = TypeVar("Action_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Proposals(Generic[Action_co]):
    """Ways on from a node, in the order in which they become candidates.

    An action may be one that is still being thought up: `expand` returns as soon as it can, and `step`
    waits for its own action only.
    """

    actions: tuple[Action_co, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """The state is good enough (or nothing is known against it): try the same one on the next query."""


@dataclass(frozen=True, slots=True)
class Draw:
    """An order for proposals: `place` is where, `trials[i]` on which query the i-th one is to be tried."""

    place: str
    trials: tuple[int, ...]


class Problem(Protocol[State, Action]):
    """What a search searches. Sizes: `expand` gives at most `len(draw.trials)` actions.

    Failure: a state that could not be made is `Failed`, one that could not be evaluated `Unscored`, and
    neither ever has a reward; a broken boundary (no network, wrong key) is an exception and ends the search.
    Determinism: given the same replies of the models, every method returns the same, whatever runs beside it.
    """

    async def root(self) -> Scored[State] | Unscored[State]:
        """The start, tried on query 0."""
        ...

    async def expand(self, node: Node[State], draw: Draw) -> Proposals[Action] | Keep | Failed:
        """What to do from `node`."""
        ...

    async def step(
        self, node: Node[State], action: Action | Keep, trial: int
    ) -> Scored[State] | Unscored[State] | Failed:
        """Do it, and try the outcome on query `trial`. After `Keep` the outcome is never `Failed`."""
        ...
