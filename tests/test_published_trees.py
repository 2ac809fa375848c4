"""Two published trees, searched again by the engine alone, come out node for node."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drpo.search.engine import Outcome, search
from drpo.search.problem import Draw, Keep, Proposals
from drpo.search.strategy import Beam
from drpo.search.tree import Node
from drpo.types import Failed, Scored, Unscored

# Read at import: tests see no DRPO_* variables.
FOLDER = Path(
    os.environ.get("DRPO_PUBLISHED_RUNS") or Path(__file__).resolve().parents[2] / "shared/published_runs"
)
KEEP_ABOVE = 4.5
above: Callable[[float, float], bool] = float.__gt__


class PublishedTree:
    """A published run as a problem: its own answers and evaluations, found by parent and order."""

    def __init__(self, tree: dict[str, Any], keeps: Callable[[float, float], bool] = above) -> None:
        self._keeps = keeps
        self.nodes: list[dict[str, Any]] = tree["nodes"]
        self._children: dict[int, list[int]] = {}
        for parent, child in tree["edges"]:
            self._children.setdefault(parent, []).append(child)

    async def root(self) -> Scored[int] | Unscored[int]:
        return self._result(0)

    async def expand(self, node: Node[int], draw: Draw) -> Proposals[int] | Keep | Failed:
        here = self.nodes[node.state]
        if not here["evaluation"] or self._keeps(_own_mean(here), KEEP_ABOVE):
            return Keep()
        made = self._children[node.state]
        assert len(made) == len(draw.trials), "the published run kept this prompt"
        return Proposals(tuple(made))

    async def step(
        self, node: Node[int], action: int | Keep, trial: int
    ) -> Scored[int] | Unscored[int] | Failed:
        if isinstance(action, Keep):
            (action,) = self._children[node.state]
        assert self.nodes[action]["depth"] == trial
        return self._result(action)

    def _result(self, number: int) -> Scored[int] | Unscored[int]:
        node = self.nodes[number]
        if not node["evaluation"]:
            return Unscored(number, Failed("the published evaluation is empty"))
        return Scored(number, _own_mean(node))


def _own_mean(node: dict[str, Any]) -> float:
    scores = [int(entry["score"]) for entry in node["evaluation"].values()]
    return sum(scores) / len(scores)


@pytest.fixture(params=["gpt-3.5-turbo", "mistral-7b-v0.1"])
def tree(request: pytest.FixtureRequest) -> dict[str, Any]:
    path = FOLDER / f"{request.param}.json"
    if not path.is_file():
        pytest.skip(f"the published run {path.name} is missing: no such file in {FOLDER}")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


async def searched(tree: dict[str, Any], keeps: Callable[[float, float], bool] = above) -> Outcome[int]:
    settings = tree["settings"]
    strategy = Beam(
        settings["beam_size"],
        settings["n_actions"],
        settings["depth"],
        settings["max_depth_increase"],
        len(tree["queries"]),
    )
    return await search(PublishedTree(tree, keeps), strategy, unreadable="zero")


async def test_a_published_tree_is_rebuilt_node_for_node(tree: dict[str, Any]) -> None:
    outcome = await searched(tree)
    published = tree["nodes"]
    assert [node.state for node in outcome.nodes] == [node["id"] for node in published]
    assert [node.parent and node.parent.state for node in outcome.nodes] == [
        node["parent"] for node in published
    ]
    assert [node.depth for node in outcome.nodes] == [node["depth"] for node in published]


async def test_a_published_result_is_found_again(tree: dict[str, Any]) -> None:
    outcome = await searched(tree)
    assert [node.state for node in outcome.best.path()] == tree["best_path"]
    assert tree["nodes"][outcome.best.state]["system_prompt"] == tree["final_system_prompt"]
    assert outcome.score is not None
    assert math.isclose(outcome.score, tree["cumulative_reward"], abs_tol=1e-9, rel_tol=0)
    assert outcome.ended == "depth"
    assert outcome.levels == len(tree["best_path"])


async def test_keeping_at_exactly_the_threshold_would_leave_a_published_tree(tree: dict[str, Any]) -> None:
    expanded = {parent for parent, _ in tree["edges"]}
    if not any(node["evaluation"] and _own_mean(node) == KEEP_ABOVE for node in _taken_up(tree, expanded)):
        pytest.skip("no node of this run stands at exactly 4.5 where it was expanded")
    with pytest.raises((AssertionError, ValueError)):
        await searched(tree, keeps=float.__ge__)


def _taken_up(tree: dict[str, Any], expanded: set[int]) -> list[dict[str, Any]]:
    return [node for node in tree["nodes"] if node["id"] in expanded]
