"""`drpo study`: tables from shared runs that resume, keep limits, and never show a failure as a score."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import drpo
from drpo.api import run_async
from drpo.config_study import StudyConfig
from drpo.errors import BudgetSpent, Interrupted
from drpo.llm.ledger import LEDGER_NAME, read_ledger
from drpo.run import Hooks
from drpo.settings import resolve
from drpo.studies.result import StudyResult
from drpo.studies.running import run_studies, study_plan
from tests.support.command import Shell, content_of, the_error
from tests.support.mock_openai import Answer, error
from tests.support.served import Served

TABLES = ("table.md", "table.json", "plot.svg")
TINY: dict[str, Any] = {
    "model": "demo",
    "depth": 3,
    "width": 1,
    "samples": 2,
    "max_extra_depth": 0,
    "report": False,
    "repeats": 2,
}

FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "report"]


def write_data(folder: Path) -> str:
    """Six general queries and six safety ones: as few as intervals can be had of."""
    rows = [
        {"instruction": f"How do I plan week {n}?", "category": "safety" if n >= 6 else "regular"}
        for n in range(12)
    ]
    file = folder / "data.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    return str(file)


def made(name: str, folder: Path, hooks: Hooks | None = None, **settings: Any) -> StudyResult:
    """The study, its runs and tables in `folder`."""
    return drpo.study(name, hooks=hooks, **{**TINY, "run_dir": folder, **settings})


def calls_in(folder: Path) -> dict[str, int]:
    """The calls of each run in a study's folder."""
    return {
        file.parent.name: sum(spent.calls for spent in read_ledger(file).values())
        for file in folder.glob(f"*/{LEDGER_NAME}")
    }


@pytest.fixture
def plotless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matplotlib, which takes its time."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def data(base: Path) -> str:
    return write_data(base)


@pytest.fixture(scope="module")
def results(base: Path, data: str) -> StudyResult:
    """One small study that the tests of this module share."""
    return made("results", base / "one", data=data)


def test_a_row_of_one_evaluation_has_the_figures_of_drpo_evaluate(base: Path, results: StudyResult) -> None:
    row = results.as_dict()["rows"][0]
    (run,) = row["runs"][0]
    summary = json.loads((base / "one" / run / "summary.json").read_text(encoding="utf-8"))
    for part in ("general", "safety"):
        for name in ("mean", "low", "high"):
            assert row[part]["overall"][name] == pytest.approx(summary[part]["overall"][name], abs=1e-6)
            for aspect, found in row[part]["aspects"].items():
                assert found[name] == pytest.approx(summary[part]["aspects"][aspect][name], abs=1e-6)


def test_repeated_searches_are_shown_as_their_mean_and_their_range(results: StudyResult) -> None:
    table = results.as_dict()
    found = table["rows"][2]
    assert found["columns"] == ["demo", "DRPO", "2"] and found["repeats"] == 2
    assert len({runs[0] for runs in found["runs"]}) == 2
    single = found["general"]["repeats"]
    assert found["general"]["overall"]["mean"] == pytest.approx(sum(single) / 2, abs=1e-5)
    text = (results.folder / "table.md").read_text(encoding="utf-8")
    assert f"| {min(single):.2f} to {max(single):.2f} |" in text


def test_a_difference_is_that_of_the_means_and_stands_against_the_marked_row(results: StudyResult) -> None:
    first, _, marked = results.as_dict()["rows"]
    assert first["against"] == 2 and marked["against"] is None and marked["difference"] is None
    means = [row["general"]["overall"]["mean"] for row in (first, marked)]
    assert first["difference"]["mean"] == pytest.approx(means[0] - means[1], abs=1e-5)
    assert first["difference"]["low"] <= first["difference"]["mean"] <= first["difference"]["high"]


def test_simulated_figures_are_said_to_be_so_everywhere(results: StudyResult) -> None:
    text, data, plot = ((results.folder / name).read_text(encoding="utf-8") for name in TABLES)
    assert text.startswith("# DRPO against its baselines (Table 1) (simulated)\n")
    assert "say nothing about real ones" in text and "say nothing about real ones" in plot
    assert json.loads(data)["simulated"] is True


