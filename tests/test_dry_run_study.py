"""`drpo study --dry-run`: the runs of a study, what is there of each, and a range that holds what comes."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drpo.estimate.adding import Part, settled, together
from drpo.estimate.ranges import Range
from drpo.estimate.roles import Recorded, RoleForecast, RunForecast
from drpo.llm.base import Usage
from drpo.llm.ledger import LEDGER_NAME, Spent, read_ledger
from drpo.tariffs import RoleTariff
from drpo.testing import closed_sockets
from tests.support.command import Shell, content_of

PRICES = ("base=0.5/1.5", "optimizer=2/8", "evaluator=2/8", "selector=1/4", "judge=2/8")
FEW = (
    "--depth",
    2,
    "--width",
    1,
    "--samples",
    2,
    "--max-extra-depth",
    0,
    "--data",
    "data.txt",
    "--no-report",
)
PRICED = [part for price in PRICES for part in ("--price", price)]
STUDY = ("--model", "demo", "--repeats", 1, *FEW, *PRICED, "--run-dir", "study")
STUDIES: dict[str, tuple[object, ...]] = {
    "results": ("--repeats", 2),
    "parts": ("--shots", 1),
    "transfer": ("--models", "demo@1 demo@2"),
    "reward": ("--examples-depth", 1),
    "rewriters": ("--rewrites", 2, "--price", "rewriter=1/3"),
}
HALFWAY = {"results": 40, "rewriters": 60}
"""A study that a limit of so many calls ends at first, between a finished run and one that has not begun."""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "data.txt").write_text(
        "\n".join(f"How do I plan week {n}?" for n in range(6)), encoding="utf-8"
    )
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # takes its time to load
    return Shell(folder, monkeypatch, capsys)


def told(shell: Shell, *arguments: object) -> Any:
    with closed_sockets():
        return shell.done("study", *arguments, "--dry-run", "--json").json


def spent(folder: Path) -> dict[str, Spent]:
    """Per role, what all runs in a study's folder came to."""
    found: dict[str, Spent] = {}
    for file in folder.glob(f"*/{LEDGER_NAME}"):
        for role, one in read_ledger(file).items():
            found[role] = found.get(role, Spent()) + one
    return found


def outside(said: Any, real: dict[str, Spent], before: dict[str, Spent] | None = None) -> list[str]:
    """The figures that are not within what was said: of the whole, or of what came after `before`."""
    found, come = [], "" if before is None else "_to_come"
    for role, one in said["roles"].items():
        came, had = real.get(role, Spent()), (before or {}).get(role, Spent())
        for name, value in ((f"calls{come}", came.calls - had.calls), (f"usd{come}", came.usd - had.usd)):
            low, high = one[name]["least"], one[name]["most"]
            if not low - 1e-6 <= value <= high + 1e-6:
                found.append(f"{role} {name}: came {value}, said {low} to {high}")
    return found


@pytest.mark.parametrize("which", STUDIES)
def test_the_range_holds_the_real_calls_and_cost_of_a_study(which: str, shell: Shell) -> None:
    command = (which, *STUDY, *STUDIES[which])
    said = told(shell, *command)
    assert not (shell.folder / "study").exists()
    if which in HALFWAY:
        shell.refused(9, "study", *command, "--quiet", "--max-calls", HALFWAY[which])
        before, content = spent(shell.folder / "study"), content_of(shell.folder)
        rest = told(shell, *command)
        assert content_of(shell.folder) == content and rest["run"]["state"] == "resume"
        assert {"begin", "finished"} <= {run["state"] for run in rest["runs"]}
    shell.done("study", *command, "--quiet")
    real = spent(shell.folder / "study")
    assert sum(one.calls for one in real.values()) > 30
    assert outside(said, real) == []
    if which in HALFWAY:
        assert outside(rest, real) == []
        assert outside(rest, real, before) == []
    check_what_has_finished(told(shell, *command), real)


def check_what_has_finished(after: Any, real: dict[str, Spent]) -> None:
    assert after["run"]["state"] == "finished" and after["calls_to_come"]["most"] == 0
    assert {run["state"] for run in after["runs"]} == {"finished"}
    for role, one in real.items():
        assert after["roles"][role]["calls"] == dict.fromkeys(("least", "expected", "most"), one.calls)
        assert after["roles"][role]["usd"]["least"] == pytest.approx(one.usd, abs=1e-5)


