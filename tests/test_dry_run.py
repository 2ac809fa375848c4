"""`--dry-run`: what would happen is said, nothing happens, and what is wrong is the same error."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drpo.commands.dry_run import look_ahead
from drpo.config import OptimizeConfig
from drpo.llm.base import ROLES, Completion, Request, request_key
from drpo.llm.ledger import Spent, read_ledger
from drpo.llm.reuse import Store
from drpo.plan import optimize_plan
from drpo.progress import PROGRESS_NAME, Snapshot, write_progress
from drpo.settings import resolve
from drpo.testing import ScriptedLLM, closed_sockets
from drpo.wiring import build_reward, structured_for
from tests.support.command import SMALL, Shell, content_of, demo, roles_at, times_of
from tests.support.mock_openai import Reply, drpo_answers
from tests.support.served import Served

REAL = ("optimize", "--model", "mistral-7b", "--dry-run")
SERVER = "openai/m@http://127.0.0.1:1/v1"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    folder = tmp_path / "work"
    folder.mkdir()
    found = Shell(folder, monkeypatch, capsys)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PATH", str(folder / "programs"))
    return found


def dry(shell: Shell, *arguments: object) -> str:
    return shell.done(*arguments, "--dry-run").out


def told(shell: Shell, *arguments: object) -> Any:
    return shell.done(*arguments, "--dry-run", "--json").json


# Nothing happens


@pytest.mark.parametrize("command", [REAL, ("optimize-examples", "--model", "gpt-4o", "--dry-run")])
def test_nothing_is_sent_opened_or_written(shell: Shell, command: tuple[str, ...]) -> None:
    shell.env.setenv("OPENAI_API_KEY", "x")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was made")

    with closed_sockets(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "create_connection", refuse)
        patch.setattr(socket.socket, "bind", refuse)
        ran = shell.done(*command)
    assert list(shell.folder.iterdir()) == []
    assert not Path(os.environ["DRPO_CACHE_DIR"]).exists()
    assert ran.err == ""


def test_a_run_that_is_there_is_left_as_it_is(shell: Shell) -> None:
    shell.run(*demo("--max-calls", 8))
    before, times = content_of(shell.folder), times_of(shell.folder)
    assert "it has begun and would go on" in dry(shell, *demo())
    assert (content_of(shell.folder), times_of(shell.folder)) == (before, times)


# Which run


def test_it_says_whether_the_run_would_begin_go_on_or_has_finished(shell: Shell) -> None:
    assert told(shell, *demo())["run"] == {"path": "run", "state": "begin", "process": None}
    shell.run(*demo("--max-calls", 8))
    half = told(shell, *demo())
    assert half["run"]["state"] == "resume"
    assert sum(role["recorded"] for role in half["roles"].values()) == 8
    assert half["calls_to_come"]["expected"] == half["calls"]["expected"] - 8
    shell.done(*demo())
    finished = told(shell, *demo())
    assert finished["run"]["state"] == "finished"
    assert finished["calls_to_come"] == {"least": 0, "expected": 0, "most": 0}
    text = dry(shell, *demo())
    assert "This run has finished: nothing more would be sent." in text


def test_it_says_that_another_process_is_at_it(shell: Shell) -> None:
    shell.run(*demo("--max-calls", 8))
    now_s = time.time()
    alive = Snapshot("optimize", "running", "run", 4711, now_s, now_s, 0.0)
    write_progress(shell.folder / "run" / PROGRESS_NAME, alive)
    assert "process 4711 is at it" in dry(shell, *demo())
    write_progress(shell.folder / "run" / PROGRESS_NAME, replace(alive, updated_s=now_s - 60))
    assert "it has begun and would go on" in dry(shell, *demo())


WRONG: tuple[tuple[int, tuple[object, ...]], ...] = (
    (6, ("--width", 2)),
    (6, ("--run-dir", "foreign")),
    (2, ("--run-dir", "file")),
    (2, ("--run-dir", "file/inside")),
    (2, ("--depth", 1)),
    (2, ("--model", "no-such-model")),
    (2, ("--model", "demo", "--optimizer", "gpt-4o", "--embedder", "nonsense", "--run-dir", "new")),
    (2, ("--embedder", "vllm/x", "--run-dir", "new")),
    (2, ("--price", "base=1")),
    (2, ("--seeds", "missing.txt")),
    (2, ("--config", "missing.toml")),
    (2, ("--protect", "not in it")),
)


@pytest.mark.parametrize(("code", "arguments"), WRONG)
def test_what_is_wrong_is_the_error_of_the_command(
    shell: Shell, code: int, arguments: tuple[object, ...]
) -> None:
    shell.env.setenv("OPENAI_API_KEY", "x")
    shell.done(*demo())
    (shell.folder / "foreign").mkdir()
    shell.write("foreign/notes.txt", "mine")
    shell.write("file", "mine")
    before = content_of(shell.folder)
    said = shell.refused(code, *demo(*arguments), "--dry-run")
    assert content_of(shell.folder) == before
    assert said == shell.refused(code, *demo(*arguments))


def test_a_file_that_is_in_the_way_of_new_examples_is_named(shell: Shell) -> None:
    shell.write("new.jsonl", "mine")
    arguments = ("optimize-examples", "--model", "demo", "--out", "new.jsonl", "--run-dir", "run")
    said = shell.refused(2, *arguments, "--dry-run")
    assert said == shell.refused(2, *arguments) and "nothing is written over" in said


# Settings


def test_settings_say_where_they_come_from(shell: Shell) -> None:
    shell.env.setenv("DRPO_WIDTH", "4")
    shell.env.setenv("DRPO_DEPTH", "7")
    shell.write("s.toml", 'width = 3\nshots = 1\n[roles.base]\nmodel = "demo"\n')
    found = told(shell, "optimize", "--config", "s.toml", "--depth", 5)["settings"]
    assert found["width"] == {"value": 4, "from": "DRPO_WIDTH", "default": False}
    assert found["depth"] == {"value": 5, "from": "--depth", "default": False}
    assert found["shots"] == {"value": 1, "from": "s.toml", "default": False}
    assert found["model"] == {"value": "demo", "from": "s.toml", "default": False}
    assert found["samples"] == {"value": 3, "from": "default", "default": True}
    shell.write("s.toml", '[roles.base]\nmodel = "demo"\n[roles.evaluator]\napi_key_env = "MY_KEY"\n')
    text = dry(shell, "optimize", "--config", "s.toml", "--depth", 5)
    assert "roles.evaluator.api_key_env MY_KEY s.toml" in " ".join(text.split())
    assert "depth 5 --depth" in " ".join(text.split()) and "samples 3," in text and "width 4" not in text


def test_a_preset_stands_where_it_was_given(shell: Shell) -> None:
    shell.env.setenv("DRPO_REPAIRS", "2")
    flagged = told(shell, *demo("--preset", "published", "--repairs", 1))["settings"]
    assert flagged["repairs"] == {"value": 1, "from": "--repairs", "default": True}
    assert flagged["unreadable"] == {"value": "zero", "from": "--preset published", "default": False}
    shell.env.setenv("DRPO_PRESET", "published")
    found = told(shell, *demo())["settings"]
    assert found["repairs"] == {"value": 2, "from": "DRPO_REPAIRS", "default": False}
    assert found["structured"] == {"value": "off", "from": "preset published", "default": False}


def test_every_setting_that_a_source_names_has_the_value_of_that_source(shell: Shell) -> None:
    """The order of sources is told here a second time: it must be that of the settings themselves."""
    shell.env.setenv("DRPO_REPAIRS", "2")
    shell.env.setenv("DRPO_PATIENCE", "3")
    shell.write("s.toml", 'preset = "published"\nrepairs = 5\nsamples = 2\n')
    found = told(shell, *demo("--config", "s.toml"))["settings"]
    values = {"DRPO_REPAIRS": 2, "DRPO_PATIENCE": 3}
    for name, source in (("repairs", "DRPO_REPAIRS"), ("patience", "DRPO_PATIENCE")):
        assert (found[name]["from"], found[name]["value"]) == (source, values[source])
    assert found["unreadable"] == {"value": "zero", "from": "preset published", "default": False}
    assert found["samples"]["from"] == "--samples"


def test_text_of_users_cannot_drive_the_terminal(shell: Shell) -> None:
    text = dry(shell, *demo("--initial-prompt", "\x1b[2Jhello\x07\nthere"))
    assert "\x1b" not in text and "\x07" not in text and "\\u001b[2Jhello" in text


# Calls, tokens, money


def test_the_papers_figures_stand_beside_the_calls(shell: Shell) -> None:
    shell.env.setenv("OPENAI_API_KEY", "x")
    lines = dry(shell, *REAL[:-1]).splitlines()
    rows = {
        line.split()[0]: line.split() for line in lines if line and line.split()[-1] in ("120", "20", "380")
    }
    assert [rows[name][-1] for name in ("base", "optimizer", "evaluator", "selector", "total")] == [
        *("120", "120", "120", "20"),
        "380",
    ]


def test_nothing_but_a_command_to_be_copied_is_wider_than_the_terminal(shell: Shell) -> None:
    shell.env.setenv("OPENAI_API_KEY", "x")
    shell.run(*demo("--max-calls", 8))
    for arguments in (REAL[:-1], (*REAL[:-1], "--max-usd", 1), demo(), demo("--max-calls", 3)):
        lines = dry(shell, *arguments).splitlines()
        assert [line for line in lines if len(line) > 80 and not line.startswith("vllm serve ")] == []


def test_a_newcomer_reads_the_answer_first(shell: Shell) -> None:
    shell.env.setenv("OPENAI_API_KEY", "x")
    lines = dry(shell, *REAL[:-1]).splitlines()
    assert lines[0] == "drpo optimize, dry run: nothing is sent, started or written"
    assert lines[1].startswith("About 286 calls (60 to 918) for $1.5")
    assert "thinking not counted" in " ".join(lines[1:3])
    demo_lines = dry(shell, *demo()).splitlines()
    assert demo_lines[1].endswith(", free of charge.")
    assert demo_lines[-1].startswith("Models named demo are simulated")


def test_prices_are_told_with_where_they_come_from(shell: Shell) -> None:
    shell.env.setenv("OPENAI_API_KEY", "x")
    text = dry(shell, "optimize", "--model", SERVER, "--price", "base=0.5/1.5", "--evaluator", SERVER)
    assert "0.5 in, 1.5 out (--price)" in text and "2 in, 10 out (price list)" in text
    assert "openai/gpt-6.1-sol *" in text and "drpo's choice; --optimizer names another" in text
    assert "and what the evaluator and the selector cost, unknown here" in " ".join(text.split())
    assert "this would tell: --price evaluator=IN/OUT --price selector=IN/OUT" in " ".join(text.split())


def test_an_unknown_price_is_never_a_nought(shell: Shell) -> None:
    roles = told(shell, "optimize", "--model", "demo", "--evaluator", SERVER, "--optimizer", "demo")
    assert roles["roles"]["evaluator"]["usd"] is None and roles["unpriced"] == ["evaluator", "selector"]
    assert roles["roles"]["base"]["usd"] == {"least": 0, "expected": 0, "most": 0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--evaluator", SERVER), "--price evaluator=IN/OUT"),
        (("--evaluator", "gpt-6.1-sol"), "--max-thinking-tokens"),
    ],
)
def test_a_limit_of_money_that_cannot_hold_is_told_with_the_flag_that_helps(
    shell: Shell, arguments: tuple[str, ...], said: str
) -> None:
    shell.env.setenv("OPENAI_API_KEY", "x")
    command = demo(*arguments, "--optimizer", "demo", "--max-usd", 1)
    text = " ".join(dry(shell, *command).split())
    assert "it would end before its first request" in text and said in text
    refused = shell.refused(2, *command)
    assert told(shell, *command)["refused"] == [refused]
    assert told(shell, *command)["limits"]["max_usd"]["says"] is None


def test_a_missing_key_is_told_and_the_figures_stand(shell: Shell) -> None:
    found = told(shell, *demo("--optimizer", "gpt-4o"))
    assert len(found["refused"]) == 1 and "OPENAI_API_KEY is not set" in found["refused"][0]
    assert found["roles"]["optimizer"]["usd"]["expected"] > 0


@pytest.mark.parametrize(
    ("limit", "said"),
    [(100_000, "enough for the most"), (20, "may end early"), (4, "cannot pay for the first level")],
)
def test_what_a_limit_of_calls_means_is_told(shell: Shell, limit: int, said: str) -> None:
    assert f"--max-calls {limit:,}: " in (text := dry(shell, *demo("--max-calls", limit)))
    assert said in " ".join(text.split())


def test_the_most_by_a_limit_of_money_is_what_the_books_can_come_to(shell: Shell) -> None:
    prices = [
        part for role in ("base", "optimizer", "evaluator", "selector") for part in ("--price", f"{role}=1/1")
    ]
    found = told(shell, *demo(*prices))
    most = found["usd"]["most"]
    assert told(shell, *demo(*prices, "--max-usd", most + 0.01))["limits"]["max_usd"]["says"] == "enough"
    said = told(shell, *demo(*prices, "--max-usd", 0.001))["limits"]["max_usd"]["says"]
    assert said == "too little to begin"
    assert shell.run(*demo(*prices, "--max-usd", 0.001)).code == 9


def test_a_limit_of_calls_that_is_used_up_is_told_with_the_exit_code(shell: Shell) -> None:
    command = demo("--max-calls", 8)
    shell.refused(9, *command)
    text = " ".join(dry(shell, *command).split())
    assert "--max-calls 8: 8 were sent before, so the command would end at once with exit code 9" in text
    assert told(shell, *command)["limits"]["max_calls"] == {"limit": 8, "says": "used up"}
    assert shell.run(*command).code == 9
    assert "used up" not in str(told(shell, *demo("--max-calls", 9))["limits"])
    shell.done(*demo())
    assert "end at once" not in dry(shell, *command)  # it has finished, and nothing more is sent


def test_a_limit_of_money_that_is_used_up_is_told_with_the_exit_code(shell: Shell) -> None:
    prices = [part for role in ROLES for part in ("--price", f"{role}=1/1")]
    shell.refused(9, *demo(*prices, "--max-usd", 0.01))
    spent = sum(read_ledger(shell.folder / "run" / "ledger.jsonl").values(), Spent()).usd
    command = demo(*prices, "--max-usd", spent)
    text = " ".join(dry(shell, *command).split())
    assert f"${spent:.4f} was spent or set aside before" in text
    assert "would end at once with exit code 9" in text
    assert told(shell, *command)["limits"]["max_usd"]["says"] == "used up"
    assert shell.run(*command).code == 9
    assert told(shell, *demo(*prices, "--max-usd", 50))["limits"]["max_usd"]["says"] == "enough"


def test_what_was_spent_without_a_price_or_a_ledger_counts_as_the_run_would_count_it(shell: Shell) -> None:
    with Served() as server:
        command = ("optimize", *roles_at(server.url), *SMALL, "--run-dir", "run", "--quiet", "--no-reuse")
        shell.refused(9, *command, "--max-calls", 12)
        prices = [part for role in ROLES for part in ("--price", f"{role}=900/900")]
        limited = (*command, *prices, "--max-usd", 0.01)
        assert told(shell, *limited)["limits"]["max_usd"]["says"] == "used up"
        (shell.folder / "run" / "ledger.jsonl").unlink()
        assert told(shell, *limited)["limits"]["max_usd"]["says"] == "used up"
        assert told(shell, *command, "--max-calls", 12)["limits"]["max_calls"]["says"] == "used up"
        shell.refused(9, *limited)
        assert len(server.requests) == 12


def test_a_limit_that_an_earlier_process_has_made_impossible_is_told(shell: Shell) -> None:
    def silent(model: str, body: dict[str, Any]) -> Reply:
        text = drpo_answers(model, body).texts[0]
        return Reply(body={"choices": [{"message": {"content": text}}]})

    with Served(silent) as server:
        command = ("optimize", *roles_at(server.url), *SMALL, "--run-dir", "run", "--quiet", "--no-reuse")
        shell.refused(9, *command, "--max-calls", 3)
        limited = (*command, *[p for role in ROLES for p in ("--price", f"{role}=1/1")], "--max-usd", 1)
        refused = told(shell, *limited)["refused"]
        assert len(refused) == 1 and "another --run-dir, or leave --max-usd out" in refused[0]
        assert shell.refused(2, *limited) == refused[0]
        assert len(server.requests) == 3


def test_short_replies_are_warned_of(shell: Shell) -> None:
    assert "many replies may be cut off" in dry(shell, *demo("--max-tokens", 64))
    assert "many replies may be cut off" not in dry(shell, *demo())


def test_one_document_holds_all_of_it(shell: Shell) -> None:
    found = told(shell, *demo())
    assert found["dry_run"] is True and found["simulated"] is True and found["command"] == "optimize"
    evaluator = found["roles"]["evaluator"]
    assert set(evaluator["calls"]) == {"least", "expected", "most"}
    assert evaluator["paper"] == 1 * 2 * 3
    assert found["levels"] == {"least": 3, "expected": 3, "most": 3}
    json.dumps(found, allow_nan=False)


# Aspects that other runs have chosen


class _Noted(ScriptedLLM):
    """The requests of a selector, one by one; each is answered with what cannot be read."""


def questions(arguments: dict[str, Any], environment: dict[str, str]) -> list[Request]:
    """What a real run asks the selector about its first queries."""
    plan = optimize_plan(resolve(OptimizeConfig, arguments, {}), environment)
    noted = _Noted(lambda request: "no")
    reward = build_reward(plan, {"selector": noted, "evaluator": noted}, None)  # type: ignore[arg-type]

    async def ask() -> None:
        for query in plan.inputs.queries[: plan.config.depth]:  # type: ignore[attr-defined]
            await reward.selector.choose(query)  # type: ignore[attr-defined]

    asyncio.run(ask())
    assert structured_for(plan, "selector") is False
    return [request for request in noted.requests if len(request.messages) == 1]


def test_aspects_that_other_runs_have_chosen_cost_nothing(shell: Shell) -> None:
    far = "openai/judge@http://judge.example/v1"
    given = {"model": "demo", "optimizer": "demo", "evaluator": far, "depth": 3}
    arguments = ("optimize", "--model", "demo", "--optimizer", "demo", "--evaluator", far, "--depth", 3)
    asked = questions(given, {})
    assert len(asked) == 3
    store = Store(Path(os.environ["DRPO_CACHE_DIR"]) / "selections.jsonl")
    for request in asked[:2]:
        store.add(request_key(request), "a reply")
    found = told(shell, *arguments)
    assert found["reused_selections"] == 2
    assert found["roles"]["selector"]["recorded"] == 2
    assert found["roles"]["selector"]["calls_to_come"]["least"] == 1
    text = " ".join(dry(shell, *arguments).split())
    assert "2 of them aspects that other runs have chosen" in text
    assert told(shell, *arguments, "--no-reuse")["reused_selections"] == 0
    assert told(shell, *arguments, "--reward", "static")["reused_selections"] == 0
    assert told(shell, *arguments, "--max-tokens", 999)["reused_selections"] == 0


def test_aspects_of_a_model_that_may_be_another_tomorrow_are_not_reused(shell: Shell) -> None:
    given = {"model": "demo", "optimizer": "demo", "evaluator": SERVER, "depth": 3}
    store = Store(Path(os.environ["DRPO_CACHE_DIR"]) / "selections.jsonl")
    for request in questions(given, {}):
        store.add(request_key(request), "a reply")
    arguments = ("optimize", "--model", "demo", "--optimizer", "demo", "--evaluator", SERVER, "--depth", 3)
    assert told(shell, *arguments)["reused_selections"] == 0


def test_a_run_takes_from_the_store_what_was_said(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reasoning model is asked without what it refuses, here as in a run."""
    plan = optimize_plan(
        resolve(
            OptimizeConfig, {"model": "demo", "optimizer": "demo", "evaluator": "gpt-6.1-sol", "depth": 2}, {}
        ),
        {"OPENAI_API_KEY": "x"},
    )
    seen: list[str] = []

    def get(self: Store, key: str) -> str | None:
        seen.append(key)
        return None

    monkeypatch.setattr(Store, "get", get)
    look_ahead(plan, {"OPENAI_API_KEY": "x"}, {}, None)
    dry_keys, seen[:] = list(seen), []

    async def answer(self: Any, request: Request) -> Completion:
        raise AssertionError("asked")

    from drpo.live import Resources
    from drpo.llm.limits import Stop
    from drpo.llm.recorder import Record
    from drpo.wiring import open_models

    async def run() -> None:
        record = Record(shell.folder / "calls.jsonl")
        resources = Resources(record, Stop(), {"OPENAI_API_KEY": "x"}, plan.config)
        monkeypatch.setattr("drpo.llm.client.OpenAIClient.complete", answer)
        models = await open_models(plan, resources)
        reward = build_reward(plan, models, record)
        for query in plan.inputs.queries[:2]:
            with pytest.raises(AssertionError, match="asked"):
                await reward.selector.choose(query)  # type: ignore[attr-defined]
        await resources.close()

    asyncio.run(run())
    assert sorted(seen) == sorted(dry_keys) and len(seen) == 2


