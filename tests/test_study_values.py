"""The values of a study: which cells its rows have, how they are added up, and what they look like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drpo.bootstrap import bootstrap_means
from drpo.config_study import StudyConfig, names_of
from drpo.llm.ledger import Spent
from drpo.settings import resolve
from drpo.statistics import Estimate
from drpo.studies.catalogue import STUDIES, study_named
from drpo.studies.cells import Study
from drpo.studies.figures import PartFigures, difference
from drpo.studies.plot import draw
from drpo.studies.progress import StudyProgress
from drpo.studies.table import markdown, plain


def study(name: str, **settings: Any) -> Study:
    return study_named(name, resolve(StudyConfig, {"model": "demo", **settings}, {}))


def figures(*rows: tuple[float | None, ...]) -> PartFigures:
    estimates, overall = bootstrap_means(rows)
    names = [f"aspect {n}" for n in range(len(rows[0]))]
    return PartFigures(overall, tuple(zip(names, estimates, strict=True)), (overall.mean,), rows)


def test_searches_have_no_validation_unless_one_is_asked_for() -> None:
    assert resolve(StudyConfig, {"model": "demo"}, {}).validate == 0
    assert resolve(StudyConfig, {"model": "demo", "validate": 12}, {}).validate == 12


def test_the_published_preset_is_that_of_a_search() -> None:
    config = resolve(StudyConfig, {"model": "demo", "preset": "published"}, {})
    assert (config.width, config.samples, config.depth, config.unreadable) == (2, 3, 20, "zero")


def test_every_study_of_the_paper_is_there_and_its_rows_fit_their_head() -> None:
    assert list(STUDIES) == ["results", "transfer", "parts", "search", "reward", "shots", "rewriters"]
    for name in STUDIES:
        made = study(name)
        assert all(len(row.columns) == len(made.head) for row in made.rows)
        assert all(made.rows[row.against].against is None for row in made.rows if row.against is not None)
        assert all(row.cells for row in made.rows)


def test_demo_searches_three_times_and_other_models_once() -> None:
    assert len(study("results").rows[2].cells) == 3
    assert len(study("results", model="mistral-7b").rows[2].cells) == 1
    assert [
        cell.search.seed for cell in study("results", random_seed=7, repeats=2).rows[2].cells if cell.search
    ] == [
        7,
        8,
    ]


def test_shots_are_swept_over_one_search_from_none_to_five() -> None:
    made = study("shots", repeats=1)
    assert [row.cells[0].shots for row in made.rows] == [0, 1, 2, 3, 4, 5]
    assert len({cell.search for row in made.rows for cell in row.cells}) == 1


def test_transfer_asks_every_model_with_every_prompt_and_the_basic_one() -> None:
    made = study("transfer", models="demo@4,demo@5", repeats=1)
    cells = [row.cells[0] for row in made.rows]
    worlds = [(cell.model.demo_seed, cell.search and cell.search.model.demo_seed) for cell in cells]
    assert worlds == [(4, 4), (4, 5), (4, 4), (5, 4), (5, 5), (5, 5)]
    assert [cell.basic_prompt for cell in cells] == [False, False, True] * 2
    assert [row.against for row in made.rows] == [None, 0, 0, 4, None, 4]


def test_the_first_of_several_models_is_the_model() -> None:
    assert resolve(StudyConfig, {"models": "demo@2,mistral-7b"}, {}).model == "demo"
    assert resolve(StudyConfig, {"models": "mistral-7b demo"}, {}).model == "mistral-7b"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("a,b", ("a", "b")),
        (" a , b a", ("a", "b")),
        ("vllm/x@http://one/v1,http://two/v1,demo", ("vllm/x@http://one/v1,http://two/v1", "demo")),
    ],
)
def test_names_are_parted_but_not_the_servers_of_one_model(given: str, names: tuple[str, ...]) -> None:
    assert names_of(given) == names


def test_a_difference_leaves_out_what_one_side_lacks() -> None:
    ours = figures((3.0, 4.0), (2.0, None), (5.0, 1.0))
    theirs = figures((2.0, 4.0), (2.0, 5.0), (None, 2.0))
    assert difference(ours, theirs, 0.95, 0).mean == pytest.approx(((1 + 0) / 2 + (0 - 1) / 2) / 2)


def table(columns: tuple[str, ...], general: dict[str, Any] | None) -> dict[str, Any]:
    row = {
        "columns": list(columns),
        "repeats": 1,
        "failed": [] if general else ["it | broke\n*here*"],
        "general": general,
        "safety": None,
        "against": None,
        "difference": None,
        "kept_initial": 0,
        "prompts": [0],
        "searches": {"calls": 0, "usd": 0.0},
        "evaluations": {"calls": 0, "usd": 0.0},
    }
    return {
        "title": "A title",
        "simulated": False,
        "models": ["a|b"],
        "judges": ["<j>"],
        "data": "d",
        "repeats": 1,
        "level": 0.95,
        "sweep": False,
        "counts_prompts": False,
        "notes": [],
        "head": ["model"],
        "rows": [row],
        "cost": {"runs": 1, "calls": 2, "usd": None},
    }


EVIL = "a|b\n<script>*x*`$1_$\x1b[31m"


def test_texts_of_others_are_no_markdown_no_html_and_no_line() -> None:
    text = markdown(table((EVIL,), None))
    (row,) = [line for line in text.splitlines() if line.startswith("| a")]
    assert row.startswith(r"| a\|b \<script\>\*x\*\`$1\_$ \[31m | failed |")
    assert "\x1b" not in text and "\n- a\\|b" in text and r"it \| broke \*here\*" in text
    assert r"a\|b" in text and r"\<j\>" in text and "not every price is known" in text


def test_a_plot_shows_texts_of_others_as_they_are() -> None:
    mean = Estimate(3.0, None, 3)
    part = {
        "queries": 3,
        "overall": {"mean": mean.mean, "low": 2.5, "high": 3.5},
        "aspects": {"clarity": {"mean": 3.0}},
        "repeats": [3.0],
    }
    drawn = draw(table((EVIL,), part))
    assert "<script" not in drawn and "a|b &lt;script&gt;*x*`$1_$ [31m" in drawn
    assert "simulated" not in drawn and drawn == draw(table((EVIL,), part))
    assert ">failed</text>" in draw(table(("x",), None))


def test_a_row_without_anything_to_show_has_as_many_cells_as_the_others() -> None:
    lines = [line for line in markdown(table(("x",), None)).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


def test_control_characters_become_blanks() -> None:
    assert plain("a\u202eb\tc\n", mark=False) == "a b c"


def test_progress_counts_cells_and_the_calls_of_runs_that_have_ended() -> None:
    said: list[str] = []
    progress = StudyProgress(Path("runs/study"), 3, True, said.append, clock=lambda: 7.0)
    progress.cell_done()
    progress.cell_done(failed=True)
    progress.run_ended(Path("runs/study/a"), Spent(answered=4, usd=0.5))
    progress.run_ended(Path("runs/study/a"), Spent(answered=5, failed=1, usd=0.75))
    now = progress.snapshot()
    assert (now.levels, now.limit, now.dropped, now.calls, now.usd) == (2, 3, 1, 6, 0.75)
    assert now.simulated and now.run == str(Path("runs/study")) and said == []
