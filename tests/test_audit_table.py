"""What an audit asks, and how what it found is told."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.commands.audit_table import WIDTH, audit_lines
from drpo.judging.audit import Audit, PreferQuestion, padded
from drpo.judging.audit_result import read_audit, share_check
from drpo.judging.questions import JudgeTemplates
from tests.support.planted_judges import FAIR, QUESTIONS, judged, judging, mute, obedient, only, thrown


def test_the_shipped_cases_come_to_480_questions_with_ids_of_their_own() -> None:
    assert len(QUESTIONS) == 480
    assert len({question.id for question in QUESTIONS}) == 480
    texts = Counter(
        (q.query, q.response_a, q.response_b, q.repeat)
        if isinstance(q, PreferQuestion)
        else (q.query, q.response, q.repeat)
        for q in QUESTIONS
    )
    assert set(texts.values()) == {1}


def test_every_pair_is_asked_in_both_orders_and_pairs_once_more() -> None:
    pairs = [q for q in QUESTIONS if isinstance(q, PreferQuestion)]
    asked = {(q.query, q.response_a, q.response_b) for q in pairs}
    assert {(query, second, first) for query, first, second in asked} == asked
    again = [q for q in QUESTIONS if q.repeat]
    assert Counter(q.mode for q in again) == {"prefer": 26, "score": 26}
    assert {replace(q, id="", repeat=0) for q in again} <= {replace(q, id="") for q in QUESTIONS}


def test_every_question_can_be_put_to_a_judge() -> None:
    templates = JudgeTemplates()
    for question in QUESTIONS:
        if isinstance(question, PreferQuestion):
            told = templates.prefer(question.query, question.response_a, question.response_b)
            assert question.response_a in told
        else:
            told = templates.score(question.query, question.response, templates.criteria.general)
            assert question.response in told


@given(st.text(min_size=1), st.integers(1, 12))
def test_a_padded_answer_is_longer_and_says_nothing_new(text: str, times: int) -> None:
    longer = padded(text, times)
    assert longer.startswith(text)
    assert longer.endswith(text)
    assert len(longer) >= times * len(text)
    assert longer.count(text) >= times or len(text) < 3
    assert padded(text, 1) == text


@pytest.fixture(scope="module")
def bad() -> Audit:
    return judged(mute(judging(obedient), 0.02))


def printed(found: Audit) -> str:
    return "\n".join(audit_lines(found))


def test_the_table_fits_a_terminal_and_says_in_a_word_what_is_flagged(bad: Audit) -> None:
    for found in (bad, judged(FAIR), judged(thrown), judged(mute(FAIR, 1.0)), judged(only("A", 3))):
        lines = printed(found).splitlines()
        assert max(map(len, lines)) <= WIDTH
        assert "" not in "".join(lines)
        rows = dict(zip((check.name for check in found.checks), lines[1:], strict=False))
        for check in found.checks:
            assert rows[check.name].startswith(check.name)
            assert rows[check.name].endswith("FLAGGED") == (check.status == "flagged")
            assert rows[check.name].endswith("FLAGGED" if check.status == "flagged" else check.status)


def test_what_is_behind_a_flag_is_told_with_its_cases(bad: Audit) -> None:
    told = " ".join(printed(bad).split())
    for check in bad.flagged:
        assert f"{check.name}: {check.meaning}" in told
        assert check.cases[0] in told
    assert bad.sentence in told
    assert "begging, preferred" in bad.sentence


def test_json_holds_every_figure(bad: Audit) -> None:
    found = json.loads(json.dumps(bad.as_dict()))
    assert found == bad.as_dict()
    assert read_audit(found) == bad
    assert found["flagged"] == [check.name for check in bad.flagged]
    assert len(found["checks"]) == len(bad.checks)
    assert {check["status"] for check in found["checks"]} >= {"ok", "flagged"}


def test_a_judge_that_passes_is_said_to_pass() -> None:
    found = replace(judged(FAIR, 1), checks=tuple(check for check in judged(FAIR).checks if check.wrong == 0))
    assert found.flagged == ()
    assert found.sentence == "no check is surely beyond its limit"


def test_a_share_just_beyond_its_limit_does_not_look_like_the_limit() -> None:
    check = share_check("n", "m", 0.05, [(str(n), n < 25) for n in range(480)], by_value=True)
    assert "5.2 %" in printed(Audit(1, 480, (check,)))
