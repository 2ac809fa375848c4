"""`drpo align-pro estimate` as its user runs it: what it prints, refuses and leaves; its settings."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from drpo.align_pro.estimating import run_estimate
from drpo.align_pro.plan import estimate_plan
from drpo.align_pro.plot import draw
from drpo.config_align_pro import EstimateConfig
from drpo.errors import InputError
from drpo.evaluation_data import NAMED_SETS, read_items
from drpo.run import Hooks
from drpo.settings import resolve
from tests.support.command import Shell, the_error
from tests.support.served import Served
from tests.test_evaluation_set import Rows, hub

QUERIES = [f"how do rockets number {n} fly so far" for n in range(8)]


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run on the simulated models, which tests may read."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    settings = {"model": "demo", "prompter": "demo", "reward": "dynamic/demo", "limit": 6, "samples": 3}
    plan = estimate_plan(resolve(EstimateConfig, {**settings, "run_dir": folder}, {}), {})
    asyncio.run(run_estimate(plan, {}, Hooks()))
    return folder


def again(run: Path, *more: object) -> list[object]:
    who = ("--model", "demo", "--prompter", "demo", "--reward", "dynamic/demo")
    return ["align-pro", "estimate", *who, "--limit", 6, "--samples", 3, "--run-dir", run, *more]


def test_the_command_prints_the_curve_and_show_prints_the_same(
    shell: Shell, demo_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # no figure needs it
    ran = shell.done(*again(demo_run, "--lambda", "0.2,1", "--lambda", "5"))
    names = [line.split("  ")[0] for line in ran.out.splitlines()]
    rows = ["none", "reference", "lambda 5", "lambda 1", "lambda 0.2", "best of N"]
    assert [name for name in names if name in rows] == rows
    assert "With one answer a rewrite is credited" in ran.out
    assert "Simulated models" in ran.out and "not known: needs --against-model" in ran.out
    assert "All of it was recorded; nothing was sent." in ran.err and "curve.svg" not in ran.err
    assert shell.done("show", demo_run).out == ran.out
    printed = shell.done(*again(demo_run, "--lambda", "0.2,1,5", "--json", "--quiet"))
    assert printed.json == json.loads((demo_run / "summary.json").read_text("utf-8")) and printed.err == ""


def test_the_plot_is_the_same_for_the_same_figures(shell: Shell, demo_run: Path) -> None:
    assert "curve.svg" in shell.done(*again(demo_run)).err
    drawn = (demo_run / "curve.svg").read_text("utf-8")
    assert drawn.startswith("<?xml") and "KL(rho*||reference)" in drawn and "aligned policy" not in drawn
    assert draw(json.loads((demo_run / "summary.json").read_text("utf-8"))) == drawn


def test_a_dry_run_says_what_it_takes_and_leaves_nothing(shell: Shell, demo_run: Path) -> None:
    new = shell.folder / "new"
    told = shell.done(*again(new, "--dry-run", "--json")).json
    calls = {role: found["calls"] for role, found in told["roles"].items()}
    assert calls["rewriter"]["expected"] == 6 and calls["base"]["most"] == 6 * 4 and not new.exists()
    assert calls["base"]["least"] == 6 and calls["evaluator"]["least"] >= 6
    assert told["settings"]["lambda"]["value"] == [0.1, 0.3, 1.0, 3.0] and "lambda_" not in told["settings"]
    assert "nothing more would be sent" in shell.done(*again(demo_run, "--dry-run")).out


def test_a_dry_run_counts_the_log_probabilities_where_the_model_may_tell_them(shell: Shell) -> None:
    shell.write("queries.txt", "\n".join(QUERIES))
    flags = [
        "align-pro",
        "estimate",
        "--prompter",
        "demo",
        "--reward",
        "dynamic/demo",
        "--data",
        "queries.txt",
    ]
    flags += ["--samples", "2", "--dry-run"]
    served = [*flags, "--model", "vllm/toy@http://127.0.0.1:9/v1"]
    assert "up to 112 log-probabilities" in shell.done(*served, "--answers", 2).out  # 8 x 2 x (1 + 3 x 2)
    assert "log-probabilities" not in shell.done(*served).out
    assert "log-probabilities" not in shell.done(*flags, "--model", "demo", "--answers", 2).out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--lambda", "0"), "--lambda (or DRPO_LAMBDA): expected 1 to 100 numbers above 0"),
        (("--lambda", "0.1,x"), "--lambda (or DRPO_LAMBDA): expected"),
        (("--lambda", "inf"), "--lambda"),
        (("--reward", "openai/x@http://127.0.0.1:9/v1"), "expected vllm/NAME@URL"),
        (("--prompter", "vllm/"), "expected"),
        (("--samples", "0"), "--samples"),
        (("--against-model", "demo"), "the frozen model itself"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    shell: Shell, flags: tuple[str, ...], said: str
) -> None:
    assert said in shell.refused(2, *again(shell.folder / "new", *flags))
    assert not (shell.folder / "new").exists()


def test_a_missing_prompter_model_or_reward_is_named(shell: Shell) -> None:
    estimate = ("align-pro", "estimate")
    assert "--reward is missing" in shell.refused(2, *estimate, "--model", "demo", "--prompter", "demo")
    some = ("--reward", "dynamic/demo")
    assert "--prompter is missing" in shell.refused(2, *estimate, *some, "--model", "demo")
    assert "--model: none was made for no model" in shell.refused(2, *estimate, *some, "--prompter", "demo")


def test_lambda_is_a_flag_a_variable_and_a_key_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("lambda = [3, 0.5, 3]\n", encoding="utf-8")
    needed = {"reward": "dynamic/demo"}
    assert resolve(EstimateConfig, needed, {}, file).lambda_ == (0.5, 3.0)
    assert resolve(EstimateConfig, needed, {"DRPO_LAMBDA": "2,1"}, file).lambda_ == (1.0, 2.0)
    assert resolve(EstimateConfig, {**needed, "lambda_": 7}, {"DRPO_LAMBDA": "2"}, file).lambda_ == (7.0,)
    with pytest.raises(InputError, match="DRPO_LAMBDAS: no setting has this name; did you mean DRPO_LAMBDA"):
        resolve(EstimateConfig, needed, {"DRPO_LAMBDAS": "1"})


def test_the_help_names_the_flag_and_both_commands(shell: Shell) -> None:
    told = shell.done("align-pro", "estimate", "--help").out
    assert "--lambda TEXT" in told and "[default: 0.1,0.3,1,3]" in " ".join(told.split())
    listed = shell.done("align-pro", "--help").out
    assert "estimate" in listed and "train" in listed


def test_too_much_without_a_reward_ends_with_exit_code_4(shell: Shell) -> None:
    shell.write("queries.txt", "\n".join(QUERIES))
    with Served(lambda model, body: "no score") as server:
        ran = shell.run(
            *("align-pro", "estimate", "--model", "demo", "--prompter", "demo", "--data", "queries.txt"),
            *("--reward", f"dynamic/openai/judge@{server.url}", "--samples", 1, "--run-dir", "run"),
        )
    assert "8 of 8 queries have no reward" in the_error(ran, 4) and "With one answer" not in ran.out
    assert (shell.folder / "run" / "summary.json").exists()


@pytest.mark.parametrize("name", NAMED_SETS)
def test_the_papers_data_sets_have_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, field, split = NAMED_SETS[name]
    queries: list[object] = ["why is the sky blue", "how deep is the sea"]
    nothing: list[object] = ["not this one"]
    others = {other: Rows(**{field: nothing}) for other in ("test", "train") if other != split}
    hub(monkeypatch, **others, **{split: Rows(**{field: queries})})
    found = read_items(name)
    assert [item.query for item in found.items] == ["why is the sky blue", "how deep is the sea"]
    assert found.source.endswith(f"(split {split})")


def test_a_file_of_that_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("orca").write_text("what eats an orca\n", encoding="utf-8")
    assert [item.query for item in read_items("orca").items] == ["what eats an orca"]
