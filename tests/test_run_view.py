"""A run directory can be read at any moment, and what is read is what its files say, or an error says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drpo.errors import InputError
from drpo.events import LevelDone, NodeMade, SearchDone
from drpo.run_view import Tree, read_trees, read_view
from tests.support.shown_runs import (
    HOSTILE,
    change_events,
    copy_of,
    events_of,
    examples_run,
    killed,
    prompt_run,
)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prompt_run(tmp_path_factory.mktemp("prompts") / "run")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return examples_run(tmp_path_factory.mktemp("examples") / "run")


def node(number: int, reward: float | None, parent: int | None = 0) -> NodeMade:
    state = {"response": f"answer {number}", "evaluation": None}
    return NodeMade(number, "r", parent, number, False, reward, reward, state, subject=0)


def test_a_finished_run_has_its_result_on_the_path_of_its_tree(prompts: Path) -> None:
    view = read_view(prompts)
    assert view.finished and view.has_level and view.simulated and view.command == "optimize"
    tree = view.trees[0]
    assert view.alignment is not None and tree.best is not None
    assert tree.best.state["system_prompt"] == view.alignment.system_prompt
    path = tree.path(tree.best)
    assert path[0].parent is None and path[-1] is tree.best
    assert tuple(node.reward for node in path[1:]) == view.alignment.found.path_rewards


def test_every_example_has_its_own_tree(examples: Path) -> None:
    view = read_view(examples)
    assert view.finished and view.improved is not None
    assert [tree.subject for tree in view.trees] == [0, 1, 2]
    bests = [tree.best.state["response"] for tree in view.trees if tree.best is not None]
    assert bests == [item.after.response for item in view.improved.examples]


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_killed_run_has_the_best_of_its_last_level(prompts: Path, tmp_path: Path, levels: int) -> None:
    view = read_view(killed(prompts, tmp_path / "run", levels))
    assert not view.finished and view.has_level and view.alignment is None
    last = events_of(prompts, "level")[levels - 1]
    assert view.trees[0].best is not None and view.trees[0].best.id == last["beam"][0]


def test_a_run_without_a_level_has_nothing_to_show(prompts: Path, tmp_path: Path) -> None:
    view = read_view(killed(prompts, tmp_path / "run", 0))
    assert not view.has_level and not view.finished and view.trees == ()
    without = read_view(copy_of(prompts, tmp_path / "other", without=("events.jsonl", "alignment.json")))
    assert not without.has_level


def test_examples_are_finished_when_each_of_them_is(examples: Path, tmp_path: Path) -> None:
    whole = events_of(examples, "level")
    first = sum(level["subject"] == 0 for level in whole)
    view = read_view(killed(examples, tmp_path / "run", first + 1))
    assert [tree.end is None for tree in view.trees] == [False, True]
    assert not view.finished and view.has_level
    only_first = read_view(killed(examples, tmp_path / "other", first))
    assert not only_first.finished


def test_the_best_of_an_example_under_way_is_the_best_seen_and_a_later_one_on_a_tie() -> None:
    nodes = (node(0, 3.0, None), node(1, 4.0), node(2, 4.0), node(3, 2.0), node(4, None))
    level = LevelDone(4, 6, (3,), False, 0)
    tree = Tree(0, nodes, (), (level,), None)
    assert tree.best is nodes[2]
    unscored = Tree(0, (node(0, None, None),), (), (level,), None)
    assert unscored.best is unscored.nodes[0]
    assert Tree(0, nodes, (), (level,), SearchDone(3, 2.0, 5, 5, "depth", 0)).best is nodes[3]


def test_a_torn_last_line_is_left_out(prompts: Path, tmp_path: Path) -> None:
    lines = (prompts / "events.jsonl").read_bytes()
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines[:-20])
    assert read_trees(file)[0].end is None
    assert len(read_trees(file)[0].nodes) == len(events_of(prompts, "node"))


def test_text_of_models_comes_back_as_it_was(prompts: Path, tmp_path: Path) -> None:
    run = copy_of(prompts, tmp_path / "run")

    def harm(event: dict[str, Any]) -> None:
        if event["event"] == "node":
            event["state"]["response"] = HOSTILE

    change_events(run, harm)
    assert {n.state["response"] for n in read_view(run).trees[0].nodes} == {HOSTILE}


def set_of(event: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(line: dict[str, Any]) -> None:
        if line["event"] == event:
            line.update(values)

    return change


def set_in_state(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda line: line["state"].update(values) if line["event"] == "node" else None


@pytest.mark.parametrize(
    "change",
    [
        set_of("node", id="one"),
        set_of("node", parent=999),
        set_of("node", reward="high"),
        set_of("node", reward=float("nan")),
        set_of("node", state=None),
        set_of("node", state={}),
        set_of("node", kept=1),
        set_of("level", beam=[999]),
        set_of("level", beam=[]),
        set_of("level", beam=5),
        set_of("level", beam=["0"]),
        set_of("level", limit=None),
        set_of("end", best=999),
        set_of("end", ended=None),
        set_of("end", subject="x"),
        set_in_state(system_prompt=None),
        set_in_state(query=7),
        set_in_state(shots="01"),
        set_in_state(evaluation={"Depth": {"rationale": "x"}}),
        set_in_state(evaluation={"Depth": {"rationale": "x", "score": "5"}}),
        set_in_state(evaluation={"Depth": {"rationale": None, "score": 5}}),
        lambda line: line.pop("event"),
        lambda line: (
            line.pop("subject", None) or line.pop("id", None) or line.pop("limit", None) or line.clear()
        ),
    ],
)
def test_events_that_are_none_are_told_with_their_line(
    prompts: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    run = copy_of(prompts, tmp_path / "run")
    change_events(run, change)
    with pytest.raises(InputError, match=r"events\.jsonl(:\d+)?: expected the events of a run") as told:
        read_view(run)
    assert "Delete it and run the same command again" in str(told.value)


@pytest.mark.parametrize("line", [b"[]\n", b"nothing\n", b'"a"\n', b"\xff\n", b"[" * 100_000 + b"\n"])
def test_lines_that_are_no_events_are_told(prompts: Path, tmp_path: Path, line: bytes) -> None:
    run = copy_of(prompts, tmp_path / "run")
    with (run / "events.jsonl").open("ab") as file:
        file.write(line)
    with pytest.raises(InputError, match="expected the events of a run"):
        read_view(run)


def test_fields_of_a_later_drpo_are_left_out(prompts: Path, tmp_path: Path) -> None:
    run = copy_of(prompts, tmp_path / "run")
    change_events(run, lambda line: line.update(weather="fine"))
    assert read_view(run).trees == read_view(prompts).trees


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "written by a newer drpo; use that one"),
        ({"schema": 0}, "use the drpo that wrote it"),
        ({"identity": {}}, "expected a run of drpo"),
        ({"identity": None}, "expected a run of drpo"),
    ],
)
def test_a_run_of_another_drpo_is_told(
    prompts: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    run = copy_of(prompts, tmp_path / "run")
    data = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**data, **change}), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_view(run)


@pytest.mark.parametrize("field", ["models", "settings", "digests", "command", "embedder"])
def test_an_identity_of_other_types_is_told(prompts: Path, tmp_path: Path, field: str) -> None:
    run = copy_of(prompts, tmp_path / "run")
    data = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for wrong in (None, 3, {"base": 3} if field in ("models", "digests") else 4):
        data["identity"][field] = wrong
        (run / "run.json").write_text(json.dumps(data), encoding="utf-8")
        with pytest.raises(InputError, match="expected a run of drpo"):
            read_view(run)


def test_an_older_run_without_books_or_progress_is_read(prompts: Path, tmp_path: Path) -> None:
    view = read_view(copy_of(prompts, tmp_path / "run", without=("ledger.jsonl", "progress.json")))
    assert view.spent is None and view.progress is None and view.finished


def test_looking_changes_nothing(prompts: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in prompts.rglob("*")}
    read_view(prompts)
    assert {path: path.stat().st_mtime_ns for path in prompts.rglob("*")} == before
