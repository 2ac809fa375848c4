"""Rules of how clearly a simulated world is asked: wishes, defects, and what is left of a query."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from drpo.llm.world import wishes
from drpo.llm.world.clarity import Clarity, defects_in, mended, read_clarity
from drpo.llm.world.queries import read_query

ROOT = Path(__file__).parent.parent
Row = dict[str, str]


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


ROWS, HELDOUT = rows(ROOT / "seeds" / "rewriting.jsonl"), rows(ROOT / "seeds" / "rewriting_heldout.jsonl")
OTHERS = [
    row["query"]
    for path in sorted([*(ROOT / "seeds").glob("*.jsonl"), *(ROOT / "icl_examples").glob("*.jsonl")])
    if not path.name.startswith("rewriting")
    for row in rows(path)
]


def test_no_query_of_other_files_has_a_sign_so_that_each_is_read_to_the_letter() -> None:
    assert len(OTHERS) > 450
    assert [read_clarity(query) for query in OTHERS] == [Clarity(query[:4000]) for query in OTHERS]


@pytest.mark.parametrize("file", [ROWS, HELDOUT], ids=["seeds", "heldout"])
def test_the_shipped_queries_have_the_defect_that_their_row_names(file: list[Row]) -> None:
    for row in file:
        reading = read_query(row["query"])
        kinds = {kind for kind, _ in reading.clarity.defects}
        assert kinds == {row["defect"]} - {"none", "unsafe"}, row
        assert reading.harmful == (row["defect"] == "unsafe"), row
        assert len(reading.clarity.wishes) in ((2, 3) if row["defect"] == "none" else (0,)), row


def test_the_shipped_queries_are_distinct_and_no_file_shares_one_with_another() -> None:
    queries = [row["query"].lower() for row in (*ROWS, *HELDOUT)]
    assert len(queries) == len(set(queries)) == 220
    assert set(queries).isdisjoint(query.lower() for query in OTHERS)
    assert min(Counter(row["defect"] for row in ROWS).values()) >= 15
    assert {row["topic"] for row in ROWS} == {row["topic"] for row in HELDOUT}


def test_a_mended_query_has_no_defect_and_is_mended_already() -> None:
    for query in [row["query"] for row in (*ROWS, *HELDOUT)]:
        assert defects_in(mended(query)) == (), query
        assert mended(mended(query)) == mended(query)
        core = read_clarity(query).core
        assert read_clarity(core) == Clarity(core)


@pytest.mark.parametrize("wish", wishes.ALL, ids=lambda wish: wish.name)
def test_every_wording_of_a_wish_is_understood_as_this_wish_alone(wish: wishes.Wish) -> None:
    for wording in wish.wordings:
        reading = read_clarity(f"What makes bread rise? {wording}")
        assert reading.wishes == (wish.name,), wording
        if wish not in wishes.TURNS:
            assert reading.core == "What makes bread rise?"


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Could you guide me step by step?", "steps"),
        ("And show me one really small example of it!", "example"),
        ("I would like it if you start with the plain answer.", "answer first"),
        ("Please use plain words for it", "plain words"),
    ],
)
def test_a_wish_is_recognized_in_words_of_ones_own(said: str, name: str) -> None:
    assert name in read_clarity(f"How do I prune a fig tree?\n{said}").wishes


def test_a_wish_that_is_turned_around_pulls_the_other_way() -> None:
    asked = dict(read_clarity("What is yeast? Give one concrete example.").shifts)
    forbidden = dict(read_clarity("What is yeast? Never give one concrete example.").shifts)
    assert [sum(shifts.values()) > 0 for shifts in (asked, forbidden)] == [True, False]


def test_material_after_a_blank_line_comes_through_a_mend_untouched() -> None:
    material = "idk u said, it is gonna rain and stuff??"
    assert (
        mended(f"plz translate this into French\n\n{material}")
        == f"Translate this into French:\n\n{material}"
    )


def test_a_variable_or_a_file_name_is_no_word_typed_in_haste() -> None:
    assert defects_in("Solve u = 3t + 2 for t, with u* the start, and read u.csv or /u/ first.") == ()
