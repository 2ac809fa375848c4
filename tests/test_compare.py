"""`drpo compare`: both orders of every pair, what counts as a tie, and what a difference is worth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import drpo
from drpo.errors import InputError
from tests.support.command import Shell, the_error
from tests.support.judges import Ruled, verdict
from tests.support.mock_openai import Answer
from tests.support.served import Served

QUERIES = [f"question {n}?" for n in range(12)]
Rule = Callable[[dict[str, str]], str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    data(tmp_path)
    return tmp_path


def data(folder: Path) -> None:
    (folder / "data.txt").write_text("\n".join(QUERIES), encoding="utf-8")


def answers(texts: dict[str, str]) -> str:
    """Longer, and other, with another system prompt."""
    return (
        f"re {texts['user']}"
        if texts["system"].startswith("You are a helpful")
        else f"dear, re {texts['user']}"
    )


def compared(folder: Path, judging: Rule, base: Rule = answers, **settings: Any) -> drpo.Comparison:
    return drpo.compare(
        models={"base": Ruled(base, "base"), "judge": Ruled(judging, "judge")},
        alignment="urial",
        against="none",
        data="data.txt",
        run_dir=folder / "run",
        **settings,
    )


def prefers(text: str) -> Rule:
    """A judge that wants `text` in a response, wherever it stands."""

    def judging(texts: dict[str, str]) -> str:
        in_a, in_b = text in texts["response-a"], text in texts["response-b"]
        return verdict("tie" if in_a is in_b else "A" if in_a else "B")

    return judging


def test_a_preference_that_holds_in_both_orders_is_a_win(folder: Path) -> None:
    found = compared(folder, prefers("dear"))
    assert (found.counts.wins, found.counts.ties, found.counts.losses, found.counts.flips) == (12, 0, 0, 0)
    assert found.win_rate.mean == 1.0 and found.p == 2 / 2**12
    assert compared(folder / "b", prefers("dear")).counts == found.counts


def test_a_verdict_that_follows_the_order_is_a_tie_and_counted_as_a_flip(folder: Path) -> None:
    found = compared(folder, lambda texts: verdict("A"))
    assert (found.counts.ties, found.counts.flips, found.counts.flips_first) == (12, 12, 12)
    assert found.win_rate.mean == 0.5 and found.p == 1.0


def test_each_pair_is_asked_in_both_orders_and_equal_responses_are_not_asked_about(folder: Path) -> None:
    judge = Ruled(prefers("dear"), "judge")

    def half(texts: dict[str, str]) -> str:
        return "the same" if int(texts["user"][9:-1]) < 6 else answers(texts)

    found = drpo.compare(
        models={"base": Ruled(half, "base"), "judge": judge},
        alignment="urial",
        against="none",
        data="data.txt",
        run_dir=folder / "run",
    )
    assert len(judge.asked) == 12 and (found.counts.wins, found.counts.ties) == (6, 6)


def test_a_judge_that_only_likes_length_has_no_preference_once_length_is_taken_out(folder: Path) -> None:
    def base(texts: dict[str, str]) -> str:
        number = int(texts["user"][9:-1])
        longer = texts["system"].startswith("You are a helpful") == (number % 3 == 0)
        return "word " * (5 + number + 20 * longer) + texts["system"][:20]

    def judging(texts: dict[str, str]) -> str:
        return verdict("A" if len(texts["response-a"]) > len(texts["response-b"]) else "B")

    found = compared(folder, judging, base)
    assert found.length is not None and found.length_interval is not None
    assert found.win_rate.mean == pytest.approx(2 / 3)
    assert found.length.length_effect > 1 and abs(found.length.win_rate - 0.5) < abs(2 / 3 - 0.5)
    assert 0.5 in found.length_interval


def test_two_models_are_two_sides(folder: Path) -> None:
    found = drpo.compare(
        models={
            "base": Ruled(lambda texts: "from one", "one"),
            "against": Ruled(lambda texts: "from two", "two"),
            "judge": Ruled(prefers("two"), "judge"),
        },
        alignment="none",
        against="none",
        data="data.txt",
        run_dir=folder / "run",
    )
    assert found.counts.losses == 12
    assert found.facts["models"] == {"base": "custom/one", "against": "custom/two", "judge": "custom/judge"}


def test_the_same_twice_is_nothing_to_compare(folder: Path) -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        drpo.compare(
            model="demo",
            judge="demo",
            alignment="none",
            against="none",
            run_dir=folder / "run",
            data="data.txt",
        )
    assert not (folder / "run").exists()


def test_pairs_without_an_outcome_are_counted_and_too_many_are_exit_4(shell: Shell) -> None:
    data(shell.folder)

    def handler(model: str, body: dict[str, Any]) -> Answer:
        if model == "judge":
            return "[[A]] or [[B]]"
        return f"answer {len(body['messages'])}"

    with Served(handler) as server:
        ran = shell.run(
            *("compare", "--model", f"openai/base@{server.url}", "--judge", f"openai/judge@{server.url}"),
            *("--alignment", "urial", "--against", "none", "--data", "data.txt", "--run-dir", "run"),
        )
    assert "12 of 12 pairs have no outcome" in the_error(ran, 4)
    assert "missing    12 pairs" in ran.out


def test_a_comparison_is_printed_shown_again_and_kept_pair_by_pair(shell: Shell) -> None:
    data(shell.folder)
    flags = ["--model", "demo", "--judge", "demo", "--alignment", "urial", "--against", "none"]
    ran = shell.done("compare", *flags, "--data", "data.txt", "--run-dir", "run")
    assert shell.done("show", "run").out == ran.out
    lines = [
        json.loads(line) for line in (shell.folder / "run" / "items.jsonl").read_text("utf-8").splitlines()
    ]
    summary = shell.done("show", "run", "--json").json
    assert [line["instruction"] for line in lines] == QUERIES
    outcomes = [line["outcome"] for line in lines]
    counted = [summary[name] for name in ("wins", "ties", "losses")]
    assert [outcomes.count(name) for name in ("win", "tie", "loss")] == counted
    assert all(len(line["responses"]) == 2 for line in lines)


def test_without_a_judge_nobody_is_asked(shell: Shell) -> None:
    data(shell.folder)
    flags = ("--model", "demo", "--alignment", "none", "--against", "urial", "--data", "data.txt")
    assert "--judge is missing" in shell.refused(2, "compare", *flags, "--run-dir", "run")
    assert not (shell.folder / "run").exists()
