"""The candidates of a validation are promising, and not near copies of one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from drpo.search.tree import Node
from drpo.validation.promise import Belief, promising

START = "start"
Try = tuple[str, str]
"""A prompt and the query that it was tried on."""


def grown(*paths: str, rewards: Mapping[str, float] | None = None) -> list[Node[Try]]:
    """The nodes of a tree of paths "a b c": a was made from the start, b from a; "a a" keeps a. Each depth
    has a query of its own. Rewards are by prompt, 3 by default."""
    nodes = {"": Node(0, "r", 0, (START, "query 0"), 3.0, None)}
    for path in paths:
        parent, way = nodes[""], ""
        for prompt in path.split():
            way += f" {prompt}"
            depth = parent.depth + 1
            reward = (rewards or {}).get(prompt, 3.0)
            nodes.setdefault(way, Node(len(nodes), way, depth, (prompt, f"query {depth}"), reward, parent))
            parent = nodes[way]
    return list(nodes.values())


def candidates(
    nodes: Sequence[Node[Try]], best: str, count: int, without: str = "", belief: Belief | None = None
) -> list[str]:
    """The chosen prompts, where the last node with the prompt `best` is the search's result."""
    result = [node for node in nodes if node.state[0] == best][-1]
    found = promising(
        result,
        nodes,
        lambda node: node.state[0],
        lambda node: node.state[1],
        lambda node: node.state[0] not in without.split(),
        count,
        belief or Belief(),
    )
    return [node.state[0] for node in found]


LONG = "a b c d e f g h"
BRANCHES = (LONG, "x y", "p q")


def test_the_result_of_the_search_comes_first_whatever_its_rewards() -> None:
    assert candidates(grown(*BRANCHES, rewards={"h": 1.0}), "h", 1) == ["h"]


def test_of_prompts_alike_in_all_else_the_one_of_higher_reward_is_taken() -> None:
    for better, worse in ("xp", "px"):
        found = candidates(grown("a", "x", "p", rewards={better: 4.5, worse: 2.0}), "a", 2)
        assert found == ["a", better]


def test_a_reward_counts_by_what_others_got_on_the_same_query() -> None:
    """b and z have the same reward, but b's query is a hard one, as all others on it show."""
    rewards = {"b": 4.0, "c": 2.0, "d": 2.0, "x": 3.0, "y": 5.0, "z": 4.0, "w": 5.0}
    root = grown()[0]
    nodes = [root]
    for query, prompts in (("hard", "bcd"), ("easy", "yzw")):
        for prompt in prompts:
            nodes.append(Node(len(nodes), prompt, 1, (prompt, query), rewards[prompt], root))
    assert candidates(nodes, "d", 2) == ["d", "b"]


def test_a_near_copy_of_a_candidate_is_passed_over_for_one_that_differs() -> None:
    """Siblings of the result have its rewards; still the first prompts of the branches come before them."""
    siblings = [f"a b c d e f g {name}" for name in ("h2", "h3", "h4")]
    rewards = dict.fromkeys(("h", "h2", "h3", "h4"), 3.2)
    found = candidates(grown(*BRANCHES, *siblings, "a b k", rewards=rewards), "h", 4)
    assert found[0] == "h" and not {"h2", "h3", "h4"} & set(found[1:3])
    assert {"x", "y", "p", "q"} & set(found)


def test_both_ends_of_a_long_way_are_taken_since_editing_may_have_gone_either_way() -> None:
    found = candidates(grown(LONG), "h", 2, belief=Belief(drift=0.1))
    assert found[0] == "h" and found[1] in {"a", "b"}


def test_where_edits_change_nothing_each_candidate_is_of_another_branch() -> None:
    found = candidates(grown(*BRANCHES), "h", 3, belief=Belief(drift=0.0, edit=1e-9))
    assert found[0] == "h" and {name in "xy" for name in found[1:]} == {True, False}
    assert not set(found[1:]) & set(LONG)


def test_several_tries_of_a_kept_prompt_weigh_more_than_one() -> None:
    once = {"a": 4.0, "b": 4.0, "c": 2.0, "d": 2.0}
    root = grown()[0]
    a = Node(1, "a", 1, ("a", "query 1"), once["a"], root)
    nodes = [root, a]
    nodes += [
        Node(n, name, 1, (name, "query 1"), once[name], root) for n, name in ((2, "b"), (3, "c"), (4, "d"))
    ]
    b = nodes[2]
    for depth in (2, 3, 4):
        b = Node(len(nodes), f"b{depth}", depth, ("b", f"query {depth}"), 4.0, b, kept=True)
        nodes.append(b)
        for place, name in enumerate("cd"):
            tried = nodes[3 + place]
            nodes.append(
                Node(len(nodes), f"{name}{depth}", depth, (name, f"query {depth}"), 2.0, tried, kept=True)
            )
    assert candidates(nodes, "c", 2) == ["c", "b"]


def test_a_prompt_made_from_a_kept_start_is_a_first_one() -> None:
    kept = grown(f"{START} a b", "x")
    assert set(candidates(kept, "b", 9)) == {"a", "b", "x"}


@pytest.mark.parametrize("count", [1, 2, 5, 32])
def test_candidates_differ_and_are_as_many_as_asked_for_or_as_there_are(count: int) -> None:
    found = candidates(grown(*BRANCHES, "a a b2", "x y b2"), "h", count)
    assert len(found) == len(set(found)) == min(count, 13) and found[0] == "h"
    assert START not in found


def test_what_does_not_fit_is_no_candidate_but_tells_of_those_that_do() -> None:
    nodes = grown("a b", "x y", "p q", rewards={"x": 5.0, "a": 3.0, "p": 1.0})
    assert candidates(nodes, "b", 1, without="a b x p") == ["y"]


def test_a_search_that_made_nothing_or_was_told_nothing_still_gives_an_answer() -> None:
    assert candidates(grown(), START, 3) == []
    root: Node[Try] = Node(0, "r", 0, (START, "query 0"), None, None)
    unread = Node(1, "a", 1, ("a", "query 1"), None, root)
    assert candidates([root, unread], "a", 3) == ["a"]


def test_of_a_wide_search_the_nodes_that_promise_most_are_looked_at() -> None:
    root = grown()[0]
    nodes = [root]
    nodes += [Node(n, str(n), 1, (str(n), f"query {n % 7}"), 3 + n % 13 / 13, root) for n in range(1, 3000)]
    found = candidates(nodes, "5", 4, belief=Belief(draws=100))
    assert found[0] == "5" and {int(name) % 13 for name in found[1:]} <= {10, 11, 12}
