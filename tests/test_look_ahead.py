"""Under a limit, aspects are chosen for the next two levels and no further, and the result is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpo.alignment import read_alignment
from drpo.events import read_events
from drpo.llm.ledger import read_ledger
from tests.support.command import Shell, killed_at_the_end, process, roles_at
from tests.support.served import Served

LONG = ("--model", "demo", "--depth", "20", "--max-extra-depth", "5", "--no-report", "--quiet")


def spent(run: Path) -> dict[str, int]:
    return {role: counts.calls for role, counts in read_ledger(run / "ledger.jsonl").items()}


@pytest.mark.parametrize("limit", ["--max-calls", "--max-usd"])
def test_under_a_limit_no_aspects_are_chosen_for_levels_beyond_the_next_two(shell: Shell, limit: str) -> None:
    priced = [part for role in ("base", "optimizer", "evaluator") for part in ("--price", f"{role}=1/1")]
    least = ("--max-calls", "30") if limit == "--max-calls" else ("--max-usd", "0.04", *priced)
    assert shell.run("optimize", *LONG, *least, "--run-dir", "run").code == 9
    levels = read_alignment(shell.folder / "run").found.levels
    assert levels >= 3 and spent(shell.folder / "run")["selector"] <= levels + 2


def test_without_a_limit_aspects_are_chosen_as_far_ahead_as_ever(shell: Shell) -> None:
    flags = ["--depth", "6", "--no-reuse", "--run-dir", "run", "--quiet"]
    with (
        Served(hold=lambda model: model == "optimizer") as server,  # so that the first level stays the last
        killed_at_the_end(process("optimize", *roles_at(server.url), *flags)),
    ):
        server.wait_for(lambda: [body["model"] for body in server.bodies].count("selector") == 6)
    assert [event for event in read_events(shell.folder / "run" / "events.jsonl") if event.get("level")] == []


@pytest.mark.parametrize(
    "search",
    [(), ("--patience", "1"), ("--search", "monte-carlo", "--depth", "5")],
    ids=["beam", "patience", "monte-carlo"],
)
def test_a_raised_limit_ends_with_the_bytes_of_a_run_without_one(
    shell: Shell, search: tuple[str, ...]
) -> None:
    small = (*LONG, "--depth", "7", "--width", "1", "--samples", "2", *search)
    shell.done("optimize", *small, "--run-dir", "whole")
    calls = sum(spent(shell.folder / "whole").values())
    for limit in (9, 14, calls - 1, calls):
        ran = shell.run("optimize", *small, "--max-calls", limit, "--run-dir", "parts")
        assert ran.code == (0 if limit == calls else 9), (limit, ran.err)
    for name in ("alignment.json", "events.jsonl"):
        there = [(shell.folder / run / name).read_bytes() for run in ("parts", "whole")]
        assert there[0] == there[1], name
    assert spent(shell.folder / "parts") == spent(shell.folder / "whole")
