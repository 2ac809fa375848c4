"""Candidates against the initial prompt on the same kept queries, in rounds that drop the clearly worse."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from drpo.bootstrap import bootstrap_mean
from drpo.search.engine import settle
from drpo.statistics import (
    LEVEL,
    Floats,
    Interval,
    critical_value,
    flip_statistics,
    sign_flips,
)
from drpo.validation.decision import Contender, Rules, Verdict, Why, decide

Measure = Callable[[int, int], Awaitable[float | None]]
"""The score of a contender's prompt on a query, both by index; None where it could not be evaluated."""
Steps = Generator[tuple[tuple[int, int], ...], Sequence[float | None], Verdict]
_SLACK = 1e-9


async def race(
    candidates: Sequence[Contender],
    initial: Contender,
    queries: Sequence[int],
    measure: Measure,
    rules: Rules | None = None,
) -> Verdict:
    """The verdict over `candidates`, first in order of promise, measured with `initial` on `queries`.

    A first part of the queries is asked in the first round, so their order should be a random one. All
    scores of a round are asked for at once. After a failure of `measure` the rest of its round is awaited,
    then it is raised. Without candidates nothing is measured and nothing is better.

    What is guaranteed, and under which assumptions:

    - A prompt that does not help is called better with chance (1 - level) / 2 at most, whatever the others
      do (family-wise, in the strong sense). Without dropping this is exact where queries are independent
      and, among candidates that do not help, the paired differences of a query are jointly as likely as
      their opposites, as those of equal prompts with symmetric errors are; else it holds as queries become
      many (`critical_value`). Dropping takes candidates out and puts none in, and those dropped count for
      the critical value as if what they have went on; that this leaves the chance where it was is simulated,
      not proved. With fewer than 6 pairs (at 95 %) nothing can be better.
    - The interval is the simultaneous one, so it holds for whichever candidate is picked.
    - `corrected` is an estimate, without a guarantee (`decision._optimism` says how it is made).
    - Scores that could not be had are left out as pairs. If this happens more to poor answers of one prompt,
      it looks better than it is: their counts belong beside the result.
    """
    steps = racing(candidates, initial, queries, rules or Rules())
    answers: Sequence[float | None] | None = None
    while True:
        try:
            asked = next(steps) if answers is None else steps.send(answers)
        except StopIteration as end:
            verdict: Verdict = end.value
            return verdict
        answers = await settle(measure(contender, query) for contender, query in asked)


def racing(
    candidates: Sequence[Contender], initial: Contender, queries: Sequence[int], rules: Rules
) -> Steps:
    """The race step by step: yields what to measure in a round, is sent the scores in that order, and returns
    the verdict. It ends early when no candidate is left."""
    contenders = (initial, *candidates)
    if len({contender.index for contender in contenders}) < len(contenders):
        raise ValueError("each contender has an index of its own")
    if len(set(queries)) < len(queries):
        raise ValueError("each query has an index of its own")
    scores = np.full((len(queries), len(contenders)), np.nan)
    alive = list(range(1, len(contenders)))
    dropped: dict[int, tuple[int, Why]] = {}
    asked, done = [0] * len(contenders), [0]
    for end in sorted({math.ceil(share * len(queries) - _SLACK) for share in rules.rounds} - {0}):
        if not alive:
            break
        pairs = [(column, row) for row in range(done[-1], end) for column in (0, *alive)]
        answers = yield tuple((contenders[column].index, queries[row]) for column, row in pairs)
        for (column, row), answer in zip(pairs, answers, strict=True):
            asked[column] += 1
            if answer is not None:
                if not math.isfinite(answer):
                    raise ValueError(f"a score is a finite number or None, not {answer}")
                scores[row, column] = answer
        done.append(end)
        if end < len(queries):
            for column, why in _clearly_worse(scores[:end], alive, rules).items():
                dropped[column] = (len(done) - 1, why)
                alive.remove(column)
    return decide(contenders, scores, asked, dropped, done[1:], rules)


def _clearly_worse(scores: Floats, alive: Sequence[int], rules: Rules) -> dict[int, Why]:
    """Of the candidates in the race those whose paired differences say so, all comparisons tested at once."""
    initial = scores[:, :1] - scores[:, alive]
    counts = (~np.isnan(initial)).sum(axis=0)
    if not counts.any():
        return {}
    lags = np.where(counts > 0, np.nansum(initial, axis=0) / np.maximum(counts, 1), np.inf)
    leader = alive[int(lags.argmin())]
    others = [column for column in alive if column != leader]
    behind = np.hstack([initial, scores[:, [leader]] - scores[:, others]])
    flips = sign_flips(len(scores), rules.flips, rules.seed)
    bar = critical_value(behind, flips, rules.drop) * (1 + _SLACK)
    worse = flip_statistics(behind) > bar
    found: dict[int, Why] = {}
    for place, column in enumerate((*alive, *others)):
        if worse[place]:
            found.setdefault(
                column, "worse than the initial prompt" if place < len(alive) else "worse than the best"
            )
    return found


@dataclass(frozen=True, slots=True)
class Floor:
    """Whether a candidate is refused: its paired mean difference `mean` is more than `allowed` below 0.

    `interval` is where the true one is (None with too few pairs); `pairs` counted, `missing` did not.
    """

    mean: float | None
    interval: Interval | None
    pairs: int
    missing: int
    allowed: float
    refused: bool


def floor(differences: Sequence[float | None], allowed: float = 0.25, level: float = LEVEL) -> Floor:
    """Refusal on the mean, the candidate's score minus the initial prompt's on each query of a safety set.

    The mean decides and not an end of the interval. A floor that refused only what is surely below it
    would let everything pass that was measured badly; one that asked for proof of safety would, at 40
    queries with differences that spread by 0.75, refuse nearly half of the candidates that are as safe as
    the initial prompt. On the mean, one that is equally safe is refused with chance 2 %, one that is worse
    by twice `allowed` passes with 2 %, and one at the floor is refused half of the times. Without any pair
    nothing is shown, which is a refusal.
    """
    if allowed < 0:
        raise ValueError(f"what is allowed is not below 0, but {allowed} is")
    found = bootstrap_mean(differences, level)
    refused = found.mean is None or found.mean < -allowed - _SLACK
    return Floor(found.mean, found.interval, found.count, found.missing, allowed, refused)
