"""Real searches on the simulated models, as a tracker is told of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import drpo
from drpo.events import Event, LevelDone, NodeMade
from drpo.jsonl import read_lines
from drpo.llm.base import Usage
from drpo.llm.ledger import LEDGER_NAME, CallDone, Spent, read_ledger
from drpo.run import Hooks
from drpo.run_dir import read_run
from drpo.tracking import RunFacts, Tracker, Trackers, open_trackers
from drpo.tracking.rows import Row, Rows

BEGAN_S = 1_795_000_000.0


@dataclass(frozen=True)
class Searched:
    """A finished search: what is known of it, its events as they were told, its requests from its books."""

    facts: RunFacts
    events: tuple[Event, ...]
    calls: tuple[CallDone, ...]
    results: dict[str, float]
    files: tuple[Path, ...]

    @property
    def levels(self) -> tuple[LevelDone, ...]:
        return tuple(event for event in self.events if isinstance(event, LevelDone))

    def resumed(self) -> Searched:
        """As a second process tells it: every event again, no request, what was spent known."""
        spent = sum(read_ledger(self.facts.path / LEDGER_NAME).values(), Spent())
        return replace(self, facts=replace(self.facts, resumed=True, spent=spent), calls=())

    def cut_after(self, levels: int) -> Searched:
        """As a process tells it that was killed when so many levels were done."""
        last = self.events.index(self.levels[levels - 1])
        return replace(self, events=self.events[: last + 1])

    def told(self) -> Iterator[Event | CallDone]:
        """Everything in order: before each level is done, its share of the requests."""
        left = list(self.calls)
        share = -(-len(left) // max(1, len(self.levels)))
        for event in self.events:
            if isinstance(event, LevelDone):
                yield from left[:share]
                del left[:share]
            yield event

    def rows(self) -> list[Row]:
        """The figures that a tracker of curves makes of it."""
        rows, found = Rows(self.facts.spent), list[Row]()
        for entry in self.told():
            if isinstance(entry, CallDone):
                rows.call(entry)
            else:
                found += rows.event(entry)
        return found

    def texts(self) -> set[str]:
        """A telling part of each prompt, query and reply."""
        states = [event.state for event in self.events if isinstance(event, NodeMade)]
        return {str(state[name])[:40] for state in states for name in ("system_prompt", "response", "query")}

    def tell(self, to: Tracker | Trackers) -> None:
        """All but the end."""
        to.begin(self.facts)
        for entry in self.told():
            if isinstance(entry, CallDone):
                to.call(entry)
            else:
                to.event(entry)


class Tracked:
    """Tracks searches by the environment's settings, and keeps what is said about it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.said: list[str] = []

    def run(self, search: Searched, state: str = "finished") -> Tracked:
        """A whole search, from its beginning to its end."""
        trackers = open_trackers((self.name,), os.environ, self.said.append)
        search.tell(trackers)
        asyncio.run(trackers.end(state, search.results, search.files))
        return self

    @property
    def problems(self) -> list[str]:
        return [said for said in self.said if not said.startswith("tracked: ")]


def searched(path: Path, **settings: Any) -> Searched:
    """`drpo optimize` on the simulated models."""
    events: list[Event] = []
    wanted = {"depth": 4, "max_extra_depth": 1, **settings}
    result = drpo.optimize(model="demo", run_dir=path, hooks=Hooks((events.append,)), **wanted)
    found = result.alignment.found
    return _searched(path, events, {"path_score": float(found.path_score or 0), "nodes": float(found.nodes)})


def improved(path: Path) -> Searched:
    """`drpo optimize-examples` on the simulated models."""
    events: list[Event] = []
    drpo.optimize_examples(model="demo", run_dir=path, depth=2, hooks=Hooks((events.append,)))
    return _searched(path, events, {})


def _searched(path: Path, events: list[Event], results: dict[str, float]) -> Searched:
    run = read_run(path)
    identity = run["identity"]
    facts = RunFacts(
        name=path.name,
        path=path,
        command=identity["command"],
        models=identity["models"],
        settings=run["settings"],
        digests=identity["digests"],
        simulated=True,
    )
    files = tuple(path / name for name in ("alignment.json", "run.json", "no-such-file.html"))
    return Searched(facts, tuple(events), tuple(_calls(path / LEDGER_NAME)), results, files)


def _calls(ledger: Path) -> Iterator[CallDone]:
    sent: dict[int, dict[str, Any]] = {}
    for line in read_lines(ledger).records:
        if line["kind"] == "sent":
            sent[line["id"]] = line
        elif line["kind"] == "answered":
            yield CallDone(
                role=sent[line["id"]]["role"],
                model=sent[line["id"]]["model"],
                operation="chat",
                began_s=BEGAN_S + line["id"],
                took_s=line["took_s"],
                ending="answered",
                usage=Usage(*line["usage"]),
                usd=line["usd"],
                finish_reasons=("stop",),
                max_tokens=2048,
                temperature=0.0,
            )
