"""The report of a run that goes on, as the run's own process makes it where no other one does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drpo.events import Event, Validated
from drpo.llm.ledger import Spent
from drpo.report import LiveReport, render_report
from drpo.report.growing import Growing, Wanted, event_bytes, read_line, run_line, wanted_line
from drpo.report.page import Page
from drpo.run_file import read_run
from drpo.run_view import RunView, read_view
from drpo.text_diff import word_diff
from tests.support.report_growing import levels_of, tiles
from tests.support.report_page import Document
from tests.support.report_runs import (
    demo_examples_run,
    demo_run,
    hostile_run,
    hostile_strings,
    mixed_events,
)

WRITTEN_S = 1_700_000_000.0


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    return read_view(
        demo_run(tmp_path_factory.mktemp("live") / "demo", depth=4, max_extra_depth=1, reuse=False)
    )


@pytest.fixture(scope="module")
def examples_view(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    return read_view(demo_examples_run(tmp_path_factory.mktemp("live") / "shots", depth=1, reuse=False))


def follow(view: RunView, path: Path, spent: Callable[[], dict[str, Spent]] = dict) -> LiveReport:
    """A report in `path` of a run like `view`."""
    path.mkdir(exist_ok=True)
    run = read_run(view.path)
    return LiveReport(path, run, view.queries, view.examples, spent, now_s=lambda: WRITTEN_S)


def tell(report: LiveReport, events: list[Event]) -> None:
    for event in events:
        report(event)


def test_a_run_that_ends_before_its_first_level_has_a_page_that_says_so(
    view: RunView, tmp_path: Path
) -> None:
    follow(view, tmp_path / "run").finish(None, None, "interrupted")
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "No level is done yet" in text and "Stopped" in text


def test_a_run_that_is_over_at_once_starts_no_process(view: RunView, tmp_path: Path) -> None:
    report = follow(view, tmp_path)
    tell(report, levels_of(view.trees[0])[0])
    report.finish(None, None)
    assert report.pid is None and tiles(tmp_path) == 1


def test_the_last_page_is_the_one_that_can_be_made_from_the_directory(view: RunView, tmp_path: Path) -> None:
    path = tmp_path / view.path.name
    report = follow(view, path, lambda: dict(view.spent or {}))
    for events in levels_of(view.trees[0]):
        tell(report, events)
    report.finish(view.alignment, view.improved, "finished")
    kept = (path / "report.html").read_text(encoding="utf-8")
    assert kept == render_report(view, written_s=WRITTEN_S, state="finished")


def test_each_node_is_compared_once_however_often_the_page_is_made(
    view: RunView, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[str, str]] = []

    def counting(before: str, after: str) -> Any:
        compared.append((before, after))
        return word_diff(before, after)

    monkeypatch.setattr("drpo.report.facts.word_diff", counting)
    growing, page = Growing(view.path, view.run, view.queries, view.examples), Page()
    tree = view.trees[0]
    for events in levels_of(tree):
        growing.add(events)
        page.render(growing.view({}), WRITTEN_S, "running")
    page.render(growing.view({}, view.alignment), WRITTEN_S, "finished")
    texts = {node.id: node.state["system_prompt"] for node in tree.nodes}
    changed = [n for n in tree.nodes if n.parent is not None and texts[n.parent] != texts[n.id]]
    results = {texts[level.beam[0]] for level in tree.levels}
    assert len(compared) <= len(changed) + len(results)


def test_a_disk_that_refuses_costs_only_the_page(view: RunView, tmp_path: Path) -> None:
    path = tmp_path / "gone"
    report = follow(view, path)
    shutil.rmtree(path)
    for events in levels_of(view.trees[0]):
        tell(report, events)
    report.finish(view.alignment, None)
    assert not path.exists()


@pytest.mark.parametrize("state", ["budget", "interrupted", "failed"])
def test_the_last_page_says_why_a_run_stopped(state: Any, view: RunView, tmp_path: Path) -> None:
    report = follow(view, tmp_path)
    tell(report, levels_of(view.trees[0])[0])
    report.finish(None, None, state)
    page = Document((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.all("p", class_="standing")[0].text.startswith("Stopped")


def test_examples_that_are_searched_at_once_keep_their_numbers(
    examples_view: RunView, tmp_path: Path
) -> None:
    view = examples_view
    growing, page = Growing(view.path, view.run, view.queries, view.examples), Page()
    searches = [levels_of(tree) for tree in view.trees]
    for level in range(max(map(len, searches))):
        for search in reversed(searches):  # each gets on at its own pace
            growing.add(search[level] if level < len(search) else [])
            page.render(growing.view({}), WRITTEN_S, "running")
    kept = page.render(growing.view(view.spent or {}, None, view.improved), WRITTEN_S, "finished")
    made = render_report(view, written_s=WRITTEN_S, state="finished")
    kept_page, made_page = Document(kept), Document(made)
    assert kept_page.data["queries"] == made_page.data["queries"]
    assert kept_page.by_id("aspects").text == made_page.by_id("aspects").text
    assert kept_page.by_id("result").text == made_page.by_id("result").text


def test_what_can_happen_in_a_search_can_be_shown_while_it_goes_on(view: RunView, tmp_path: Path) -> None:
    report = follow(view, tmp_path)
    tell(report, mixed_events())
    report.finish(None, None, "budget")
    assert tiles(tmp_path) == 7


def test_every_event_comes_out_of_its_line_as_it_went_in(
    view: RunView, examples_view: RunView, tmp_path: Path
) -> None:
    hostile = read_view(hostile_run(view.path, tmp_path / "hostile"))
    trees = [*view.trees, *examples_view.trees, *hostile.trees]
    events = [event for tree in trees for level in levels_of(tree) for event in level] + mixed_events()
    lines = [event_bytes(event) for event in events]
    assert [read_line(line) for line in lines] == events
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines)
    assert read_line(event_bytes(Validated({"better": True}))) is None


def test_a_wish_for_a_page_comes_out_of_its_line_as_it_went_in(view: RunView) -> None:
    for wanted in (
        Wanted("budget", dict(view.spent or {}), WRITTEN_S, "alignment"),
        Wanted(None, {text: Spent(cached_tokens=None) for text in hostile_strings()}, 0.5),
    ):
        assert read_line(wanted_line(wanted)) == wanted
    assert view.spent
    odd = Path("of\udcff\nbytes \u2028")
    assert read_line(run_line(odd)) == odd and run_line(odd).count(b"\n") == 1