# Servers that drpo would start


def test_the_command_of_a_server_is_told_where_vllm_is(shell: Shell) -> None:
    programs = shell.folder / "programs"
    programs.mkdir()
    (programs / "vllm").write_text("#!/bin/sh\n", encoding="utf-8")
    (programs / "vllm").chmod(0o755)
    shell.env.setenv("OPENAI_API_KEY", "x")
    found = told(shell, *REAL[:-1], "--vllm-command", "vllm serve", "--vllm-arg", "max-model-len=8192")
    command = found["servers"][-1]
    assert command.startswith("vllm serve mistralai/Mistral-7B-v0.1 --served-model-name ")
    assert command.endswith("--max-model-len 8192")
    text = dry(shell, *REAL[:-1], "--vllm-command", "vllm serve")
    assert "port and key are drawn" in text and "not installed" not in text


def test_a_missing_vllm_is_a_remark_and_a_wrong_command_an_error(shell: Shell) -> None:
    shell.env.setenv("OPENAI_API_KEY", "x")
    shell.env.setattr("drpo.llm.vllm.launch.importlib.util.find_spec", lambda name: None)
    assert (
        told(shell, *REAL[:-1])["servers"][0] == "# vLLM is not installed here, the run would end with that"
    )
    assert "--vllm-command nowhere" in shell.refused(2, *REAL, "--vllm-command", "nowhere")


