"""Files of a run that are damaged, or that nobody may read: what came, where, and what to do."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drpo.errors import InputError
from drpo.run_dir import read_inputs
from drpo.run_file import read_run
from drpo.run_view import read_trees, read_view
from tests.support.command import Shell, demo
from tests.support.shown_runs import copy_of, prompt_run


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prompt_run(tmp_path_factory.mktemp("prompts") / "run", depth=2, max_extra_depth=0)


def lock(monkeypatch: pytest.MonkeyPatch, locked: Path) -> None:
    """Let nobody look into a folder, or read a file; permissions alone do not keep a superuser out."""
    place, is_folder = locked.absolute(), locked.is_dir()

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def guard(path: Any, *rest: Any, **named: Any) -> Any:
            at = Path(path).absolute() if isinstance(path, (str, Path)) else Path()
            if (place in at.parents) if is_folder else at == place:
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *rest, **named)

        return guard

    for owner, name in ((os, "stat"), (os, "mkdir"), (os, "unlink"), (io, "open")):
        if is_folder or name == "open":
            monkeypatch.setattr(owner, name, guarded(getattr(owner, name)))


def test_inputs_that_nobody_may_read_are_told(
    shell: Shell, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(prompts, shell.folder / "run")
    lock(monkeypatch, run / "inputs")
    for command in ("show", "report", "diff"):
        error = shell.refused(2, command, *([run] if command != "diff" else [run, run]))
        assert "inputs" in error and "cannot be read: Permission denied" in error, command
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        read_inputs(run)


def test_a_run_whose_inputs_nobody_may_read_does_not_begin(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.done(*demo())
    lock(monkeypatch, shell.folder / "run" / "inputs")
    error = shell.refused(8, *demo())
    assert "inputs" in error and "Permission denied" in error and "nlock" in error


def test_a_run_directory_that_nobody_may_look_into_is_told(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shell.folder / "run").mkdir()
    lock(monkeypatch, shell.folder / "run")
    assert "Permission denied" in shell.refused(8, *demo())
    assert "Permission denied" in shell.refused(2, "show", "run")


def damage_ledger(run: Path) -> None:
    lines = (run / "ledger.jsonl").read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b'"id"', b'"ID"')
    (run / "ledger.jsonl").write_bytes(b"\n".join(lines))


def test_damaged_books_hide_nothing_but_what_was_spent(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "run")
    damage_ledger(run)
    shown = shell.done("show", run).out
    assert f"spent       unknown: {run / 'ledger.jsonl'}:3 is damaged" in shown
    whole = shell.done("show", prompts).out.split("spent  ")[0]
    assert whole.count("\n") > 6 and shown.startswith(whole)
    told = shell.done("show", run, "--json").json
    assert told["spent"] is None and told["spent_unknown"] == f"{run / 'ledger.jsonl'}:3 is damaged"
    assert shell.done("show", prompts, "--json").json["spent_unknown"] is None
    compared = shell.done("diff", prompts, run).out
    assert "unknown" in compared and "damaged" in compared
    shell.done("report", run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "ledger.jsonl:3 is damaged" in page and "No ledger was kept" not in page


def test_books_that_nobody_may_read_hide_nothing_else_either(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(prompts, tmp_path / "run")
    lock(monkeypatch, run / "ledger.jsonl")
    view = read_view(run)
    assert view.alignment is not None and view.spent is None
    assert view.spent_unknown == f"{run / 'ledger.jsonl'} cannot be read: Permission denied"


def test_garbage_among_the_events_is_told_with_its_line(prompts: Path, tmp_path: Path) -> None:
    lines = (prompts / "events.jsonl").read_bytes().split(b"\n")
    lines[2] = b"\xff garbage"
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match=r"events\.jsonl:3: expected"):
        read_trees(file)


@pytest.mark.parametrize(
    ("text", "came"),
    [
        ("not json", "no JSON"),
        ("[1, 2]", "a list"),
        ('"words"', "a string"),
        ("", "no JSON"),
        ("{}", "no schema"),
        ('{"schema": 1, "identity": 3}', "without a whole identity"),
    ],
)
def test_a_run_json_that_is_none_says_what_came_and_what_to_do(tmp_path: Path, text: str, came: str) -> None:
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as refused:
        read_run(tmp_path)
    assert f"{tmp_path / 'run.json'}: expected" in str(refused.value) and came in str(refused.value)
    assert "estore it from a copy" in str(refused.value)


def test_a_run_json_that_nobody_may_read_is_to_be_unlocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    lock(monkeypatch, tmp_path / "run.json")
    with pytest.raises(InputError, match=r"run\.json: cannot be read: Permission denied\. Unlock it"):
        read_run(tmp_path)


def test_a_run_that_nobody_may_look_into_has_no_age(
    shell: Shell, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(prompts, shell.folder / "runs" / "locked")
    lock(monkeypatch, run)
    [_, line] = shell.done("runs").out.splitlines()
    assert line.split()[:6] == ["locked", "unreadable", "-", "-", "-", "-"], line
    [row] = json.loads(shell.done("runs", "--json").out)
    assert row["age_s"] is None and "Permission denied" in row["problem"]