def test_runs_at_once_have_only_their_own_lines_in_their_logs(base: Path, results: StudyResult) -> None:
    told = {file.parent.name: file.read_text("utf-8") for file in (base / "one").glob("*/run.log")}
    searches = {row for rows in results.as_dict()["rows"] for run in rows["runs"] for row in run[:-1]}
    for run in searches:
        levels = re.findall(r"level (\d) done", told[run])
        assert levels == ["0", "1", "2"] and told[run].count("\n") == 3, told[run]
    assert len(searches) == 2
    assert "".join(text for run, text in told.items() if run not in searches) == ""


def test_the_same_study_elsewhere_gives_the_same_bytes(base: Path, data: str, results: StudyResult) -> None:
    again = made("results", base / "two", data=data, concurrency=1)
    for name in TABLES:
        assert (again.folder / name).read_bytes() == (results.folder / name).read_bytes(), name


def test_the_same_study_again_sends_nothing(base: Path, data: str, results: StudyResult) -> None:
    before, tables = calls_in(base / "one"), content_of(results.folder)
    said: list[str] = []
    made("results", base / "one", Hooks(notice=said.append), data=data)
    assert calls_in(base / "one") == before and content_of(results.folder) == tables
    assert not [line for line in said if line.startswith("[")]


@pytest.mark.usefixtures("plotless")
def test_another_study_in_the_folder_runs_only_what_is_not_there(
    base: Path, data: str, results: StudyResult
) -> None:
    before = calls_in(base / "one")
    parts = made("parts", base / "one", data=data)
    after = calls_in(base / "one")
    new = sorted(name.split("-")[0] for name in after.keys() - before.keys())
    assert new == ["evaluate"] * 3  # the plain prompt with shots, and each found prompt without them
    assert {name: after[name] for name in before} == before
    both, basic, bare, neither = parts.as_dict()["rows"]
    table = results.as_dict()["rows"]
    assert (both["runs"], neither["runs"]) == (table[2]["runs"], table[0]["runs"])
    assert basic["runs"] != bare["runs"] and basic["repeats"] == 1 and bare["repeats"] == 2


@pytest.mark.usefixtures("plotless")
def test_a_limit_bounds_the_whole_study_and_a_higher_one_goes_on(
    base: Path, data: str, results: StudyResult
) -> None:
    folder = base / "limited"
    limited = made("results", folder, data=data, max_calls=45)
    assert 0 < sum(calls_in(folder).values()) <= 45
    assert {type(failure) for failure in limited.failures} == {BudgetSpent}
    assert limited.rows[0].general is not None and limited.rows[2].general is None
    text = (limited.folder / "table.md").read_text(encoding="utf-8")
    assert "| demo | DRPO | 2 | failed | failed |" in text
    made("results", folder, data=data, max_calls=100_000)
    for name in TABLES[:2]:
        assert (folder / "results" / name).read_bytes() == (results.folder / name).read_bytes(), name


@pytest.mark.usefixtures("plotless")
def test_a_stopped_study_raises_why_and_goes_on_where_it_was(
    base: Path, data: str, results: StudyResult
) -> None:
    async def stopped() -> None:
        hooks = Hooks()

        def notice(said: str) -> None:
            if "evaluate" in said:
                hooks.stop.set(Interrupted("interrupted"))

        config = resolve(StudyConfig, {**TINY, "run_dir": base / "stopped", "data": data}, {})
        hooks_that_stop = Hooks(stop=hooks.stop, notice=notice)
        await run_studies(study_plan("results", config, {}), {}, hooks_that_stop)

    with pytest.raises(Interrupted):
        run_async(stopped())
    assert not (base / "stopped" / "results").exists()
    again = made("results", base / "stopped", data=data)
    for name in TABLES[:2]:
        assert (again.folder / name).read_bytes() == (results.folder / name).read_bytes(), name


