"""Whoever follows a run has no part in it: what fails there costs what it would have shown, no more."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import drpo
from drpo.config import ExamplesConfig
from drpo.data import write_examples
from drpo.errors import Interrupted
from drpo.events import Event, LevelDone, LevelFile, NodeMade, SearchDone, event_line
from drpo.llm.base import Completion, Request
from drpo.llm.ledger import CallDone
from drpo.llm.simulated import SimulatedLLM
from drpo.monitor import Monitor
from drpo.plan import examples_plan
from drpo.run import Hooks
from drpo.run_view import read_view
from drpo.settings import resolve
from drpo.tracking import RunFacts, Trackers
from tests.support.command import Shell
from tests.support.report_page import Document
from tests.support.report_runs import EXAMPLES
from tests.support.shown_runs import result_json

LONG_S = 30.0


class Shelf:
    """A tracker that remembers, and waits at the end where there is a gate."""

    where = ""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.heard: list[str] = []
        self._gate = gate

    def begin(self, run: RunFacts) -> None:
        self.heard.append("begin")

    def event(self, event: Event) -> None:
        self.heard.append("event")

    def call(self, call: CallDone) -> None:
        self.heard.append("call")

    def end(self, state: str, results: Mapping[str, float], files: Sequence[Path]) -> None:
        if self._gate is not None:
            assert self._gate.wait(LONG_S)
        self.heard.append(f"end {state}")


class Followed:
    """A small run in a folder of its own, with what is said and tracked of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.said, self.shelf = folder / "run", list[str](), Shelf()
        self.env = monkeypatch
        monkeypatch.setattr("drpo.run.open_trackers", lambda names, env, notice: self.trackers(notice))

    def trackers(self, notice: Callable[[str], None]) -> Trackers:
        self.opened = Trackers({"shelf": self.shelf}, notice)
        return self.opened

    def run(self, *observers: Callable[[Event], None], report: bool = False, **hooks: Any) -> Any:
        told = Hooks(observers=observers, notice=self.said.append, **hooks)
        settings: dict[str, Any] = {"depth": 3, "width": 1, "samples": 2, "max_extra_depth": 0}
        return drpo.optimize(
            model="demo", run_dir=self.path, reuse=False, report=report, hooks=told, **settings
        )

    def break_(self, target: str) -> None:
        """Let a function of ours raise."""
        owner, _, name = target.rpartition(".")
        module, _, kind = owner.rpartition(".")
        found = getattr(__import__(module, fromlist=[kind]), kind)

        def breaking(*arguments: Any, **named: Any) -> Any:
            raise RuntimeError("a bug of ours")

        self.env.setattr(found, name, breaking)


@pytest.fixture
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Followed]:
    run = Followed(tmp_path, monkeypatch)
    end = Trackers.end
    yield run
    asyncio.run(end(run.opened, "", {}))  # where its end was broken: no thread outlives the test


def test_an_observer_that_raises_is_told_once_and_left_out(followed: Followed) -> None:
    heard: list[Event] = []
    others: list[Event] = []

    def raising(event: Event) -> None:
        heard.append(event)
        raise ValueError("no\nsuch thing")

    result = followed.run(raising, others.append)
    assert result.alignment.found.ended == "depth"
    assert len(heard) == 1 and isinstance(others[-1], SearchDone)
    [said] = followed.said
    assert "ValueError: no such thing" in said and "goes on without it" in said
    assert followed.shelf.heard[-1] == "end finished"
    log = (followed.path / "run.log").read_text(encoding="utf-8")
    assert "Traceback" in log and "in raising" in log


def test_a_page_that_cannot_be_made_costs_the_report(followed: Followed) -> None:
    followed.break_("drpo.report.page.Page.render")
    result = followed.run(report=True)
    assert result.alignment.found.ended == "depth"
    [said] = followed.said
    assert "report.html" in said and "RuntimeError: a bug of ours" in said
    assert followed.shelf.heard[-1] == "end finished"
    assert not (followed.path / "report.html").exists()
    assert "ledger" in json.loads((followed.path / "run.json").read_text(encoding="utf-8"))


