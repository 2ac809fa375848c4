"""The tables of docs/studies are those that `make studies` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import drpo
from drpo.studies.catalogue import PAPERS
from drpo.studies.table import markdown

DOCS = Path(__file__).resolve().parent.parent / "docs" / "studies"


def table(name: str) -> Any:
    return json.loads((DOCS / name / "table.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PAPERS)
def test_every_table_is_written_from_its_figures_and_says_that_it_is_simulated(name: str) -> None:
    found = table(name)
    assert (DOCS / name / "table.md").read_text(encoding="utf-8") == markdown(found)
    assert found["simulated"] and not found["failed"]
    assert "say nothing about real ones" in (DOCS / name / "plot.svg").read_text(encoding="utf-8")


def test_the_figures_of_the_plain_prompt_come_out_again(tmp_path: Path) -> None:
    found = table("results")["rows"][0]
    assert found["columns"] == ["demo", "base", "0"]
    again = drpo.evaluate(model="demo", judge="demo", alignment="none", run_dir=tmp_path / "run")
    for part in again.parts:
        assert part.overall.mean == pytest.approx(found[part.name]["overall"]["mean"], abs=1e-6), (
            "the simulated world has changed: run `make studies`"
        )


def test_equal_rows_of_different_tables_have_equal_figures() -> None:
    def without_place(row: Any) -> Any:
        return {name: row[name] for name in ("general", "safety", "runs")}

    parts, results, shots, transfer = (
        table(name)["rows"] for name in ("parts", "results", "shots", "transfer")
    )
    found = [parts[0], results[2], shots[2], transfer[0], table("search")["rows"][4]]
    assert [without_place(row) for row in found] == [without_place(found[0])] * len(found)
    assert without_place(parts[3]) == without_place(results[0])
    assert without_place(parts[1])["general"] == without_place(transfer[3])["general"]
    assert without_place(parts[2]) == without_place(shots[0])
