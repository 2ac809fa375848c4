"""A run directory as it can be read at any moment, by whoever shows it: a report, a list, a comparison.

Nothing here takes the run's lock or changes a file, so that a run which is under way can be looked at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any, assert_never

from drpo.alignment import FILE_NAME, Alignment, read_alignment
from drpo.data import read_examples, read_queries
from drpo.errors import InputError, RecordDamaged, StorageError
from drpo.events import (
    LEVELS_NAME,
    Event,
    LevelDone,
    NodeMade,
    ProposalDropped,
    SearchDone,
    Validated,
    read_events,
)
from drpo.llm.ledger import LEDGER_NAME, Spent, read_ledger
from drpo.progress import PROGRESS_NAME, Snapshot, read_progress
from drpo.results import RESULT_NAME, ExamplesResult, read_examples_result
from drpo.run_file import read_run
from drpo.types import Example, Query

_KINDS: dict[str, Any] = {
    "node": NodeMade,
    "dropped": ProposalDropped,
    "level": LevelDone,
    "end": SearchDone,
    "validation": Validated,
}
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "bool": (bool,),
    "str": (str,),
    "dict[str, Any]": (dict,),
    "tuple[int, ...]": (tuple,),
    "int | None": (int, NoneType),
    "str | None": (str, NoneType),
    "float | None": (int, float, NoneType),
}
"""What the fields of events are written as, and what JSON gives for that."""


@dataclass(frozen=True)
class Tree:
    """One search: of a system prompt, or of one example's response (`subject` is then its number from 0).

    nodes, dropped and levels are in the order of events; `end` is None while the search goes on.
    """

    subject: int | None
    nodes: tuple[NodeMade, ...]
    dropped: tuple[ProposalDropped, ...]
    levels: tuple[LevelDone, ...]
    end: SearchDone | None

    @cached_property
    def by_id(self) -> dict[int, NodeMade]:
        """The nodes by their number."""
        return {node.id: node for node in self.nodes}

    @property
    def best(self) -> NodeMade | None:
        """The result; while the search goes on what it would give now: of an example the response with the
        highest reward, else the first prompt of the last beam. None before the first level."""
        if self.end is not None:
            return self.by_id[self.end.best]
        if not self.levels:
            return None
        if self.subject is None:
            return self.by_id[self.levels[-1].beam[0]]
        scored = [node for node in self.nodes if node.reward is not None]
        # A later one on a tie, as the search itself chooses.
        return max(reversed(scored), key=lambda node: node.reward or 0.0, default=self.nodes[0])

    def path(self, node: NodeMade) -> tuple[NodeMade, ...]:
        """The nodes from the start to `node`, both included."""
        path = [node]
        while (parent := path[-1].parent) is not None and parent in self.by_id:
            path.append(self.by_id[parent])
        return tuple(reversed(path))


@dataclass(frozen=True)
class RunView:
    """What a run directory says now.

    command: optimize or optimize-examples. settings, models, digests: of run.json's identity. run: all of
    run.json. trees: one, or one per example, none before the first level is done. alignment: the result of
    `optimize`, also the best so far of a spent budget; improved: that of `optimize-examples`. spent: per
    role, None where no ledger was kept, or where it cannot be read: `spent_unknown` then says which file and
    why. progress: the last snapshot, None where there is none.
    """

    path: Path
    command: str
    run: dict[str, Any]
    queries: tuple[Query, ...]
    examples: tuple[Example, ...]
    trees: tuple[Tree, ...]
    alignment: Alignment | None
    improved: ExamplesResult | None
    spent: dict[str, Spent] | None
    progress: Snapshot | None
    spent_unknown: str | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this run from others: command, models, embedder, settings, digests."""
        identity: dict[str, Any] = self.run["identity"]
        return identity

    @property
    def simulated(self) -> bool:
        """Whether any model is simulated."""
        return any(name.startswith("demo/") for name in self.identity["models"].values())

    @property
    def finished(self) -> bool:
        """Whether the search came to its end: that of every example, where there is one for each."""
        expected = len(self.examples) if self.command == "optimize-examples" else 1
        return len(self.trees) == expected and all(tree.end is not None for tree in self.trees)

    @property
    def has_level(self) -> bool:
        """Whether there is something to show: a level is done, or a result is there."""
        has_result = self.alignment is not None or self.improved is not None
        return has_result or any(tree.levels for tree in self.trees)


def read_view(path: Path) -> RunView:
    """The run in `path`. Raises InputError where there is none, one of a newer drpo, or one whose files
    cannot be read. Damaged books hide nothing but what was spent."""
    run = read_run(path)
    try:
        return _view(path, run)
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot be read: {error.strerror}. Unlock it") from None


def _view(path: Path, run: dict[str, Any]) -> RunView:
    # The templates are left alone: nothing of a run is rendered with them to be shown.
    inputs = path / "inputs"
    seeds = inputs / "queries.jsonl"
    command = str(run["identity"]["command"])
    has_alignment = (path / FILE_NAME).exists()
    has_result = command == "optimize-examples" and (path / RESULT_NAME).exists()
    examples = tuple(read_examples(inputs / "examples.jsonl").examples)
    spent, spent_unknown = _read_spent(path / LEDGER_NAME)
    trees = read_trees(path / "events.jsonl")
    if command == "optimize-examples" and (path / LEVELS_NAME).exists():
        trees = _with_levels(trees, path / LEVELS_NAME, len(examples))
    return RunView(
        path=path,
        command=command,
        run=run,
        queries=tuple(read_queries(seeds).queries) if seeds.exists() else (),
        examples=examples,
        trees=trees,
        alignment=read_alignment(path) if has_alignment else None,
        improved=read_examples_result(path) if has_result else None,
        spent=spent,
        progress=read_progress(path / PROGRESS_NAME),
        spent_unknown=spent_unknown,
    )


