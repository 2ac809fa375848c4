"""The doctor ends with the run's exit code where directory, limits or trackers do not let the run go on."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.support.command import SMALL, Shell, content_of, roles_at, times_of
from tests.support.doctor import in_folder
from tests.support.mock_openai import drpo_answers, error
from tests.support.served import Served

FLAGS = ("--model", "demo", *SMALL, "--run-dir", "run", "--no-report")
Damage = Callable[[Path], object]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    in_folder(tmp_path, monkeypatch)
    return Shell(tmp_path, monkeypatch, capsys)


def examined(shell: Shell, *flags: object) -> tuple[int, dict[str, str]]:
    """The doctor's exit code and what its problems say, by name. It must leave everything as it was."""

    def found() -> tuple[dict[str, bytes], dict[str, int]]:
        files = content_of(shell.folder)
        return files, {name: at for name, at in times_of(shell.folder).items() if name in files}

    before = found()
    ran = shell.run("doctor", *flags, "--json")
    assert found() == before
    checks: list[dict[str, Any]] = ran.json["checks"]
    return ran.code, {check["name"]: check["said"] for check in checks if check["status"] == "problem"}


def begun(shell: Shell) -> Path:
    """A run that a limit has ended, of which some levels are done."""
    ran = shell.run("optimize", *FLAGS, "--max-calls", "12", "--quiet")
    assert ran.code == 9, ran.err
    assert (shell.folder / "run" / "events.jsonl").stat().st_size
    return shell.folder / "run"


def edited(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("record", lambda run: edited(run / "calls.jsonl", b'"kind"', b'"kinb"')),
        ("record", lambda run: edited(run / "calls.jsonl", b"\n", b"")),
        ("ledger", lambda run: edited(run / "ledger.jsonl", b'"kind"', b'"kinb"')),
        ("ledger", lambda run: edited(run / "ledger.jsonl", *_without_first(run / "ledger.jsonl"))),
        ("events", lambda run: edited(run / "events.jsonl", b"{", b"")),
        ("events", lambda run: edited(run / "events.jsonl", b'"depth": 0', b'"depth": 7')),
    ],
    ids=["call edited", "calls joined", "ledger edited", "ledger cut", "event broken", "event edited"],
)
def test_damage_of_what_a_run_goes_on_from_has_its_exit_code(shell: Shell, name: str, damage: Damage) -> None:
    run = begun(shell)
    assert examined(shell, *FLAGS) == (0, {})
    damage(run)
    code, said = examined(shell, *FLAGS)
    assert code == shell.run("optimize", *FLAGS, "--quiet").code == 7
    assert list(said) == [name] and str(Path("run")) in said[name]


def _without_first(path: Path) -> tuple[bytes, bytes]:
    return path.read_bytes().partition(b"\n")[0] + b"\n", b""


def test_a_torn_last_line_is_none_of_the_doctors_business(shell: Shell) -> None:
    run = begun(shell)
    for name in ("calls.jsonl", "ledger.jsonl", "events.jsonl"):
        (run / name).write_bytes((run / name).read_bytes()[:-9])
    assert examined(shell, *FLAGS) == (0, {})
    shell.done("optimize", *FLAGS, "--quiet")


def test_a_directory_in_which_another_process_runs_is_in_use(shell: Shell) -> None:
    run = begun(shell)
    with FileLock(run / ".lock"):
        code, said = examined(shell, *FLAGS)
        assert code == shell.run("optimize", *FLAGS, "--quiet").code == 6
        assert list(said) == ["run"] and "another process is running" in said["run"]
    assert examined(shell, *FLAGS) == (0, {})
    shell.done("optimize", *FLAGS, "--quiet")  # nothing is locked any more


def test_no_damage_hides_another(shell: Shell) -> None:
    run = begun(shell)
    edited(run / "ledger.jsonl", b'"kind"', b'"kinb"')
    edited(run / "events.jsonl", b'"depth": 0', b'"depth": 7')
    code, said = examined(shell, *FLAGS)
    assert code == 7 and set(said) == {"ledger", "events"}


@pytest.mark.parametrize(
    ("limit", "word"),
    [(12, "limit of 12 calls is reached"), (13, "will end the run early"), (5000, "")],
    ids=str,
)
def test_a_limit_on_calls_is_a_problem_where_it_ends_the_run(shell: Shell, limit: int, word: str) -> None:
    begun(shell)
    code, said = examined(shell, *FLAGS, "--max-calls", limit)
    assert (code, list(said)) == ((9, ["limits"]) if word else (0, []))
    assert word in said.get("limits", "")
    assert shell.run("optimize", *FLAGS, "--max-calls", limit, "--quiet").code == code


