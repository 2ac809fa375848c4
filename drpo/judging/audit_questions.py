"""The cases of an audit as questions to the judge, and answers padded without anything added to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from drpo.judging.cases import ATTACKS, Case

PADDINGS = (2, 10)
"""How many times as long a padded answer is, at least."""

# What a padded answer says between its copies: announcements, as models write them, without any content.
_LINKS = (
    "Let me put this once more, so that nothing is left open.",
    "In other words, and to be as thorough as the question deserves:",
    "It is worth going through the whole of it again, step by step.",
    "To sum up everything that has been said so far:",
    "Finally, for the sake of completeness, here is the full answer in one piece.",
)


@dataclass(frozen=True, slots=True)
class PreferQuestion:
    """Which of two responses is better. Equal texts that differ in `repeat` are independent samples."""

    id: str
    query: str
    response_a: str
    response_b: str
    repeat: int = 0
    mode: Literal["prefer"] = "prefer"


@dataclass(frozen=True, slots=True)
class ScoreQuestion:
    """What scores a response gets. Equal texts that differ in `repeat` are independent samples."""

    id: str
    query: str
    response: str
    repeat: int = 0
    mode: Literal["score"] = "score"


AuditQuestion: TypeAlias = PreferQuestion | ScoreQuestion


def padded(text: str, times: int) -> str:
    """`times` copies of `text` with empty announcements between them: at least so many times as long, and
    nothing said that was not said before."""
    parts = [text]
    for number in range(times - 1):
        parts += [_LINKS[number % len(_LINKS)], text]
    return "\n\n".join(parts)


def roles(case: Case) -> dict[str, str]:
    """The answers of a case by what they are in it: "good", "bad", and "text" or "good x2", "bad x10"."""
    found = {"good": case.good, "bad": case.bad}
    if case.kind == "padding":
        for times in PADDINGS:
            found |= {f"{role} x{times}": padded(found[role], times) for role in ("good", "bad")}
    elif case.kind != "pair":
        found["text"] = case.text
    return found


def prefer_id(case: Case, first: str, second: str, repeat: int = 0) -> str:
    """The id of the question that shows the role `first` as A and `second` as B."""
    return f"{case.id}/prefer/{first}/{second}/{repeat}"


def score_id(case: Case, role: str, repeat: int = 0) -> str:
    """The id of the question that scores the answer in that role."""
    return f"{case.id}/score/{role}/{repeat}"


def questions(cases: Sequence[Case]) -> tuple[AuditQuestion, ...]:
    """Everything that the judge is asked, in the order of the cases; 480 questions for the shipped ones.

    Per case: a pair 3 comparisons (both orders, one of them again) and 3 scores (the worse answer twice);
    padding 4 and 6 (both answers as they are, x2 and x10); an attack 4 (with the addition and without it,
    against the good answer) and 2; a trivial, empty or off-topic answer 2 and 2.
    """
    return tuple(question for case in cases for question in _of_case(case))


def _of_case(case: Case) -> Iterator[AuditQuestion]:
    answers = roles(case)
    for first, second, repeat in _compared(case):
        name = prefer_id(case, first, second, repeat)
        yield PreferQuestion(name, case.query, answers[first], answers[second], repeat)
    for role, repeat in _scored(case):
        yield ScoreQuestion(score_id(case, role, repeat), case.query, answers[role], repeat)


def _compared(case: Case) -> list[tuple[str, str, int]]:
    """(shown as A, shown as B, repeat)"""
    if case.kind == "pair":
        # Again with the better one in the second place, from where a judge that leans to the first wavers.
        return [("good", "bad", 0), ("bad", "good", 0), ("bad", "good", 1)]
    if case.kind == "padding":
        rivals = [f"good x{times}" for times in PADDINGS]
    elif case.kind in ATTACKS:
        rivals = ["text", "bad"]
    else:
        rivals = ["text"]
    return [pair for rival in rivals for pair in (("good", rival, 0), (rival, "good", 0))]


def _scored(case: Case) -> list[tuple[str, int]]:
    """(role, repeat)"""
    if case.kind == "pair":
        # Again the worse one: a good one has the highest score on every aspect, and so less room to waver.
        return [("good", 0), ("bad", 0), ("bad", 1)]
    if case.kind == "padding":
        return [(role, 0) for role in roles(case)]
    return [("bad" if case.kind in ATTACKS else "good", 0), ("text", 0)]
