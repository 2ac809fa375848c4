"""The parts of a word diff are both texts, whatever these are, and are made to be read."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.text_diff import Part, word_diff

WORDS = st.sampled_from(
    ["be", "kind", "and", "clear", "a", "the", "it's", ".", ",", "-", "\n", " ", "  ", "é", "e\u0301"]
)
PROSE = st.lists(WORDS, max_size=40).map("".join)
LETTERS = st.text(alphabet="ab \n", max_size=30)
ANYTHING = st.text(max_size=60)
TEXTS = st.one_of(PROSE, LETTERS, ANYTHING)


def marked(before: str, after: str) -> str:
    """The diff as `git diff --word-diff` would write it."""
    marks = {"same": "{}", "removed": "[-{}-]", "added": "{{+{}+}}"}
    return "".join(marks[part.change].format(part.text) for part in word_diff(before, after))


@given(TEXTS, TEXTS)
def test_the_parts_are_both_texts(before: str, after: str) -> None:
    parts = word_diff(before, after)
    assert "".join(part.text for part in parts if part.change != "added") == before
    assert "".join(part.text for part in parts if part.change != "removed") == after


@given(TEXTS, TEXTS)
def test_no_part_is_empty_and_what_was_removed_stands_before_what_was_added(before: str, after: str) -> None:
    parts = word_diff(before, after)
    assert all(part.text for part in parts)
    followed = {(one.change, other.change) for one, other in pairwise(parts)}
    assert followed <= {
        ("same", "removed"),
        ("same", "added"),
        ("removed", "added"),
        ("removed", "same"),
        ("added", "same"),
    }


@given(TEXTS)
def test_equal_texts_are_one_part(text: str) -> None:
    assert word_diff(text, text) == ((Part("same", text),) if text else ())


@given(PROSE, st.integers(0, 40), st.sampled_from(["zebra", "Zoe's", "42"]))
def test_one_new_word_is_all_that_was_added(text: str, at: int, word: str) -> None:
    pieces = text.split(" ")
    after = " ".join([*pieces[:at], word, *pieces[at:]])
    parts = word_diff(text, after)
    added = [part.text for part in parts if part.change == "added"]
    assert len(added) == 1 and added[0].split() == [word]
    assert not [part for part in parts if part.change == "removed"]


@given(st.lists(st.sampled_from(["one", "two", "three", "four", "five"]), max_size=20), st.data())
def test_words_are_never_cut(words: list[str], data: st.DataObject) -> None:
    others = data.draw(st.lists(st.sampled_from(["one", "two", "three", "six"]), max_size=20))
    for blank in (" ", "\n"):
        parts = word_diff(blank.join(words), blank.join(others))
        for part in parts:
            assert set(part.text.split()) <= {*words, *others}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("Be kind.", "Be clear.", "Be [-kind-]{+clear+}."),
        ("- one\n- two", "- one\n- two\n- three", "- one\n- two{+\n- three+}"),
        (
            "Be short and clear, always",
            "Be long and bold, always",
            "Be [-short and clear-]{+long and bold+}, always",
        ),
        ("one and two", "one or two", "one [-and-]{+or+} two"),
        ("It works.", "It works.\n\nTry it.", "It works.{+\n\nTry it.+}"),
        ("It works. So do I.", "So do I.", "[-It works. -]So do I."),
        ("don't", "do", "[-don't-]{+do+}"),
        ("  begins", "begins", "[-  -]begins"),
        ("", "all new", "{+all new+}"),
        ("all gone", "", "[-all gone-]"),
        ("我喜欢猫", "我喜欢狗", "我喜欢[-猫-]{+狗+}"),
        ("e\u0301te\u0301 ici", "hiver ici", "[-e\u0301te\u0301-]{+hiver+} ici"),
        ("a b", "a\tb", "a[- -]{+\t+}b"),
    ],
)
def test_changes_are_told_by_the_phrase(before: str, after: str, told: str) -> None:
    assert marked(before, after) == told


def test_long_texts_are_compared_line_by_line() -> None:
    lines = [f"line {number} says something of its own" for number in range(4_000)]
    after = [*lines[:2_000], "a new line", *lines[2_001:]]
    parts = word_diff("\n".join(lines), "\n".join(after))
    assert [part.text for part in parts if part.change != "same"] == [
        "line 2000 says something of its own",
        "a new line",
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a b " * 2_000, "b b a " * 2_000),
        ("a " * 9_000, "b " * 9_000),
        ("x" * 200_000, "y" * 200_000),
        ("a\n" * 50_000, "b\n" * 50_000),
        (" ".join(map(str, range(5_000))), " ".join(map(str, reversed(range(5_000))))),
    ],
)
def test_no_text_of_a_model_keeps_it_busy(before: str, after: str) -> None:
    began = time.process_time()
    word_diff(before, after)
    assert time.process_time() - began < 2  # a tenth of it here; a comparison of all with all takes minutes
