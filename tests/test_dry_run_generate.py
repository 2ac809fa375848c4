"""`drpo generate --dry-run`: what would be asked is known by the request, and nothing of it is asked."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from drpo import optimize
from drpo.llm.ledger import LEDGER_NAME, Spent, read_ledger
from drpo.testing import closed_sockets
from tests.support.command import Shell, content_of
from tests.support.served import Served

NUMBER = 12
GENERATE = ("generate", "found", "--in", "queries.txt", "--price", "base=2/8", "--run-dir", "g")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        optimize(
            model="demo", depth=2, width=1, samples=1, max_extra_depth=0, validate=0, run_dir=folder / "found"
        )
    return folder / "found"


@pytest.fixture
def shell(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    folder = tmp_path / "work"
    shutil.copytree(made, folder / "found")
    monkeypatch.setenv("COLUMNS", "80")
    found = Shell(folder, monkeypatch, capsys)
    queries = [f"question {n}?" for n in range(NUMBER)]
    found.write("queries.txt", "\n".join([*queries, queries[0]]))
    return found


def told(shell: Shell, *arguments: object) -> Any:
    with closed_sockets():
        return shell.done(*arguments, "--dry-run", "--json").json


def spent(shell: Shell) -> Spent:
    return read_ledger(shell.folder / "g" / LEDGER_NAME)["base"]


def outside(said: Any, calls: float, usd: float, come: str = "") -> list[str]:
    """The figures of the base model that are not within what was said."""
    role = said["roles"]["base"]
    figures = {f"calls{come}": calls, f"usd{come}": usd}
    return [
        f"{name}: came {value}, said {role[name]}"
        for name, value in figures.items()
        if not role[name]["least"] - 1e-6 <= value <= role[name]["most"] + 1e-6
    ]


@pytest.mark.parametrize("sampling", [(), ("--temperature", 0.7, "--top-p", 0.9, "--base-max-tokens", 30)])
def test_the_range_holds_what_comes_of_a_run_that_begins_and_of_one_that_goes_on(
    shell: Shell, sampling: tuple[object, ...]
) -> None:
    command = (*GENERATE, *sampling)
    first = told(shell, *command)
    assert first["roles"]["base"]["calls"] == dict.fromkeys(("least", "expected", "most"), NUMBER)
    assert not (shell.folder / "g").exists()
    shell.refused(9, *command, "--max-calls", 5, "--quiet")
    had, before = spent(shell), content_of(shell.folder)
    rest = told(shell, *command)
    assert content_of(shell.folder) == before and rest["run"]["state"] == "resume"
    shell.done(*command, "--quiet")
    real = spent(shell)
    assert outside(first, real.calls, real.usd) == [] == outside(rest, real.calls, real.usd)
    assert outside(rest, real.calls - had.calls, real.usd - had.usd, "_to_come") == []
    assert rest["roles"]["base"]["calls_to_come"]["most"] == real.calls - had.calls == NUMBER - 5
    after = told(shell, *command)
    assert after["run"]["state"] == "finished" and after["calls_to_come"]["most"] == 0
    assert after["roles"]["base"]["usd"]["most"] == pytest.approx(real.usd, abs=1e-5)


def test_the_answer_comes_first_and_each_line_fits(shell: Shell) -> None:
    with closed_sockets():
        lines = shell.done(*GENERATE, "--dry-run").out.splitlines()
    assert lines[0] == "drpo generate, dry run: nothing is sent, started or written"
    assert lines[1].startswith("About 12 calls (12 to 12) for $0.")
    assert [line for line in lines if len(line) > 80] == []
    text = " ".join(" ".join(lines).split())
    assert "13 queries, equal ones asked once" in text and "alignment: found, 2 examples shown" in text
    assert "paper" not in text.lower() and lines[-1].startswith("Models named demo are simulated")


def test_what_a_limit_means_is_told_and_comes(shell: Shell) -> None:
    for limit, says, code in ((5, "will end early", 9), (NUMBER, "enough", 0)):
        found = told(shell, *GENERATE, "--max-calls", limit)
        assert found["limits"]["max_calls"] == {"limit": limit, "says": says}
        assert shell.run(*GENERATE, "--max-calls", limit, "--quiet").code == code


def test_a_file_that_is_there_and_a_folder_are_told_before_anything_is_paid(shell: Shell) -> None:
    shell.write("there.jsonl", "mine")
    assert any(
        "there is such a file" in note for note in told(shell, *GENERATE, "--out", "there.jsonl")["notes"]
    )
    assert "is a folder" in shell.refused(2, *GENERATE, "--out", "found", "--dry-run")


def test_shots_that_only_an_embedding_model_finds_are_bounded_by_the_examples(shell: Shell) -> None:
    def handler(model: str, body: dict[str, Any]) -> Any:
        raise AssertionError("a dry run asks nobody")

    with Served(handler) as server:
        flags = ("--model", f"openai/m@{server.url}", "--embedder", f"openai/e@{server.url}")
        found = shell.done(*GENERATE, *flags, "--price", "embedder=1/0", "--dry-run", "--json").json
        assert server.requests == []
    read = found["roles"]["base"]["prompt_tokens"]
    assert read["least"] < read["expected"] < read["most"]
    assert found["roles"]["embedder"]["calls"] == {"least": 0, "expected": 2, "most": 2}


def test_the_server_that_would_be_started_is_told(shell: Shell) -> None:
    found = told(shell, *GENERATE, "--model", "mistral-7b", "--max-calls", 3)
    (line,) = [line for line in found["servers"] if not line.startswith("#")]
    assert "mistralai/Mistral-7B-v0.1" in line and found["roles"]["base"]["price"]["source"] == "given"
    assert any("was found for demo" in note for note in found["notes"])


def test_a_missing_key_is_told_and_the_figures_stand(shell: Shell) -> None:
    found = told(shell, *GENERATE, "--model", "openai/gpt-4o-mini")
    assert "OPENAI_API_KEY is not set" in found["refused"][0] and found["calls"]["most"] == NUMBER


def test_text_of_others_drives_no_terminal(shell: Shell) -> None:
    shell.write("\x1b[2Jq.txt", "How?\nWhy?")
    assert "\x1b" not in shell.done(*GENERATE[:2], "--in", "\x1b[2Jq.txt", "--dry-run").out
