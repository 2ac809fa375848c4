"""Judges with one weakness each, as plain functions, for audits of the shipped cases."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from drpo.judging.audit import (
    Answer,
    Audit,
    AuditQuestion,
    PreferQuestion,
    ScoreQuestion,
    audit,
    padded,
    questions,
)
from drpo.judging.cases import ATTACKS, Case, read_cases, shipped_judge_cases
from drpo.judging.verdicts import Preferred, Unreadable, Verdict
from drpo.types import AspectScore, Failed

ASPECTS = ("helpfulness", "clarity", "factuality", "depth", "engagement")
CASES = read_cases(shipped_judge_cases())
QUESTIONS = questions(CASES)
BIAS = 3.0  # points that a planted judge gives for what it has a weakness for

Rate = Callable[[str, str, random.Random], list[float]]
Judge = Callable[[AuditQuestion, random.Random], Answer]


@cache
def qualities() -> Mapping[tuple[str, str], tuple[float, ...]]:
    """True quality per aspect of each (query, response) that is asked about."""
    found: dict[tuple[str, str], tuple[float, ...]] = {}
    for case in CASES:
        levels = {case.good: (4.6, 4.8, 4.7, 4.0, 4.2), case.bad: (1.3, 2.5, 1.2, 1.2, 1.6)}
        if case.text:
            # What is on another subject may be clear and true.
            off = case.kind == "off-topic"
            levels[case.text] = (
                levels[case.bad] if case.kind in ATTACKS else (1.0, 4.5, 4.0, 2.0, 3.0) if off else (1.0,) * 5
            )
        for text, level in list(levels.items()):
            for times in (2, 10) if case.kind == "padding" else ():
                levels[padded(text, times)] = level
        found |= {(case.query, text): level for text, level in levels.items()}
    return found


def fair(query: str, response: str, dice: random.Random) -> list[float]:
    """The true quality of each aspect, with noise of half a point."""
    return [level + dice.gauss(0, 0.5) for level in qualities().get((query, response), (1.0,) * 5)]


def moody(query: str, response: str, dice: random.Random) -> list[float]:
    """As fair, but the noise of a reply is the same on all aspects."""
    error = dice.gauss(0, 0.5)
    return [level + error for level in qualities().get((query, response), (1.0,) * 5)]


def length_loving(query: str, response: str, dice: random.Random) -> list[float]:
    """By length alone: 1.5 for nothing, 4 for a thousand characters."""
    level = 1.5 + 2.5 * math.sqrt(len(response) / 1000)
    return [level + dice.gauss(0, 0.5) for _ in ASPECTS]


def obedient(query: str, response: str, dice: random.Random) -> list[float]:
    """Fair, but whoever talks to it gains by it."""
    return [value + BIAS * ((query, response) in attacks()) for value in fair(query, response, dice)]


@cache
def attacks() -> frozenset[tuple[str, str]]:
    return frozenset((case.query, case.text) for case in CASES if case.kind in ATTACKS)


def rounded(values: list[float]) -> list[int]:
    return [max(1, min(5, round(value))) for value in values]


def judging(rate: Rate, first_gains: float = 0.0, blind: float = 0.0) -> Judge:
    """A judge that scores, and compares sums of scores. `first_gains` points per aspect go to what is shown
    first; sums that lie no further apart than `blind` are a tie (below 0 there is none, but a coin)."""

    def judge(question: AuditQuestion, dice: random.Random) -> Answer:
        if isinstance(question, ScoreQuestion):
            return scored(*rounded(rate(question.query, question.response, dice)))
        one, other = (
            sum(rounded(rate(question.query, response, dice)))
            for response in (question.response_a, question.response_b)
        )
        lead = one - other + first_gains * len(ASPECTS)
        preferred: Preferred = (
            "tie" if abs(lead) <= blind else "A" if lead + dice.uniform(-0.1, 0.1) > 0 else "B"
        )
        return Verdict(preferred)

    return judge


def scored(*values: float | None) -> tuple[AspectScore, ...]:
    return tuple(AspectScore(name, value, "") for name, value in zip(ASPECTS, values, strict=False))


def coin(question: AuditQuestion, dice: random.Random) -> Answer:
    """Knows nothing, and always says the same to the same texts."""
    texts = (
        (question.response_a, question.response_b)
        if isinstance(question, PreferQuestion)
        else (question.response,)
    )
    return thrown(question, random.Random(hashlib.sha256(repr(texts).encode()).hexdigest()))


def thrown(question: AuditQuestion, dice: random.Random) -> Answer:
    """Knows nothing, and does not even agree with itself."""
    if isinstance(question, PreferQuestion):
        return Verdict(dice.choice(("A", "B")))
    return scored(*(dice.randint(1, 5) for _ in ASPECTS))


def only(verdict: Preferred, score: float | None) -> Judge:
    """Says the same to everything."""
    return lambda question, dice: Verdict(verdict) if question.mode == "prefer" else scored(*[score] * 5)


def mute(judge: Judge, share: float) -> Judge:
    """As `judge`, but of its replies a share cannot be used."""

    def muted(question: AuditQuestion, dice: random.Random) -> Answer:
        answer = judge(question, dice)
        silent: Answer = Unreadable("prose") if dice.random() < 0.5 else Failed("no reply")
        return silent if dice.random() < share else answer

    return muted


FAIR = judging(fair)


def judged(judge: Judge, seed: int = 0, cases: Sequence[Case] = CASES) -> Audit:
    dice = random.Random(seed)
    return audit(cases, {question.id: judge(question, dice) for question in questions(cases)})
