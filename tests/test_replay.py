"""A recorded run again: offline, to the byte, wherever it lies; and as far as its replies reach otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import drpo
from drpo import testing
from drpo.errors import GateRefused
from tests.support.command import SMALL, Shell, content_of, demo, roles_at, times_of
from tests.support.mock_openai import drpo_answers
from tests.support.served import Served


@pytest.fixture
def run(shell: Shell) -> Path:
    """The directory of a finished run with two parents a level."""
    shell.done("optimize", "--model", "demo", "--depth", "4", "--run-dir", "run")
    return shell.folder / "run"


def test_a_replay_is_identical_opens_no_socket_and_changes_no_file(shell: Shell) -> None:
    with Served(drpo_answers) as server:
        shell.done("optimize", *roles_at(server.url), *SMALL, "--run-dir", "run")
    before, times = content_of(shell.folder / "run"), times_of(shell.folder / "run")
    with testing.closed_sockets():
        assert shell.done("replay", "run").out.startswith("identical: 3 levels, ")
        found = shell.done("replay", "run", "--json").json
    assert found["identical"] is True and found["missing"] == []
    assert content_of(shell.folder / "run") == before
    assert times_of(shell.folder / "run") == times
    assert testing.replay("run").identical


def test_a_run_replays_from_its_directory_alone(shell: Shell) -> None:
    seeds = shell.write("s.txt", "one?\ntwo?\nthree?\nfour?\n")
    examples = shell.write("e.jsonl", "".join(f'{{"query": "q{i}", "response": "r"}}\n' for i in range(4)))
    templates = shell.folder / "mine"
    templates.mkdir()
    shell.write("mine/repair.j2", "{{ problem }} Again.")
    shell.write("prompt.txt", "@ You are a helpful assistant.")
    mine = [
        "--seeds",
        seeds,
        "--examples",
        examples,
        "--prompts",
        templates,
        "--initial-prompt",
        "@prompt.txt",
    ]
    shell.done(*demo(*mine))
    seeds.unlink()
    examples.unlink()
    shutil.rmtree(templates)
    shutil.move(shell.folder / "run", shell.folder / "elsewhere")
    assert shell.done("replay", "elsewhere").out.startswith("identical")
    assert shell.done("replay", "elsewhere", "--set", "depth=2", "--json").json["levels"] == 2


def test_a_result_that_was_deleted_is_no_difference(shell: Shell, run: Path) -> None:
    result = (run / "alignment.json").read_bytes()
    (run / "alignment.json").unlink()
    said = shell.done("replay", "run").out
    assert said.startswith("identical") and "not written to its end yet: alignment.json" in said
    assert not (run / "alignment.json").exists()
    shell.done("optimize", "--model", "demo", "--depth", "4", "--run-dir", "run")
    assert (run / "alignment.json").read_bytes() == result


@pytest.mark.parametrize("name", ["events.jsonl", "alignment.json"])
def test_an_edited_result_is_named(shell: Shell, run: Path, name: str) -> None:
    text = (run / name).read_text()
    (run / name).write_text(
        text.replace('"shots": 2', '"shots": 3', 1).replace('"depth": 2', '"depth": 3', 1)
    )
    error = shell.refused(4, "replay", "run")
    assert f"run/{name}" in error and "not identical" in error
    assert shell.run("replay", "run", "--json").json["differing"] == [name]


def test_missing_events_of_a_finished_run_are_named(shell: Shell, run: Path) -> None:
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    (run / "events.jsonl").write_text("".join(lines[:-1]))
    assert "run/events.jsonl" in shell.refused(4, "replay", "run")


@pytest.mark.parametrize("name", ["queries.jsonl", "examples.jsonl", "prompts/evaluate.j2"])
def test_edited_inputs_are_named(shell: Shell, run: Path, name: str) -> None:
    file = run / "inputs" / name
    text = file.read_text()
    file.write_text(
        text.replace("a", "o", 1) if name.endswith(".j2") else text.replace('": "', '": "Oh, ', 1)
    )
    error = shell.refused(4, "replay", "run")
    assert f"inputs/{name}" in error and "is not what the run was begun with" in error


def test_other_settings_go_as_far_as_the_record_and_list_what_is_missing(shell: Shell, run: Path) -> None:
    ran = shell.run("replay", "run", "--set", "width=3")
    assert ran.code == 4
    head, *missing = ran.out.splitlines()
    assert head.startswith("replayed ") and head.endswith("then these calls are missing:")
    queries = [
        json.loads(line)["query"] for line in (run / "inputs" / "queries.jsonl").read_text().splitlines()
    ]
    assert missing and all(line.startswith("  optimizer: better prompts than ") for line in missing)
    assert any(" ".join(query.split())[:40] in missing[0] for query in queries[:4])
    assert ran.err.count("\n") == 1
    assert "was never recorded" in ran.err and "cannot be known" in ran.err
    found = shell.run("replay", "run", "--set", "width=3", "--json").json
    assert found["identical"] is None and found["result"] is None
    assert [f"  {call['role']}: {call['about']}" for call in found["missing"]] == missing


def test_every_missing_call_says_what_it_would_ask(shell: Shell, run: Path) -> None:
    def about(*settings: str) -> str:
        flags = [part for setting in settings for part in ("--set", setting)]
        calls = shell.run("replay", "run", "--json", *flags).json["missing"]
        return str(sorted({f"{call['role']} {call['about'].split(' ')[1]}" for call in calls}))

    assert about("initial_prompt=Be kind.") == "['base answer']"
    assert "evaluator evaluation" in about("evaluations=2")
    assert about("optimizer_temperature=1") == "['optimizer prompts']"
    assert 'under the system prompt "Be kind."' in shell.run(
        "replay", "run", "--set", "initial-prompt=Be kind."
    ).out.replace("\\", "")


def test_a_change_that_needs_no_new_call_gives_its_result(shell: Shell, run: Path) -> None:
    ran = shell.done("replay", "run", "--set", "patience=1", "--set", "depth=3")
    assert "path score" in ran.out and "replayed with other settings" in ran.err
    result = shell.done("replay", "run", "--set", "depth=3", "--json").json["result"]
    assert result["settings"]["depth"] == 3


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("nonsense=1", "expected a setting of this run's search, one of: answer_end,"),
        ("width=x", "--set width=x: "),
        ("width=0", "--set width=0: "),
        ("width", "NAME=VALUE"),
        ("concurrency=3", "expected a setting"),
        ("order=given", "begin another run"),
        ("shots=99", "99"),
        ("protect=not in it", "protected"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(shell: Shell, run: Path, setting: str, said: str) -> None:
    assert said in shell.refused(2, "replay", "run", "--set", setting)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_an_unfinished_run_lists_what_is_missing(shell: Shell, run: Path, share: float) -> None:
    lines = (run / "calls.jsonl").read_bytes().splitlines(keepends=True)
    (run / "calls.jsonl").write_bytes(b"".join(lines[: int(share * len(lines))]))
    (run / "alignment.json").unlink()
    (run / "events.jsonl").unlink()
    error = shell.refused(4, "replay", "run")
    assert "the run has not finished" in error and "cannot be known" in error
    assert "found none: there is nothing to show yet" in shell.refused(2, "show", "run")


def test_a_run_of_optimize_examples_replays(shell: Shell) -> None:
    shell.done("optimize-examples", "--model", "demo", "--depth", "2", "--run-dir", "run")
    assert shell.done("replay", "run").out.startswith("identical")
    ran = shell.run("replay", "run", "--set", "depth=4")
    assert ran.code == 4 and "a better response to" in ran.out
    result = json.loads((shell.folder / "run" / "result.json").read_text())
    result["examples"][0]["ended"] = "luck"
    shell.write("run/result.json", json.dumps(result))
    assert "result.json" in shell.refused(4, "replay", "run")


def test_what_is_no_run_is_refused(shell: Shell, run: Path) -> None:
    assert "nowhere" in shell.refused(2, "replay", "nowhere")
    assert "run.json" in shell.refused(2, "replay", run / "alignment.json")
    assert "run.json" in shell.refused(2, "replay", shell.folder)


def test_from_python_the_report_holds_the_missing_requests(run: Path) -> None:
    report = drpo.replay(run, width=3)
    assert report.identical is None and report.missing
    assert all(call.request.role == call.role == "optimizer" for call in report.missing)
    assert drpo.replay(run).identical
    with pytest.raises(GateRefused):
        (run / "inputs" / "queries.jsonl").write_text('{"query": "another"}\n')
        drpo.replay(run)
