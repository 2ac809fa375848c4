"""Nodes of a run: one with all that is known of it, or those on the way to the result."""

from __future__ import annotations

from typing import Any

import click

from drpo.commands.change_lines import cut
from drpo.commands.terminal import columns, diff_text, line_of, print_json, safe, styled
from drpo.errors import InputError
from drpo.events import NodeMade
from drpo.run_view import RunView, Tree
from drpo.text_diff import Part, word_diff

_LONGEST_QUERY = 200


def choose_tree(view: RunView, example: int | None) -> Tree:
    """The search that is meant. example: its number from 1 on, of an `optimize-examples` run."""
    if view.command != "optimize-examples":
        if example is not None:
            raise InputError(
                f"--example {example}: {view.path} is one search of a prompt, it has no examples' own"
            )
        found = [tree for tree in view.trees if tree.subject is None and tree.levels]
    else:
        count = len(view.examples)
        if example is None:
            raise InputError(
                f"{view.path}: has a search for each example: choose one, --example 1 to {count}"
            )
        if not 1 <= example <= count:
            raise InputError(f"--example {example}: {view.path} has the examples 1 to {count}")
        found = [tree for tree in view.trees if tree.subject == example - 1 and tree.levels]
        if not found:
            raise InputError(
                f"--example {example}: no level of it is done yet, or none was kept. The command of "
                f"{view.path}, given again, goes on"
            )
    if not found:
        raise InputError(f"{view.path / 'events.jsonl'}: expected the nodes of the run, found none")
    return found[0]


def print_node(view: RunView, example: int | None, number: int, as_json: bool) -> None:
    """One node on stdout. Raises InputError naming the numbers that there are."""
    tree = choose_tree(view, example)
    if number not in tree.by_id:
        raise InputError(f"--node {number}: {view.path} has the nodes {_range(tree)}")
    facts = node_json(view, tree, tree.by_id[number])
    if as_json:
        print_json(facts)
        return
    click.echo("\n".join(_node_lines(view, tree, facts)))


def print_path(view: RunView, example: int | None, as_json: bool) -> None:
    """The nodes from the start to the result on stdout, each with its change and query."""
    tree = choose_tree(view, example)
    best = tree.best
    nodes = [] if best is None else [node_json(view, tree, node) for node in tree.path(best)]
    if as_json:
        print_json({"run": str(view.path), "example": example, "path": nodes})
        return
    lines: list[str] = []
    for facts in nodes:
        lines += [
            styled(f"node {facts['node']}, level {facts['depth'] + 1}", bold=True) + f": {_rewards(facts)}"
        ]
        lines.append(f"query: {cut(line_of(facts['query']), _LONGEST_QUERY)}")
        lines += [_change_text(facts), ""]
    click.echo("\n".join(lines[:-1]))


def print_example(view: RunView, example: int, as_json: bool) -> None:
    """One example of an `optimize-examples` run: how its response was changed."""
    tree = choose_tree(view, example)
    best = tree.best or tree.nodes[0]
    start = tree.nodes[0]
    parts = word_diff(start.state["response"], best.state["response"])
    ended = None if tree.end is None else tree.end.ended
    query = query_of(view, tree, best)
    if as_json:
        print_json(
            {
                "run": str(view.path),
                "example": example,
                "query": query,
                "reward_before": start.reward,
                "reward_after": best.reward,
                "response": best.state["response"],
                "change": _parts_json(parts),
                "best": best.id,
                "nodes": len(tree.nodes),
                "ended": ended,
            }
        )
        return
    lines = [
        f"example     {example} of {len(view.examples)}",
        f"reward      {_number(start.reward)} before, {_number(best.reward)} after (node {best.id})",
        f"nodes       {_range(tree)}; --node and --path show them",
        *_section("query", safe(query)),
        *_section("response, and how it was changed", diff_text(parts)),
    ]
    click.echo("\n".join(lines))


