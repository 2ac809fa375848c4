"""`drpo show` prints the nodes, the path, the aspects and the examples of a run as its events say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drpo.text_diff import word_diff
from tests.support.command import Shell
from tests.support.shown_runs import (
    change_events,
    copy_of,
    events_of,
    examples_run,
    kept_node,
    killed,
    nodes_of,
    prompt_run,
    result_json,
    result_of,
)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prompt_run(tmp_path_factory.mktemp("prompts") / "run")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return examples_run(tmp_path_factory.mktemp("examples") / "run")


# One node


def test_a_node_is_shown_with_all_that_is_known_of_it(shell: Shell, prompts: Path) -> None:
    nodes, run = nodes_of(prompts), str(prompts)
    for number in (1, 2, len(nodes) - 1):
        node = nodes[number]
        state, out = node["state"], shell.done("show", run, "--node", number).out
        assert f"node        {number} (0 to {len(nodes) - 1}), level {node['depth'] + 1}" in out
        assert f"reward      {node['reward']:.2f}, path score {node['score']:.2f}" in out
        for part in (state["system_prompt"], state["query"], state["response"]):
            assert part in out
        for aspect, entry in state["evaluation"].items():
            line = next(line for line in out.splitlines() if line.startswith(aspect + " "))
            assert line.split()[1] == f"{entry['score']:g}" and entry["rationale"] in line


def test_json_of_a_node_says_the_same_as_the_events(shell: Shell, prompts: Path) -> None:
    nodes = nodes_of(prompts)
    examples = [json.loads(line) for line in (prompts / "inputs" / "examples.jsonl").read_text().splitlines()]
    beams = {level["level"]: level["beam"] for level in events_of(prompts, "level")}
    for number in (0, 1, 5, len(nodes) - 1):
        node = nodes[number]
        shown = shell.done("show", prompts, "--node", number, "--json").json
        state = node["state"]
        for name in ("system_prompt", "query", "response", "finish_reason"):
            assert shown[name] == state[name]
        assert (shown["reward"], shown["path_score"], shown["parent"]) == (
            node["reward"],
            node["score"],
            node["parent"],
        )
        assert [shot["example"] - 1 for shot in shown["shots"]] == state["shots"]
        assert [shot["query"] for shot in shown["shots"]] == [examples[at]["query"] for at in state["shots"]]
        assert {s["aspect"]: s["score"] for s in shown["scores"]} == {
            aspect: entry["score"] for aspect, entry in state["evaluation"].items()
        }
        assert shown["in_beam"] == (number in beams[node["depth"]])
        assert shown["children"] == [child for child, other in nodes.items() if other["parent"] == number]
        if node["parent"] is not None:
            before = nodes[node["parent"]]["state"]["system_prompt"]
            parts = word_diff(before, state["system_prompt"])
            assert [(p["change"], p["text"]) for p in shown["change"]] == [(p.change, p.text) for p in parts]


def test_the_change_to_the_parent_is_marked_without_colour(shell: Shell, prompts: Path) -> None:
    node = next(node for node in nodes_of(prompts).values() if node["parent"] == 0)
    out = shell.done("show", prompts, "--node", node["id"]).out
    assert "change to node 0" in out and "[-" in out and "{+" in out and "\x1b" not in out


def test_a_kept_prompt_is_said_to_be_unchanged(shell: Shell, prompts: Path) -> None:
    node = kept_node(prompts)
    out = shell.done("show", prompts, "--node", node["id"]).out
    assert f"parent      {node['parent']}, whose text was kept" in out and "change to node" not in out


def test_the_start_has_no_parent(shell: Shell, prompts: Path) -> None:
    out = shell.done("show", prompts, "--node", 0).out
    assert "parent      none, this is the start" in out and "not part of the path score" in out
    assert shell.done("show", prompts, "--node", 0, "--json").json["change"] is None


def test_what_failed_and_what_was_dropped_is_told(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "run")

    def fail(event: dict[str, Any]) -> None:
        if event["event"] == "node" and event["id"] == 3:
            event.update(reward=None, failure="no\nscores")
            event["state"]["evaluation"] = None

    change_events(run, fail)
    dropped = {"event": "dropped", "place": "r/0.9", "parent": 0, "reason": "not read", "raw": "?"}
    with (run / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(dropped) + "\n")
    out = shell.done("show", run, "--node", 3).out
    assert "failure     no scores\n" in out and "reward      no reward" in out and "aspect" not in out
    assert "dropped     not read\n" in shell.done("show", run, "--node", 0).out
    shown = shell.done("show", run, "--node", 0, "--json").json
    assert shown["dropped"] == [{"reason": "not read", "raw": "?"}]
    assert ", 1 proposal dropped" in shell.done("show", run).out


@pytest.mark.parametrize("number", [-1, 99, 10**20])
def test_a_node_that_is_not_there_names_those_that_are(shell: Shell, prompts: Path, number: int) -> None:
    last = len(nodes_of(prompts)) - 1
    assert shell.refused(2, "show", prompts, "--node", number).endswith(f"has the nodes 0 to {last}")


@pytest.mark.parametrize(
    "options", [("--node", 1, "--path"), ("--path", "--aspects"), ("--node", 1, "--aspects")]
)
def test_options_that_exclude_each_other_are_named(
    shell: Shell, prompts: Path, options: tuple[Any, ...]
) -> None:
    error = shell.refused(2, "show", prompts, *options)
    assert all(option in error for option in options if isinstance(option, str)) and "one of them" in error


# The path and the aspects


def test_the_path_leads_from_the_start_to_the_result(shell: Shell, prompts: Path) -> None:
    shown = shell.done("show", prompts, "--path", "--json").json["path"]
    assert [step["parent"] for step in shown] == [None, *(step["node"] for step in shown[:-1])]
    assert shown[-1]["is_best"] and all(step["on_best_path"] for step in shown)
    assert [step["reward"] for step in shown[1:]] == result_of(prompts)["found"]["path_rewards"]
    out = shell.done("show", prompts, "--path").out
    for step in shown:
        assert f"node {step['node']}, level {step['depth'] + 1}: reward {step['reward']:.2f}" in out
        assert " ".join(step["query"].split())[:150] in out
    assert "unchanged: kept, and tried on this query" in out and "{+" in out


def test_the_aspects_are_counted_and_the_lowest_mean_stands_first(shell: Shell, prompts: Path) -> None:
    scores: dict[str, list[float]] = {}
    queries: dict[str, set[str]] = {}
    for node in nodes_of(prompts).values():
        for aspect, entry in node["state"]["evaluation"].items():
            scores.setdefault(aspect, []).append(entry["score"])
            queries.setdefault(aspect, set()).add(node["state"]["query"])
    shown = shell.done("show", prompts, "--aspects", "--json").json["aspects"]
    assert {row["aspect"]: row["chosen"] for row in shown} == {
        name: len(all_) for name, all_ in scores.items()
    }
    for row in shown:
        own = scores[row["aspect"]]
        assert row["mean"] == pytest.approx(sum(own) / len(own)) and row["lowest"] == min(own)
        assert set(row["queries"]) == queries[row["aspect"]]
    assert [row["mean"] for row in shown] == sorted(row["mean"] for row in shown)
    lines = shell.done("show", prompts, "--aspects").out.splitlines()
    assert lines[0].split() == ["aspect", "mean", "lowest", "chosen", "queries", "N/A"]
    assert [line.split()[0] for line in lines[1 : len(shown) + 1]] == [row["aspect"] for row in shown]
    assert lines[1].split()[1:] == [
        f"{shown[0]['mean']:.2f}",
        f"{shown[0]['lowest']:g}",
        str(shown[0]["chosen"]),
        str(len(shown[0]["queries"])),
        "-",
    ]


def test_an_aspect_that_was_never_scored_stands_last(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "run")

    def add(event: dict[str, Any]) -> None:
        if event["event"] == "node":
            event["state"]["evaluation"]["Aaa"] = {"rationale": "", "score": "N/A"}

    change_events(run, add)
    count = len(nodes_of(prompts))
    last = shell.done("show", run, "--aspects", "--json").json["aspects"][-1]
    assert (last["aspect"], last["mean"], last["lowest"], last["not_applicable"]) == (
        "Aaa",
        None,
        None,
        count,
    )
    assert f"Aaa{'':>10}" in shell.done("show", run, "--aspects").out


# The runs of optimize-examples


def test_a_run_of_examples_shows_each_and_what_it_cost(shell: Shell, examples: Path) -> None:
    out = shell.done("show", examples).out
    assert "Rewards, 1 to 5 (simulated models)" in out and "optimizer " in out and "all roles" in out
    shown = shell.done("show", examples, "--json").json
    result = result_json(examples)
    assert [row["reward_after"] for row in shown["examples"]] == [
        r["after"]["reward"] for r in result["examples"]
    ]
    assert shown["state"] == "finished" and shown["out"].endswith("examples.jsonl")


def test_one_example_shows_how_its_response_was_changed(shell: Shell, examples: Path) -> None:
    row = result_json(examples)["examples"][1]
    shown = shell.done("show", examples, "--example", 2, "--json").json
    assert (shown["query"], shown["response"]) == (row["query"], row["after"]["response"])
    before = "".join(part["text"] for part in shown["change"] if part["change"] != "added")
    assert before == row["before"]["response"]
    out = shell.done("show", examples, "--example", 2).out
    assert "example     2 of 3" in out and row["query"] in out
    assert f"{row['before']['reward']:.2f} before, {row['after']['reward']:.2f} after" in out


def test_an_example_chooses_its_tree(shell: Shell, examples: Path) -> None:
    for example in (1, 3):
        own = [node for node in events_of(examples, "node") if node["subject"] == example - 1]
        shown = shell.done("show", examples, "--example", example, "--node", 1, "--json").json
        assert (shown["example"], shown["response"]) == (example, own[1]["state"]["response"])
        assert "system_prompt" not in shown
        path = shell.done("show", examples, "--example", example, "--path", "--json").json["path"]
        assert path[0]["response"] == own[0]["state"]["response"]
    assert "change to node 0" in shell.done("show", examples, "--example", 1, "--node", 1).out
    assert own[0]["state"]["response"] in shell.done("show", examples, "--example", 3, "--path").out


def test_aspects_of_one_example_or_of_all(shell: Shell, examples: Path) -> None:
    everything = shell.done("show", examples, "--aspects", "--json").json
    single = [shell.done("show", examples, "--example", i, "--aspects", "--json").json for i in (1, 2, 3)]
    assert everything["evaluations"] == sum(one["evaluations"] for one in single)
    total = sum(row["chosen"] for row in everything["aspects"])
    assert total == sum(row["chosen"] for one in single for row in one["aspects"])


def test_which_example_is_meant_must_be_said_and_right(shell: Shell, prompts: Path, examples: Path) -> None:
    for option in (("--node", 0), ("--path",)):
        assert "choose one, --example 1 to 3" in shell.refused(2, "show", examples, *option)
    for number in (0, 4, -1):
        assert "has the examples 1 to 3" in shell.refused(2, "show", examples, "--example", number)
    assert "one search of a prompt" in shell.refused(2, "show", prompts, "--example", 1, "--node", 0)


def test_an_unfinished_run_of_examples(shell: Shell, examples: Path) -> None:
    first = sum(level["subject"] == 0 for level in events_of(examples, "level"))
    run = killed(examples, shell.folder / "run", first + 1)
    out = shell.done("show", run).out
    assert "1 of 3 examples done" in out and "Its command, given again" in out
    rows = shell.done("show", run, "--json").json["examples"]
    after = result_json(examples)["examples"]
    assert rows[0]["reward_after"] == after[0]["after"]["reward"] and rows[0]["ended"] == after[0]["ended"]
    assert rows[1]["ended"] is None and rows[1]["reward_before"] == after[1]["before"]["reward"]
    assert rows[2]["reward_before"] is None and rows[2]["response"] == after[2]["before"]["response"]
    error = shell.refused(2, "show", run, "--example", 3)
    assert "no level of it is done yet" in error and "given again" in error