def test_a_limit_below_what_a_run_takes_at_least_is_told_before_it_begins(shell: Shell) -> None:
    for limit in ("3", "6"):
        code, said = examined(shell, *FLAGS, "--max-calls", limit)
        assert (code, list(said)) == (9, ["limits"])
    assert shell.run("optimize", *FLAGS, "--max-calls", "6", "--quiet").code == 9


def test_money_that_is_spent_ends_a_run_before_it_sends_anything(shell: Shell) -> None:
    with Served() as server:
        prices = [part for role in ("base", "optimizer", "evaluator", "selector") for part in _price(role)]
        flags = [*roles_at(server.url), *prices, *SMALL, "--run-dir", "run", "--no-report", "--no-reuse"]
        spends = (*flags, "--max-usd", "0.4", "--quiet")
        assert shell.run("optimize", *spends).code == 9
        asked = len(server.requests)
        code, said = examined(shell, *flags, "--offline", "--max-usd", "0.4")
        assert code == shell.run("optimize", *spends).code == 9 and len(server.requests) == asked
        assert list(said) == ["limits"] and "--max-usd" not in said["limits"] and "$0.4" in said["limits"]
        assert examined(shell, *flags, "--offline", "--max-usd", "900") == (0, {})
        assert examined(shell, *flags, "--offline") == (0, {})


def _price(role: str) -> tuple[str, str]:
    return ("--price", f"{role}=20/80")


def test_a_ledger_that_is_lost_is_made_up_by_the_record_as_in_a_run(shell: Shell) -> None:
    (begun(shell) / "ledger.jsonl").unlink()
    code, said = examined(shell, *FLAGS, "--max-calls", "12")
    assert code == shell.run("optimize", *FLAGS, "--max-calls", "12", "--quiet").code == 9
    assert list(said) == ["limits"]


def test_a_wrong_key_is_met_before_a_limit_that_is_too_low(shell: Shell) -> None:
    with Served(lambda m, b: error(401, "no such key") if m == "base" else drpo_answers(m, b)) as server:
        flags = [*roles_at(server.url), *SMALL, "--run-dir", "run", "--max-calls", "6"]
        code, said = examined(shell, *flags)
        assert code == shell.run("optimize", *flags, "--quiet").code == 3
        assert "limits" in said


def test_a_run_that_needs_no_more_requests_is_held_up_by_no_limit(shell: Shell) -> None:
    shell.done("optimize", *FLAGS, "--quiet")
    (shell.folder / "run" / "alignment.json").unlink()
    assert examined(shell, *FLAGS, "--max-calls", "1") == (0, {})
    shell.done("optimize", *FLAGS, "--max-calls", "1", "--quiet")


@pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry") is not None
    and importlib.util.find_spec("opentelemetry.exporter") is not None,
    reason="the exporter is installed",
)
def test_a_tracker_whose_library_is_missing_is_a_problem_with_the_words_of_the_run(shell: Shell) -> None:
    code, said = examined(shell, *FLAGS, "--track", "otel")
    told = shell.refused(2, "optimize", *FLAGS, "--track", "otel", "--quiet")
    assert code == 2 and told.startswith(said["track"]) and "cannot be imported" in told


def test_a_tracker_with_settings_it_cannot_hold_to_is_a_problem(shell: Shell) -> None:
    pytest.importorskip("opentelemetry.sdk")
    shell.env.setenv("OTEL_TRACES_EXPORTER", "console")
    code, said = examined(shell, *FLAGS, "--track", "otel")
    told = shell.refused(2, "optimize", *FLAGS, "--track", "otel", "--quiet")
    assert code == 2 and told.startswith(said["track"])


def test_a_run_that_has_its_result_opens_no_tracker_and_asks_no_limit(shell: Shell) -> None:
    shell.done("optimize", *FLAGS, "--quiet")
    shell.env.setenv("OTEL_TRACES_EXPORTER", "console")
    more = ("--track", "otel", "--max-calls", "1")
    assert examined(shell, *FLAGS, *more) == (0, {})
    assert json.loads(shell.done("optimize", *FLAGS, *more, "--quiet", "--json").out)
