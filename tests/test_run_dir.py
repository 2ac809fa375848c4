"""A run directory: one run, one process, and everything it was begun with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drpo.config import OptimizeConfig
from drpo.data import ExampleSet
from drpo.errors import InputError, RunConflict
from drpo.plan import Inputs, Plan, optimize_plan
from drpo.run_dir import RunDirectory, differences, read_inputs, read_run, versions
from drpo.settings import resolve
from drpo.types import Example, Query


def plan(environment: dict[str, str] | None = None, **given: Any) -> Plan:
    config = resolve(OptimizeConfig, {"model": "demo", **given}, {})
    return optimize_plan(config, environment or {})


PLAN = plan()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[RunDirectory]:
    directory = RunDirectory(tmp_path / "deep" / "run", plan())
    yield directory
    directory.close()


def test_a_new_run_says_what_it_is(opened: RunDirectory) -> None:
    data = read_run(opened.path)
    assert data["identity"] == json.loads(json.dumps(plan().identity))
    assert data["settings"]["width"] == 2
    assert data["versions"] == versions()
    assert "python" in versions()
    assert (opened.calls.name, opened.events.name) == ("calls.jsonl", "events.jsonl")


def test_the_same_settings_open_it_again_whatever_decides_nothing(opened: RunDirectory) -> None:
    opened.close()
    before = read_run(opened.path)["identity"]
    RunDirectory(opened.path, plan(concurrency=1, timeout_s=5)).close()
    RunDirectory(opened.path, plan()).close()
    assert read_run(opened.path)["identity"] == before


def test_other_settings_are_refused_and_named(opened: RunDirectory, tmp_path: Path) -> None:
    opened.close()
    before = {file: file.read_bytes() for file in opened.path.rglob("*") if file.is_file()}
    (tmp_path / "repair.j2").write_text("x", encoding="utf-8")
    with pytest.raises(RunConflict) as caught:
        RunDirectory(opened.path, plan(width=3, optimizer="openai/x", prompts=tmp_path))
    text = str(caught.value)
    for part in ("width is 2 there, 3 here", "models.optimizer is ", "prompts/repair.j2 has another content"):
        assert part in text
    assert "\n" not in text
    assert {file: file.read_bytes() for file in opened.path.rglob("*") if file.is_file()} == before
    RunDirectory(opened.path, plan()).close()


def test_differences_are_told_by_name() -> None:
    ours = {"settings": {"a": 1, "b": 2}, "digests": {"seeds": "x"}, "models": {"base": "m"}, "embedder": "e"}
    theirs = {
        "settings": {"a": 1, "c": 2},
        "digests": {"seeds": "y"},
        "models": {"base": "n"},
        "embedder": "e",
    }
    assert differences(ours, theirs) == [
        "b is 2 there, null here",
        "c is null there, 2 here",
        "seeds has another content",
        'models.base is "m" there, "n" here',
    ]
    assert differences(ours, ours) == []
    (long,) = differences({"a": "x" * 200}, {"a": ""})
    assert len(long) < 100


OTHER_PROCESS = """
import sys
from pathlib import Path
from drpo.config import OptimizeConfig
from drpo.settings import resolve
from drpo.errors import RunConflict
from drpo.plan import optimize_plan
from drpo.run_dir import RunDirectory
plan = optimize_plan(resolve(OptimizeConfig, {"model": "demo"}, {}), {})
try:
    RunDirectory(Path(sys.argv[1]), plan).close()
except RunConflict as conflict:
    print(conflict)
    sys.exit(conflict.exit_code)