def test_a_state_that_cannot_be_told_costs_its_file_and_nothing_else(followed: Followed) -> None:
    followed.break_("drpo.monitor.Monitor.snapshot")
    result = followed.run(report=True)
    assert result.alignment.found.ended == "depth"
    assert len([said for said in followed.said if "progress.json" in said]) == 1
    assert not (followed.path / "progress.json").exists()
    assert "ledger" in json.loads((followed.path / "run.json").read_text(encoding="utf-8"))
    assert "report.html" not in str(followed.said) and (followed.path / "report.html").exists()
    assert followed.shelf.heard[-1] == "end finished"


@pytest.mark.parametrize(
    "broken",
    [
        "drpo.run_dir.RunDirectory.note_spent",
        "drpo.report.live.LiveReport.finish",
        "drpo.report.live.LiveReport.__init__",
        "drpo.tracking.trackers.Trackers.begin",
        "drpo.tracking.trackers.Trackers.end",
        "drpo.monitor.Monitor.__call__",
    ],
)
def test_whatever_breaks_the_others_do_their_part(followed: Followed, broken: str) -> None:
    followed.break_(broken)
    assert followed.run(report=True).alignment.found.ended == "depth"
    assert len(followed.said) == 1 and "a bug of ours" in followed.said[0]
    ledger = "ledger" in json.loads((followed.path / "run.json").read_text(encoding="utf-8"))
    assert ledger == ("note_spent" not in broken)
    assert (followed.shelf.heard[-1:] == ["end finished"]) == ("Trackers" not in broken)
    assert (followed.path / "report.html").exists() == ("LiveReport" not in broken)
    assert (followed.path / "progress.json").exists()


def test_a_notice_that_raises_ends_nothing(followed: Followed) -> None:
    def raising(event: Event) -> None:
        raise ValueError("no")

    def refuse(said: str) -> None:
        raise OSError("nobody reads")

    followed.said = type("Refusing", (), {"append": staticmethod(refuse)})()
    assert followed.run(raising).alignment.found.ended == "depth"


def test_who_asks_to_stop_at_once_does_not_wait_for_a_tracker(followed: Followed) -> None:
    gate = threading.Event()
    followed.shelf = Shelf(gate)
    hurry = asyncio.Event()
    began_s = time.monotonic()
    followed.run(lambda event: hurry.set(), hurry=hurry)
    assert time.monotonic() - began_s < 15  # it would have been awaited for 20 s
    [said] = followed.said
    assert said.startswith("--track shelf: ") and "stopped at once" in said
    gate.set()


def test_a_tracker_that_is_quick_is_heard_out_even_then(followed: Followed) -> None:
    hurry = asyncio.Event()
    followed.run(lambda event: hurry.set(), hurry=hurry)
    assert followed.shelf.heard[-1] == "end finished" and followed.said == []


def node(number: int, reward: float | None, parent: int | None = 0, subject: int = 0) -> NodeMade:
    state = {"response": f"answer {number}", "evaluation": None}
    return NodeMade(number, "r", parent, number, False, reward, reward, state, subject=subject)


def test_an_example_counts_with_the_best_that_was_seen(tmp_path: Path) -> None:
    write_examples(tmp_path / "given.jsonl", EXAMPLES)
    settings = {"model": "demo", "examples": tmp_path / "given.jsonl", "run_dir": tmp_path / "run"}
    monitor = Monitor(examples_plan(resolve(ExamplesConfig, settings, {}), {}), tmp_path / "run")
    for event in (node(0, 3.0, None), node(1, 4.5), node(2, 2.0), LevelDone(1, 4, (2,), False, 0)):
        monitor(event)
    assert monitor.snapshot().best == 4.5
    for event in (node(0, None, None, 1), LevelDone(0, 4, (0,), False, 1)):
        monitor(event)
    assert monitor.snapshot().best == 4.5
    for event in (node(0, 1.5, None, 2), LevelDone(0, 4, (0,), False, 2)):
        monitor(event)
    assert monitor.snapshot().best == 3.0


class Deaf:
    """The simulated models, but evaluations for one query are never answered."""

    name = "deaf"

    def __init__(self, query: str) -> None:
        self.query, self.demo = query, SimulatedLLM()

    async def complete(self, request: Request) -> Completion:
        told = any(self.query in message.content for message in request.messages)
        if self.query and request.role == "evaluator" and told:
            await asyncio.Event().wait()
        return await self.demo.complete(request)


