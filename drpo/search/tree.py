"""The tree that a search grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from drpo.types import Failed, State_co, left_to_right_sum


@dataclass(frozen=True, slots=True, eq=False)
class Node(Generic[State_co]):
    """One state tried once. The root has depth 0; `id` counts nodes in order of creation.

    `reward` is None where the response could not be evaluated. `kept`: the parent's state again, on the
    next query. `place` names the way from the root by draws and samples ("r/0.2/k"): it is the same whatever
    else the search does, so seeds for sampled requests are derived from it.
    """

    id: int
    place: str
    depth: int
    state: State_co
    reward: float | None
    parent: Node[State_co] | None
    kept: bool = False
    failure: Failed | None = None

    def path(self) -> tuple[Node[State_co], ...]:
        """The nodes from the root to this one, both included."""
        path, node = [self], self.parent
        while node is not None:
            path.append(node)
            node = node.parent
        return tuple(reversed(path))

    def path_rewards(self) -> tuple[float, ...]:
        """The rewards on the path, root left out (its reward is never used), unscored nodes left out."""
        return tuple(node.reward for node in self.path()[1:] if node.reward is not None)

    def mean_path_reward(self) -> float | None:
        """Mean of `path_rewards`, added from depth 1 downwards: ties hang on it (rules 5 and 11)."""
        rewards = self.path_rewards()
        return left_to_right_sum(rewards) / len(rewards) if rewards else None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A proposal that became no node, and why."""

    place: str
    parent_id: int
    failure: Failed
