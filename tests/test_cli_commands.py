"""What the commands print: results for people on stdout, JSON alone where it is asked for, help at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from drpo.data import base_examples, read_examples
from tests.support.command import Shell, content_of, demo

HEAVY = ("torch", "sentence_transformers", "openai", "vllm", "transformers", "datasets")
IMPROVE = ("optimize-examples", "--model", "demo", "--depth", "2", "--run-dir", "run")


@pytest.mark.parametrize(
    "program",
    [
        "import drpo",
        "import drpo; drpo.optimize, drpo.load, drpo.replay",
        "from drpo.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from drpo.cli import main\ntry: main(['optimize', '--help'])\nexcept SystemExit: pass",
        "from drpo.cli import main\ntry: main(['models', '--json'])\nexcept SystemExit: pass",
    ],
)
def test_importing_and_asking_for_help_load_nothing_heavy(program: str) -> None:
    ask = f"{program}\nimport sys; print([n for n in {HEAVY} if n in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr


def test_public_names_are_there_in_any_order_of_imports() -> None:
    ask = (
        "import drpo, drpo.testing; drpo.optimize; import drpo.commands.replay;"
        "print([n for n in drpo.__all__ if n != 'testing' and not callable(getattr(drpo, n))])"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n", done.stdout


def test_help_and_version(shell: Shell) -> None:
    text = shell.done("--help").out
    for name in ("optimize", "optimize-examples", "replay", "show", "models", "Exit codes"):
        assert name in text
    assert shell.done("--version").out.startswith("drpo 0.")
    for name in ("optimize", "optimize-examples", "replay", "show", "models"):
        assert shell.done(name, "--help").out.startswith(f"Usage: drpo {name}")


def test_no_command_at_all_shows_the_help(shell: Shell) -> None:
    ran = shell.run()
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: drpo") and "optimize" in ran.err


def test_an_unknown_command_is_one_line(shell: Shell) -> None:
    assert "optimise" in shell.refused(2, "optimise")
    assert "RUN_OR_FILE" in shell.refused(2, "show")


def test_the_result_is_on_stdout_and_the_rest_on_stderr(shell: Shell) -> None:
    ran = shell.done(*[argument for argument in demo() if argument != "--quiet"])
    assert "path score" in ran.out and "Simulated models" in ran.out
    assert "level 1 of 3: 1 tried, reward " in ran.err and "not scored" not in ran.err
    assert "written: run/alignment.json" in ran.err
    assert shell.done(*demo()).err == ""


def test_json_holds_what_scripts_need(shell: Shell) -> None:
    found = shell.done(*demo("--json")).json
    events = [json.loads(line) for line in (shell.folder / "run" / "events.jsonl").read_text().splitlines()]
    nodes = [event for event in events if event["event"] == "node"]
    assert found["nodes"] == len(nodes) == 5 and found["levels"] == 3
    best = next(node for node in nodes if node["id"] == events[-1]["best"])
    assert found["system_prompt"] == best["state"]["system_prompt"]
    assert found["path_score"] == pytest.approx(sum(found["path_rewards"]) / len(found["path_rewards"]))
    calls = [json.loads(line) for line in (shell.folder / "run" / "calls.jsonl").read_text().splitlines()]
    roles = [call["role"] for call in calls if call["kind"] == "call"]
    assert found["calls"] == {role: roles.count(role) for role in sorted(set(roles))}


@pytest.mark.parametrize("name", ["run", "run/alignment.json", "named"])
def test_show_takes_a_run_a_file_or_a_name(shell: Shell, name: str) -> None:
    made = shell.done(*demo("--json")).json
    (shell.folder / "runs").mkdir()
    (shell.folder / "run").rename(shell.folder / "runs" / "named") if name == "named" else None
    shown = shell.done("show", name, "--json").json  # of a run also its state and what it cost
    assert made.items() <= shown.items()
    assert made["system_prompt"] in shell.done("show", name).out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not json", "JSON"),
        ("{}", "schema"),
        ('{"schema": 1}', "missing"),
        ("[]", "schema"),
        (b"\xff\xfe", "JSON"),
        ('{"schema": 99}', "schema"),
    ],
)
def test_show_refuses_a_file_that_is_no_alignment(shell: Shell, content: str | bytes, said: str) -> None:
    error = shell.refused(2, "show", shell.write("a.json", content))
    assert "a.json" in error and said in error
    assert "nowhere" in shell.refused(2, "show", "nowhere")
    assert "run.json" in shell.refused(2, "show", shell.folder)


def test_models_lists_every_alias(shell: Shell) -> None:
    rows = shell.done("models", "--json").json
    assert {"demo", "mistral-7b", "llama-2-7b", "gpt-4"} <= {row["name"] for row in rows}
    text = shell.done("models").out
    assert "demo" in text and "stands" in text


def test_models_says_what_each_needs(shell: Shell) -> None:
    needs = {row["name"]: row["needs"] for row in shell.done("models", "--json").json}
    assert needs["mistral-7b"] == "1 GPU of 24 GB"
    assert needs["qwen3-32b"] == "4 GPUs of 24 GB"
    assert needs["llama-2-70b"] == "2 GPUs of 24 GB, awq"
    assert needs["demo"] is needs["gpt-4"] is None


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_no_name_of_a_model_is_folded_or_cut(shell: Shell, columns: str) -> None:
    shell.env.setenv("COLUMNS", columns)
    rows = shell.done("models", "--json").json
    lines = shell.done("models").out.splitlines()
    for row in rows:
        assert any(f" {row['name']} " in line and f" {row['stands_for']} " in line for line in lines)


def test_text_of_models_cannot_drive_the_terminal(shell: Shell) -> None:
    shell.done(*demo())
    file = shell.folder / "run" / "alignment.json"
    data = json.loads(file.read_text())
    data["system_prompt"] = "red \x1b[31m bell \x07 turned \u202e"
    file.write_text(json.dumps(data))
    out = shell.done("show", "run").out
    assert "\x1b" not in out and "\x07" not in out and "\u202e" not in out
    assert shell.done("show", "run", "--json").json["system_prompt"] == data["system_prompt"]


def test_an_output_without_unicode_is_no_error(shell: Shell) -> None:
    shell.done(*demo("--protect", "héllo 🙂", "--initial-prompt", "Say héllo 🙂 first."))
    shell.env.setenv("PYTHONIOENCODING", "ascii")
    for arguments in (["show", "run"], ["show", "run", "--json"], ["models"]):
        command = [sys.executable, "-m", "drpo", *arguments]
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)
        if "--json" in arguments:
            assert "héllo 🙂" in json.loads(done.stdout)["system_prompt"]


def test_a_reader_that_leaves_is_no_error(shell: Shell) -> None:
    command = [sys.executable, "-m", "drpo", "models"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(60) == 0


def test_optimize_examples_writes_a_file_that_optimize_takes(shell: Shell) -> None:
    ran = shell.done(*IMPROVE, "--out", "better.jsonl")
    assert "before" in ran.out and "after" in ran.out and "written: better.jsonl" in ran.err
    before, after = (
        read_examples(base_examples()).examples,
        read_examples(shell.folder / "better.jsonl").examples,
    )
    assert [example.query for example in before] == [example.query for example in after]
    found = shell.done(*IMPROVE, "--out", "better.jsonl", "--json").json
    assert [row["response"] for row in found["examples"]] == [example.response for example in after]
    assert all(row["reward_after"] >= row["reward_before"] for row in found["examples"])
    assert any(row["reward_after"] > row["reward_before"] for row in found["examples"])
    shell.done(*demo("--run-dir", "next", "--examples", "better.jsonl"))


def test_a_finished_optimize_examples_is_shown_and_not_repeated(shell: Shell) -> None:
    first = shell.done(*IMPROVE, "--json")
    before = content_of(shell.folder / "run")
    again = shell.done(*IMPROVE, "--json")
    assert again.out == first.out and "has finished before" in again.err
    assert shell.done("show", "run", "--json").json["examples"] == first.json["examples"]
    assert "unchanged" in shell.done("show", "run").out or "improved" in shell.done("show", "run").out
    assert content_of(shell.folder / "run") == before


def test_the_model_of_optimize_examples_plays_each_role_that_is_not_named(shell: Shell) -> None:
    url = "http://127.0.0.1:9/v1"
    ran = shell.run(*IMPROVE, "--optimizer", f"openai/o@{url}", "--deadline-s", "0.1")
    assert ran.code == 5
    models = json.loads((shell.folder / "run" / "run.json").read_text())["identity"]["models"]
    assert models["optimizer"] == f"openai/o@{url}"
    assert models["evaluator"] == models["selector"] == "demo/seed=0,noise=0.5"


def unfinished(shell: Shell) -> None:
    shell.done(*IMPROVE)
    (shell.folder / "run" / "result.json").unlink()


@pytest.mark.parametrize("state", [None, unfinished, lambda shell: shell.done(*IMPROVE)])
def test_out_is_never_written_over(shell: Shell, state: Callable[[Shell], object] | None) -> None:
    if state is not None:
        state(shell)
    precious = shell.write("precious.jsonl", '{"query": "mine", "response": "years of work"}\n')
    text = precious.read_text()
    assert "nothing is written over" in shell.refused(2, *IMPROVE, "--out", precious)
    assert precious.read_text() == text


def test_out_is_written_from_a_finished_run_too(shell: Shell) -> None:
    shell.done(*IMPROVE)
    shell.done(*IMPROVE, "--out", "later.jsonl")
    made = (shell.folder / "run" / "examples.jsonl").read_bytes()
    assert (shell.folder / "later.jsonl").read_bytes() == made
