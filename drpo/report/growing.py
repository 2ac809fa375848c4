"""What a run has told so far, as what a page is made from; also over a pipe, a line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from drpo.alignment import Alignment
from drpo.events import Event, LevelDone, NodeMade, ProposalDropped, SearchDone, event_line
from drpo.llm.ledger import Spent
from drpo.progress import RunState
from drpo.results import ExamplesResult
from drpo.run_view import RunView, Tree
from drpo.types import Example, Query

_KINDS: dict[str, Any] = {
    "node": NodeMade,
    "dropped": ProposalDropped,
    "level": LevelDone,
    "end": SearchDone,
}

ResultFile = Literal["alignment", "examples"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A page is wanted. state: how the run stands. spent: what the books say. written_s: seconds since 1970,
    to be said on it. result: which file of the run directory holds the result, None while there is none."""

    state: RunState | None
    spent: Mapping[str, Spent]
    written_s: float
    result: ResultFile | None = None


@dataclass
class _Search:
    nodes: list[NodeMade] = field(default_factory=list)
    dropped: list[ProposalDropped] = field(default_factory=list)
    levels: list[LevelDone] = field(default_factory=list)
    end: SearchDone | None = None


class Growing:
    """A run whose events are added one by one.

    path: its directory. run: the content of run.json.
    """

    def __init__(
        self, path: Path, run: Mapping[str, Any], queries: Sequence[Query], examples: Sequence[Example]
    ) -> None:
        self._path, self._run = path, dict(run)
        self._queries, self._examples = tuple(queries), tuple(examples)
        self._searches: dict[int | None, _Search] = {}

    def add(self, events: Iterable[Event]) -> None:
        """Take in what happened."""
        for event in events:
            match event:
                case NodeMade():
                    self._search(event).nodes.append(event)
                case ProposalDropped():
                    self._search(event).dropped.append(event)
                case LevelDone():
                    self._search(event).levels.append(event)
                case SearchDone():
                    self._search(event).end = event
                # a validation is part of the result

    def view(
        self,
        spent: Mapping[str, Spent],
        alignment: Alignment | None = None,
        improved: ExamplesResult | None = None,
    ) -> RunView:
        """The run as it is now."""
        subjects = sorted(self._searches, key=lambda subject: -1 if subject is None else subject)
        searches = [(subject, self._searches[subject]) for subject in subjects]
        return RunView(
            path=self._path,
            command=str(self._run["identity"]["command"]),
            run=self._run,
            queries=self._queries,
            examples=self._examples,
            trees=tuple(
                Tree(subject, tuple(it.nodes), tuple(it.dropped), tuple(it.levels), it.end)
                for subject, it in searches
            ),
            alignment=alignment,
            improved=improved,
            spent=dict(spent),
            progress=None,
        )

    def _search(self, event: Event) -> _Search:
        return self._searches.setdefault(event.subject, _Search())


def run_line(path: Path) -> bytes:
    """Which run it is."""
    return _line({"run": str(path)})


def event_bytes(event: Event) -> bytes:
    """An event, as events.jsonl has it."""
    return event_line(event).encode("utf-8", "backslashreplace")


def wanted_line(wanted: Wanted) -> bytes:
    """The wish for a page."""
    spent = {role: asdict(counts) for role, counts in wanted.spent.items()}
    told = {"state": wanted.state, "written_s": wanted.written_s, "result": wanted.result, "spent": spent}
    return _line({"wanted": told})


def read_line(line: bytes) -> Path | Event | Wanted | None:
    """What the other side has said by one of these lines; None of an event that no page shows."""
    values: dict[str, Any] = json.loads(line)
    if "run" in values:
        return Path(values["run"])
    if "wanted" in values:
        told = values["wanted"]
        spent = {role: Spent(**counts) for role, counts in told.pop("spent").items()}
        return Wanted(spent=spent, **told)
    kind = _KINDS.get(values.pop("event"))
    if "beam" in values:
        values["beam"] = tuple(values["beam"])
    return None if kind is None else kind(**values)


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode("ascii") + b"\n"
