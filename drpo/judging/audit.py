"""Whether a judge can be trusted: its answers to the fixed questions, as shares and points with intervals.

A check is *flagged* where the evidence is beyond its limit: the nearer end of its 95 % interval, and not
the measured value alone. The audit accuses a judge, with two dozen checks on 4 to 88 cases each; by the
value alone a sound judge that errs once in fifty would be accused in most audits. The price is that a
judge which is not flagged is not proved sound. So a value beyond its limit without enough evidence is
"unsure", and said to be so. For shares of few cases Wilson's lower end is bold, and that is wanted: of 8
or 10 attacks, two that work are enough at a limit of 5 %. (A judge exactly at that limit is flagged by
such a check in at most 1 of 11 audits, one at 1 % in 1 of 200.)

Unreadable replies are the exception and judged by their share itself: what is missing is missing from the
other checks, however it came about. They are never counted as right or wrong. Nor is a pair whose verdict
changes with the order: it says nothing about the answers and is counted under the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drpo.judging.audit_checks import (
    Answer,
    Given,
    attack_checks,
    better_checks,
    itself_checks,
    order_checks,
    padding_checks,
    replies_check,
    worthless_checks,
)
from drpo.judging.audit_questions import AuditQuestion, PreferQuestion, ScoreQuestion, padded, questions
from drpo.judging.audit_result import Audit, Check, Status
from drpo.judging.cases import ATTACKS, WORTHLESS, Case
from drpo.judging.verdicts import Verdict

__all__ = [
    "Answer",
    "Audit",
    "AuditQuestion",
    "Check",
    "PreferQuestion",
    "ScoreQuestion",
    "Status",
    "audit",
    "padded",
    "questions",
]


def audit(cases: Sequence[Case], answers: Mapping[str, Answer]) -> Audit:
    """The checks on `answers`, which has one for the id of each of `questions(cases)`, and may have others.

    Equal input gives equal output. Raises ValueError for a question without an answer, or with one of the
    other mode: a question that was given up has `Failed`.
    """
    found = {question.id: _answer(question, answers) for question in questions(cases)}
    given = Given(tuple(cases), found)
    checks = (
        *order_checks(given),
        *itself_checks(given),
        *better_checks(given),
        *padding_checks(given),
        *(check for kind in WORTHLESS for check in worthless_checks(given, kind)),
        *(check for kind in ATTACKS for check in attack_checks(given, kind)),
        replies_check(found),
    )
    return Audit(len(cases), len(found), checks)


def _answer(question: AuditQuestion, answers: Mapping[str, Answer]) -> Answer:
    if question.id not in answers:
        raise ValueError(f"expected an answer to each question; {question.id} has none")
    found = answers[question.id]
    wrong = tuple if question.mode == "prefer" else Verdict
    if isinstance(found, wrong):
        raise ValueError(
            f"expected an answer to {question.id}; came {type(found).__name__}, of the other mode"
        )
    return found
