"""`--dry-run` of whatever rewrites queries: nothing is sent, and the range holds what comes."""

from __future__ import annotations

import shutil
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from drpo import optimize
from drpo.estimate.roles import read_recorded
from drpo.llm.ledger import LEDGER_NAME, Spent, read_ledger
from drpo.testing import closed_sockets
from tests.support.command import Shell, content_of
from tests.test_dry_run_measuring import scoring as scoring

FEW = 10
PRICES = ("base=0.5/1.5", "rewriter=1/3", "judge=2/8", "evaluator=2/8", "selector=1/4", "optimizer=2/8")
PROMPTED = ("--rewriter", "bpo-prompt/demo")
ROUNDS = (*PROMPTED, "--rounds", 3)
DRAWN = ("--rewriter", "align-pro/demo")
WEIGHED = (*DRAWN, "--samples", 3)
EVALUATE = ("evaluate", "--model", "demo", "--judge", "demo", "--data", "queries.txt")
COMPARE = ("compare", "--model", "demo", "--judge", "demo", "--data", "queries.txt")
GENERATE = ("generate", "found", "--in", "queries.txt")
REWRITE = ("rewrite", "--in", "queries.txt")
BUILD = ("bpo", "build", "--pairs", "demo", "--optimizer", "demo", "--limit", 8)
COMMANDS: dict[str, tuple[tuple[object, ...], int]] = {
    "evaluate, rounds, shots": ((*EVALUATE, "--alignment", "found", *ROUNDS), 14),
    "evaluate, a draw, replies cut": ((*EVALUATE, *DRAWN, "--max-tokens", 16, "--repairs", 2), 13),
    "evaluate, weighed": ((*EVALUATE, *WEIGHED), 50),
    "compare with the same prompt": ((*COMPARE, *PROMPTED, "--against", "none"), 25),
    "generate": ((*GENERATE, *PROMPTED), 13),
    "generate, weighed": ((*GENERATE, *WEIGHED), 40),
    "rewrite, rounds, replies cut": ((*REWRITE, *ROUNDS, "--max-tokens", 40, "--repairs", 2), 14),
    "rewrite, weighed": ((*REWRITE, *WEIGHED, "--alignment", "found"), 45),
    "bpo build, replies cut": ((*BUILD, "--max-tokens", 60, "--repairs", 2), 15),
}
"""A command, and a limit of calls that ends it somewhere in between."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished search and queries that want rewriting, two of which are nearly the same."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        optimize(
            model="demo", depth=2, width=1, samples=1, max_extra_depth=0, validate=0, run_dir=folder / "found"
        )
    queries = [f"hey how do i plan week {n} without stress thx" for n in range(FEW - 1)]
    lines = [*queries, "HEY how do i plan week 0 without stress thx"]
    (folder / "queries.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def shell(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    folder = tmp_path / "work"
    shutil.copytree(made, folder)
    monkeypatch.setenv("COLUMNS", "80")
    return Shell(folder, monkeypatch, capsys)


def priced(command: tuple[object, ...]) -> tuple[object, ...]:
    """The command in the folder `run`, with a price for each of its roles."""
    roles = {"optimizer"} if command[0] == "bpo" else {"rewriter"}
    roles |= {"judge"} if "--judge" in command else set()
    roles |= {"base", "evaluator", "selector"} if "--samples" in command else set()
    roles |= {"base"} if command[0] not in ("bpo", "rewrite") else set()
    flags = [part for price in PRICES if price.split("=")[0] in roles for part in ("--price", price)]
    return (*command, *flags, "--run-dir", "run")


def told(shell: Shell, *command: object) -> Any:
    with closed_sockets():
        return shell.done(*command, "--dry-run", "--json").json


def spent(shell: Shell) -> dict[str, Spent]:
    return read_ledger(shell.folder / "run" / LEDGER_NAME)


def outside(shell: Shell, said: Any, before: dict[str, Spent] | None = None) -> list[str]:
    """The figures that are not within what was said: of the whole, or of what came after `before`."""
    real, recorded = spent(shell), read_recorded(shell.folder / "run" / "calls.jsonl")
    come, found = "" if before is None else "_to_come", []
    assert set(real) <= set(said["roles"])
    for role, one in said["roles"].items():
        came, had = real.get(role, Spent()), (before or {}).get(role, Spent())
        figures = {f"calls{come}": came.calls - had.calls, f"usd{come}": came.usd - had.usd}
        if before is None and (usage := recorded.usage.get(role)) is not None:
            figures |= {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
        for name, value in figures.items():
            low, high = one[name]["least"], one[name]["most"]
            off = 1e-6 if "usd" in name else 0.5 if "tokens" in name else 0.0  # as figures are rounded
            if not low - off <= value <= high + off:
                found.append(f"{role} {name}: came {value}, said {low} to {high}")
    return found


@pytest.mark.parametrize("which", COMMANDS)
def test_the_range_holds_what_comes_of_a_run_that_begins_and_of_one_that_goes_on(
    which: str, shell: Shell
) -> None:
    command, limit = priced(COMMANDS[which][0]), COMMANDS[which][1]
    content = content_of(shell.folder)
    first = told(shell, *command)
    assert content_of(shell.folder) == content and first["run"]["state"] == "begin"
    shell.refused(9, *command, "--max-calls", limit, "--quiet")
    before, content = spent(shell), content_of(shell.folder)
    rest = told(shell, *command)
    assert content_of(shell.folder) == content and rest["run"]["state"] == "resume"
    shell.run(*command, "--quiet")
    assert outside(shell, first) == [] == outside(shell, rest)
    assert outside(shell, rest, before) == []
    after = told(shell, *command)
    assert after["run"]["state"] == "finished" and after["calls_to_come"]["most"] == 0
    assert {role: one["calls"]["most"] for role, one in after["roles"].items() if one["calls"]["most"]} == {
        role: one.calls for role, one in spent(shell).items()
    }


FAR = "http://127.0.0.1:1/v1"


def test_a_few_queries_leave_no_run_behind_and_the_answer_comes_first(shell: Shell) -> None:
    command = ("rewrite", "how do i cook rice", *ROUNDS)
    content = content_of(shell.folder)
    with closed_sockets():
        lines = shell.done(*command, "--dry-run").out.splitlines()
    assert content_of(shell.folder) == content
    assert lines[0] == "drpo rewrite, dry run: nothing is sent, started or written"
    assert lines[1].startswith("About 2 calls (1 to 6)")
    assert [line for line in lines if len(line) > 80] == []
    assert "run        none is left behind; --run-dir or --name keeps it, and resumes" in lines
    assert not any(str(line).startswith("run-dir") for line in lines)
    assert told(shell, *command)["run"] == {"path": None, "state": "begin", "process": None}
    kept = told(shell, *command, "--run-dir", "run")
    assert kept["run"]["path"] == "run" and "run_dir" in kept["settings"]


def test_a_rewriter_without_a_price_is_told_and_its_calls_stand(shell: Shell) -> None:
    flags = ("--rewriter", f"bpo/someone/rewriter@{FAR}", "--rounds", 2)
    found = told(shell, *EVALUATE, *flags)
    assert found["unpriced"] == ["rewriter"] and found["roles"]["rewriter"]["usd"] is None
    assert found["roles"]["rewriter"]["calls"]["least"] == FEW
    assert found["roles"]["rewriter"]["calls"]["most"] == 2 * FEW
    assert found["roles"]["base"]["calls"]["most"] == FEW + 1  # one chat may be tried, which counts as base
    text = " ".join(shell.done(*EVALUATE, *flags, "--dry-run").out.split())
    assert "--price rewriter=IN/OUT" in text
    assert "its query stands for it, its length is a range" in text


def test_a_missing_key_of_the_rewriter_is_told(shell: Shell) -> None:
    found = told(shell, *GENERATE, "--rewriter", "bpo-prompt/openai/gpt-4o-mini")
    assert "OPENAI_API_KEY is not set" in found["refused"][0]
    assert found["roles"]["rewriter"]["usd"]["expected"] > 0


def test_whoever_weighs_is_counted_once_a_query_and_once_an_answer(shell: Shell) -> None:
    found = told(shell, *REWRITE, *WEIGHED, "--repairs", 0)["roles"]
    calls = {role: (one["calls"]["least"], one["calls"]["most"]) for role, one in found.items()}
    assert calls == {
        "rewriter": (FEW, 3 * FEW),  # by an endpoint that gives one choice a request
        "base": (FEW - 1, 3 * FEW),  # two of the queries have the same words
        "selector": (FEW, FEW),
        "evaluator": (FEW, 3 * FEW),
    }


def test_a_reward_model_that_weighs_is_neither_loaded_nor_asked(shell: Shell) -> None:
    for name in (f"vllm/rm@{FAR}", "./no-such-folder"):
        found = told(shell, *EVALUATE, *WEIGHED, "--rewriter-reward", name)
        assert list(found["roles"]) == ["base", "judge", "rewriter"]
        assert FEW <= found["reward_model"]["responses"] <= 3 * FEW


def test_what_a_served_reward_model_has_weighed_is_taken_off(
    shell: Shell, scoring: ThreadingHTTPServer
) -> None:
    reward = f"vllm/rm@http://127.0.0.1:{scoring.server_port}/v1"
    command = (*EVALUATE, *DRAWN, "--samples", 2, "--rewriter-reward", reward, "--run-dir", "run")
    first = told(shell, *command)
    shell.refused(9, *command, "--max-calls", 34, "--quiet")  # when the judge is at it
    rest = told(shell, *command)
    assert rest["roles"]["base"]["calls_to_come"]["most"] == 0
    assert rest["reward_model"]["had"] == rest["reward_model"]["responses"]
    shell.done(*command, "--quiet")
    real = {role: one.calls for role, one in spent(shell).items()}
    assert outside(shell, first) == [] == outside(shell, rest)
    assert rest["roles"]["judge"]["calls"]["least"] == real["judge"]


def test_what_vectors_tell_of_rewrites_is_counted(shell: Shell) -> None:
    flags = ("--alignment", "found", *PROMPTED, "--embedder", f"openai/e@{FAR}", "--price", "embedder=1/0")
    found = told(shell, *EVALUATE, *flags)["roles"]
    left, queries, examples = FEW, 1, 1
    assert found["embedder"]["calls"] == {
        "least": 0,
        "expected": left + queries + examples,
        "most": left + queries + examples,
    }
    read = found["base"]["prompt_tokens"]
    assert read["least"] < read["expected"] < read["most"]


def test_what_a_limit_of_calls_means_is_told_and_comes(shell: Shell) -> None:
    command = (*REWRITE, *ROUNDS, "--run-dir", "run")
    for limit, says, code in ((FEW - 1, "will end early", 9), (6 * FEW, "enough", 0)):
        found = told(shell, *command, "--max-calls", limit)
        assert found["limits"]["max_calls"] == {"limit": limit, "says": says}
        assert shell.run(*command, "--max-calls", limit, "--quiet").code == code


def test_what_the_command_would_refuse_is_refused_before(shell: Shell) -> None:
    assert "other" in shell.refused(2, *BUILD, "--out", "found", "--dry-run")
    assert "is a folder" in shell.refused(2, *REWRITE, *PROMPTED, "--out", "found", "--dry-run")
    shell.write("there.jsonl", "mine")
    found = told(shell, *REWRITE, *PROMPTED, "--out", "there.jsonl", "--run-dir", "run")
    assert any("there is such a file" in note for note in found["notes"])


def test_text_of_others_drives_no_terminal(shell: Shell) -> None:
    shell.write("\x1b[2Jq.txt", "How?\nWhy?")
    flags = ("--in", "\x1b[2Jq.txt", *PROMPTED, "--run-dir", "run")
    assert "\x1b" not in shell.done("rewrite", *flags, "--dry-run").out