def node_json(view: RunView, tree: Tree, node: NodeMade) -> dict[str, Any]:
    """All that is known of a node. change: None for the start; parts as (change, text) otherwise."""
    best = tree.best
    on_path = best is not None and node in tree.path(best)
    beams = {level.level: level.beam for level in tree.levels}
    evaluation = node.state["evaluation"] or {}
    parent = None if node.parent is None else tree.by_id[node.parent]
    text = "system_prompt" if tree.subject is None else "response"
    parts = () if parent is None else word_diff(parent.state[text], node.state[text])
    facts = {
        "node": node.id,
        "example": None if tree.subject is None else tree.subject + 1,
        "depth": node.depth,
        "parent": node.parent,
        "kept": node.kept,
        "reward": node.reward,
        "path_score": node.score,
        "in_beam": node.id in beams.get(node.depth, ()),
        "on_best_path": on_path,
        "is_best": node is best,
        "query": query_of(view, tree, node),
        "shots": [_shot(view, index) for index in node.state.get("shots", [])],
        "response": node.state["response"],
        "finish_reason": node.state.get("finish_reason"),
        "scores": [{"aspect": aspect, **entry} for aspect, entry in evaluation.items()],
        "failure": node.failure,
        "change": None if parent is None else _parts_json(parts),
        "children": [child.id for child in tree.nodes if child.parent == node.id],
        "dropped": [{"reason": d.reason, "raw": d.raw} for d in tree.dropped if d.parent == node.id],
    }
    return facts if tree.subject is not None else {**facts, "system_prompt": node.state["system_prompt"]}


def query_of(view: RunView, tree: Tree, node: NodeMade) -> str:
    """The query on which a node was tried."""
    if tree.subject is None:
        return str(node.state["query"])
    return view.examples[tree.subject].query if tree.subject < len(view.examples) else ""


def _node_lines(view: RunView, tree: Tree, facts: dict[str, Any]) -> list[str]:
    went_on = "in the beam of its level" if facts["in_beam"] else "not in the beam of its level"
    place = (
        ", the result" if facts["is_best"] else ", on the path to the result" if facts["on_best_path"] else ""
    )
    children = " ".join(map(str, facts["children"])) or "none"
    lines = [
        f"node        {facts['node']} ({_range(tree)}), level {facts['depth'] + 1}",
        f"parent      {_parent(facts)}",
        f"reward      {_rewards(facts).removeprefix('reward ')}",
        f"beam        {went_on}{place}",
        f"children    {children}",
    ]
    lines += [f"dropped     {line_of(dropped['reason'])}" for dropped in facts["dropped"]]
    if facts["failure"] is not None:
        lines.append(f"failure     {line_of(facts['failure'])}")
    if "system_prompt" in facts:
        lines += _section("system prompt", safe(facts["system_prompt"]))
    if facts["parent"] is not None and not facts["kept"]:
        lines += _section(f"change to node {facts['parent']}", _change_text(facts))
    lines += _section("query", safe(facts["query"]))
    if facts["shots"]:
        shots = [f"{shot['example']:>4}  {line_of(shot['query'])}" for shot in facts["shots"]]
        lines += _section("shots (number and query of each example)", "\n".join(shots))
    finish = facts["finish_reason"]
    lines += _section("response" + (f" ({line_of(finish)})" if finish else ""), safe(facts["response"]))
    rows = [(line_of(s["aspect"]), _score(s["score"]), line_of(s["rationale"])) for s in facts["scores"]]
    if rows:
        lines += ["", *columns(("aspect", "score", "rationale"), rows, ("score",))]
    return lines


def _section(heading: str, text: str) -> list[str]:
    return ["", styled(heading, bold=True), text]


def _change_text(facts: dict[str, Any]) -> str:
    if facts["change"] is None:
        return safe(facts["system_prompt"] if "system_prompt" in facts else facts["response"])
    if all(part["change"] == "same" for part in facts["change"]):
        return "unchanged" + (": kept, and tried on this query" if facts["kept"] else "")
    return diff_text([Part(part["change"], part["text"]) for part in facts["change"]])


def _parent(facts: dict[str, Any]) -> str:
    if facts["parent"] is None:
        return "none, this is the start"
    return f"{facts['parent']}" + (", whose text was kept" if facts["kept"] else "")


def _rewards(facts: dict[str, Any]) -> str:
    reward = "no reward" if facts["reward"] is None else f"reward {facts['reward']:.2f}"
    if facts["example"] is not None:
        return reward
    if facts["parent"] is None:
        return f"{reward}, the start: not part of the path score"
    return f"{reward}, path score {_number(facts['path_score'])}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _score(score: object) -> str:
    return f"{score:g}" if isinstance(score, (int, float)) else "N/A"


def _shot(view: RunView, index: int) -> dict[str, Any]:
    query = view.examples[index].query if 0 <= index < len(view.examples) else ""
    return {"example": index + 1, "query": query}


def _parts_json(parts: tuple[Part, ...]) -> list[dict[str, str]]:
    return [{"change": part.change, "text": part.text} for part in parts]


def _range(tree: Tree) -> str:
    """The numbers of its nodes, which have no gaps."""
    return f"0 to {max(tree.by_id)}" if len(tree.nodes) > 1 else "0 only"
