"""Which nodes are expanded, which go on, and which one is the result: pure decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from drpo.search.problem import Draw
from drpo.search.tree import Node

PathScore = Literal["mean", "last"]
AnyNode = Node[Any]


class Strategy(Protocol):
    """The decisions of a search, each a function of what it is given."""

    def first_limit(self) -> int:
        """How many nodes a path may have at first, the root included."""
        ...

    def next_limit(self, limit: int, any_kept: bool) -> int:
        """The limit after a level on which `any_kept` says whether a state was kept."""
        ...

    def draws(self, node: AnyNode, limit: int) -> tuple[Draw, ...]:
        """What to ask for at `node`; nothing: the node is terminal."""
        ...

    def select(self, children: Sequence[AnyNode]) -> tuple[AnyNode, ...]:
        """The next beam, best first."""
        ...

    def best(self, beam: Sequence[AnyNode], nodes: Sequence[AnyNode]) -> AnyNode:
        """The result, given the last beam and all nodes in order of creation."""
        ...

    def score(self, node: AnyNode) -> float | None:
        """By what nodes are ranked, 1 to 5; None where nothing on the path was scored."""
        ...

    def enough(self, gains: Sequence[float | None]) -> str | None:
        """Why to stop early, given the best score of each level so far; None to go on."""
        ...


@dataclass(frozen=True, slots=True)
class Beam:
    """Beam search (DRPO, Algorithm 2; rules 5 to 12 of the published runs). Greedy search is `width=1`.

    width: nodes that go on. samples: proposals per node. depth: limit of nodes on a path at first, raised by
    one per level with a kept prompt, by `max_extra_depth` at most. trials: how many queries there are.
    path_score: mean of the rewards on the path, or the last one. patience: levels without a gain before the
    search ends (None: never). perfect: a score at which it ends at once (None: never). result: the first of
    the last beam (published), or the best node ever seen, a later one on a tie (Algorithm 1 as built here).
    """

    width: int
    samples: int
    depth: int
    max_extra_depth: int
    trials: int
    path_score: PathScore = "mean"
    patience: int | None = None
    perfect: float | None = None
    result: Literal["last beam", "best seen"] = "last beam"

    def first_limit(self) -> int:
        return self.depth

    def next_limit(self, limit: int, any_kept: bool) -> int:
        return limit + 1 if any_kept and limit < self.depth + self.max_extra_depth else limit

    def draws(self, node: AnyNode, limit: int) -> tuple[Draw, ...]:
        if node.depth + 1 >= min(limit, self.trials):
            return ()
        return (Draw(f"{node.place}/0", (node.depth + 1,) * self.samples),)

    def select(self, children: Sequence[AnyNode]) -> tuple[AnyNode, ...]:
        return tuple(sorted(children, key=self._rank))[: self.width]  # stable: ties stay in order of creation

    def best(self, beam: Sequence[AnyNode], nodes: Sequence[AnyNode]) -> AnyNode:
        if self.result == "last beam":
            return beam[0]
        scored = [node for node in nodes if node.reward is not None]
        return min(reversed(scored), key=lambda node: -(node.reward or 0.0), default=nodes[0])

    def score(self, node: AnyNode) -> float | None:
        if self.path_score == "mean":
            return node.mean_path_reward()
        return node.reward if node.reward is not None else next(iter(node.path_rewards()[::-1]), None)

    def enough(self, gains: Sequence[float | None]) -> str | None:
        scores = [-1.0 if gain is None else gain for gain in gains]
        if self.perfect is not None and scores and max(scores) >= self.perfect:
            return "perfect"
        if self.patience is None or len(scores) <= self.patience:
            return None
        recent, before = scores[-self.patience :], scores[: -self.patience]
        return "patience" if max(recent) <= max(before) else None

    def _rank(self, node: AnyNode) -> float:
        score = self.score(node)
        return float("inf") if score is None else -score


@dataclass(frozen=True, slots=True)
class MonteCarlo:
    """Directionless sampling one step from the start (DRPO, Appendix A.2).

    W x M x D prompts, as many as beam search samples at most; prompt i is tried on query 1 + i mod (D - 1)
    and ranked by its own reward, so the best of them owes some of its rank to an easy query and to luck.
    """

    width: int
    samples: int
    depth: int
    trials: int

    def first_limit(self) -> int:
        return 2

    def next_limit(self, limit: int, any_kept: bool) -> int:
        return limit

    def draws(self, node: AnyNode, limit: int) -> tuple[Draw, ...]:
        span = min(self.depth, self.trials) - 1
        # A start that could not be evaluated is kept and tried on the next query: that is the start then.
        if span < 1 or (node.depth + 1 >= limit and not node.kept):
            return ()
        numbers = range(self.width * self.depth)
        return tuple(
            Draw(
                f"{node.place}/{number}",
                tuple(1 + i % span for i in range(number * self.samples, (number + 1) * self.samples)),
            )
            for number in numbers
        )

    def select(self, children: Sequence[AnyNode]) -> tuple[AnyNode, ...]:
        def rank(node: AnyNode) -> float:
            return float("inf") if node.reward is None else -node.reward

        return tuple(sorted(children, key=rank)[:1])

    def best(self, beam: Sequence[AnyNode], nodes: Sequence[AnyNode]) -> AnyNode:
        return beam[0]

    def score(self, node: AnyNode) -> float | None:
        return node.reward

    def enough(self, gains: Sequence[float | None]) -> str | None:
        return None