@pytest.mark.usefixtures("plotless")
def test_the_first_three_searches_try_about_as_many_prompts(base: Path, data: str) -> None:
    found = made("search", base / "one", data=data, repeats=1, depth=4, width=2)
    prompts = [row["prompts"][0] for row in found.as_dict()["rows"]]
    beam, greedy, monte_carlo, cheaper, _ = prompts
    # Beam search has one prompt less to draw from on its first level: M instead of W x M.
    assert (beam, greedy, monte_carlo) == (11, 13, 13) and cheaper == 7
    assert "| prompts tried |" in (found.folder / "table.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("plotless")
def test_rewards_of_either_kind_make_examples_of_their_own(base: Path, data: str) -> None:
    found = made("reward", base / "reward", data=data, repeats=1, examples_depth=1, depth=2, limit=6)
    rows = found.as_dict()["rows"]
    assert [row["columns"] for row in rows] == [
        ["dynamic", "dynamic"],
        ["static", "dynamic"],
        ["dynamic", "static"],
        ["static", "static"],
    ]
    examples, searches, _ = zip(*(row["runs"][0] for row in rows), strict=True)
    assert examples[0] == examples[1] != examples[2] == examples[3]
    assert len(set(searches)) == 4
    inputs = base / "reward" / searches[0] / "inputs" / "examples.jsonl"
    assert inputs.read_bytes() == (base / "reward" / examples[0] / "examples.jsonl").read_bytes()


REFUSED = (error(401, "no such key"), 3, "no such key")
NONSENSE = ("I would rather not.", 4, "more than 5%")


@pytest.mark.parametrize(("answer", "code", "told"), [REFUSED, NONSENSE], ids=["refused", "unreadable"])
@pytest.mark.usefixtures("plotless")
def test_a_cell_that_fails_has_no_score_and_decides_the_exit_code(
    answer: Answer,
    code: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shell = Shell(tmp_path, monkeypatch, capsys)
    shell.env.setenv("DRPO_JUDGE_API_KEY", "none")
    with Served(lambda model, body: answer) as server:
        judge = ["--judge", f"openai/judge@{server.url}", "--data", write_data(tmp_path), "--repairs", 0]
        ran = shell.run("study", "results", *FLAGS, *judge, "--run-dir", "study", "--json", "--no-report")
        asked = len(server.requests)
    assert told in the_error(ran, code) and "4 cells failed" in ran.err
    assert [row["general"] for row in ran.json["rows"]] == [None] * 3
    assert ran.json["failed"] == 4
    table = (tmp_path / "study" / "results" / "table.md").read_text(encoding="utf-8")
    assert "| demo | base | 0 | failed | - |" in table
    # A refused key is tried by the runs that begin at once, those of the two baselines, and by no other.
    assert asked <= 2 if code == 3 else asked == 4 * 12


@pytest.mark.usefixtures("plotless")
def test_without_matplotlib_the_tables_are_written_and_it_is_said_how_to_get_the_plot(
    base: Path,
    data: str,
    results: StudyResult,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shell = Shell(base, monkeypatch, capsys)
    places = ["--run-dir", "one", "--out", "elsewhere", "--data", data]
    ran = shell.done("study", "results", *FLAGS, *places)
    assert sorted(path.name for path in (base / "elsewhere" / "results").iterdir()) == [
        "table.json",
        "table.md",
    ]
    assert ran.out == (results.folder / "table.md").read_text(encoding="utf-8")
    assert "pip install 'drpo[study]'" in ran.err


BAD: dict[str, tuple[Mapping[str, Any], str, str]] = {
    "what the study compares": ({"search": "greedy"}, "search", "--search"),
    "one model for transfer": ({"models": "demo@1"}, "transfer", "two base models"),
    "several where it takes one": ({"models": "demo,demo@1"}, "shots", "is of one model"),
    "a world that is none": ({"models": "demo,demo@x"}, "results", "demo@SEED"),
    "too few levels": ({"depth": 2}, "search", "--depth 2"),
    "no judge": ({"model": "openai/gpt-4o-mini", "optimizer": "demo"}, "results", "who judges"),
    "safety queries only": ({"data": "safety.json"}, "results", "expected general queries"),
    "a limit on what has no price": (
        {"judge": "openai/judge@http://127.0.0.1:9/v1", "max_usd": 1.0},
        "results",
        "no price is known for the judge",
    ),
    "no such study": ({}, "everything", "expected results, transfer"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_refused_before_anything_is_made(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, name, told = BAD[case]
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": f"question {n}?", "category": "safety"} for n in range(6)]
    (tmp_path / "safety.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(drpo.DrpoError, match=told) as refused:
        made(name, tmp_path / "study", **settings)
    assert refused.value.exit_code == 2
    assert not (tmp_path / "study").exists()
