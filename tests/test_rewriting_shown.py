"""What a user sees of rewriters: on a terminal, of runs, in a chat; and endpoints that misbehave."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from drpo.commands.measuring_text import print_summary
from tests.support.command import Shell
from tests.support.mock_openai import Answer, Reply, error
from tests.support.served import Served
from tests.support.streams import said as streamed

QUERY = "tell me stuff about bees plz"
QUERIES = [f"question about number {n} plz" for n in range(6)]
BPO = ("--rewriter", "bpo-prompt/demo")


def better(text: str) -> str:
    return json.dumps({"analysis": "unclear", "rewritten_query": text})


# Files and flags


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.txt", "\ufeff" + "\r\n".join(QUERIES) + "\r\n"),
        ("q.jsonl", "".join(json.dumps({"query": query}) + "\r\n" for query in QUERIES)),
        ("q.csv", "\ufeffid,query\r\n" + "".join(f"{n},{query}\r\n" for n, query in enumerate(QUERIES))),
    ],
)
def test_queries_come_from_every_kind_of_file_with_marks_and_windows_line_ends(
    shell: Shell, name: str, content: str
) -> None:
    shell.write(name, content)
    ran = shell.done("rewrite", "--in", name, *BPO, "--run-dir", "r", "--out", "o.jsonl", "--json")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [line["query"] for line in lines] == QUERIES
    assert [json.loads(line) for line in (shell.folder / "o.jsonl").read_text("utf-8").splitlines()] == lines


def test_quiet_says_nothing_but_the_rewrites_and_out_says_where_they_are(shell: Shell) -> None:
    weighed = ("rewrite", QUERY, "--rewriter", "align-pro/demo", "--samples", "3")
    quiet = shell.done(*weighed, "--quiet", "--out", "q.jsonl")
    assert quiet.out.strip() and quiet.err == ""
    told = shell.done(*weighed, "--out", "t.jsonl")
    assert "the rewrites weighed" in told.err and "written: t.jsonl (1 queries)" in told.err
    assert (shell.folder / "t.jsonl").read_bytes() == (shell.folder / "q.jsonl").read_bytes()


def test_a_file_that_holds_something_else_is_not_written_over(shell: Shell) -> None:
    shell.write("o.jsonl", "precious\n")
    said = shell.refused(2, "rewrite", QUERY, *BPO, "--out", "o.jsonl")
    assert "nothing is written over" in said and (shell.folder / "o.jsonl").read_text() == "precious\n"


def test_each_round_is_shown_and_the_last_is_the_result(shell: Shell) -> None:
    ran = shell.done("rewrite", QUERY, *BPO, "--rounds", "3", "--json")
    rounds = json.loads(ran.out)["rounds"]
    assert json.loads(ran.out)["rewritten"] == rounds[-1] and len(rounds) > 1
    told = shell.done("rewrite", QUERY, *BPO, "--rounds", "3")
    shown = [" ".join(line.split()[2:]) for line in told.err.splitlines() if "round " in line]
    assert shown == [" ".join(text.split()) for text in rounds[:-1]]


def test_a_budget_that_ends_in_the_middle_goes_on_with_a_higher_one(shell: Shell) -> None:
    shell.write("q.txt", "\n".join(QUERIES))
    wanted = ("rewrite", "--in", "q.txt", *BPO, "--run-dir", "r", "--concurrency", "1")
    assert "a higher limit goes on" in shell.refused(9, *wanted, "--max-calls", "3")
    assert not (shell.folder / "r" / "answers.jsonl").exists()
    shell.done(*wanted, "--max-calls", "20")
    whole = shell.done("rewrite", "--in", "q.txt", *BPO, "--run-dir", "s", "--json", "--quiet").out
    assert (shell.folder / "r" / "answers.jsonl").read_text("utf-8") == whole
    in_two, in_one = ((shell.folder / run / "calls.jsonl").read_text("utf-8") for run in "rs")
    assert sorted(in_two.splitlines()) == sorted(in_one.splitlines())


# Runs


@pytest.fixture
def runs(shell: Shell) -> Shell:
    shell.write("q.txt", "\n".join(QUERIES))
    shell.done("rewrite", "--in", "q.txt", *BPO, "--run-dir", "runs/w", "--quiet")
    wanted = ("bpo", "build", "--pairs", "demo", "--optimizer", "demo", "--limit", "8")
    shell.done(*wanted, "--run-dir", "runs/b", "--quiet")
    return shell


def test_runs_that_only_write_files_can_be_looked_at_by_every_command(runs: Shell) -> None:
    assert "answers.jsonl" in runs.refused(2, "show", "runs/w")
    build = runs.done("show", "runs/b").out
    assert build.startswith("optimizer    demo/") and "preferences  8 of the simulated world" in build
    again = runs.done("bpo", "build", "--pairs", "demo", "--optimizer", "demo", "--limit", "8",
                      "--run-dir", "runs/b", "--quiet").out  # fmt: skip
    assert again == build
    assert runs.done("show", "runs/b", "--json").json["preferences"] == 8
    listed = runs.done("runs").out
    assert listed.count("finished") == 2
    for name, unit in (("runs/w", "queries 6 of 6"), ("runs/b", "preferences 8 of 8")):
        assert unit in runs.done("watch", name).out
        assert "found a measurement" in runs.refused(2, "diff", name, name)


def test_what_a_build_leaves_out_is_told_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    summary: dict[str, Any] = {
        "command": "bpo-build", "simulated": False, "models": {"optimizer": "m\x1b[2J"}, "source": "f\n.json",
        "preferences": 9, "said_nothing": {"a tie": 2}, "kept": 7, "unchanged": 1,
        "left_out": {"longer": 1, "copied": 1},
    }  # fmt: skip
    print_summary(summary, as_json=False)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "optimizer    m\\u001b[2J" in out and "9 of f .json" in out
    assert "2 more say nothing: a tie" in out and "kept         7, 1 of them unchanged" in out
    assert "1: more than 6 times longer" in out and "1: a passage of the preferred response copied" in out


def test_a_build_may_write_into_its_own_run_and_resumes_there(shell: Shell) -> None:
    wanted = ("bpo", "build", "--pairs", "demo", "--optimizer", "demo", "--limit", "6", "--run-dir", "b")
    shell.refused(9, *wanted, "-o", "./b", "--max-calls", "2", "--concurrency", "1")
    shell.done(*wanted, "-o", "./b")
    assert "nothing was sent" in shell.done(*wanted, "-o", "./b").err


def test_a_comparison_names_the_rewriter_beside_its_alignment(capsys: pytest.CaptureFixture[str]) -> None:
    estimate = {"mean": 0.9, "low": 0.8, "high": 1.0, "level": 0.95, "count": 20}
    summary: dict[str, Any] = {
        "command": "compare", "simulated": False, "alignment": "none", "against": "none", "shots": [0, 0],
        "models": {"base": "m", "judge": "j"}, "flips": 0, "wins": 18, "ties": 0, "losses": 2, "missing": 0,
        "win_rate": estimate, "sign_test_p": 0.001, "length_controlled": None, "mean_words": [10.0, 9.0],
        "rewriter": {"name": "bpo-prompt/m", "queries": 20, "changed": 17, "kept": {"lost": 1, "longer": 1}},
    }  # fmt: skip
    print_summary(summary, as_json=False)
    out = capsys.readouterr().out
    assert "A          none with bpo-prompt/m, 0 shots" in out and "B          none, 0 shots" in out
    assert "A (none with bpo-prompt/m) is preferred" in out
    assert "rewritten  17 of 20 queries by bpo-prompt/m before A; 2 could not stand" in out
    del summary["rewriter"]
    print_summary({**summary, "wins": 2, "losses": 18}, as_json=False)
    assert "B (none) is preferred" in capsys.readouterr().out


# A chat


def test_a_chat_says_how_the_first_query_was_put_and_saves_it(shell: Shell) -> None:
    replies = {QUERY: better("Tell me the main points about bees, please."), "good": better("good as it is")}

    def handler(model: str, body: dict[str, Any]) -> Answer:
        said = body["messages"][-1]["content"]
        if model != "writer":
            return streamed("An answer.")
        return next((reply for query, reply in replies.items() if query in said), "no json")

    typed = [QUERY, "and why?", "/save c.json", "/reset", "never readable", "/reset", "good as it is"]
    with Served(handler) as server:
        shell.env.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in typed)))
        flags = ("--model", f"openai/m@{server.url}", "--rewriter", f"bpo-prompt/openai/writer@{server.url}")
        shell.env.setenv("DRPO_BASE_API_KEY", "k")
        shell.env.setenv("DRPO_REWRITER_API_KEY", "k")
        ran = shell.done("chat", "none", *flags, "--repairs", "0")
    told = [line for line in ran.err.splitlines() if line.startswith("(")]
    assert told == [
        "(read as: Tell me the main points about bees, please.)",
        "(as it was: no readable reply)",
    ]
    saved = json.loads((shell.folder / "c.json").read_text("utf-8"))
    assert saved["rewritten"] == "Tell me the main points about bees, please."
    assert [turn["query"] for turn in saved["turns"]] == [QUERY, "and why?"]


# Endpoints that do not do as they should


def asked(shell: Shell, handler: Any, *flags: object, kind: str = "bpo-prompt") -> tuple[Any, list[Any]]:
    shell.env.setenv("DRPO_REWRITER_API_KEY", "sk-secret-of-the-user")
    with Served(handler) as server:
        named = f"{kind}/openai/x@{server.url}"
        ran = shell.run("rewrite", QUERY, "--rewriter", named, *flags)
        return ran, server.bodies


def test_a_wrong_key_is_one_line_and_exit_3_and_is_not_told(shell: Shell) -> None:
    ran, _ = asked(shell, lambda model, body: error(401, "bad key sk-secret-of-the-user\x1b[2J"))
    assert ran.code == 3 and "API key" in ran.err and ran.err.count("\n") == 1
    assert "secret" not in ran.err and "\x1b" not in ran.err


@pytest.mark.parametrize("answer", [Reply(status=500), Reply(fault="hang"), Reply(fault="cut")])
def test_an_endpoint_that_is_down_ends_within_the_deadline(shell: Shell, answer: Reply) -> None:
    ran, _ = asked(shell, lambda model, body: answer, "--timeout-s", "0.1", "--deadline-s", "0.2")
    assert ran.code == 5 and ran.err.count("\n") == 1 and "rewriter model x" in ran.err


def test_an_endpoint_without_a_temperature_is_asked_without(shell: Shell) -> None:
    def handler(model: str, body: dict[str, Any]) -> Answer:
        if "temperature" in body:
            return error(400, "Unsupported: temperature", code="unsupported_parameter", param="temperature")
        return better("Tell me the main points about bees.")

    ran, bodies = asked(shell, handler)
    assert ran.code == 0 and ran.out == "Tell me the main points about bees.\n" and len(bodies) == 2


@pytest.mark.parametrize("kind", ["bpo-prompt", "align-pro"])
@pytest.mark.parametrize(
    "reply",
    ["bees " * 200_000, better("stuff about bees " * 60_000), "", "\x1b[2J\x07", "Sure, bees are insects."],
)
def test_a_reply_that_is_no_query_gives_the_users_own_words_and_a_short_reason(
    shell: Shell, kind: str, reply: str
) -> None:
    ran, _ = asked(shell, lambda model, body: reply, kind=kind)
    assert ran.code == 0 and ran.out == f"{QUERY}\n"
    assert ran.err.startswith("(as it was: ") and len(ran.err) < 260 and "\x1b" not in ran.err


@pytest.mark.parametrize("kind", ["bpo-prompt", "align-pro"])
def test_control_characters_in_a_rewrite_are_shown_and_not_obeyed(shell: Shell, kind: str) -> None:
    text = "tell me stuff about \x1b[2J bees \u202e please"
    ran, _ = asked(shell, lambda m, b: better(text) if kind == "bpo-prompt" else text, kind=kind)
    assert ran.out == "tell me stuff about \\u001b[2J bees \\u202e please\n"


def test_money_is_not_spent_on_a_rewriter_whose_price_nobody_knows(shell: Shell) -> None:
    ran, bodies = asked(shell, lambda model, body: "never asked", "--max-usd", "1")
    assert ran.code == 2 and "--price rewriter=IN/OUT" in ran.err and not bodies
    ran, _ = asked(shell, lambda m, b: better(QUERY), "--max-usd", "1", "--price", "rewriter=1/1")
    assert ran.code == 0


def test_a_weighed_rewriter_at_an_endpoint_needs_its_weigher_named(shell: Shell, tmp_path: Path) -> None:
    said = shell.refused(2, "rewrite", QUERY, "--rewriter", "align-pro/openai/x@http://127.0.0.1:9/v1",
                         "--samples", "3")  # fmt: skip
    assert "--rewriter-reward" in said and not (tmp_path / "runs").exists()
