"""The doctor as its user runs it: a line for every problem, the exit code, no key, nothing left behind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from drpo.cli import EXIT_CODES
from drpo.commands.doctor import command
from drpo.doctor import examine as examining
from drpo.doctor.check import SEVERITY, Check, exit_code_of, guarded, secrets_of, split_remedy
from drpo.errors import ProviderRefused
from tests.support.command import SMALL, Ran, Shell, content_of, roles_at, the_error, times_of
from tests.support.doctor import KEY, in_folder
from tests.support.mock_openai import error
from tests.support.served import Served

STATUSES = ("ok", "warning", "problem")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    in_folder(tmp_path, monkeypatch)
    return Shell(tmp_path, monkeypatch, capsys)


def found(ran: Ran) -> list[dict[str, Any]]:
    """The checks of a run with --json."""
    checks: list[dict[str, Any]] = ran.json["checks"]
    return checks


def problems(ran: Ran) -> dict[str, list[str]]:
    """What is said by the problems, by the name of the check."""
    by_name: dict[str, list[str]] = {}
    for check in found(ran):
        if check["status"] == "problem":
            by_name.setdefault(check["name"], []).append(check["said"])
    return by_name


def test_the_simulated_models_need_nothing_and_say_that_they_are_simulated(shell: Shell) -> None:
    before = content_of(shell.folder)
    ran = shell.done("doctor", "--model", "demo")
    lines = ran.out.splitlines()
    assert lines[-2].startswith("Models named demo are simulated") and lines[-1] == "no problems, no warnings"
    assert {line.split()[0] for line in lines[:-2]} == {"ok"} and ran.err == ""
    assert "requests: none was sent" in ran.out and "simulated (demo), nothing is sent" in ran.out
    assert content_of(shell.folder) == before


def test_each_line_begins_with_its_status_and_remedies_stand_below(shell: Shell) -> None:
    ran = shell.run("doctor", "--model", "nonsense", "--depth", "500", "--embedder", "lexical")
    assert ran.code == 2
    for line in ran.out.splitlines()[:-1]:
        assert line.startswith((*(f"{status:<8} " for status in STATUSES), "         -> ")), line
    assert ran.out.splitlines()[-1] == "2 problems, 1 warning: a run would end with exit code 2"


def test_json_is_one_document_with_a_remedy_for_whatever_is_not_ok(shell: Shell) -> None:
    ran = shell.run("doctor", "--model", "gpt-4o", "--depth", "500", "--embedder", "lexical", "--json")
    assert ran.json["exit_code"] == ran.code == 2 and ran.err == ""
    assert (ran.json["requests"], ran.json["simulated"]) == (0, False)
    for check in found(ran):
        assert set(check) == {"name", "status", "said", "remedy", "exit_code"}
        assert check["status"] in STATUSES
        assert bool(check["remedy"]) == (check["status"] != "ok"), check
        assert bool(check["exit_code"]) == (check["status"] == "problem"), check


def test_every_wrong_setting_and_file_is_named_not_only_the_first(shell: Shell) -> None:
    shell.write("seeds.jsonl", '{"query": 7}\n')
    shell.write("examples.jsonl", "not json\n")
    shell.env.setenv("DRPO_WITH", "3")
    shell.env.setenv("DRPO_SAMPLES", "none")
    ran = shell.run(
        *("doctor", "--model", "nonsense", "--optimizer", "demo", "--evaluator", "x/y", "--width", "0"),
        *("--seeds", "seeds.jsonl", "--examples", "examples.jsonl", "--prompts", "nowhere", "--shots", "99"),
        *("--price", "base=x/y", "--price", "nobody=1/2", "--embedder", "lexical", "--json"),
    )
    assert ran.code == 2
    said = problems(ran)
    assert len(said.pop("settings")) == 3 and len(said.pop("price")) == 2
    assert set(said) == {"seeds", "examples", "templates", "model base", "model evaluator", "plan"}
    assert "--shots 99" in said["plan"][0]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--width", "0"),
        ("--seeds", "nowhere.txt"),
        ("--evaluator", "x/y"),
        ("--protect", "what is not there"),
        ("--name", "a", "--run-dir", "b"),
        ("--embedder", "word2vec"),
        ("--vllm-arg", "max-model-len=8"),
    ],
    ids=lambda wrong: wrong[0],
)
def test_a_wrong_setting_has_the_very_words_and_the_exit_code_of_the_command(
    shell: Shell, wrong: tuple[str, ...]
) -> None:
    model = "vllm/m@http://127.0.0.1:9/v1" if wrong[0] == "--vllm-arg" else "demo"
    arguments = ("--model", model, "--optimizer", "demo", "--embedder", "lexical", *wrong)
    searched = the_error(shell.run("optimize", *arguments), 2)
    ran = shell.run("doctor", *arguments, "--offline", "--json")
    assert ran.code == 2
    told = [f"{check['said']} {check['remedy']}" for check in found(ran) if check["status"] == "problem"]
    assert len(told) == 1

    def words(text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())

    assert words(told[0])[: len(words(searched))] == words(searched)


def test_a_wrong_setting_is_set_aside_and_the_rest_is_looked_at(shell: Shell) -> None:
    shell.write("drpo.toml", "width = 0\n")
    with Served() as server:
        flags = [*roles_at(server.url), "--samples", "0", "--config", "drpo.toml"]
        ran = shell.run("doctor", *flags, "--json")
        assert {body["model"] for body in server.bodies} == {"base", "optimizer", "evaluator", "selector"}
    assert ran.code == 2 and list(problems(ran)) == ["settings"]
    assert len(problems(ran)["settings"]) == 2


def test_a_wrong_role_of_simulated_models_is_the_only_problem(shell: Shell) -> None:
    ran = shell.run("doctor", "--model", "demo", "--evaluator", "x/y", "--json")
    assert list(problems(ran)) == ["model evaluator"] and "simulated (demo)" in ran.out


def test_a_setting_that_is_wrong_in_two_places_is_set_aside_in_both(shell: Shell) -> None:
    shell.env.setenv("DRPO_WIDTH", "0")
    ran = shell.run("doctor", "--model", "demo", "--width", "0", "--json")
    assert list(problems(ran)) == ["settings"] and "simulated (demo)" in ran.out


def test_without_a_model_the_rest_is_looked_at(shell: Shell) -> None:
    ran = shell.done("doctor", "--embedder", "lexical", "--json")
    warned = [check for check in found(ran) if check["status"] == "warning"]
    assert [check["name"] for check in warned] == ["model base"] and "--model M" in warned[0]["remedy"]
    assert {"disk", "cache", "versions"} <= {check["name"] for check in found(ran)}
    with Served() as server:
        shell.done("doctor", "--optimizer", f"openai/optimizer@{server.url}", "--embedder", "lexical")
        assert [body["model"] for body in server.bodies] == ["optimizer"]


def test_an_unreadable_dotenv_is_a_problem_and_hides_nothing(shell: Shell) -> None:
    shell.write(".env", b"\xff\xfe=1\n")
    ran = shell.run("doctor", "--model", "demo", "--json")
    assert ran.code == 2 and ".env" in problems(ran)["settings"][0]
    assert any(check["name"] == "disk" for check in found(ran))


@pytest.mark.parametrize(
    ("codes", "ended"),
    [((), 0), ((5, 3), 3), ((3, 8), 8), ((8, 6), 6), ((6, 2), 2), ((1,), 1), ((1, 5), 5)],
)
def test_the_exit_code_is_that_of_the_problem_a_run_meets_first(codes: tuple[int, ...], ended: int) -> None:
    checks = [Check("a", "warning", "said", "do")] + [Check("b", "problem", "", "", code) for code in codes]
    assert exit_code_of(checks) == ended


def test_the_exit_codes_are_told_in_their_order_and_known_to_drpo() -> None:
    assert command.epilog is not None
    told = [int(number) for number in re.findall(r"(?<![\w.])\d(?= [a-z])", command.epilog)]
    assert tuple(told[1:]) == SEVERITY and told[0] == 0
    assert all(re.search(rf"\b{code} [a-z]", EXIT_CODES) for code in SEVERITY)


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ("a: wrong. Mend it", ("a: wrong", "Mend it")),
        ("a: wrong; mend it", ("a: wrong", "Mend it")),
        ("a: HTTP 404: no such path. Check the URL.", ("a: HTTP 404: no such path", "Check the URL")),
        ("a: wrong", ("a: wrong", "")),
        ("a. b: wrong", ("a. b: wrong", "")),
    ],
)
def test_an_error_is_told_in_two_parts(message: str, parts: tuple[str, str]) -> None:
    assert split_remedy(message) == parts


def test_a_bug_in_one_check_is_its_own_problem_and_hides_no_other(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.env.setenv("OPENAI_API_KEY", KEY)

    def broken(prepared: object) -> Iterable[Check]:
        raise KeyError(f"what nobody thought of, {KEY}")

    whole = found(shell.done("doctor", "--model", "demo", "--json"))
    monkeypatch.setattr(examining, "disk_checks", broken)
    ran = shell.run("doctor", "--model", "demo", "--json")
    assert ran.code == 1 and KEY not in ran.out
    assert "KeyError" in problems(ran)["disk"][0] and len(problems(ran)) == 1
    others = {check["name"] for check in whole} - {"disk", "room"}
    assert others == {check["name"] for check in found(ran)} - {"disk"}


async def test_a_check_that_raises_has_the_exit_code_of_its_error() -> None:
    async def refused() -> Iterable[Check]:
        raise ProviderRefused(f"no: {KEY}. Ask again")

    checks = await guarded("who", refused, secrets_of({"A_KEY": KEY}))
    assert checks == (Check("who", "problem", "no: [key]", "Ask again", 3),)


def test_offline_sends_nothing(shell: Shell) -> None:
    with Served() as server:
        flags = [*roles_at(server.url)[:-1], f"openai/e@{server.url}"]
        for flag in ("--offline", "--no-requests"):
            assert "nothing is sent" in shell.done("doctor", *flags, flag).out
        assert server.requests == []


def test_text_of_a_server_is_shown_and_never_obeyed(shell: Shell) -> None:
    hostile = "\x1b[31mred\x07[bold]not markup[/bold]\u202eback"
    with Served(lambda model, body: error(400, hostile)) as server:
        flags = ["--model", f"openai/base@{server.url}", "--optimizer", "demo", "--embedder", "lexical"]
        ran = shell.run("doctor", *flags)
        assert ran.code == 3 and "\\u001b[31mred\\u0007[bold]not markup[/bold]\\u202eback" in ran.out
        assert json.loads(shell.run("doctor", *flags, "--json").out)


def test_what_the_runs_directory_holds_is_told_and_not_touched(shell: Shell) -> None:
    flags = ("--model", "demo", *SMALL, "--run-dir", "run")
    shell.done("optimize", *flags, "--quiet")

    def told(*more: str) -> tuple[int, str]:
        before = content_of(shell.folder), times_of(shell.folder / "run")
        ran = shell.run("doctor", *flags, *more, "--json")
        assert (content_of(shell.folder), times_of(shell.folder / "run")) == before
        return ran.code, next(check["said"] for check in found(ran) if check["name"] == "run")

    assert told() == (0, "run: has a result, which the command would show")
    assert told("--samples", "1") == (6, "run belongs to other settings: samples is 2 there, 1 here")
    (shell.folder / "run" / "alignment.json").unlink()
    assert told() == (0, "run: begun before, the command would resume it")
    (shell.folder / "run" / "run.json").unlink()
    assert told() == (6, "run: expected a run or an empty folder, found calls.jsonl")
    the_error(shell.run("optimize", *flags), 6)