def test_one_server_for_several_roles_is_told_once(shell: Shell) -> None:
    everyone = ("--optimizer", "mistral-7b", "--evaluator", "mistral-7b", "--selector", "qwen3-8b")
    servers = told(shell, "optimize", "--model", "mistral-7b", *everyone)["servers"]
    assert [line.split()[2] for line in servers if not line.startswith("#")] == [
        "mistralai/Mistral-7B-v0.1",
        "Qwen/Qwen3-8B",
    ]


# Examples


def test_examples_are_counted_each(shell: Shell) -> None:
    found = told(shell, "optimize-examples", "--model", "demo", "--run-dir", "run")
    assert found["searches"] == 16 and "base" not in found["roles"] and found["embedder"] is None
    assert sum(role["paper"] for role in found["roles"].values()) == 11 * 16
    text = dry(shell, "optimize-examples", "--model", "demo", "--run-dir", "run")
    assert "16 searches of 1 to 6 levels" in " ".join(text.split())


def test_after_a_run_of_examples_the_forecast_covers_it(shell: Shell) -> None:
    shell.write("few.jsonl", '{"query": "How do I bake bread?", "response": "Mix flour and water."}\n')
    arguments = ("optimize-examples", "--model", "demo", "--examples", "few.jsonl", "--run-dir", "run")
    said = told(shell, *arguments)["roles"]
    calls = shell.done(*arguments, "--quiet", "--json").json["calls"]
    for role, number in calls.items():
        assert said[role]["calls"]["least"] <= number <= said[role]["calls"]["most"]
    assert told(shell, *arguments)["run"]["state"] == "finished"


def test_the_flag_is_in_the_help(shell: Shell) -> None:
    for command in ("optimize", "optimize-examples"):
        assert "--dry-run" in shell.done(command, "--help").out
