"""The report of a run: what stands on it, in which words, and that text is only ever text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drpo.errors import InputError, StorageError
from drpo.progress import Snapshot, write_progress
from drpo.report import render_report, write_report
from drpo.report.shown import island, visible
from drpo.run_view import read_view
from tests.support.report_page import Document, before, whole
from tests.support.report_runs import (
    copy_of,
    demo_examples_run,
    demo_run,
    hostile_run,
    hostile_strings,
    large_events,
    mixed_events,
    set_events,
)

STATES = {
    "budget": "the limit on calls or money is reached",
    "interrupted": "it was interrupted",
    "failed": "an error ended it",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_run(tmp_path_factory.mktemp("report") / "demo", depth=4, max_extra_depth=1, reuse=False)


@pytest.fixture(scope="module")
def examples_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_examples_run(tmp_path_factory.mktemp("report") / "shots", depth=1, samples=2, reuse=False)


@pytest.fixture(scope="module")
def mixed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = copy_of(run, tmp_path_factory.mktemp("report") / "mixed")
    set_events(path, mixed_events())
    return path


@pytest.fixture(scope="module")
def hostile(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_run(run, tmp_path_factory.mktemp("report") / "<b onclick=window.hacked=1>&amp;\u202e")


def page_of(path: Path) -> Document:
    return Document(render_report(read_view(path)))


@pytest.fixture(scope="module")
def hostile_text(hostile: Path) -> str:
    return render_report(read_view(hostile))


@pytest.fixture(scope="module")
def page(run: Path) -> Document:
    return page_of(run)


def test_the_report_is_written_into_the_run_directory(run: Path, tmp_path: Path) -> None:
    path = copy_of(run, tmp_path / "copy")
    assert write_report(path) == path / "report.html"
    written = Document((path / "report.html").read_text(encoding="utf-8"))
    assert "UTC" in written.all("span", class_="when")[0].text
    assert [file.name for file in path.glob(".*") if file.name != ".lock"] == []


def test_it_shows_the_result_and_how_it_differs_from_the_start(run: Path, page: Document) -> None:
    alignment = read_view(run).alignment
    assert alignment is not None
    (prompt,) = page.all("div", class_="prompt")
    assert prompt.text == alignment.system_prompt
    kept = page.all("ins")[0].text + page.all("del")[0].text
    assert "{+ " in kept and "[- " in kept  # for those who hear the page
    assert "Finished" in page.body and "These models are simulated" in page.body


def test_every_node_is_a_tile_and_its_facts_are_in_the_data(run: Path, page: Document) -> None:
    view = read_view(run)
    (tree,) = view.trees
    tiles = [e for e in page.elements if e.attributes.get("role") == "treeitem"]
    assert {tile.attributes["id"] for tile in tiles} == {f"n-0-{node.id}" for node in tree.nodes}
    assert [tile.attributes["tabindex"] for tile in tiles].count("0") == 1
    data = page.data
    for node, row in zip(tree.nodes, data["trees"][0]["nodes"], strict=True):
        assert (row["i"], row["p"], row["r"]) == (node.id, node.parent, node.reward)
        assert whole(row["t"]) == node.state["system_prompt"]
        assert node.parent is None or before(row["t"]) == tree.by_id[node.parent].state["system_prompt"]
        assert data["queries"][row["q"]] == node.state["query"]
        assert [data["shots"][str(shot)] for shot in row["h"]] == [
            view.examples[shot].query for shot in node.state["shots"]
        ]
        assert row["a"] == node.state["response"]
        given_scores = {
            name: {"rationale": entry["rationale"], "score": entry["score"]}
            for name, entry in node.state["evaluation"].items()
        }
        assert given_scores == {
            data["aspects"][aspect]: {"rationale": why, "score": score} for aspect, score, why in row["e"]
        }


def test_levels_aspects_calls_and_settings_have_their_tables(run: Path, page: Document) -> None:
    view = read_view(run)
    assert view.spent is not None
    rows = [row.text for row in page.all("tr")]
    assert sum("(start)" in row for row in rows) == 1
    for role, spent in view.spent.items():
        assert any(row.startswith(f"{role}{spent.calls}{spent.answered}") for row in rows)
    for name, digest in view.identity["digests"].items():
        assert any(row.startswith(f"{name}{digest}") for row in rows)
    assert any(row.startswith("depth4") for row in rows)
    aspects = {aspect for node in view.trees[0].nodes for aspect in node.state["evaluation"]}
    assert aspects <= {name.text for name in page.all("bdi")}


def test_names_references_headings_and_landmarks_hold(page: Document) -> None:
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for element in page.elements:
        for attribute in ("aria-labelledby", "for"):
            if attribute in element.attributes:
                assert element.attributes[attribute] in ids
        if element.tag == "a":
            assert element.attributes["href"].removeprefix("#") in ids
        if element.tag in ("button", "summary", "a", "h1", "h2", "h3"):
            assert element.text.strip()
    levels = [int(e.tag[1]) for e in page.elements if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(deeper <= upper + 1 for upper, deeper in pairwise(levels))
    for landmark in ("header", "nav", "main", "footer"):
        assert len(page.all(landmark)) == 1


def test_the_policy_admits_the_two_blocks_and_nothing_else(hostile_text: str) -> None:
    text, document = hostile_text, Document(hostile_text)
    (policy,) = document.all("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(rule.split(" ", 1) for rule in policy.attributes["content"].split("; "))
    (style,), (data, script) = document.all("style"), document.all("script")
    assert data.attributes["type"] == "application/json"
    for block, rule in ((style, "style-src"), (script, "script-src")):
        digest = base64.b64encode(hashlib.sha256(block.text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
        assert f">{block.text}</" in text  # what the digest is of is what stands there, to the byte
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for element in document.elements:
        assert not [
            a for a in element.attributes if a == "style" or a.startswith("on") or a in ("src", "srcdoc")
        ]
        assert element.attributes.get("href", "#").startswith("#")


def test_hostile_text_makes_no_element_and_is_shown_as_it_is(page: Document, hostile_text: str) -> None:
    plain = {element.tag for element in page.elements} | {"details", "summary", "code"}
    page = Document(hostile_text)
    assert {element.tag for element in page.elements} <= plain
    assert len(page.all("script")) == 2
    nodes = page.data["trees"][0]["nodes"]
    for number, text in enumerate(hostile_strings()):
        told = visible(text)
        assert whole(nodes[number]["t"]) == told
        assert nodes[number]["a"] == f"{told} response"
        assert page.data["queries"][nodes[number]["q"]] == f"{told} query"
        assert nodes[number]["f"] == f"{told} failure"
        assert page.data["aspects"][nodes[number]["e"][0][0]] == f"{told} aspect"
        for what in ("aspect", "query", "reason", "raw"):
            assert f"{told} {what}" in page.body
        assert f"setting {told}".replace("_", "-") in page.body  # as the user names it
        for what in ("model", "value", "file", "digest", "package", "version"):
            assert f"{what} {told}" in page.body


def shown_everywhere(value: object) -> object:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return [shown_everywhere(item) for item in value]
    if isinstance(value, dict):
        return {visible(name): shown_everywhere(item) for name, item in value.items()}
    return value


@settings(max_examples=25)
@given(
    st.recursive(st.text() | st.integers(), lambda some: st.lists(some) | st.dictionaries(st.text(), some))
)
def test_data_in_the_page_says_the_same_and_cannot_end_its_element(value: object) -> None:
    text = island(value)
    assert not set(text) & set("<>&\u2028\u2029\u202e")
    assert json.loads(text) == shown_everywhere(value)


@given(st.text())
def test_visible_text_hides_nothing_and_is_else_unchanged(text: str) -> None:
    told = visible(text)
    assert told == "".join(visible(character) for character in text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", told)
    assert visible(told) == told
    told.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\x1b[31m", "\\u001b[31m"),
        ("a\u202eb\u2069", "a\\u202eb\\u2069"),
        ("\ud83d", "\\ud83d"),
        ("\U000e0041", "\\U000e0041"),
        ("\ta\nb", "\ta\nb"),
        ("عربي \u200f עברית 👩‍👧", "عربي \u200f עברית 👩‍👧"),
    ],
)
def test_controls_and_reordering_characters_are_shown_as_escapes(text: str, told: str) -> None:
    assert visible(text) == told


def test_a_run_without_a_level_says_so(run: Path, tmp_path: Path) -> None:
    path = copy_of(run, tmp_path / "begun", without=("events.jsonl", "alignment.json", "progress.json"))
    page = page_of(path)
    assert "No level of the search is done yet" in page.by_id("result").text
    assert not page.has("tree") and page.data["trees"] == []
    assert page.has("settings") and "Not finished" in page.body


def test_a_run_stopped_halfway_shows_the_best_so_far(run: Path, tmp_path: Path) -> None:
    path = copy_of(run, tmp_path / "half", without=("alignment.json", "progress.json"))
    file = path / "events.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    second = [number for number, line in enumerate(lines) if b'"event": "level"' in line][1]
    file.write_bytes(b"".join(lines[: second + 1]) + b'{"event": "node", "id": 7, "pla')  # killed as it wrote
    view, page = read_view(path), page_of(path)
    best = view.trees[0].best
    assert best is not None
    assert page.all("div", class_="prompt")[0].text == best.state["system_prompt"]
    assert "Not finished 2 levels done, of at most 4" in page.body
    assert "The best so far" in page.body and "The result" not in page.body


@pytest.mark.parametrize(
    ("state", "says"), [*STATES.items(), ("running", "Running"), ("stopping", "Running")]
)
def test_how_a_run_stands_is_said_at_the_top(state: str, says: str, mixed: Path) -> None:
    document = Document(render_report(read_view(mixed), state=state))  # type: ignore[arg-type]
    assert says in document.all("p", class_="standing")[0].text


def test_a_run_whose_process_is_gone_is_not_called_running(mixed: Path, tmp_path: Path) -> None:
    path = copy_of(mixed, tmp_path / "gone")
    write_progress(path / "progress.json", Snapshot("optimize", "running", "gone", 1, 0.0, 0.0, 1.0))
    page = Document(write_report(path).read_text(encoding="utf-8"))
    standing = page.all("p", class_="standing")[0].text
    assert "Running" not in standing and "Not finished" in standing


def test_kept_unscored_and_dropped_ones_are_told_apart(mixed: Path) -> None:
    page = page_of(mixed)
    said = {
        e.attributes["id"]: e.attributes["aria-label"]
        for e in page.elements
        if e.attributes.get("role") == "treeitem"
    }
    assert (
        said["n-0-3"]
        == "node 3, reward 3.50, kept unchanged, in the beam, on the path to the best, the best so far"
    )
    assert said["n-0-4"] == "node 4, no reward, kept unchanged, in the beam"
    assert said["n-0-2"] == "node 2, reward 2.25, in the beam"
    assert said["x-0-0"] == "dropped proposal 1"
    dropped = page.by_id("dropped-0-0").text
    assert "level 2, from node 0: the reply holds no JSON" in dropped
    assert "Here is my <b>prompt</b>:\nBe kind." in dropped
    assert "No text came." in page.by_id("dropped-0-1").text
    assert "(stalled)" in page.by_id("rewards").text


def test_examples_have_a_tree_each_and_their_responses_compared(examples_run: Path) -> None:
    view, page = read_view(examples_run), page_of(examples_run)
    assert view.improved is not None
    assert len(page.all("option")) == len(page.all("svg", role="tree")) == len(view.examples)
    texts = [e.text for e in page.all("details", class_="example")]
    for text, improved in zip(texts, view.improved.examples, strict=True):
        assert improved.before.query in text
        if improved.before.response == improved.after.response:
            assert "Unchanged" in text and improved.after.response in text
        else:
            assert "{+ " in text or "[- " in text
    assert f"{len(view.examples)} examples done" in page.body


def test_examples_that_have_not_begun_are_named(examples_run: Path, tmp_path: Path) -> None:
    path = copy_of(examples_run, tmp_path / "part", without=("result.json", "progress.json"))
    file = path / "events.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(line for line in lines if b'"subject": 0' in line or b'"subject": 1}' in line))
    page = page_of(path)
    count = len(read_view(path).examples)
    assert f"2 of {count} examples done" in page.body
    assert len(page.all("p", class_="waiting")) == count - 2


def test_a_large_report_is_small_enough(run: Path, tmp_path: Path) -> None:
    path = copy_of(run, tmp_path / "large")
    set_events(path, large_events(400, 2_000))
    report = write_report(path)
    assert report.stat().st_size < 3_000_000
    assert len(Document(report.read_text(encoding="utf-8")).data["trees"][0]["nodes"]) == 400


@pytest.mark.parametrize(
    ("pattern", "instead", "says"),
    [
        (rb'"depth": 1', b'"depth": "one"', "expected the events of a run"),
        (rb"^.*\n", b"no json\n", "expected the events of a run"),
        (rb'"shots": \[\d+', b'"shots": [999', "shots among the 16 examples"),
        (rb'"id": 2,', b'"id": 1,', "a new number for each node"),
        (rb'"parent": 0, "depth": 1', b'"parent": null, "depth": 1', "one start"),
        (rb'"stalled": false}', b'"stalled": false, "subject": 3}', "expected"),
    ],
)
def test_damaged_events_are_refused_with_what_to_do(
    pattern: bytes, instead: bytes, says: str, run: Path, tmp_path: Path
) -> None:
    path = copy_of(run, tmp_path / "damaged")
    file = path / "events.jsonl"
    file.write_bytes(re.sub(pattern, instead, file.read_bytes(), count=1))
    with pytest.raises(InputError, match=says) as refused:
        write_report(path)
    assert refused.value.exit_code == 2
    assert "Delete it and run the same command again" in str(refused.value)
    assert not (path / "report.html").exists()


def test_what_is_no_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found no run\.json"):
        write_report(tmp_path)


def test_a_disk_that_refuses_is_said(run: Path, tmp_path: Path) -> None:
    path = copy_of(run, tmp_path / "full")
    (path / "report.html").mkdir()
    with pytest.raises(StorageError, match=r"report\.html: cannot be written"):
        write_report(path)
    assert [file.name for file in path.glob(".report*")] == []