def _read_spent(file: Path) -> tuple[dict[str, Spent] | None, str | None]:
    """What the books say; or None, and why they say nothing where there are some."""
    try:
        return (read_ledger(file) if file.exists() else None), None
    except (InputError, RecordDamaged, StorageError) as error:
        said = str(error).removeprefix(str(file))
        line = re.match(r":\d+(?=: )", said)
        if line is None and "cannot be read" in said:
            return None, f"{file} {said.removeprefix(': ').partition('. ')[0]}"
        return None, f"{file}{line.group() if line else ''} is damaged"


def _with_levels(trees: Sequence[Tree], file: Path, examples: int) -> tuple[Tree, ...]:
    """The searches with those added, or put in their place, of which `drpo.events.LevelFile` knows more. That
    file is there to be looked at only: where it is damaged, nothing of it is taken."""
    try:
        told = read_trees(file)
    except InputError:
        return tuple(trees)
    found = {tree.subject: tree for tree in trees}
    for tree in told:
        is_sound = tree.subject is not None and tree.subject < examples and len(tree.by_id) == len(tree.nodes)
        known = found.get(tree.subject)
        if is_sound and (known is None or (known.end is None and len(known.levels) < len(tree.levels))):
            found[tree.subject] = tree
    return tuple(found[subject] for subject in sorted(found, key=_place))


def _place(subject: int | None) -> int:
    return -1 if subject is None else subject


def read_trees(file: Path) -> tuple[Tree, ...]:
    """The searches of a file of events, by subject. Raises InputError where a line is none, or names a node
    that is not there: what comes back is of the types that `drpo.events` says."""
    found: dict[int | None, list[Event]] = {}
    number = 0
    try:
        lines = read_events(file)
        number = 1
        for line in lines:
            found.setdefault(line.get("subject"), []).append(_event(line))
            number += 1
        number = 0  # what is wrong from here on is wrong with several lines together
        trees = (_tree(subject, found[subject]) for subject in sorted(found, key=_place))
        return tuple(tree for tree in trees if tree.nodes)  # a validation is no search of its own
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        where = f"{file}:{number}" if number else str(file)
        raise InputError(
            f"{where}: expected the events of a run: {error!r}. Delete it and run the same command again: it "
            "is rebuilt from the recorded calls"
        ) from None


def _event(line: dict[str, Any]) -> Event:
    """A line as the event that it names. Fields of a later drpo are left out."""
    kind = _KINDS[line["event"]]
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in line:
            value = tuple(line[field.name]) if field.name == "beam" else line[field.name]
            numbers = value if field.name == "beam" else ()
            if not isinstance(value, _TYPES[str(field.type)]) or not all(isinstance(n, int) for n in numbers):
                raise TypeError(f"{field.name} is {value!r}")
            values[field.name] = value
    event: Event = kind(**values)
    if isinstance(event, NodeMade):
        _check_state(event)
    return event


def _check_state(node: NodeMade) -> None:
    """Raises TypeError or ValueError where a node's state is not what `drpo.problems` writes."""
    of_prompt = node.subject is None
    texts = ("system_prompt", "query", "response", "finish_reason") if of_prompt else ("response",)
    evaluation = node.state["evaluation"]
    scores = list(evaluation.values()) if evaluation is not None else []
    told = [node.state[name] for name in texts] + [entry["rationale"] for entry in scores]
    if not all(isinstance(text, str) for text in told):
        raise TypeError("a text that is none")
    numbers = [node.reward, node.score, *(entry["score"] for entry in scores)]
    if not all(number in (None, "N/A") or math.isfinite(number) for number in numbers):
        raise ValueError("a reward or score that is no number")
    if of_prompt and not all(isinstance(shot, int) for shot in node.state["shots"]):
        raise TypeError(f"shots are {node.state['shots']!r}")


def _tree(subject: int | None, events: Sequence[Event]) -> Tree:
    """Raises ValueError where an event speaks of a node that no line before it has made."""
    made: set[int] = set()
    named: tuple[int, ...]
    for event in events:
        match event:
            case NodeMade():
                named = () if event.parent is None else (event.parent,)
            case ProposalDropped():
                named = (event.parent,)
            case LevelDone():
                named = event.beam
            case SearchDone():
                named = (event.best,)
            case Validated():
                named = ()
            case _:
                assert_never(event)
        if not made.issuperset(named) or (isinstance(event, LevelDone) and not event.beam):
            raise ValueError(f"a node that is not there, in {type(event).__name__}")
        if isinstance(event, NodeMade):
            made.add(event.id)
    return Tree(
        subject,
        tuple(event for event in events if isinstance(event, NodeMade)),
        tuple(event for event in events if isinstance(event, ProposalDropped)),
        tuple(event for event in events if isinstance(event, LevelDone)),
        next((event for event in events if isinstance(event, SearchDone)), None),
    )
