"""How judges and those they judge behave in a measurement, as it was measured: see `habits`."""

from __future__ import annotations

from dataclasses import dataclass

from drpo.choices import ModelChoice
from drpo.estimate.habits import CHAT_BASE, DEMO, Habits


@dataclass(frozen=True, slots=True)
class JudgeHabits:
    """about: where they are from, in a few words; about_verdicts: the same where responses are compared too.
    score: tokens of a reply per aspect; verdict: of a reply that compares two responses. unreadable: share of
    replies that cannot be read. equal: share of pairs whose responses are the same text. reading: how a
    prompt is counted."""

    about: str
    about_verdicts: str
    score: float
    verdict: float
    unreadable: float
    equal: float
    reading: Habits

    def repairs(self, turns: int) -> float:
        """How often a reply is asked for again on average, where it is at most so often."""
        return sum(self.unreadable**turn for turn in range(1, turns + 1))


REAL_JUDGE = JudgeHabits(
    about="two published runs, judged by GPT-4",
    about_verdicts="two published runs, judged by GPT-4; how long a verdict is, is a guess",
    score=70.0,
    verdict=90.0,
    unreadable=0.022,
    equal=0.0,
    reading=CHAT_BASE,
)
"""`score` and `unreadable` are those of published evaluations (see `habits`), which have the shape of a
judge's scores, a reason and a number per aspect. Of verdicts none was published: `verdict` is two or three
sentences, as `prefer.j2` asks for, and their JSON. Nor are pairs: two system prompts seldom lead to the very
same text, so none is taken for equal."""

DEMO_JUDGE = JudgeHabits(
    about="19 simulated measurements",
    about_verdicts="19 simulated measurements",
    score=46.0,
    verdict=76.0,
    unreadable=0.006,
    equal=0.04,
    reading=DEMO,
)
"""From `drpo evaluate` (9), `compare` (6) and `audit-judge` (4) with shipped data in the worlds 0 to 3, none,
urial and the results of two searches being measured: 26 of 4,384 replies could not be read, 28 of 720 pairs
were equal; 47 tokens a score on five aspects, 44 on one; 73 to 78 a verdict. `DEMO.response`, 177, is that of
searches; here it was 141 to 185."""


def judge_habits_of(judge: ModelChoice | None) -> JudgeHabits:
    """What to expect of a judge: simulated, or real."""
    return DEMO_JUDGE if judge is not None and judge.provider == "demo" else REAL_JUDGE
