"""A run directory: whose it is, who may use it now, and what happens when its disk or its files are bad."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from drpo.run_dir import RunDirectory
from tests.support.command import (
    SMALL,
    Ran,
    Shell,
    content_of,
    demo,
    ended,
    killed_at_the_end,
    process,
    roles_at,
    the_error,
)
from tests.support.served import Served


@pytest.fixture
def run(shell: Shell) -> Path:
    """The directory of a finished run."""
    shell.done(*demo())
    return shell.folder / "run"


def test_other_settings_are_refused_by_what_differs(shell: Shell, run: Path) -> None:
    before = content_of(run)
    error = shell.refused(6, *demo("--width", "3", "--samples", "4"))
    assert "width is 1 there, 3 here" in error and "samples is 2 there, 4 here" in error
    seeds = shell.write("s.txt", "one?\ntwo?\nthree?\n")
    assert "seeds has another content" in shell.refused(6, *demo("--seeds", seeds))
    assert "evaluator" in shell.refused(6, *demo("--evaluator", "openai/e@http://127.0.0.1:9/v1"))
    error = shell.refused(6, "optimize-examples", "--model", "demo", "--run-dir", "run")
    assert "command is" in error
    assert content_of(run) == before


def test_what_does_not_decide_the_search_may_change(shell: Shell, run: Path) -> None:
    calls = (run / "calls.jsonl").read_bytes()
    for other in (["--concurrency", "2"], ["--timeout-s", "9"], ["--deadline-s", "8"], ["--no-reuse"]):
        shell.done(*demo(*other))
    assert (run / "calls.jsonl").read_bytes() == calls


def test_the_same_templates_elsewhere_are_the_same_settings(shell: Shell, run: Path) -> None:
    shutil.copytree(run / "inputs" / "prompts", shell.folder / "mine")
    shell.done(*demo("--prompts", "mine"))
    (shell.folder / "mine" / "repair.j2").write_text("{{ problem }} Again, please.")
    assert "prompts/repair.j2 has another content" in shell.refused(6, *demo("--prompts", "mine"))


def test_a_folder_of_another_program_is_refused_and_left_alone(shell: Shell) -> None:
    folder = shell.folder / "run"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    assert "found thesis.tex" in shell.refused(6, *demo())
    assert content_of(folder) == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize("content", ['{"name": "mine"}', "[]", "not json", '{"schema": 1}', '{"schema": 99}'])
def test_a_run_json_of_another_program_is_refused_and_left_alone(shell: Shell, content: str) -> None:
    (shell.folder / "run").mkdir()
    file = shell.write("run/run.json", content)
    assert "run.json" in shell.refused(6, *demo())
    assert file.read_text() == content
    assert "run.json" in shell.refused(2, "replay", "run")


def test_a_file_in_the_place_of_the_run_directory_is_refused(shell: Shell) -> None:
    file = shell.write("run", "precious")
    assert "expected a folder" in shell.refused(2, *demo())
    assert "expected a folder" in shell.refused(2, *demo("--run-dir", "run/below"))
    assert file.read_text() == "precious"


def test_the_second_process_on_a_run_directory_is_refused(shell: Shell) -> None:
    with Served(hold=lambda model: True) as server:
        flags = ["optimize", *roles_at(server.url), *SMALL, "--run-dir", "run", "--quiet", "--json"]
        with killed_at_the_end(process(*flags)) as first:
            server.wait_for(lambda: server.held() > 0)
            error = the_error(ended(process(*flags)), 6)
            assert "another process" in error and "--run-dir" in error
            server.release()
            ran = ended(first)
            assert ran.code == 0, ran.err
        assert shell.done(*flags).json == ran.json


@pytest.mark.parametrize("where", ["first", "middle", "checksum"])
def test_a_damaged_record_is_refused_with_its_line(shell: Shell, run: Path, where: str) -> None:
    lines = (run / "calls.jsonl").read_bytes().split(b"\n")
    number = {"first": 0, "middle": len(lines) // 2, "checksum": 3}[where]
    lines[number] = lines[number].replace(b'"', b"'", 1) if where == "checksum" else b"\x00garbage"
    (run / "calls.jsonl").write_bytes(b"\n".join(lines))
    (run / "alignment.json").unlink()
    before = content_of(run)
    for command in (demo(), ["replay", "run"]):
        assert f"calls.jsonl:{number + 1}:" in shell.refused(7, *command)
    after = content_of(run)
    assert after.pop("run.log") != before.pop("run.log")
    assert after == before


@pytest.mark.parametrize("cut", [1, 7, 200, 100_000])
def test_a_torn_record_goes_on_where_it_was_torn(shell: Shell, run: Path, cut: int) -> None:
    finished = content_of(run)
    calls = (run / "calls.jsonl").read_bytes()
    last = calls.rstrip(b"\n").rfind(b"\n") + 1
    (run / "calls.jsonl").write_bytes(calls[: max(last, len(calls) - cut)])
    events = (run / "events.jsonl").read_bytes()
    (run / "events.jsonl").write_bytes(events[: max(0, len(events) - cut)])
    (run / "alignment.json").unlink()
    (run / ".alignment.json.77.tmp").write_text("{")
    shell.done(*demo())
    again = content_of(run)
    for name in ("alignment.json", "events.jsonl"):
        assert again[name] == finished[name]
    assert sorted(again["calls.jsonl"].splitlines()) == sorted(finished["calls.jsonl"].splitlines())
    assert ".alignment.json.77.tmp" not in again


def test_edited_events_of_an_unfinished_run_are_refused(shell: Shell, run: Path) -> None:
    (run / "alignment.json").unlink()
    events = (run / "events.jsonl").read_text()
    (run / "events.jsonl").write_text(events.replace('"depth": 1', '"depth": 7', 1))
    assert "events.jsonl:" in shell.refused(7, *demo())


@pytest.mark.parametrize("left", [[], [".lock"], [".run.json.4.tmp"], ["run.json"], ["run.json", "inputs"]])
def test_a_start_that_was_killed_is_started_again(shell: Shell, run: Path, left: list[str]) -> None:
    finished = content_of(run)
    (run / ".run.json.4.tmp").write_text('{"schema"')
    for path in run.iterdir():
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(run / "inputs" / "prompts", ignore_errors=True)
    shell.done(*demo())
    again = content_of(run)
    changed = {name for name in finished if again[name] != finished[name]}
    timed = {"run.json", "ledger.jsonl", "progress.json", "report.html"}  # how long each call took
    assert changed <= {"calls.jsonl", "run.log"} | timed
    assert ".run.json.4.tmp" not in again


def full_disk(shell: Shell, *arguments: object, limit: int) -> Ran:
    """The command where no file may grow past `limit` bytes, as on a disk that is full."""
    shell.env.setenv("PYTHONDONTWRITEBYTECODE", "1")
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        "from drpo.cli import main; main()"
    )
    assert resource.RLIMIT_FSIZE is not None
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("limit", [0, 500, 60_000])
def test_a_full_disk_is_exit_8_and_the_run_goes_on_once_there_is_room(shell: Shell, limit: int) -> None:
    ran = full_disk(shell, *demo(), limit=limit)
    error = the_error(ran, 8)
    assert "run" in error and "Free" in error
    assert len(ran.err.splitlines()) == 1
    shell.done(*demo())
    assert shell.done("replay", "run").out.startswith("identical")


def test_a_full_output_is_exit_8(shell: Shell, run: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "drpo", "show", "run"]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 8
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("drpo: "), done.stderr


def test_a_folder_that_takes_nothing_is_exit_8(shell: Shell) -> None:
    error = shell.refused(8, *demo("--run-dir", "/proc/drpo-run"))
    assert "/proc/drpo-run" in error and "--run-dir" in error


def test_a_finished_run_is_shown_and_not_touched(
    shell: Shell, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content_of(run)
    first = shell.done("show", "run").out
    prompt, found, _ = shell.done(*demo()).out.partition("\n\npath score")
    assert found and first.startswith(prompt + found)
    assert content_of(run) == before
    monkeypatch.setattr(RunDirectory, "__init__", lambda *_: pytest.fail("show opens no run for writing"))
    assert shell.done("show", "run").out == first


def test_the_same_command_finds_its_run_by_itself(shell: Shell) -> None:
    command = ["optimize", "--model", "demo", *SMALL, "--json"]
    first = shell.done(*command)
    again = shell.done(*command)
    assert first.json == again.json and "has finished before" in again.err
    (name,) = [path.name for path in (shell.folder / "runs").iterdir()]
    assert name.startswith("demo-")
    shell.done(*command, "--shots", "1")
    assert len(list((shell.folder / "runs").iterdir())) == 2
    assert first.json.items() <= json.loads(shell.done("show", name, "--json").out).items()
