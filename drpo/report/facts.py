"""The nodes of a run as a report needs them: typed, each compared with the one it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from drpo.errors import InputError
from drpo.events import LevelDone, NodeMade, ProposalDropped, SearchDone
from drpo.report.shown import island
from drpo.run_view import RunView, Tree
from drpo.text_diff import Part, word_diff
from drpo.types import AspectScore

_MARKS = {"same": 0, "added": 1, "removed": -1}


@dataclass(frozen=True)
class NodeFacts:
    """A node. text: what is optimized, the system prompt or an example's response, and `parts` how it came
    from the parent's (the start's is all `same`). response: None where it is the text itself."""

    id: int
    parent: int | None
    depth: int
    kept: bool
    reward: float | None
    score: float | None
    failure: str | None
    text: str
    parts: tuple[Part, ...]
    query: str
    shots: tuple[int, ...]
    response: str | None
    finish_reason: str
    scores: tuple[AspectScore, ...]


@dataclass(frozen=True)
class TreeFacts:
    """One search. beam: every node that went on, path: those from the start to the best, both included."""

    subject: int | None
    nodes: tuple[NodeFacts, ...]
    dropped: tuple[ProposalDropped, ...]
    levels: tuple[LevelDone, ...]
    end: SearchDone | None
    beam: frozenset[int]
    path: tuple[NodeFacts, ...]

    @property
    def root(self) -> NodeFacts | None:
        """The start, None before the first level."""
        return self.nodes[0] if self.nodes else None

    @property
    def best(self) -> NodeFacts | None:
        """The result, or the best so far; None before the first level."""
        return self.path[-1] if self.path else None

    @cached_property
    def by_id(self) -> dict[int, NodeFacts]:
        """The nodes by their number."""
        return {node.id: node for node in self.nodes}


@dataclass
class Memory:
    """What need not be done again when the same run is shown again with more nodes.

    Queries and aspects keep the numbers that they got first, in order of appearance.
    """

    nodes: dict[tuple[int | None, int], NodeFacts] = field(default_factory=dict)
    fragments: dict[tuple[int | None, int], str] = field(default_factory=dict)
    queries: dict[str, int] = field(default_factory=dict)
    aspects: dict[str, int] = field(default_factory=dict)
    compared: dict[tuple[str, str], tuple[Part, ...]] = field(default_factory=dict)

    def changes(self, before: str, after: str) -> tuple[Part, ...]:
        """`word_diff`, of the same texts only once."""
        if (before, after) not in self.compared:
            self.compared[before, after] = word_diff(before, after)
        return self.compared[before, after]

    def fragment(self, subject: int | None, node: NodeFacts) -> str:
        """The node as JSON for the page's script; short names, since there are hundreds of them."""
        key = (subject, node.id)
        if key not in self.fragments:
            scores = [[self.aspects[s.aspect], s.score, s.rationale] for s in node.scores]
            row: dict[str, Any] = {
                "i": node.id,
                "p": node.parent,
                "d": node.depth,
                "r": node.reward,
                "s": node.score,
                "q": self.queries[node.query],
                "t": [[_MARKS[part.change], part.text] for part in node.parts],
                "e": scores,
            }
            more = {
                "k": int(node.kept),
                "h": list(node.shots),
                "a": node.response,
                "f": node.failure,
                "x": node.finish_reason if node.finish_reason != "stop" else None,
            }
            row |= {name: value for name, value in more.items() if value not in (None, "", 0, [])}
            if node.response == "":
                row["a"] = ""  # an empty answer is an answer
            self.fragments[key] = island(row)
        return self.fragments[key]


def read_facts(view: RunView, memory: Memory) -> tuple[TreeFacts, ...]:
    """The searches of a run. Raises InputError where its events do not belong together."""
    if view.command != "optimize":  # their numbers are those of the examples, whichever comes first
        for example in view.examples:
            memory.queries.setdefault(example.query, len(memory.queries))
    return tuple(_read_tree(view, tree, memory) for tree in view.trees)


def _read_tree(view: RunView, tree: Tree, memory: Memory) -> TreeFacts:
    is_prompt = view.command == "optimize"
    if (tree.subject is None) != is_prompt or (
        tree.subject is not None and not 0 <= tree.subject < len(view.examples)
    ):
        raise _wrong(view, f"events of {view.command}", f"example {tree.subject}")
    nodes: dict[int, NodeFacts] = {}
    for event in tree.nodes:
        if event.id in nodes or (event.parent is None) != (not nodes):
            raise _wrong(view, "one start and a new number for each node", f"node {event.id}")
        if (tree.subject, event.id) not in memory.nodes:
            memory.nodes[tree.subject, event.id] = _read_node(view, event, nodes)
            _number(memory, memory.nodes[tree.subject, event.id])
        nodes[event.id] = memory.nodes[tree.subject, event.id]
    path: list[NodeFacts] = []
    at = tree.best.id if tree.best else None
    while at is not None:
        path.append(nodes[at])
        at = path[-1].parent
    return TreeFacts(
        subject=tree.subject,
        nodes=tuple(nodes.values()),
        dropped=tree.dropped,
        levels=tree.levels,
        end=tree.end,
        beam=frozenset(number for level in tree.levels for number in level.beam),
        path=tuple(reversed(path)),
    )


def _number(memory: Memory, node: NodeFacts) -> None:
    memory.queries.setdefault(node.query, len(memory.queries))
    for score in node.scores:
        memory.aspects.setdefault(score.aspect, len(memory.aspects))


def _read_node(view: RunView, event: NodeMade, nodes: Mapping[int, NodeFacts]) -> NodeFacts:
    state = event.state
    is_prompt = event.subject is None
    text: str = state["system_prompt" if is_prompt else "response"]
    parent = None if event.parent is None else nodes[event.parent].text
    if parent is None or parent == text:
        parts: tuple[Part, ...] = (Part("same", text),) if text else ()
    else:
        parts = word_diff(parent, text)
    shots: tuple[int, ...] = tuple(state["shots"]) if is_prompt else ()
    if not all(0 <= shot < len(view.examples) for shot in shots):
        raise _wrong(view, f"shots among the {len(view.examples)} examples", str(shots))
    return NodeFacts(
        id=event.id,
        parent=event.parent,
        depth=event.depth,
        kept=event.kept,
        reward=event.reward,
        score=event.score,
        failure=event.failure,
        text=text,
        parts=parts,
        query=state["query"] if event.subject is None else view.examples[event.subject].query,
        shots=shots,
        response=state["response"] if is_prompt else None,
        finish_reason=state["finish_reason"] if is_prompt else "",
        scores=_scores(state["evaluation"]),
    )


def _scores(evaluation: Mapping[str, Mapping[str, Any]] | None) -> tuple[AspectScore, ...]:
    return tuple(
        AspectScore(aspect, None if given["score"] in ("N/A", None) else given["score"], given["rationale"])
        for aspect, given in (evaluation or {}).items()
    )


def _wrong(view: RunView, expected: str, came: str) -> InputError:
    return InputError(
        f"{view.path / 'events.jsonl'}: expected {expected}, came {came}. Delete it and run the same command "
        "again: it is rebuilt from the recorded calls"
    )
