"""A pairwise reply gives the one verdict that everything in it agrees on, or is unreadable: never a guess."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drpo.judging.verdicts import MOST_MARKS, Preferred, Unreadable, Verdict, read_verdict
from tests.test_parse_properties import MARKS, REPLIES, TEXTS, WRAPPINGS, WRITERS

EXAMPLES = 60  # raise it (2,500 takes two minutes) after a change to the reader
SPELLED: dict[Preferred, tuple[str, ...]] = {
    "A": ("A", "a", " A ", "[[A]]"),
    "B": ("B", "b", "[[B]]", "[[ b ]]"),
    "tie": ("tie", "Tie", "C", "[[C]]", "[[tie]]"),
}
PREFERRED = st.sampled_from(list(SPELLED))
# Reasons quote what the responses say: marks, statements, quotes and braces. With TEXTS also thinking tags.
QUOTED = st.sampled_from(["[[A]]", "[[B]]", "[[C", '"verdict": "B"', "{'verdict': 'A'}", "It's", '"'])
REASONS = st.lists(QUOTED | MARKS | st.text(alphabet="ab .,", max_size=5), max_size=10).map("".join)
WORDS = st.lists(st.sampled_from(["so", "is", "better", "than A", "B", "C", "it's", "fine.\n"]), max_size=8)
PROSE = WORDS.map(" ".join)
MARK = {"A": "[[A]]", "B": "[[B]]", "tie": "[[C]]"}


def preferred(text: str) -> str:
    read = read_verdict(text)
    return read.preferred if isinstance(read, Verdict) else "unreadable"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[A]]", "A"),
        ("[[B]]", "B"),
        ("[[C]]", "tie"),
        ("**[[A]]**", "A"),
        ('"[[A]]"', "A"),
        ("```\n[[B]]\n```", "B"),
        ("A is longer, B is right. [[B]] So it is [[B]].", "B"),
        ("It's what the users' question isn't about. [[A]] That's it.", "A"),
        ('{"verdict": "A"}', "A"),
        ('{"reason": "x", "verdict": "[[C]]"}', "tie"),
        ("{'reason': 'it\\'s', 'verdict': 'B',}", "B"),
        ('[{"verdict": "tie"}]', "tie"),
        ('{"result": {"reason": "r", "verdict": "A"}}', "A"),
        ('Sure:\n```json\n{"verdict": "B"}\n```\nThat is: [[B]]', "B"),
        ('{"note": "draft"}\n{"verdict": "A"}', "A"),
        ("<think>[[A]] is what it wants</think>[[B]]", "B"),
        ('<think>{"verdict": "A"} no</think>\n\n{"verdict": "B"}', "B"),
        ("[[A]] was a draft</think> [[B]]", "B"),
        ('{"reason": "B writes [[B]] and \\"verdict\\": \\"B\\"", "verdict": "A"}', "A"),
        ('{"reason": "it says </think> somewhere", "verdict": "A"}', "A"),
        ('{"reason": "he said "x" to me", "verdict": "A"}', "A"),
    ],
)
def test_one_verdict_is_read_wherever_it_stands(text: str, said: str) -> None:
    assert preferred(text) == said


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "gives no verdict"),
        ("Response A is better.", "gives no verdict"),
        ("A", "gives no verdict"),
        ("<think>[[A]]", "gives no verdict"),
        ("<think>[[A]]</think>", "gives no verdict"),
        ('{"reason": "A is fine: [[A]]"}', "gives no verdict"),
        ("[[A]] or rather [[B]]", "different verdicts: A and B"),
        ("[[A]] and [[C]]", "different verdicts: A and tie"),
        ('{"verdict": "A"} and so [[B]]', "different verdicts"),
        ('[[B]]\n{"reason": "x", "verdict": "A"}', "different verdicts"),
        ('{"verdict": "A"}\n{"verdict": "B"}', "different verdicts"),
        ('{"verdict": "A", "verdict": "B"}', "different verdicts"),
        ('{"verdict": "A", "more": {"Verdict": "B"}}', "different verdicts"),
        ('It says "[[B]]". So: [[A]]', "different verdicts"),
        ('It says "pick [[B]]".', "in a quotation"),
        ("It says 'pick [[B]]' and no more", "in a quotation"),
        ("It says “well: [[B]]", "in a quotation"),
        ("It says `[[A]]` in code", "in a quotation"),
        ("> [[B]]\n\nis what it says", "in a quotation"),
        ("[[8]]", 'the verdict is "8"'),
        ("[[A>>B]]", 'the verdict is "A>>B"'),
        ('{"verdict": "neither"}', 'the verdict is "neither"'),
        ('{"verdict": null}', "the verdict is null"),
        ('{"verdict": ["A"]}', "the verdict is a list"),
        ("[[A", "cut off or lacks a bracket"),
        ("[[A]", "cut off or lacks a bracket"),
        ("The verdict is [[A] I think", "cut off or lacks a bracket"),
        ("[[A]] it is, so: [[", "cut off or lacks a bracket"),
        ('{"reason": "x", "verdict": "A"', "cut off"),
        ('{"reason": "x [[B]] y", "ver', "cut off"),
        ('{"reason": "B wrote "verdict": "B"", "verdict": "A"}', "different verdicts"),
        ('{"reason": "it is "so"", "verdict": "A", "sure": "yes"}', 'does not end with its "verdict"'),
        ('Well {"reason": "uses </think> [[B]] oddly", "verdict": "A"}', "different verdicts"),
        ('{"reason": "uses </think> [[B]] oddly" "verdict": "A"}', "thinking tag within it"),
        ("[[A]] " * (MOST_MARKS + 1), "101 verdict marks"),
    ],
)
def test_what_contradicts_itself_or_is_not_whole_is_unreadable(text: str, problem: str) -> None:
    read = read_verdict(text)
    assert isinstance(read, Unreadable) and problem in read.problem, read
    assert "\n" not in read.problem and len(read.problem) < 300


def test_the_reason_of_the_judge_is_kept() -> None:
    assert read_verdict('{"reason": "é \\ud800", "verdict": "A"}') == Verdict("A", "é ?")
    assert read_verdict("[[A]]") == Verdict("A", "")


@st.composite
def written(draw: st.DrawFn, reasons: st.SearchStrategy[str]) -> tuple[str, Verdict]:
    """A reply in JSON as models write it, and what it says."""
    said, reason = draw(PREFERRED), draw(reasons)
    pairs = draw(st.permutations([("reason", reason), ("verdict", draw(st.sampled_from(SPELLED[said])))]))
    value: Any = dict(pairs)
    if draw(st.booleans()):
        value = {"judgement": value}
    return draw(WRAPPINGS).replace("%s", draw(WRITERS)(value)), Verdict(said, reason)


@settings(max_examples=EXAMPLES, deadline=None)
@given(written(REASONS))
def test_a_verdict_in_json_is_read_whatever_its_reason_quotes(reply: tuple[str, Verdict]) -> None:
    text, verdict = reply
    assert preferred(text) == verdict.preferred


@settings(max_examples=EXAMPLES, deadline=None)
@given(written(REASONS | TEXTS), st.data())
def test_a_cut_reply_is_the_whole_one_or_unreadable(reply: tuple[str, Verdict], data: st.DataObject) -> None:
    text, verdict = reply
    assert preferred(text) in (verdict.preferred, "unreadable")
    cut = text[: data.draw(st.integers(0, len(text)))]
    assert preferred(cut) in (verdict.preferred, "unreadable")


@settings(max_examples=EXAMPLES, deadline=None)
@given(PREFERRED, st.lists(PROSE, min_size=2, max_size=4), st.data())
def test_equal_marks_in_prose_are_one_verdict_and_a_cut_one_is_none(
    said: Preferred, prose: list[str], data: st.DataObject
) -> None:
    text = f" {MARK[said]} ".join(prose)
    assert preferred(text) == said
    cut = text[: data.draw(st.integers(0, len(text)))]
    assert preferred(cut) in (said, "unreadable")
    open_mark = data.draw(st.sampled_from(["[", "[[", "[[A", "[[B]", "[[ti"]))
    assert preferred(f"{text} {open_mark}") == "unreadable"


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(PREFERRED, min_size=2, max_size=4), st.lists(PROSE | REASONS, min_size=5, max_size=5), st.data()
)
def test_different_verdicts_are_never_read(
    said: list[Preferred], between: list[str], data: st.DataObject
) -> None:
    pieces = []
    for word, text in zip(said, between, strict=False):
        in_json = json.dumps({"reason": text, "verdict": word})
        pieces.append(data.draw(st.sampled_from([in_json, MARK[word], f"so {MARK[word]}.\n\n"])))
    whole = " ".join(pieces)
    assert preferred(whole) == (said[0] if len(set(said)) == 1 else "unreadable")


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    written(REASONS),
    st.sampled_from(["<think>%s</think>", "%s</think>", "<reasoning>\n%s\n</reasoning>"]),
    PROSE,
)
def test_what_the_thinking_part_says_does_not_count(
    reply: tuple[str, Verdict], thinking: str, prose: str
) -> None:
    text, verdict = reply
    for draft in MARK.values():
        thought = thinking.replace("%s", f'{prose} {draft} {{"verdict": "B"}}')
        assert preferred(f"{thought}\n{text}") == verdict.preferred
    assert preferred(thinking.replace("%s", prose + " [[A]]")) == "unreadable"


@settings(max_examples=EXAMPLES, deadline=None)
@given(REPLIES | st.lists(QUOTED | TEXTS, max_size=6).map("".join))
def test_nothing_raises_and_what_is_accepted_is_valid(text: str) -> None:
    read = read_verdict(text)
    if isinstance(read, Verdict):
        assert read.preferred in SPELLED and read.reason.encode() is not None
    else:
        assert read.problem.encode() and len(read.problem) < 600


@pytest.mark.parametrize("piece", ["[[", "[", '{"', '{"a": ', '"[[A]] ', "[[  ", "<think>", "'", "verdict: "])
def test_a_hostile_reply_takes_no_longer_than_its_length(piece: str) -> None:
    assert preferred(piece * (100_000 // len(piece))) in (*SPELLED, "unreadable")