"""


def test_a_second_process_is_refused_while_the_first_is_there(opened: RunDirectory) -> None:
    def other() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", OTHER_PROCESS, str(opened.path)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    refused = other()
    assert refused.returncode == 6, refused.stderr
    assert "another process is running" in refused.stdout
    opened.close()
    assert other().returncode == 0


def test_a_second_opening_in_one_process_is_refused_too(opened: RunDirectory) -> None:
    with pytest.raises(RunConflict, match="another process is running"):
        RunDirectory(opened.path, plan())


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "examples.jsonl").write_text("mine", encoding="utf-8")
    with pytest.raises(RunConflict, match="expected a run or an empty folder, found inputs"):
        RunDirectory(tmp_path, plan())
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["examples.jsonl", "inputs"]
    assert (tmp_path / "inputs" / "examples.jsonl").read_text(encoding="utf-8") == "mine"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="expected a folder for the run, found a file"):
            RunDirectory(path, plan())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "identity": 3}']
)
def test_a_damaged_run_json_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"run\.json: expected"):
        read_run(tmp_path)
    with pytest.raises(RunConflict, match=r"run\.json: expected"):
        RunDirectory(tmp_path, plan())


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found no run\.json"):
        read_run(tmp_path)


WRITES = ("run.json", "queries.jsonl", "examples.jsonl", "evaluate.j2", "aspects.toml")


@pytest.mark.parametrize("killed_at", WRITES)
def test_a_process_killed_while_it_begins_leaves_a_run_that_can_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    from drpo import data, jsonl, run_dir

    class Killed(BaseException):
        pass

    write = jsonl.write_atomically

    def killing(path: Path, text: str) -> None:
        if path.name == killed_at:
            path.with_name(f".{path.name}.123.tmp").write_text(text[:9], encoding="utf-8")
            raise Killed
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(run_dir, "write_atomically", killing)
        patch.setattr(data, "write_atomically", killing)
        with pytest.raises(Killed):
            RunDirectory(tmp_path / "run", plan())
    RunDirectory(tmp_path / "run", plan()).close()
    inputs = read_inputs(tmp_path / "run")
    assert inputs.queries == plan().inputs.queries
    assert inputs.templates.digests() == plan().inputs.templates.digests()
    assert not list((tmp_path / "run").rglob("*.tmp"))


LINE_ENDS = st.sampled_from(("a\u2028b", "a\u2029b", "a\x85b", "a\x1cb", "a\r\nb", "\ufeffa", "\x00"))
TEXTS = LINE_ENDS | st.text(st.characters(codec="utf-8"), min_size=1).map(str.strip).filter(bool)


@given(
    queries=st.lists(
        st.builds(Query, text=TEXTS, style=TEXTS | st.just(""), category=TEXTS | st.just("")),
        min_size=1,
        max_size=4,
        unique_by=lambda query: query.text,
    ),
    examples=st.lists(
        st.builds(Example, query=TEXTS, response=TEXTS.map("\n {} \r\n".format), kind=TEXTS | st.just("")),
        min_size=1,
        max_size=3,
        unique_by=lambda example: example.query,
    ),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_inputs_are_read_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, queries: list[Query], examples: list[Example]
) -> None:
    path = tmp_path_factory.mktemp("run")
    inputs = Inputs(tuple(queries), ExampleSet(tuple(examples), "x", "y"), PLAN.inputs.templates)
    directory = RunDirectory(path, replace(PLAN, inputs=inputs))
    directory.close()
    back = read_inputs(path)
    assert back.queries == tuple(queries)
    assert back.examples.examples == tuple(examples)


def test_templates_and_digests_come_back_whatever_ends_their_lines(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "repair.j2").write_bytes(b"\xef\xbb\xbf{{ problem }}\r\nagain\r\n")
    begun = plan(prompts=tmp_path / "prompts")
    RunDirectory(tmp_path / "run", begun).close()
    back = read_inputs(tmp_path / "run")
    assert back.templates.digests() == begun.inputs.templates.digests()
    assert back.templates.render("repair", problem="p") == begun.inputs.templates.render(
        "repair", problem="p"
    )
    assert back.examples.digest == begun.inputs.examples.digest
    assert back.queries == begun.inputs.queries


def test_no_key_is_in_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = {"OPENAI_API_KEY": "sk-very-secret", "DRPO_OPTIMIZER_API_KEY": "sk-very-secret"}
    for name, value in secret.items():
        monkeypatch.setenv(name, value)
    roles = {"base": {"api_key_env": "OPENAI_API_KEY"}}
    RunDirectory(tmp_path, plan(secret, model="openai/x", roles=roles)).close()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 8
    assert not any(b"very-secret" in file.read_bytes() for file in files)
