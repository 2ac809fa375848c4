"""An audit flags each kind of bad judge by the check of its own kind, and a fair one by none."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drpo.judging.audit import Answer, Audit, AuditQuestion, Check, PreferQuestion, audit, questions
from drpo.judging.audit_result import FEWEST, points_check, share_check
from drpo.judging.cases import ATTACKS, KINDS
from drpo.judging.verdicts import Preferred, Unreadable, Verdict
from drpo.statistics import wilson
from drpo.types import Failed
from tests.support.planted_judges import (
    CASES,
    FAIR,
    QUESTIONS,
    Judge,
    coin,
    fair,
    judged,
    judging,
    length_loving,
    moody,
    mute,
    obedient,
    only,
    scored,
    thrown,
)

FAIR_SEEDS, PLANTED_SEEDS = 12, 2


def names(found: Audit) -> set[str]:
    return {check.name for check in found.flagged}


def named(found: Audit, name: str) -> Check:
    return next(check for check in found.checks if check.name == name)


def answered(
    kind: str, prefer: Mapping[tuple[str, str], Preferred], score: Mapping[str, Answer], cases: int = 1
) -> Audit:
    """An audit of the first cases of a kind, answered by role: (shown as A, shown as B), or the one rated."""
    chosen = [case for case in CASES if case.kind == kind][:cases]
    told: dict[str, Answer] = {}
    for question in questions(chosen):
        _, mode, *roles, _ = question.id.split("/")
        if mode == "prefer":
            told[question.id] = Verdict(prefer.get((roles[0], roles[1]), "tie"))
        else:
            told[question.id] = score.get(roles[0], scored(3))
    return audit(chosen, told)


@pytest.mark.parametrize(
    "judge",
    [FAIR, judging(fair, blind=2), judging(fair, blind=-1), judging(moody)],
    ids=["fair", "fair with many ties", "fair without ties", "fair with noise of whole replies"],
)
def test_a_fair_but_noisy_judge_is_flagged_by_no_check(judge: Judge) -> None:
    flagged = Counter(name for seed in range(FAIR_SEEDS) for name in names(judged(judge, seed)))
    assert flagged == Counter()


@pytest.mark.parametrize(
    ("judge", "kinds"),
    [
        (judging(fair, first_gains=4), {"order, verdict changes", "order, first place gains"}),
        (judging(fair, first_gains=0.75), {"order, first place gains"}),
        (judging(fair, first_gains=-4), {"order, verdict changes", "order, first place gains"}),
        (only("A", 3), {"order, verdict changes", "order, first place gains"}),
        (judging(length_loving), {"padding x10, preferred", "padding x10, scores"}),
        (
            judging(obedient),
            {f"{kind}, {what}" for kind in ATTACKS for what in ("preferred", "scores", "raised 1.5+")},
        ),
        (coin, {"order, verdict changes", "plain, scored as high"}),
        (thrown, {"again, other verdict", "again, other scores", "order, verdict changes"}),
        (only("tie", 3), {"plain, worse preferred", "plain, scored as high"}),
        (only("tie", None), {"no usable reply"}),
        (mute(FAIR, 1.0), {"no usable reply"}),
    ],
    ids=[
        "order-biased",
        "leaning to the first",
        "order-biased to the second",
        "always A",
        "length-loving",
        "obedient",
        "coin",
        "dice",
        "always a tie",
        "always N/A",
        "silent",
    ],
)
def test_a_bad_judge_is_flagged_by_the_checks_of_its_own_kind(judge: Judge, kinds: set[str]) -> None:
    for seed in range(PLANTED_SEEDS):
        assert kinds - names(judged(judge, seed)) == set()


@pytest.mark.parametrize(
    ("judge", "clean"),
    [
        (judging(fair, first_gains=0.75), ("padding", "plain", "again", "begging", "forging", "closing")),
        (only("A", 3), ("again", "padding", "begging", "forging", "closing", "no usable")),
        (judging(length_loving), ("again, other scores", "no usable")),
        (judging(obedient), ("order", "again", "plain", "padding", "trivial", "empty", "off-topic")),
        (coin, ("again", "no usable")),
    ],
    ids=["leaning to the first", "always A", "length-loving", "obedient", "coin"],
)
def test_a_bad_judge_is_not_flagged_for_what_it_does_not_do(judge: Judge, clean: tuple[str, ...]) -> None:
    for seed in range(PLANTED_SEEDS):
        assert [name for name in names(judged(judge, seed)) if name.startswith(clean)] == []


def test_unreadable_replies_have_a_limit_of_their_own_and_are_neither_right_nor_wrong() -> None:
    for seed in range(PLANTED_SEEDS):
        found = judged(mute(FAIR, 0.1), seed)
        assert names(found) == {"no usable reply"}
        replies = found.checks[-1]
        assert replies.asked == replies.counted == len(QUESTIONS)
        assert sum(check.counted < check.asked for check in found.checks) > 10
    assert judged(mute(FAIR, 0.03)).checks[-1].status == "ok"
    dice = random.Random(0)
    answers = {question.id: FAIR(question, dice) for question in QUESTIONS}
    lost: dict[str, Answer] = {question.id: Failed("no reply") for question in QUESTIONS[:25]}
    # 25 of 480 are 5.2 %: more than the limit, though not all of the interval is.
    assert audit(CASES, answers | lost).checks[-1].status == "flagged"
    del lost[QUESTIONS[0].id]
    assert audit(CASES, answers | lost).checks[-1].status == "ok"
    silent = judged(mute(FAIR, 1.0))
    assert {check.status for check in silent.checks[:-1]} == {"no data"}
    assert all(check.wrong == check.counted == 0 for check in silent.checks[:-1])


def test_a_judge_that_obeys_marks_is_caught_in_whichever_place_the_mark_names() -> None:
    def marked(question: AuditQuestion, dice: random.Random) -> Answer:
        if isinstance(question, PreferQuestion):
            marks = [
                mark for mark in ("A", "B") if f"[[{mark}]]" in question.response_a + question.response_b
            ]
            if len(marks) == 1:
                return Verdict("A" if marks == ["A"] else "B")
        return FAIR(question, dice)

    found = named(judged(marked), "forging, preferred")
    assert (found.cases, found.status) == (("forging-1", "forging-2"), "flagged")


def test_an_attack_counts_where_the_same_answer_fares_worse_without_it() -> None:
    lost: dict[tuple[str, str], Preferred] = {("bad", "good"): "B", ("good", "bad"): "A"}
    held: dict[tuple[str, str], Preferred] = {("text", "good"): "B", ("good", "text"): "A"}
    for told, wrong in (
        (lost | held, 0),
        (lost | held | {("text", "good"): "tie"}, 1),
        (lost | held | {("good", "text"): "tie"}, 1),
        # A judge that prefers the first place does so without the attack as well.
        (lost | held | {("bad", "good"): "A", ("text", "good"): "A"}, 0),
        # It speaks against the attack if the answer fares worse with it.
        (held | {("bad", "good"): "tie", ("good", "bad"): "tie"}, 0),
    ):
        check = named(answered("closing", told, {}), "closing, preferred")
        assert (check.counted, check.wrong) == (1, wrong)


def test_a_pair_that_flips_with_the_order_is_counted_under_the_order_alone() -> None:
    found = answered("pair", {("good", "bad"): "A", ("bad", "good"): "A"}, {})
    assert (named(found, "order, verdict changes").wrong, named(found, "order, first place gains").wrong) == (
        1,
        1,
    )
    plain = named(found, "plain, worse preferred")
    assert (plain.asked, plain.counted, plain.status) == (1, 0, "no data")
    for verdict in (("B", "A"), ("tie", "tie")):
        told: dict[tuple[str, str], Preferred] = {("good", "bad"): verdict[0], ("bad", "good"): verdict[1]}
        found = answered("pair", told, {})
        assert named(found, "order, verdict changes").wrong == 0
        assert named(found, "plain, worse preferred").wrong == 1


def test_points_compare_only_aspects_that_both_replies_have_scored() -> None:
    score = {"bad": scored(1, None, 2), "text": scored(3, 5, None)}
    raised = named(answered("begging", {}, score), "begging, scores")
    assert (raised.value, raised.interval, raised.status) == (2.0, None, "unsure")
    none = named(
        answered("begging", {}, {"bad": scored(None, 2), "text": scored(5, None)}), "begging, scores"
    )
    assert (none.value, none.counted, none.status) == (None, 0, "no data")


def test_padding_scores_are_of_the_good_and_of_the_bad_answer() -> None:
    score: dict[str, Answer] = {
        "good": scored(4),
        "good x2": scored(5),
        "bad": scored(1),
        "bad x2": scored(3),
    }
    check = named(answered("padding", {}, score, cases=4), "padding x2, scores")
    assert (check.counted, check.value, check.wrong) == (8, 1.5, 8)
    assert check.status == "flagged"


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.05, 0.1, 1 / 3]))
@example(1, 0, 0.05)
@example(3, 0, 0.05)
@example(4, 0, 0.05)
def test_a_share_is_flagged_exactly_where_its_whole_interval_is_beyond_the_limit(
    wrong: int, right: int, limit: float
) -> None:
    found = [(str(number), number < wrong) for number in range(wrong + right)]
    check = share_check("n", "m", limit, found)
    if not found:
        assert check.status == "no data"
        return
    value, low = wrong / (wrong + right), wilson(wrong, wrong + right).low
    enough = wrong + right >= FEWEST
    assert check.status == ("flagged" if low > limit and enough else "unsure" if value > limit else "ok")
    assert share_check("n", "m", limit, found, by_value=True).status == ("flagged" if value > limit else "ok")


def test_a_share_may_be_beyond_a_lower_limit_too() -> None:
    found = [(str(number), number < 0) for number in range(12)]
    assert share_check("n", "m", 0.75, found, lower_limit=0.25).status == "flagged"
    assert share_check("n", "m", 0.75, found[:4], lower_limit=0.25).status == "unsure"
    assert share_check("n", "m", 0.75, found).status == "ok"


def test_points_of_too_few_cases_are_never_flagged() -> None:
    assert points_check("n", "m", 0.5, [(str(n), 4.0) for n in range(5)]).status == "unsure"
    assert points_check("n", "m", 0.5, [(str(n), 4.0) for n in range(6)]).status == "flagged"


FEW = tuple(case for kind in KINDS for case in [case for case in CASES if case.kind == kind][:2])
FEW_QUESTIONS = questions(FEW)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_a_lost_reply_never_adds_a_mistake(seed: int, share: float) -> None:
    dice = random.Random(seed)
    answers = {question.id: thrown(question, dice) for question in FEW_QUESTIONS}
    fewer = {
        name: Unreadable("prose") if dice.random() < share else answer for name, answer in answers.items()
    }
    for before, after in zip(audit(FEW, answers).checks[:-1], audit(FEW, fewer).checks[:-1], strict=True):
        assert after.asked == before.asked
        assert after.wrong <= before.wrong
        assert after.wrong <= after.counted <= before.counted <= before.asked
        assert set(after.cases) <= set(before.cases)
        if after.unit == "share":
            assert after.value == (after.wrong / after.counted if after.counted else None)


def test_equal_answers_give_an_equal_audit() -> None:
    assert judged(thrown, 7) == judged(thrown, 7)


def test_a_question_without_an_answer_or_with_one_of_the_other_mode_is_refused() -> None:
    dice = random.Random(0)
    answers = {question.id: FAIR(question, dice) for question in FEW_QUESTIONS}
    compared, rated = (
        next(question.id for question in FEW_QUESTIONS if question.mode == mode)
        for mode in ("prefer", "score")
    )
    for wrong in (
        {name: answer for name, answer in answers.items() if name != rated},
        answers | {rated: Verdict("A")},
        answers | {compared: scored(5)},
    ):
        with pytest.raises(ValueError, match=r"/(prefer|score)/"):
            audit(FEW, wrong)
    assert audit(FEW, answers | {"stranger": Verdict("A")}) == audit(FEW, answers)
