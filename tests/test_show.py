"""`drpo show` prints what a run has found, also while it goes on; what is unknown is said to be."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Shell, ended, process
from tests.support.shown_runs import (
    HOSTILE,
    answered,
    change_events,
    change_json,
    copy_of,
    events_of,
    examples_run,
    killed,
    nodes_of,
    prompt_run,
    result_of,
    sent,
    set_progress,
    write_ledger,
)
from tests.support.terminal import on_terminal


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prompt_run(tmp_path_factory.mktemp("prompts") / "run")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return examples_run(tmp_path_factory.mktemp("examples") / "run")


# What a finished run prints


def test_the_essentials_of_a_finished_run(shell: Shell, prompts: Path) -> None:
    ran, result = shell.done("show", prompts), result_of(prompts)
    assert ran.err == "" and ran.out.startswith(result["system_prompt"])
    found = result["found"]
    rewards = " ".join(f"{reward:.2f}" for reward in found["path_rewards"])
    assert f"path score  {found['path_score']:.4f} (rewards, 1 to 5: {rewards})" in ran.out
    assert f"start       reward {nodes_of(prompts)[0]['reward']:.2f}" in ran.out
    assert f"searched    {found['levels']} levels, {found['nodes']} nodes" in ran.out
    assert "ended: the limit of levels was reached" in ran.out
    assert "model       demo/seed=0,noise=0.5, base asked as chat" in ran.out
    assert "Simulated models" in ran.out and "state  " not in ran.out


def test_the_calls_of_each_role_are_those_of_the_ledger(shell: Shell, prompts: Path) -> None:
    lines = shell.done("show", prompts).out.splitlines()
    table = {line.split()[0]: line.split() for line in lines if line.startswith(("base ", "evaluator "))}
    shown = shell.done("show", prompts, "--json").json["spent"]["roles"]
    assert set(shown) == {"base", "optimizer", "evaluator", "selector"}
    for role, cells in table.items():
        counts = shown[role]
        assert cells[1:5] == [str(counts[name]) for name in ("answered", "failed", "unknown", "retried")]
        assert cells[5] == f"{counts['prompt_tokens']:,}" and cells[-1] == "$0"
    assert shown["base"]["answered"] == result_of(prompts)["found"]["calls"]["base"]


def test_json_is_the_result_and_more(shell: Shell, prompts: Path) -> None:
    shown = shell.done("show", prompts, "--json").json
    alone = shell.done("show", prompts / "alignment.json", "--json").json
    assert {name: shown[name] for name in alone} == alone
    assert shown["state"] == "finished" and shown["command"] == "optimize"
    assert shown["start_reward"] == nodes_of(prompts)[0]["reward"]
    assert shown["elapsed_s"] > 0 and shown["spent"]["all"]["usd"] == 0


def test_an_alignment_file_alone_is_shown_and_has_no_nodes(shell: Shell, prompts: Path) -> None:
    file = shell.folder / "a.json"
    file.write_bytes((prompts / "alignment.json").read_bytes())
    assert result_of(prompts)["system_prompt"] in shell.done("show", file).out
    for option in (("--node", 1), ("--path",), ("--aspects",), ("--example", 1)):
        error = shell.refused(2, "show", file, *option)
        assert error.startswith(f"{option[0]} is for runs") and "name its run directory" in error


def test_different_models_are_told_with_their_roles(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "run")
    judge = {"evaluator": "openai/judge", "selector": "openai/judge"}
    change_json(run / "run.json", lambda data: data["identity"]["models"].update(judge))
    out = shell.done("show", run).out
    assert "model       demo/seed=0,noise=0.5 (base, optimizer)\n" in out
    assert "            openai/judge (evaluator, selector), base asked as chat\n" in out


# Money


def test_a_run_without_a_ledger_says_that_its_cost_is_unknown(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "run", without=("ledger.jsonl", "progress.json"))
    out = shell.done("show", run).out
    calls = result_of(prompts)["found"]["calls"]
    assert f"calls       {', '.join(f'{role} {count}' for role, count in calls.items())}" in out
    assert "spent       unknown: no ledger.jsonl was kept" in out and "$" not in out
    shown = shell.done("show", run, "--json").json
    assert shown["spent"] is None and shown["elapsed_s"] is None and shown["state"] == "finished"


def test_what_may_have_been_charged_is_told_beside_what_was(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "run")
    write_ledger(run, [sent(1, "base", 0.25), answered(1, 0.125), sent(2, "base", 0.5), sent(3, "base", 0.5)])
    out = shell.done("show", run).out
    assert "$0.1250, at most $1.00 more for 2 calls" in out
    assert "A request without an answer may have been charged" in out
    base = shell.done("show", run, "--json").json["spent"]["roles"]["base"]
    assert (base["usd"], base["held_usd"], base["unknown"], base["calls"]) == (0.125, 1.0, 2, 3)


def test_an_unknown_price_is_never_nothing(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "run")
    write_ledger(run, [sent(1, "base", None), answered(1, None), sent(2, "evaluator", None)])
    ran = shell.done("show", run)
    assert "spent       unknown" in ran.out and "$" not in ran.out
    spent = shell.done("show", run, "--json").json["spent"]
    assert spent["roles"]["base"]["usd"] is None and spent["all"]["usd"] is None
    assert spent["roles"]["evaluator"]["held_usd"] is None


def test_a_damaged_ledger_hides_only_what_was_spent(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "run")
    write_ledger(run, [sent(1, "base", 0.25), {"kind": "answered", "id": 9}])
    shown = shell.done("show", run).out
    assert "path score" in shown and f"spent       unknown: {run / 'ledger.jsonl'} is damaged" in shown


# A run that has not finished


def test_a_killed_run_shows_its_best_so_far_and_how_to_go_on(shell: Shell, prompts: Path) -> None:
    run = killed(prompts, shell.folder / "run", 2)
    best = nodes_of(prompts)[events_of(prompts, "level")[1]["beam"][0]]
    ran = shell.done("show", run)
    assert ran.out.startswith(best["state"]["system_prompt"])
    assert "state       stopped, its process is gone or hangs: 2 of 4 levels done" in ran.out
    assert "this is the best so far" in ran.out and "Its command, given again, goes on" in ran.out
    assert f"path score  {best['score']:.4f}" in ran.out
    shown = shell.done("show", run, "--json").json
    assert (shown["state"], shown["ended"], shown["levels"]) == ("stopped", None, 2)
    assert shown["system_prompt"] == best["state"]["system_prompt"]


@pytest.mark.parametrize(
    ("state", "word", "next_step"),
    [
        ("running", "running", "drpo watch follows it"),
        ("stopping", "stopping", "drpo watch follows it"),
        ("interrupted", "interrupted", "Its command, given again, goes on"),
        ("budget", "budget spent", "higher --max-calls or --max-usd"),
        ("failed", "failed", "Its run.log says why"),
    ],
)
def test_each_state_says_what_to_do(
    shell: Shell, prompts: Path, state: str, word: str, next_step: str
) -> None:
    run = killed(prompts, shell.folder / "run", 1)
    set_progress(run, state=state, updated_s=time.time())
    out = shell.done("show", run).out
    assert f"state       {word}: 1 of 4 levels done" in out and next_step in out
    assert shell.done("show", run, "--json").json["state"] == state


def test_an_older_unfinished_run_is_not_finished(shell: Shell, prompts: Path) -> None:
    run = killed(prompts, shell.folder / "run", 1)
    (run / "progress.json").unlink()
    assert "state       not finished: 1 of 4 levels done" in shell.done("show", run).out


def test_the_best_before_a_spent_budget_is_no_end(shell: Shell, prompts: Path) -> None:
    run = killed(prompts, shell.folder / "run", 2)
    set_progress(run, state="budget")
    result = result_of(prompts)
    result["found"]["ended"] = "budget"
    (run / "alignment.json").write_text(json.dumps(result), encoding="utf-8")
    out = shell.done("show", run).out
    assert "budget spent: 2 of 4 levels done" in out and "higher --max-calls" in out
    assert "base asked as chat" in out


@pytest.mark.parametrize("options", [(), ("--path",), ("--node", 0), ("--aspects",), ("--json",)])
def test_a_run_without_a_level_has_nothing_to_show_yet(
    shell: Shell, prompts: Path, options: tuple[Any, ...]
) -> None:
    run = killed(prompts, shell.folder / "run", 0)
    error = shell.refused(2, "show", run, *options)
    assert "found none: there is nothing to show yet" in error and "drpo watch" in error


def test_a_folder_that_is_no_run_and_one_of_a_newer_drpo(shell: Shell, prompts: Path) -> None:
    assert "found no run.json in it" in shell.refused(2, "show", shell.folder)
    run = copy_of(prompts, shell.folder / "run")
    change_json(run / "run.json", lambda data: data.update(schema=2))
    error = shell.refused(2, "show", run)
    assert "found 2: it was written by a newer drpo; use that one" in error
    assert "the name is" not in shell.refused(2, "show", "x" * 5000)


# Text of models, pipes, colours


@pytest.mark.parametrize("options", [(), ("--node", 2), ("--path",), ("--aspects",)])
def test_text_of_models_cannot_drive_the_terminal(
    shell: Shell, prompts: Path, options: tuple[Any, ...]
) -> None:
    run = copy_of(prompts, shell.folder / "run")

    def harm(event: dict[str, Any]) -> None:
        if event["event"] == "node":
            state = event["state"]
            for name in ("system_prompt", "query", "response", "finish_reason"):
                state[name] = f"{event['id']} {HOSTILE}"
            state["evaluation"] = {f"A {HOSTILE}": {"rationale": HOSTILE, "score": 3}}
        if event["event"] == "end":
            event["ended"] = HOSTILE

    change_events(run, harm)
    change_json(run / "alignment.json", lambda data: data.update(system_prompt=HOSTILE, embedder=HOSTILE))
    change_json(run / "alignment.json", lambda data: data["found"].update(ended=HOSTILE))
    change_json(run / "run.json", lambda data: data["identity"].update(embedder=HOSTILE))
    change_json(run / "run.json", lambda data: data["identity"]["models"].update(base=HOSTILE))
    write_ledger(run, [sent(1, HOSTILE.encode("ascii", "ignore").decode(), None)])
    out = shell.done("show", run, *options).out
    for sign in ("\x1b", "\x07", "\u202e", "\r"):
        assert sign not in out
    assert "\\u001b[31m" in out or options == ()
    assert shell.run("show", run, *options, "--json").code == 0


def test_json_cannot_drive_the_terminal_either_and_says_the_same(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "run")
    text = "csi \x9b31m turned \u202e tag \U000e0041 plain é 子"
    change_json(run / "alignment.json", lambda data: data.update(system_prompt=text))
    ran = shell.done("show", run, "--json")
    assert ran.json["system_prompt"] == text and "é 子" in ran.out
    assert not {"\x9b", "\u202e", "\U000e0041"} & set(ran.out)


def test_a_reader_that_leaves_gets_no_traceback(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "run")
    change_json(run / "alignment.json", lambda data: data.update(system_prompt="word " * 100_000))
    running = process("show", run)
    assert running.stdout is not None and running.stdout.read(5) == "word "
    running.stdout.close()
    running.stdout = None
    ran = ended(running)
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_changes_are_coloured_and_marked_on_a_terminal(prompts: Path) -> None:
    out = on_terminal("show", prompts, "--node", 1, NO_COLOR="", TERM="xterm")
    assert "\x1b[31" in out and "\x1b[32" in out and "[-" in out and "{+" in out


@pytest.mark.parametrize("help_of", ["show", "diff", "runs", "report"])
def test_help_says_what_each_command_is_for(shell: Shell, help_of: str) -> None:
    assert shell.done(help_of, "--help").out.startswith(f"Usage: drpo {help_of}")
