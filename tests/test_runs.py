"""`drpo runs` lists every run of a folder by its small files, whatever is wrong with some of them."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from drpo.progress import handed_over
from drpo.run_list import list_runs
from tests.support.command import Shell, content_of
from tests.support.shown_runs import HOSTILE, change_json, copy_of, examples_run, killed, prompt_run
from tests.support.terminal import on_terminal

HEADINGS = ["run", "state", "best", "gain", "validated", "cost", "age", "model"]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prompt_run(tmp_path_factory.mktemp("prompts") / "run")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return examples_run(tmp_path_factory.mktemp("examples") / "run")


def made(run: Path, path: Path, **progress: Any) -> Path:
    """A copy of a run with other progress."""
    copy_of(run, path)
    change_json(path / "progress.json", lambda data: data.update(progress))
    return path


def older(run: Path, path: Path) -> Path:
    """A run of a drpo that kept neither progress nor books."""
    return copy_of(run, path, without=("progress.json", "ledger.jsonl", "report.html"))


def _update(change: dict[str, Any], data: dict[str, Any]) -> None:
    data.update(change)


def rows(shell: Shell, *options: object) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in shell.done("runs", *options, "--json").json}


def start_reward(run: Path) -> float:
    first = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()[0]
    return float(json.loads(first)["reward"])


def test_a_run_is_listed_with_what_its_result_says(shell: Shell, prompts: Path) -> None:
    copy_of(prompts, shell.folder / "runs" / "mine")
    found = json.loads((prompts / "alignment.json").read_text(encoding="utf-8"))["found"]
    row = rows(shell)["mine"]
    assert row["best"] == pytest.approx(found["path_score"])
    assert row["gain"] == pytest.approx(found["path_score"] - start_reward(prompts))
    assert (row["state"], row["model"], row["simulated"]) == ("finished", "demo/seed=0,noise=0.5", True)
    assert row["usd"] == 0 and row["calls"] == sum(found["calls"].values()) and row["problem"] is None
    heading, line = shell.done("runs").out.splitlines()
    assert heading.split() == HEADINGS
    assert line.split()[:4] == ["mine", "finished", f"{row['best']:.2f}", f"{row['gain']:+.2f}"]
    assert line.endswith("demo/seed=0,noise=0.5 *")


@pytest.mark.parametrize(
    ("validation", "gains"),
    [
        ({"better": True, "gain": 0.31}, 0.31),
        ({"better": False, "gain": 0.31}, 0.0),
        ({"better": True, "gain": None}, None),
        ("torn", None),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_a_validated_run_is_listed_with_what_its_result_gains(
    shell: Shell, prompts: Path, validation: object, gains: float | None, kept: bool
) -> None:
    run = copy_of(prompts, shell.folder / "runs" / "mine")
    if kept:  # by its last snapshot, else by its result
        progress = run / "progress.json"
        known = json.loads(progress.read_text("ascii"))
        progress.write_text(json.dumps({**known, "validated": handed_over(validation)}), "ascii")
    else:
        (run / "progress.json").unlink()
        alignment = run / "alignment.json"
        known = json.loads(alignment.read_text("utf-8"))
        alignment.write_text(json.dumps({**known, "validation": validation}), "utf-8")
    assert rows(shell)["mine"]["validated"] == gains
    shown = "-" if gains is None else f"{gains:+.2f}"
    assert shell.done("runs").out.splitlines()[1].split()[4] == shown


def test_a_run_of_examples_is_listed_by_their_mean(shell: Shell, examples: Path) -> None:
    copy_of(examples, shell.folder / "runs" / "new")
    older(examples, shell.folder / "runs" / "old")
    result = json.loads((examples / "result.json").read_text(encoding="utf-8"))["examples"]
    after = sum(row["after"]["reward"] for row in result) / len(result)
    before = sum(row["before"]["reward"] for row in result) / len(result)
    for row in rows(shell).values():
        assert (row["best"], row["start_reward"]) == (pytest.approx(after), pytest.approx(before))
        assert (row["state"], row["command"]) == ("finished", "optimize-examples")


def test_a_run_of_an_older_drpo_is_listed_by_its_result(shell: Shell, prompts: Path) -> None:
    older(prompts, shell.folder / "runs" / "old")
    begun = killed(prompts, shell.folder / "runs" / "begun", 2)
    (begun / "progress.json").unlink()
    found = rows(shell)
    assert found["old"]["state"] == "finished" and found["begun"]["state"] == "unfinished"
    assert found["old"]["start_reward"] == start_reward(prompts)
    assert found["old"]["usd"] is None and found["begun"]["best"] is None
    assert all("unknown" in line for line in shell.done("runs").out.splitlines()[1:])


@pytest.mark.parametrize(
    ("state", "seconds_ago", "shown"),
    [
        ("running", 0, "running"),
        ("stopping", 0, "stopping"),
        ("running", 3600, "stopped"),
        ("stopping", 3600, "stopped"),
        ("budget", 3600, "budget"),
        ("interrupted", 3600, "interrupted"),
        ("failed", 3600, "failed"),
    ],
)
def test_the_state_is_that_of_the_process(
    shell: Shell, prompts: Path, state: str, seconds_ago: float, shown: str
) -> None:
    run = killed(prompts, shell.folder / "runs" / "one", 2)
    change_json(run / "progress.json", lambda d: d.update(state=state, updated_s=time.time() - seconds_ago))
    assert rows(shell)["one"]["state"] == shown


def test_a_process_that_died_after_its_result_has_finished(shell: Shell, prompts: Path) -> None:
    made(prompts, shell.folder / "runs" / "one", state="running", updated_s=1.0)
    assert rows(shell)["one"]["state"] == "finished"
    run = made(prompts, shell.folder / "runs" / "two", state="running", updated_s=1.0)
    change_json(run / "alignment.json", lambda data: data["found"].update(ended="budget"))
    assert rows(shell)["two"]["state"] == "stopped"


def test_money_is_a_range_where_some_may_have_been_charged(shell: Shell, prompts: Path) -> None:
    runs = shell.folder / "runs"
    made(prompts, runs / "known", usd=1.5, held_usd=0.0)
    made(prompts, runs / "ranged", usd=0.25, held_usd=0.5)
    made(prompts, runs / "priceless", usd=None, held_usd=0.0)
    lines = {line.split()[0]: line for line in shell.done("runs").out.splitlines()}
    assert " $1.50 " in lines["known"] and " $0.2500 to $0.7500 " in lines["ranged"]
    assert " unknown " in lines["priceless"] and "$" not in lines["priceless"]
    assert rows(shell)["priceless"]["usd"] is None


def test_the_newest_stand_first_and_others_can_be_asked_for(shell: Shell, prompts: Path) -> None:
    now = time.time()
    for name, ago, best, usd in (
        ("a", 20, 3.0, 2.0),
        ("b", 90_000, 4.0, None),
        ("c", 4_000, None, 1.0),
        ("d", 100, 3.5, 9.0),
    ):
        made(prompts, shell.folder / "runs" / name, updated_s=now - ago, best=best, usd=usd, start_reward=3.0)
    orders = {"age": "adcb", "name": "abcd", "best": "bdac", "gain": "bdac", "cost": "dacb"}
    assert [row["name"] for row in shell.done("runs", "--json").json] == list("adcb")
    for order, names in orders.items():
        assert "".join(rows(shell, "--sort", order)) == names
    assert list(rows(shell, "--limit", 2)) == ["a", "d"]
    ages = {line.split()[0]: line for line in shell.done("runs").out.splitlines()}
    assert " 1 h " in ages["c"] and " 1 d " in ages["b"] and " 2 min " in ages["d"]
    assert "--limit" in shell.refused(2, "runs", "--limit", 0)


def test_what_is_wrong_with_a_run_is_listed_beside_the_others(shell: Shell, prompts: Path) -> None:
    runs = shell.folder / "runs"
    changes: dict[str, dict[str, Any]] = {
        "newer": {"schema": 2},
        "strange": {"identity": []},
        "typed": {"identity": 5},
    }
    for name, change in changes.items():
        change_json(copy_of(prompts, runs / name) / "run.json", functools.partial(_update, change))
    (copy_of(prompts, runs / "torn") / "run.json").write_text('{"schema": 1, "iden', encoding="utf-8")
    (older(prompts, runs / "cut") / "alignment.json").write_text("{", encoding="utf-8")
    copy_of(prompts, runs / "sound")
    found = rows(shell)
    assert {name: row["state"] for name, row in found.items()} == {
        **dict.fromkeys(("newer", "strange", "typed", "torn", "cut"), "unreadable"),
        "sound": "finished",
    }
    assert "written by a newer drpo; use that one" in found["newer"]["problem"]
    assert "alignment.json" in found["cut"]["problem"] and found["sound"]["problem"] is None
    lines = {line.split()[0]: line for line in shell.done("runs").out.splitlines()}
    assert lines["newer"].endswith("use that one") and "$" not in lines["newer"]


@pytest.mark.parametrize(
    "progress",
    [
        "{",
        "[]",
        '{"schema": 2}',
        {"updated_s": "now"},
        {"best": "high"},
        {"usd": []},
        {"best": float("nan")},
        {"held_usd": None},
        {"state": None},
    ],
)
def test_progress_that_cannot_be_trusted_is_not(shell: Shell, prompts: Path, progress: Any) -> None:
    run = copy_of(prompts, shell.folder / "runs" / "one")
    if isinstance(progress, str):
        (run / "progress.json").write_text(progress, encoding="utf-8")
    else:
        change_json(run / "progress.json", lambda data: data.update(progress))
    row = rows(shell)["one"]
    assert row["state"] == "finished" and row["usd"] is None and row["best"] is not None
    shell.done("runs")


def test_folders_and_files_that_are_no_runs_are_left_out(shell: Shell, prompts: Path) -> None:
    runs = shell.folder / "runs"
    copy_of(prompts, runs / "one")
    (runs / "folder").mkdir()
    (runs / "notes.txt").write_text("mine", encoding="utf-8")
    (runs / "nowhere").symlink_to(runs / "gone")
    assert list(rows(shell)) == ["one"]


def test_no_runs_is_said_and_no_failure(shell: Shell) -> None:
    ran = shell.done("runs")
    assert ran.out == "" and ran.err == "no runs in runs: drpo optimize makes one\n"
    assert shell.done("runs", shell.folder).out == ""
    ran = shell.done("runs", "--json")
    assert ran.json == [] and "no runs in runs" in ran.err


def test_a_folder_that_is_not_there_or_is_a_run_is_told(shell: Shell, prompts: Path) -> None:
    assert "expected a folder of runs, found none" in shell.refused(2, "runs", "nowhere")
    assert "found a file" in shell.refused(2, "runs", shell.write("file", "x"))
    assert f"drpo show {prompts} prints it" in shell.refused(2, "runs", prompts)


def test_the_folder_is_the_one_of_the_settings(shell: Shell, prompts: Path) -> None:
    copy_of(prompts, shell.folder / "elsewhere" / "one")
    copy_of(prompts, shell.folder / "third" / "two")
    shell.write(".env", "DRPO_RUNS_DIR=elsewhere\n")
    assert list(rows(shell)) == ["one"] and shell.done("show", "one").out
    shell.env.setenv("DRPO_RUNS_DIR", "third")
    assert list(rows(shell)) == ["two"] and list(rows(shell, "elsewhere")) == ["one"]
    shell.env.delenv("DRPO_RUNS_DIR")
    shell.write(".env", b"\xff\xfe=\xff")
    assert ".env: expected lines NAME=VALUE" in shell.refused(2, "runs")


def test_names_and_models_are_never_cut_in_a_pipe(shell: Shell, prompts: Path) -> None:
    name, model = "a-run-" + "x" * 200, "vllm/" + "y" * 300
    run = copy_of(prompts, shell.folder / "runs" / name)
    copy_of(prompts, shell.folder / "runs" / "模型")
    change_json(run / "run.json", lambda data: data["identity"]["models"].update(base=model))
    shell.env.setenv("COLUMNS", "40")
    lines = shell.done("runs").out.splitlines()
    assert any(line.startswith(name + " ") and model in line for line in lines)
    assert any(line.startswith("模型 ") for line in lines)


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_on_a_terminal_the_model_is_cut_where_the_line_ends(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "runs" / "one")
    change_json(run / "run.json", lambda data: data["identity"]["models"].update(base="vllm/" + "y" * 300))
    heading, line = on_terminal("runs", columns="80", NO_COLOR="", TERM="xterm").splitlines()
    assert len(line) <= 80 and line.endswith("…") and line.startswith("one ")
    assert heading.startswith("\x1b[1m")
    assert "\x1b" not in on_terminal("runs", columns="80", NO_COLOR="1", TERM="xterm")


def test_text_of_files_cannot_drive_the_terminal(shell: Shell, prompts: Path) -> None:
    harm = HOSTILE.replace("/", "").replace("\ud83d", "")
    run = copy_of(prompts, shell.folder / "runs" / f"a{harm}")
    change_json(run / "run.json", lambda data: data["identity"]["models"].update(base=HOSTILE))
    change_json(run / "progress.json", lambda data: data.update(state=HOSTILE))
    (shell.folder / "runs" / harm).mkdir()
    (shell.folder / "runs" / harm / "run.json").write_text('{"schema": 9}', encoding="utf-8")
    ran = shell.done("runs")
    assert not {"\x1b", "\x07", "\u202e"} & set(ran.out) and len(ran.out.splitlines()) == 3
    assert f"a{harm}" in rows(shell)


def test_looking_changes_nothing(shell: Shell, prompts: Path) -> None:
    copy_of(prompts, shell.folder / "runs" / "one")
    before = content_of(shell.folder)
    shell.done("runs")
    assert content_of(shell.folder) == before


def test_listing_reads_only_the_small_files(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "one")
    for name in ("events.jsonl", "calls.jsonl", "ledger.jsonl", "alignment.json"):
        (run / name).unlink()
        (run / name).mkdir()  # whoever opens it fails
    assert [entry.state for entry in list_runs(shell.folder, time.time())] == ["finished"]


def test_the_command_loads_nothing_that_it_does_not_need(shell: Shell, prompts: Path) -> None:
    copy_of(prompts, shell.folder / "runs" / "one")
    heavy = ("rich", "pydantic", "jinja2", "numpy", "drpo.api", "drpo.plan", "drpo.run_view", "genai_prices")
    ask = (
        "from drpo.cli import main\ntry: main(['runs'])\nexcept SystemExit: pass\n"
        f"import sys; print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=True)
    assert "one" in done.stdout and done.stderr == "[]\n"


def test_no_sum_is_told_as_nothing(shell: Shell, prompts: Path) -> None:
    made(prompts, shell.folder / "runs" / "tiny", usd=0.00001, held_usd=0.0)
    [_, line] = shell.done("runs").out.splitlines()
    assert "<$0.0001" in line and "$0.0000" not in line
