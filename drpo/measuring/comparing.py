"""`drpo compare`: which of two alignments a judge prefers, every pair in both orders."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from drpo.bootstrap import bootstrap_mean
from drpo.config_judging import CompareConfig
from drpo.evaluation_data import Item
from drpo.judging.preference import (
    WORTH,
    LengthControlled,
    PairOutcome,
    Tally,
    length_controlled_interval,
    length_controlled_win_rate,
    pair_outcome,
    tally,
)
from drpo.judging.verdicts import Unreadable, Verdict
from drpo.measured import SCHEMA
from drpo.measuring.answering import Answerer, fit_report, notices_of, open_side
from drpo.measuring.judge import Judge, open_judge
from drpo.measuring.plan import MeasuringPlan
from drpo.measuring.progress import Counting
from drpo.measuring.results import (
    MOST_MISSING,
    estimate_dict,
    rewrite_fields,
    rewriting_facts,
    write_results,
)
from drpo.measuring.running import Opened, measure
from drpo.plan import run_path
from drpo.problems import Response
from drpo.rewriting.contract import Rewrite
from drpo.run import Hooks
from drpo.search.engine import settle
from drpo.statistics import Estimate, Interval, sign_test
from drpo.types import Failed
from drpo.wiring import open_model


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one query, and which is preferred. outcome: of the first side; `Unreadable` where an
    order has no verdict, None where a response is missing. verdicts: first in order, then swapped.

    Equal responses are a tie, and nobody is asked. rewrite: what the first side's model read in place of the
    query; the judge sees the query.
    """

    item: Item
    responses: tuple[Response | Failed, Response | Failed]
    outcome: PairOutcome | Unreadable | None
    verdicts: tuple[Verdict | Failed, ...] = ()
    rewrite: Rewrite | None = None

    @property
    def problem(self) -> str:
        """Why there is no outcome."""
        failed = [one.reason for one in (*self.responses, *self.verdicts) if isinstance(one, Failed)]
        return failed[0] if failed else ""

    def as_dict(self) -> dict[str, Any]:
        """A line of items.jsonl."""
        read = self.outcome if isinstance(self.outcome, PairOutcome) else None
        return {
            "id": self.item.id,
            "instruction": self.item.query,
            "topic": list(self.item.topics),
            "task": list(self.item.tasks),
            "responses": [one.text if isinstance(one, Response) else None for one in self.responses],
            "shots": [list(one.shots) if isinstance(one, Response) else [] for one in self.responses],
            "outcome": None if read is None else read.outcome,
            "flipped": read is not None and read.flipped,
            "verdicts": [
                {"preferred": one.preferred, "reason": one.reason} if isinstance(one, Verdict) else None
                for one in self.verdicts
            ],
            "problem": self.problem or None,
            **rewrite_fields(self.rewrite),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of `drpo compare`, from the first side's view.

    win_rate: wins and half of the ties, 0 to 1, bootstrapped over the pairs. p: of the sign test over wins
    and losses. length: the win rate at equal length, with its bootstrap interval. words: per side.
    """

    run_dir: Path
    facts: dict[str, Any]
    pairs: tuple[Pair, ...]
    counts: Tally
    win_rate: Estimate
    p: float
    length: LengthControlled | None
    length_interval: Interval | None
    words: tuple[float | None, float | None]
    simulated: bool
    sent: dict[str, int]

    @property
    def missing(self) -> int:
        """Pairs without an outcome."""
        return sum(not isinstance(pair.outcome, PairOutcome) for pair in self.pairs)

    @property
    def is_believable(self) -> bool:
        """Whether at most `MOST_MISSING` of the pairs have no outcome."""
        return self.missing <= MOST_MISSING * len(self.pairs)

    def as_dict(self) -> dict[str, Any]:
        """The content of summary.json."""
        counts, length = self.counts, self.length
        return {
            "schema": SCHEMA,
            "command": "compare",
            "simulated": self.simulated,
            **self.facts,
            "pairs": len(self.pairs),
            "missing": self.missing,
            "wins": counts.wins,
            "ties": counts.ties,
            "losses": counts.losses,
            "flips": counts.flips,
            "flips_first": counts.flips_first,
            "flips_second": counts.flips_second,
            "win_rate": estimate_dict(self.win_rate),
            "sign_test_p": self.p,
            "length_controlled": None
            if length is None
            else {
                "win_rate": length.win_rate,
                "low": None if self.length_interval is None else self.length_interval.low,
                "high": None if self.length_interval is None else self.length_interval.high,
                "length_effect": length.length_effect,
                "extrapolated": length.extrapolated,
            },
            "mean_words": list(self.words),
        }


async def run_compare(
    plan: MeasuringPlan, environment: Mapping[str, str], hooks: Hooks, counting: Counting | None = None
) -> Comparison:
    """The comparison of the plan; files and resuming as `run_evaluate`."""
    counting = counting or Counting(plan, run_path(plan), len(plan.items))
    return await measure(plan, environment, hooks, counting, partial(_compare, plan))


async def _compare(plan: MeasuringPlan, opened: Opened) -> Comparison:
    resources = opened.resources
    config = plan.config
    assert isinstance(config, CompareConfig)
    for said in notices_of(plan):
        resources.notice(said)
    llms = {side.role: await open_model(plan.models[side.role], resources) for side in plan.sides}
    sides = [await open_side(plan, side, resources, llms[side.role]) for side in plan.sides]
    judge = await open_judge(plan, opened.resources)
    pairs = await settle(
        _pair(index, item, sides, judge, opened.counting) for index, item in enumerate(plan.items)
    )
    for report in filter(None, map(fit_report, sides)):
        resources.notice(report)
    found = await asyncio.to_thread(_comparison, plan, opened, config, tuple(pairs), sides)
    write_results(found.run_dir, (pair.as_dict() for pair in pairs), found.as_dict())
    return found


async def _pair(index: int, item: Item, sides: Sequence[Answerer], judge: Judge, counting: Counting) -> Pair:
    one, other = await settle(side.answer(index) for side in sides)
    responses, rewrite = (one, other), sides[0].rewrite(index)
    if isinstance(one, Failed) or isinstance(other, Failed):
        counting.count()
        return Pair(item, responses, None, rewrite=rewrite)
    if one.text == other.text:
        counting.count()
        return Pair(item, responses, PairOutcome("tie"), rewrite=rewrite)
    first, second = await settle(
        [judge.prefer(item.query, one.text, other.text), judge.prefer(item.query, other.text, one.text)]
    )
    counting.count()
    return Pair(item, responses, pair_outcome(first, second), (first, second), rewrite)


def _comparison(
    plan: MeasuringPlan,
    opened: Opened,
    config: CompareConfig,
    pairs: tuple[Pair, ...],
    sides: Sequence[Answerer],
) -> Comparison:
    outcomes = [pair.outcome for pair in pairs if pair.outcome is not None]
    counts = tally(outcomes)
    read = [pair.outcome if isinstance(pair.outcome, PairOutcome) else None for pair in pairs]
    worth = [None if one is None else float(WORTH[one.outcome]) for one in read]
    length, interval = _length_controlled(pairs, config)
    return Comparison(
        run_dir=opened.directory.path,
        facts={
            "alignment": plan.sides[0].subject.name,
            "against": plan.sides[1].subject.name,
            "subjects": [side.subject.digest for side in plan.sides],
            "shots": [side.subject.shots for side in plan.sides],
            "prompt_forms": [side.form for side in sides],
            "models": plan.identity["models"],
            "data": plan.source,
            "digests": plan.identity["digests"],
            "settings": plan.identity["settings"],
            **rewriting_facts(config.rewriter, sides[0].rewrites),
        },
        pairs=pairs,
        counts=counts,
        win_rate=bootstrap_mean(worth, config.level, seed=config.random_seed),
        p=sign_test(counts.wins, counts.losses),
        length=length,
        length_interval=interval,
        words=(_mean_words(pairs, 0), _mean_words(pairs, 1)),
        simulated=plan.simulated,
        sent=dict(opened.resources.record.sent),
    )


def _length_controlled(
    pairs: Sequence[Pair], config: CompareConfig
) -> tuple[LengthControlled | None, Interval | None]:
    """The win rate at equal length, and its bootstrap interval over the pairs."""
    rows = [
        (pair.outcome.outcome, len(pair.responses[0].text), len(pair.responses[1].text))
        for pair in pairs
        if isinstance(pair.outcome, PairOutcome)
        and isinstance(pair.responses[0], Response)
        and isinstance(pair.responses[1], Response)
    ]
    if not rows:
        return None, None

    outcomes = [outcome for outcome, _, _ in rows]
    lengths = ([one for _, one, _ in rows], [other for _, _, other in rows])
    interval = length_controlled_interval(outcomes, *lengths, level=config.level, seed=config.random_seed)
    return length_controlled_win_rate(outcomes, *lengths), interval


def _mean_words(pairs: Sequence[Pair], side: int) -> float | None:
    texts = [one.text for pair in pairs if isinstance(one := pair.responses[side], Response)]
    return sum(len(text.split()) for text in texts) / len(texts) if texts else None