def improve(path: Path, deaf_to: str = "", **hooks: Any) -> None:
    given = path.with_name("given.jsonl")
    if not given.exists():
        write_examples(given, EXAMPLES)
    model = Deaf(deaf_to)
    drpo.optimize_examples(
        models={"optimizer": model, "evaluator": model, "selector": model},
        examples=given,
        run_dir=path,
        depth=2,
        reuse=False,
        report=True,
        hooks=Hooks(**hooks),
    )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An `optimize-examples` run that was stopped when all but its first example were done."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    hooks = Hooks()
    ended: list[SearchDone] = []

    def watch(event: Event) -> None:
        if isinstance(event, SearchDone):
            ended.append(event)
        if len(ended) == 2:
            hooks.stop.set(Interrupted("enough"))
            hooks.hurry.set()

    with pytest.raises(Interrupted):
        improve(path, EXAMPLES[0].query, observers=(watch,), stop=hooks.stop, hurry=hooks.hurry)
    return path


def test_levels_that_wait_for_an_earlier_example_are_on_the_disk(stopped: Path) -> None:
    assert not (stopped / "events.jsonl").exists()
    view = read_view(stopped)
    assert [tree.subject for tree in view.trees] == [1, 2] and view.has_level and not view.finished
    assert all(tree.end is not None for tree in view.trees)


def test_a_report_made_anew_shows_what_the_live_one_did(shell: Shell, stopped: Path) -> None:
    file = stopped / "report.html"
    live = Document(file.read_text(encoding="utf-8"))
    shell.done("report", stopped)
    made = Document(file.read_text(encoding="utf-8"))
    assert len(live.data["queries"]) == len(made.data["queries"]) == len(EXAMPLES)
    for part in ("aspects", "result"):
        assert made.by_id(part).text == live.by_id(part).text
    tiles = [sum(e.attributes.get("role") == "treeitem" for e in page.elements) for page in (live, made)]
    assert tiles[0] == tiles[1] > 2


def test_what_is_done_of_examples_can_be_shown(shell: Shell, stopped: Path) -> None:
    assert "2 of 3 examples done" in shell.done("show", stopped).out
    assert "evaluations" in shell.done("show", stopped, "--aspects").out
    shell.done("show", stopped, "--example", 2)
    assert "no level of it is done yet" in shell.refused(2, "show", stopped, "--example", 1)


def test_a_resumed_run_ends_as_one_that_was_never_stopped(stopped: Path, tmp_path: Path) -> None:
    improve(tmp_path / "whole")
    levels = (stopped / "levels.jsonl").read_bytes()
    # What a process that was killed while it wrote has left is no loss.
    (stopped / "levels.jsonl").write_bytes(levels + b'{"event": "node", "id"')
    improve(stopped)
    assert not (stopped / "levels.jsonl").exists() and not (tmp_path / "whole" / "levels.jsonl").exists()
    assert (stopped / "events.jsonl").read_bytes() == (tmp_path / "whole" / "events.jsonl").read_bytes()
    assert result_json(stopped)["examples"] == result_json(tmp_path / "whole")["examples"]


def test_what_was_told_before_is_not_written_twice(tmp_path: Path) -> None:
    events: list[Event] = [
        node(0, 3.0, None),
        LevelDone(0, 4, (0,), False, 0),
        node(1, 4.0),
        LevelDone(1, 4, (1,), False, 0),
    ]
    file = tmp_path / "levels.jsonl"
    LevelFile(file).add(events[:3])
    file.write_bytes(file.read_bytes()[:-5])
    LevelFile(file).add(events)
    assert file.read_text(encoding="utf-8") == "".join(map(event_line, events))


def test_a_disk_that_refuses_costs_the_levels_and_not_the_run(tmp_path: Path) -> None:
    levels = LevelFile(tmp_path / "none" / "levels.jsonl")
    levels.add([node(0, 3.0, None)])
    levels.remove()
    assert not (tmp_path / "none").exists()


def test_aspects_of_which_nothing_is_known_yet_are_not_said_to_be_unscored(
    shell: Shell, stopped: Path
) -> None:
    # as an older drpo left it: with a best so far, and nothing of how it came about
    run = shell.folder / "run"
    improve(run)
    (run / "events.jsonl").unlink()
    error = shell.refused(2, "show", run, "--aspects")
    assert "no response was scored" not in error and "events.jsonl" in error
