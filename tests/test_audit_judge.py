"""`drpo audit-judge`: a fair judge passes, each planted one is flagged by the checks of its own kind."""

from __future__ import annotations

import json

import pytest

from tests.support.command import Shell, the_error


@pytest.mark.parametrize(
    ("leaning", "checks"),
    [
        ("first", {"order"}),
        ("longer", {"padding x2", "padding x10"}),
        ("obedient", {"begging", "forging", "closing"}),
    ],
)
def test_a_planted_judge_is_flagged_by_its_own_checks_and_no_others(
    shell: Shell, leaning: str, checks: set[str]
) -> None:
    ran = shell.run("audit-judge", "--judge", "demo", "--demo-judge", leaning, "--run-dir", "run", "--json")
    said = the_error(ran, 4)
    flagged = {name.partition(",")[0] for name in ran.json["flagged"]}
    assert flagged and flagged <= checks and f"judge={leaning} is flagged" in said


def test_a_fair_judge_passes_and_the_same_command_asks_nobody_again(shell: Shell) -> None:
    ran = shell.done("audit-judge", "--judge", "demo", "--run-dir", "run")
    assert "FLAGGED\n" not in ran.out and "480 questions on 80 cases" in ran.out
    again = shell.done("audit-judge", "--judge", "demo", "--run-dir", "run")
    assert again.out == ran.out and "nothing was sent" in again.err
    assert shell.done("show", "run").out.endswith(ran.out)


def test_own_cases_are_asked_and_a_wrong_one_is_told_with_its_line(shell: Shell) -> None:
    case = {"query": "Two plus two?", "good": "Four.", "bad": "Five, as far as I know.", "kind": "pair"}
    rows = [json.dumps({**case, "query": f"Two plus {n}?"}) for n in range(8)]
    shell.write("cases.jsonl", b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    flags = ("audit-judge", "--judge", "demo", "--run-dir", "run", "--cases")
    ran = shell.run(*flags, "cases.jsonl", "--json")
    assert ran.json["cases"] == 8
    shell.write("cases.jsonl", "\n".join([*rows[:3], '{"query": "And?", "good": "Yes."}']))
    assert "cases.jsonl, line 4" in shell.refused(2, *flags, "cases.jsonl")


def test_no_judge_is_a_sentence(shell: Shell) -> None:
    assert "--judge is missing" in shell.refused(2, "audit-judge")


def test_without_a_place_the_run_is_named_by_command_and_judge(shell: Shell) -> None:
    shell.run("audit-judge", "--judge", "demo", "--dry-run")
    shell.done("audit-judge", "--judge", "demo", "--quiet")
    (run,) = (shell.folder / "runs").iterdir()
    assert run.name.startswith("audit-judge-demo-")