def test_each_run_is_told_by_what_is_there_of_it(shell: Shell) -> None:
    command = ("results", *STUDY, "--limit", 6)
    shell.refused(9, "study", *command, "--quiet", "--max-calls", 20)
    text = shell.done("study", *command, "--dry-run").out
    lines = text.splitlines()
    assert lines[0] == "drpo study results, dry run: nothing is sent, started or written"
    assert [line for line in lines if len(line) > 80] == []
    start = next(n for n, line in enumerate(lines) if "  had  " in line) + 1
    assert [re.split(" {2,}", line)[:2] for line in lines[start : start + 4]] == [
        ["evaluate demo, base, 0", "done"],
        ["evaluate demo, urial, 3", "begun"],
        ["optimize demo, DRPO, 2", "to do"],
        ["evaluate demo, DRPO, 2", "to do"],
    ]
    assert "1 of the runs begin with what others have yet to find" in " ".join(text.split())


def test_what_a_limit_means_for_the_whole_study_is_told(shell: Shell) -> None:
    command = ("results", *STUDY)

    def says(limit: int) -> Any:
        return told(shell, *command, "--max-calls", limit)["limits"]["max_calls"]["says"]

    most = told(shell, *command)["calls"]["most"]
    assert [says(limit) for limit in (most, 20)] == ["enough", "will end early"]
    shell.refused(9, "study", *command, "--quiet", "--max-calls", 20)
    assert says(20) == "used up" and says(most) == "enough"
    text = " ".join(shell.done("study", *command, "--dry-run", "--max-calls", 20).out.split())
    assert "20 were sent before, so the command would end at once with exit code 9" in text


def test_what_would_refuse_and_what_has_no_price_is_told_and_the_figures_stand(shell: Shell) -> None:
    far = "openai/far@http://127.0.0.1:1/v1"
    command = ("results", "--model", "demo", *FEW, "--judge", far, "--run-dir", "study")
    said = told(shell, *command, "--max-usd", 1)
    assert said["unpriced"] == ["judge"] and said["calls"]["expected"] > 12
    (refusal,) = said["refused"]
    assert "no price is known for the judge" in refusal
    assert "no price is known for the judge" in shell.refused(2, "study", *command, "--max-usd", 1, "--quiet")
    assert not (shell.folder / "study").exists()


def test_the_servers_and_all_models_of_a_study_are_told(shell: Shell) -> None:
    models = ("--models", "mistral-7b,demo", "--judge", "demo", "--optimizer", "demo", "--evaluator", "demo")
    said = told(shell, "transfer", *models, *FEW, "--run-dir", "study")
    (line,) = [line for line in said["servers"] if not line.startswith("#")]
    assert "mistralai/Mistral-7B-v0.1" in line
    assert [name.split("/")[0] for name in said["roles"]["base"]["models"]] == ["vllm", "demo"]


# The sum


def role(calls: Range, done: int = 0) -> RoleForecast:
    left = calls.less(done)
    return RoleForecast("base", RoleTariff("given", 1, 2), calls, None, calls, calls, left, done, left, left)


def part(name: str | None, kin: str, said: RoleForecast) -> Part:
    forecast = RunForecast((said,), (), 1, Recorded({"base": said.done}, {"base": Usage(7, 5)}))
    return Part(f"{name}", "evaluate", name, "begin", forecast, kin)


def test_runs_that_may_turn_out_to_be_one_count_once_at_least() -> None:
    one = role(Range(2, 3, 4))
    alike = [part(None, "a", one), part(None, "a", one), part(None, "b", one), part("c-run", "b", one)]
    said = together(alike, Recorded())
    assert said.calls == Range(4, 12, 16) and said.left.least == 4
    named = together([part("x", "a", one), part("y", "a", one)], Recorded())
    assert named.calls == Range(4, 6, 8)


def test_a_run_that_has_ended_counts_with_what_it_took() -> None:
    said = settled(part("x", "a", role(Range(2, 3, 40), done=6)).forecast).roles[0]
    assert (said.calls, said.left, said.done) == (Range(6, 6, 6), Range(), 6)
    assert said.usd == Range(17e-6, 17e-6, 17e-6)


def test_a_role_without_a_price_in_one_run_is_told_as_such_with_the_money_of_the_others() -> None:
    priced = role(Range(1, 1, 1))
    unknown = replace(priced, tariff=RoleTariff("unknown"), usd=None, left_usd=None)
    said = together([part("x", "a", role(Range(2, 3, 4))), part("y", "b", unknown)], Recorded())
    assert said.unpriced == ("base",) and said.usd == Range(2, 3, 4) and said.calls == Range(3, 4, 5)
