"""Which prompts of a search are worth a comparison on queries that it never saw."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from drpo.search.tree import Node
from drpo.statistics import Floats
from drpo.types import State


@dataclass(frozen=True, slots=True)
class Belief:
    """What is assumed of a tree before its rewards are seen: variances, that of a reward's error being 1.

    A reward is what its query adds for every prompt, plus the prompt's effect, plus an error. A prompt's
    effect is that of the prompt it was edited from, plus what the edit changes: `first` is the variance of
    that for a prompt made from the initial one, `edit` for every later one. `drift` is that of what all later
    edits have in common: an optimizer may improve on the whole, or wear a good prompt down. `query` is wide,
    so that it is prompts tried on the same query which are compared.

    The orders of magnitude are those of the simulated searches: an error of 0.5 points, 0.25 for a first
    prompt, 0.07 for an edit. Three times as much or as little of any of them chooses nearly as well.
    """

    first: float = 0.3
    edit: float = 0.02
    drift: float = 0.02
    query: float = 10.0
    draws: int = 1000


BELIEF = Belief()
_MOST = 1000
"""So many nodes are looked at, those with the best path: the work grows with the cube of their number."""
_DIGITS = 9
"""Values are compared after rounding: another machine, with other rounding errors, must choose the same."""


def promising(
    best: Node[State],
    nodes: Sequence[Node[State]],
    prompt: Callable[[Node[State]], str],
    query: Callable[[Node[State]], Hashable],
    fits: Callable[[Node[State]], bool],
    count: int,
    belief: Belief = BELIEF,
) -> list[Node[State]]:
    """At most `count` nodes with different prompts that `fits` lets through, `best` first if it is one.

    They are chosen together, so that the best one among them may be expected to be as good as possible: each
    time the prompt is added that raises the mean of the best effect the most, over many draws of what the
    effects can truly be, given the rewards (0, the initial prompt's, is among them). A near copy of what is
    chosen already adds little to that, however high its rewards; a prompt of which little is known adds more.
    Rewards of one query each know little: mostly not even whether the last prompts of a search are better
    than its first ones, as those were tried on other queries. Then some of both are chosen, and the kept
    queries decide. `query` names what a node was tried on; nodes[0] is the root, with the initial prompt.
    """
    by_path = sorted(nodes[1:], key=lambda node: -(node.mean_path_reward() or 0.0))
    looked_at = sorted({nodes[0], *by_path[:_MOST], *best.path()}, key=lambda node: node.id)
    initial = prompt(nodes[0])
    found: dict[str, Node[State]] = {}
    for node in (best, *looked_at):
        if fits(node) and prompt(node) != initial:
            found.setdefault(prompt(node), node)
    effects = _possible_effects(looked_at, prompt, query, list(found), belief)
    at_first = [place for place, name in enumerate(found) if name == prompt(best)]
    chosen = _best_together(effects, at_first, min(count, len(found)))
    return [list(found.values())[place] for place in chosen]


def _best_together(effects: Floats, chosen: Sequence[int], count: int) -> list[int]:
    """`chosen` and so many further columns that there are `count`: those that raise the mean over the rows of
    the highest effect the most, one by one."""
    together = list(chosen)
    while len(together) < count:
        reached = effects[:, together].max(axis=1, initial=0.0)
        values = np.maximum(reached[:, None], effects).mean(axis=0).round(_DIGITS)
        values[together] = -np.inf
        together.append(int(values.argmax()))
    return together


def _edits(nodes: Sequence[Node[State]], prompt: Callable[[Node[State]], str]) -> dict[str, tuple[str, ...]]:
    """Of each prompt the edits that made it from the initial one, named by the prompts that they made: those
    on the path to the node where it came first."""
    edits = {prompt(nodes[0]): tuple[str, ...]()}
    for node in nodes:
        for step in node.path()[1:]:
            name = prompt(step)
            if name not in edits:
                assert step.parent is not None
                edits[name] = (*edits[prompt(step.parent)], name)
    return edits


def _possible_effects(
    nodes: Sequence[Node[State]],
    prompt: Callable[[Node[State]], str],
    query: Callable[[Node[State]], Hashable],
    candidates: Sequence[str],
    belief: Belief,
) -> Floats:
    """A row per draw and a column per candidate: effects as they can be, given the rewards, in units of the
    error of a reward.

    Each draw is one of the model's parts and errors as believed, corrected by what its rewards are off from
    those that were seen (Matheron's rule): a sample of the posterior without factoring its covariance.
    """
    tried = [node for node in nodes if node.reward is not None]
    queries = {name: place for place, name in enumerate(dict.fromkeys(map(query, tried)))}
    edits = _edits(nodes, prompt)
    parts = {name: place for place, name in enumerate(edits)}
    drift, width = len(parts), len(parts) + 1

    def made_of(names: Sequence[str]) -> Floats:
        """Rows that say of which parts the effects of prompts consist: their edits, and a drift for each one
        but the first."""
        rows = np.zeros((len(names), width + len(queries)))
        for row, name in zip(rows, names, strict=True):
            row[[parts[edit] for edit in edits[name]]] = 1
            row[drift] = max(0, len(edits[name]) - 1)
        return rows

    variances = np.array(
        [belief.first if len(made) == 1 else belief.edit for made in edits.values()]
        + [belief.drift]
        + [belief.query] * len(queries)
    )
    seen = made_of([prompt(node) for node in tried])
    seen[range(len(tried)), [width + queries[query(node)] for node in tried]] = 1
    rewards = np.array([node.reward for node in tried], dtype=np.float64)
    rewards -= rewards.mean() if len(tried) else 0
    inverse = np.linalg.inv(seen * variances @ seen.T + np.eye(len(tried)))
    size = float(np.sqrt(rewards @ inverse @ rewards / max(1, len(tried) - 1)))
    half = np.random.default_rng(0).standard_normal((belief.draws, len(variances) + len(tried)))
    dice = np.concatenate([half, -half])
    drawn, errors = dice[:, : len(variances)] * np.sqrt(variances), dice[:, len(variances) :]
    off = (rewards / size if size > 0 else rewards) - (drawn @ seen.T + errors)
    return np.asarray((drawn + off @ inverse @ (seen * variances)) @ made_of(candidates).T)
