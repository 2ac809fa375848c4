"""The report of a run that goes on: current, cheap, and never in the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drpo.events import Event
from drpo.llm.ledger import Spent
from drpo.report import LiveReport, render_report
from drpo.report.live import REST
from drpo.run_file import read_run
from drpo.run_view import RunView, Tree, read_view
from drpo.text_diff import word_diff
from tests.support.report_page import Document
from tests.support.report_runs import demo_examples_run, demo_run, mixed_events

WRITTEN_S = 1_700_000_000.0


@dataclass
class Clock:
    """A clock that stands still but for what is said to take time."""

    now_s: float = 0.0
    page_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s

    def making_a_page(self) -> float:
        """Asked for once a page: the page then has taken its time."""
        self.now_s += self.page_s
        return WRITTEN_S


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    return read_view(
        demo_run(tmp_path_factory.mktemp("live") / "demo", depth=4, max_extra_depth=1, reuse=False)
    )


@pytest.fixture(scope="module")
def examples_view(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    return read_view(demo_examples_run(tmp_path_factory.mktemp("live") / "shots", depth=1, reuse=False))


def levels_of(tree: Tree) -> list[list[Event]]:
    """The events of a search, level by level as they were told."""
    above = {node.id: node.depth for node in tree.nodes}
    levels: list[list[Event]] = [
        [
            *(node for node in tree.nodes if node.depth == level.level),
            *(dropped for dropped in tree.dropped if above[dropped.parent] + 1 == level.level),
            level,
        ]
        for level in tree.levels
    ]
    return levels if tree.end is None else [*levels, [tree.end]]


def follow(
    view: RunView, path: Path, clock: Clock, spent: Callable[[], dict[str, Spent]] = dict
) -> LiveReport:
    """A report in `path` of a run like `view`."""
    path.mkdir(exist_ok=True)
    run = read_run(view.path)
    report = LiveReport(path, run, view.queries, view.examples, spent, clock=clock, now_s=clock.making_a_page)
    report.wait()
    return report


def tell(report: LiveReport, events: list[Event]) -> None:
    """Events, and the time to write what they lead to."""
    for event in events:
        report(event)
    report.wait()


def tiles(path: Path) -> int:
    """How many nodes the page has."""
    page = Document((path / "report.html").read_text(encoding="utf-8"))
    return sum(element.attributes.get("role") == "treeitem" for element in page.elements)


def test_a_run_has_a_report_before_its_first_level(view: RunView, tmp_path: Path) -> None:
    report = follow(view, tmp_path / "run", Clock())
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "No level is done yet" in text and "Running" in text
    report.finish(None, None, "interrupted")


def test_a_report_of_an_earlier_process_stands_until_there_is_something_to_say(
    view: RunView, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_text("the page before", encoding="utf-8")
    report = follow(view, tmp_path, Clock())
    assert file.read_text(encoding="utf-8") == "the page before"
    tell(report, levels_of(view.trees[0])[0])
    assert tiles(tmp_path) == 1
    report.finish(None, None)


def test_after_each_level_the_page_has_its_nodes(view: RunView, tmp_path: Path) -> None:
    report, seen = follow(view, tmp_path, Clock()), 0
    for events in levels_of(view.trees[0]):
        tell(report, events)
        seen += len(events) - 1
        assert tiles(tmp_path) == max(seen, 1)
    report.finish(None, None)


def test_the_last_page_is_the_one_that_can_be_made_from_the_directory(view: RunView, tmp_path: Path) -> None:
    path = tmp_path / view.path.name
    report = follow(view, path, Clock(), lambda: dict(view.spent or {}))
    for events in levels_of(view.trees[0]):
        tell(report, events)
    report.finish(view.alignment, view.improved, "finished")
    kept = (path / "report.html").read_text(encoding="utf-8")
    assert kept == render_report(view, written_s=WRITTEN_S, state="finished")


def test_pages_take_no_more_than_a_hundredth_of_the_time(view: RunView, tmp_path: Path) -> None:
    clock = Clock(page_s=2.0)
    report = follow(view, tmp_path, clock)
    first, second, third, *_ = levels_of(view.trees[0])
    assert clock.now_s == 2.0
    clock.now_s += REST * 2.0 - 0.1
    tell(report, first)
    assert tiles(tmp_path) == 0
    clock.now_s += 0.2
    tell(report, second)
    assert tiles(tmp_path) == len(first) + len(second) - 2
    clock.now_s += 50
    tell(report, third)
    assert tiles(tmp_path) == len(first) + len(second) - 2
    pages = 2
    assert pages * clock.page_s / (clock.now_s + REST * clock.page_s) <= 0.01
    report.finish(None, None)
    assert tiles(tmp_path) == len(first) + len(second) + len(third) - 3  # the end never waits


def test_a_page_that_took_less_is_followed_sooner(view: RunView, tmp_path: Path) -> None:
    clock = Clock(page_s=2.0)
    report = follow(view, tmp_path, clock)
    clock.now_s += REST * 2.0
    clock.page_s = 0.01
    first, second, *_ = levels_of(view.trees[0])
    tell(report, first)
    clock.now_s += 1.1
    tell(report, second)
    assert tiles(tmp_path) == len(first) + len(second) - 2
    report.finish(None, None)


def test_each_node_is_compared_once_however_often_the_page_is_made(
    view: RunView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[str, str]] = []

    def counting(before: str, after: str) -> Any:
        compared.append((before, after))
        return word_diff(before, after)

    monkeypatch.setattr("drpo.report.facts.word_diff", counting)
    report = follow(view, tmp_path, Clock())
    tree = view.trees[0]
    for events in levels_of(tree):
        tell(report, events)
    report.finish(view.alignment, None)
    texts = {node.id: node.state["system_prompt"] for node in tree.nodes}
    changed = [n for n in tree.nodes if n.parent is not None and texts[n.parent] != texts[n.id]]
    results = {texts[level.beam[0]] for level in tree.levels}
    assert len(compared) <= len(changed) + len(results)


def test_a_disk_that_refuses_costs_only_the_page(view: RunView, tmp_path: Path) -> None:
    path = tmp_path / "gone"
    report = follow(view, path, Clock())
    shutil.rmtree(path)
    for events in levels_of(view.trees[0]):
        tell(report, events)
    report.finish(view.alignment, None)
    assert not path.exists()


@pytest.mark.parametrize("state", ["budget", "interrupted", "failed"])
def test_the_last_page_says_why_a_run_stopped(state: Any, view: RunView, tmp_path: Path) -> None:
    report = follow(view, tmp_path, Clock())
    tell(report, levels_of(view.trees[0])[0])
    report.finish(None, None, state)
    page = Document((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.all("p", class_="standing")[0].text.startswith("Stopped")


def test_examples_that_are_searched_at_once_keep_their_numbers(
    examples_view: RunView, tmp_path: Path
) -> None:
    path = tmp_path / examples_view.path.name
    report = follow(examples_view, path, Clock(), lambda: dict(examples_view.spent or {}))
    searches = [levels_of(tree) for tree in examples_view.trees]
    for level in range(max(map(len, searches))):
        for search in reversed(searches):  # each gets on at its own pace
            tell(report, search[level] if level < len(search) else [])
    report.finish(None, examples_view.improved, "finished")
    kept = (path / "report.html").read_text(encoding="utf-8")
    made = render_report(examples_view, written_s=WRITTEN_S, state="finished")
    kept_page, made_page = Document(kept), Document(made)
    assert kept_page.data["queries"] == made_page.data["queries"]
    assert kept_page.by_id("aspects").text == made_page.by_id("aspects").text
    assert kept_page.by_id("result").text == made_page.by_id("result").text


def test_what_can_happen_in_a_search_can_be_shown_while_it_goes_on(view: RunView, tmp_path: Path) -> None:
    report = follow(view, tmp_path, Clock())
    tell(report, mixed_events())
    report.finish(None, None, "budget")
    assert tiles(tmp_path) == 7
