"""`drpo diff` says what two results have in common and what not, and when figures cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Shell
from tests.support.shown_runs import (
    HOSTILE,
    answered,
    change_json,
    copy_of,
    examples_run,
    killed,
    prompt_run,
    sent,
    write_ledger,
)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prompt_run(tmp_path_factory.mktemp("narrow") / "run")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prompt_run(tmp_path_factory.mktemp("wide") / "run", width=3)


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return examples_run(tmp_path_factory.mktemp("shallow") / "run", 3, depth=1)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return examples_run(tmp_path_factory.mktemp("deep") / "run", 4, depth=3)


def prompt_of(run: Path) -> str:
    return str(json.loads((run / "alignment.json").read_text(encoding="utf-8"))["system_prompt"])


def row(out: str, name: str) -> str:
    return next(line for line in out.splitlines() if line.startswith(name))


def texts(parts: list[dict[str, str]], *, without: str) -> str:
    return "".join(part["text"] for part in parts if part["change"] != without)


def test_the_change_leads_from_one_prompt_to_the_other(shell: Shell, narrow: Path, wide: Path) -> None:
    shown = shell.done("diff", narrow, wide, "--json").json
    parts = shown["system_prompt"]["change"]
    assert texts(parts, without="added") == prompt_of(narrow)
    assert texts(parts, without="removed") == prompt_of(wide)
    assert shown["equal"] is False and shown["system_prompt"]["equal"] is False
    ran = shell.done("diff", narrow, wide)
    assert "[-" in ran.out and "{+" in ran.out and "\x1b" not in ran.out
    assert "The results differ." in ran.out and ran.err == ""


def test_the_settings_that_differ_and_no_others_are_listed(shell: Shell, narrow: Path, wide: Path) -> None:
    assert shell.done("diff", narrow, wide, "--json").json["differences"] == [
        {"name": "width", "a": 2, "b": 3}
    ]
    assert row(shell.done("diff", narrow, wide).out, "width").split() == ["width", "2", "3"]


def test_models_inputs_and_settings_are_told_by_what_they_are(shell: Shell, narrow: Path) -> None:
    run = copy_of(narrow, shell.folder / "run")

    def change(data: dict[str, Any]) -> None:
        data["identity"]["models"]["base"] = "demo/seed=1,noise=0.5"
        data["identity"]["digests"]["examples"] = "0" * 16
        data["identity"]["embedder"] = "other"
        del data["identity"]["settings"]["shots"]

    change_json(run / "run.json", change)
    found = {
        d["name"]: (d["a"], d["b"]) for d in shell.done("diff", narrow, run, "--json").json["differences"]
    }
    assert set(found) == {"model of the base", "content of examples", "embedder", "shots"}
    assert found["shots"] == (2, None) and found["model of the base"][1] == "demo/seed=1,noise=0.5"


def test_the_figures_of_both_stand_side_by_side(shell: Shell, narrow: Path, wide: Path) -> None:
    results = [json.loads((run / "alignment.json").read_text())["found"] for run in (narrow, wide)]
    out = shell.done("diff", narrow, wide).out
    assert row(out, "path score").split()[2:] == [f"{found['path_score']:.4f}" for found in results]
    assert row(out, "nodes").split()[1:] == [str(found["nodes"]) for found in results]
    assert row(out, "rewards").split()[1:] == [f"{r:.2f}" for found in results for r in found["path_rewards"]]
    shown = shell.done("diff", narrow, wide, "--json").json
    assert [shown[side]["score"] for side in "ab"] == [found["path_score"] for found in results]
    assert shown["a"]["spent"]["all"]["answered"] > 0


def test_equal_results_are_said_to_be(shell: Shell, narrow: Path) -> None:
    run = copy_of(narrow, shell.folder / "run")
    shell.write("a.json", (narrow / "alignment.json").read_bytes())
    for other in (run, "a.json", narrow / "alignment.json"):
        out = shell.done("diff", narrow, other).out
        assert "the same in both" in out and "The results are equal." in out
        assert "The settings, models and inputs are the same." in out
        assert shell.done("diff", narrow, other, "--json").json["equal"] is True


def test_the_same_prompt_of_other_settings_is_an_equal_result(shell: Shell, narrow: Path) -> None:
    run = copy_of(narrow, shell.folder / "run")
    change_json(run / "run.json", lambda data: data["identity"]["settings"].update(patience=7))
    out = shell.done("diff", narrow, run).out
    assert "The results are equal." in out and row(out, "patience").split() == ["patience", "null", "7"]


@pytest.mark.parametrize(
    "change",
    [{"system_prompt": "Another."}, {"shots": 1}, {"prompt_form": "text"}, {"examples": []}],
)
def test_whatever_a_result_is_made_of_makes_it_another(
    shell: Shell, narrow: Path, change: dict[str, Any]
) -> None:
    data = json.loads((narrow / "alignment.json").read_text(encoding="utf-8"))
    shell.write("a.json", json.dumps(data))
    other = {**data, **change}
    if change == {"examples": []}:
        other["shots"] = 0
    other["found"] = {**data["found"]}
    if "shots" in change:
        settings = {**data["found"]["settings"]["settings"], **change}
        other["found"]["settings"] = {**data["found"]["settings"], "settings": settings}
    shell.write("b.json", json.dumps(other))
    assert shell.done("diff", "a.json", "b.json", "--json").json["equal"] is False
    assert "The results differ." in shell.done("diff", "a.json", "b.json").out


def test_examples_that_were_changed_added_and_removed(shell: Shell, narrow: Path) -> None:
    data = json.loads((narrow / "alignment.json").read_text(encoding="utf-8"))
    shell.write("a.json", json.dumps(data))
    first, second, *rest = data["examples"]
    data["examples"] = [
        {**second, "response": second["response"] + " More."},
        *rest,
        {**first, "query": "New?"},
    ]
    shell.write("b.json", json.dumps(data))
    shown = shell.done("diff", "a.json", "b.json", "--json").json["examples"]
    assert [e["query"] for e in shown["added"]] == ["New?"]
    assert [e["query"] for e in shown["removed"]] == [first["query"]]
    assert [e["query"] for e in shown["changed"]] == [second["query"]]
    assert texts(shown["changed"][0]["change"], without="added") == second["response"]
    assert shown["same"] == len(rest)
    out = shell.done("diff", "a.json", "b.json").out
    assert f"{len(rest)} the same, 1 changed, 1 added, 1 removed" in out and "added: New?" in out
    assert "{+ More.+}" in out


def test_two_examples_of_one_query_are_compared_in_their_order(shell: Shell, narrow: Path) -> None:
    data = json.loads((narrow / "alignment.json").read_text(encoding="utf-8"))
    data["shots"] = 1
    data["examples"] = [{"query": "Q?", "response": text, "kind": ""} for text in ("one", "two")]
    shell.write("a.json", json.dumps(data))
    data["examples"][1]["response"] = "three"
    shell.write("b.json", json.dumps(data))
    shown = shell.done("diff", "a.json", "b.json", "--json").json["examples"]
    assert (shown["same"], len(shown["changed"]), shown["added"]) == (1, 1, [])


def test_responses_of_examples_are_compared_with_their_rewards(
    shell: Shell, shallow: Path, deep: Path
) -> None:
    a, b = (json.loads((run / "result.json").read_text())["examples"] for run in (shallow, deep))
    shown = shell.done("diff", shallow, deep, "--json").json
    assert [e["query"] for e in shown["examples"]["added"]] == [b[3]["query"]]
    assert shown["system_prompt"] is None
    changed = {e["query"]: e for e in shown["examples"]["changed"]}
    assert changed
    for before, after in zip(a, b, strict=False):
        assert (before["after"] == after["after"]) == (before["query"] not in changed)
        if before["query"] in changed:
            entry = changed[before["query"]]
            assert (entry["reward_a"], entry["reward_b"]) == (
                before["after"]["reward"],
                after["after"]["reward"],
            )
    assert shown["a"]["score"] == pytest.approx(sum(row["after"]["reward"] for row in a) / 3)
    out = shell.done("diff", shallow, deep).out
    assert "changed (reward " in out and "mean reward" in out and "1 added" in out


def test_a_prompt_and_examples_are_not_compared(shell: Shell, narrow: Path, deep: Path) -> None:
    for one, other in ((narrow, deep), (deep, narrow / "alignment.json")):
        error = shell.refused(2, "diff", one, other)
        assert "drpo optimize-examples" in error and "give two runs of one command" in error


def test_a_run_that_has_not_finished_is_compared_by_its_best_so_far(
    shell: Shell, narrow: Path, wide: Path
) -> None:
    run = killed(wide, shell.folder / "run", 2)
    out = shell.done("diff", narrow, run).out
    assert "stopped, the best so far" in row(out, "state")
    assert shell.done("diff", narrow, run, "--json").json["b"]["state"] == "stopped"
    begun = killed(wide, shell.folder / "begun", 0)
    assert "nothing to show yet" in shell.refused(2, "diff", narrow, begun)


def test_simulated_models_against_real_ones_are_warned_of(shell: Shell, narrow: Path) -> None:
    run = copy_of(narrow, shell.folder / "run")
    real = dict.fromkeys(("base", "optimizer", "evaluator", "selector"), "openai/some")
    change_json(run / "run.json", lambda data: data["identity"].update(models=real))
    ran = shell.done("diff", narrow, "run")
    assert "are simulated, those of run are real" in ran.err and "The results are equal." in ran.out
    assert "Simulated models:" not in ran.out
    ran = shell.done("diff", narrow, "run", "--json")
    assert "are simulated" in ran.json["warnings"][0] and "are simulated" in ran.err


@pytest.mark.parametrize(
    ("field", "values", "said"),
    [
        ("models", {"evaluator": "demo/seed=9,noise=0.5"}, "the evaluators differ"),
        ("digests", {"seeds": "0" * 16}, "the seed queries or their order differ"),
    ],
)
def test_rewards_of_other_judges_or_questions_are_warned_of(
    shell: Shell, narrow: Path, field: str, values: dict[str, str], said: str
) -> None:
    run = copy_of(narrow, shell.folder / "run")
    change_json(run / "run.json", lambda data: data["identity"][field].update(values))
    assert said in shell.done("diff", narrow, run).err


def test_money_that_is_not_known_is_not_nothing(shell: Shell, narrow: Path) -> None:
    run = copy_of(narrow, shell.folder / "run")
    write_ledger(run, [sent(1, "base", None), answered(1, None)])
    older = copy_of(narrow, shell.folder / "older", without=("ledger.jsonl", "progress.json"))
    assert row(shell.done("diff", run, older).out, "spent").split() == ["spent", "unknown", "unknown"]


def test_what_is_no_run_is_told(shell: Shell, narrow: Path) -> None:
    assert "nowhere" in shell.refused(2, "diff", narrow, "nowhere")
    assert "b.txt" in shell.refused(2, "diff", narrow, shell.write("b.txt", "no alignment"))
    assert "RUN_B" in shell.refused(2, "diff", narrow)


def test_text_of_models_and_files_cannot_drive_the_terminal(shell: Shell, narrow: Path, wide: Path) -> None:
    data = json.loads((narrow / "alignment.json").read_text(encoding="utf-8"))
    data["system_prompt"] = HOSTILE
    data["examples"] = [{"query": HOSTILE, "response": HOSTILE, "kind": ""} for _ in range(3)]
    data["found"]["ended"] = HOSTILE
    data["found"]["settings"]["settings"][HOSTILE] = HOSTILE
    data["found"]["settings"]["models"]["base"] = [HOSTILE]
    shell.write("a.json", json.dumps(data))
    ran = shell.done("diff", "a.json", wide)
    assert not {"\x1b", "\x07", "\u202e"} & set(ran.out + ran.err) and "\\u001b[31m" in ran.out
    shell.done("diff", "a.json", wide, "--json")
