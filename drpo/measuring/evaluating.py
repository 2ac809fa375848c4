"""`drpo evaluate`: the responses of one alignment, scored one by one, as just-eval does it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from drpo.align_pro.rewarding import Rewarding, open_model_rewarding
from drpo.config_judging import EvaluateConfig
from drpo.evaluation_data import Item
from drpo.judging.scores import Judged, item_mean
from drpo.measuring.answering import Answerer, fit_report, notices_of, open_side
from drpo.measuring.judge import Judge, open_judge
from drpo.measuring.plan import MeasuringPlan
from drpo.measuring.progress import Counting
from drpo.measuring.results import (
    Answered,
    Evaluation,
    Part,
    part_of,
    rewards_of,
    rewriting_facts,
    write_results,
)
from drpo.measuring.running import Opened, measure
from drpo.plan import run_path
from drpo.problems import Response
from drpo.rewriting.contract import Rewrite
from drpo.run import Hooks
from drpo.search.engine import settle
from drpo.types import Aspect, Failed
from drpo.wiring import open_model


async def run_evaluate(
    plan: MeasuringPlan, environment: Mapping[str, str], hooks: Hooks, counting: Counting | None = None
) -> Evaluation:
    """The evaluation of the plan, whose run directory then holds items.jsonl and summary.json.

    The same call again reads the record and sends nothing. counting: one that is shown meanwhile.
    """
    counting = counting or Counting(plan, run_path(plan), len(plan.items))
    return await measure(plan, environment, hooks, counting, partial(_evaluate, plan))


async def _evaluate(plan: MeasuringPlan, opened: Opened) -> Evaluation:
    resources = opened.resources
    config = plan.config
    assert isinstance(config, EvaluateConfig)
    for said in notices_of(plan):
        resources.notice(said)
    # What is wrong with a reward model is found now, and not when everything is paid for.
    rewarding = (
        None if config.reward_model is None else await open_model_rewarding(config.reward_model, resources)
    )
    llm = await open_model(plan.models["base"], resources)
    answerer = await open_side(plan, plan.sides[0], resources, llm)
    judge = await open_judge(plan, opened.resources) if config.judge is not None else None
    items = await settle(
        _one(index, item, answerer, judge, opened.counting) for index, item in enumerate(plan.items)
    )
    rewards = None
    if rewarding is not None:
        items = await _rewarded(rewarding, items)
        rewards = rewards_of(rewarding.name, items, config.level, config.random_seed)
    for report in (rewarding.report() if rewarding else None, fit_report(answerer)):
        if report is not None:
            resources.notice(report)
    evaluation = Evaluation(
        run_dir=opened.directory.path,
        facts=_facts(plan, answerer),
        items=tuple(items),
        parts=() if judge is None else await asyncio.to_thread(_parts, plan, config, items),
        rewards=rewards,
        na=config.na,
        simulated=plan.simulated,
        sent=dict(resources.record.sent),
    )
    write_results(evaluation.run_dir, (one.as_dict() for one in items), evaluation.as_dict())
    return evaluation


async def _one(
    index: int, item: Item, answerer: Answerer, judge: Judge | None, counting: Counting
) -> Answered:
    answered = await answerer.answer(index)
    judged = Judged(item.id, "failed", topics=item.topics, tasks=item.tasks)
    rewrite = answerer.rewrite(index)
    if isinstance(answered, Failed):
        counting.count()
        return Answered(item, judged, None, problem=answered.reason, rewrite=rewrite)
    judged = replace(judged, words=len(answered.text.split()))
    if judge is None:
        counting.count()
        return _answered(item, replace(judged, outcome="scored"), answered, rewrite)
    aspects = aspects_for(item, judge)
    scores = await judge.score(item.query, answered.text, aspects)
    if isinstance(scores, Failed):
        counting.count()
        return _answered(item, replace(judged, outcome="unreadable"), answered, rewrite, scores.reason)
    judged = replace(judged, outcome="scored", scores=scores)
    mean = item_mean(judged)
    counting.count(None if mean is None or item.safety else float(mean))
    return _answered(item, judged, answered, rewrite)


def _answered(
    item: Item, judged: Judged, answered: Response, rewrite: Rewrite | None, problem: str = ""
) -> Answered:
    return Answered(
        item, judged, answered.text, answered.finish_reason, answered.shots, problem, rewrite=rewrite
    )


def aspects_for(item: Item, judge: Judge) -> tuple[Aspect, ...]:
    """On what the response to an item is scored."""
    criteria = judge.templates.criteria
    return criteria.safety if item.safety else criteria.general


def _parts(plan: MeasuringPlan, config: EvaluateConfig, items: Sequence[Answered]) -> tuple[Part, ...]:
    criteria = plan.judge_templates.criteria
    found = []
    for name, safety, aspects in (("general", False, criteria.general), ("safety", True, criteria.safety)):
        judged = [one.judged for one in items if one.item.safety is safety]
        if judged:
            names = [aspect.name for aspect in aspects]
            found.append(part_of(name, judged, names, config.na, config.level, config.random_seed))
    return tuple(found)


async def _rewarded(rewarding: Rewarding, items: Sequence[Answered]) -> list[Answered]:
    """The items with the reward of each response; as they are where there is no response."""
    pairs = [(one.item.query, one.response) for one in items if one.response is not None]
    rewards = iter(await rewarding.rewards(pairs))
    found = [None if one.response is None else next(rewards) for one in items]
    return [
        one if value is None or isinstance(value, Failed) else replace(one, reward=value)
        for one, value in zip(items, found, strict=True)
    ]


def _facts(plan: MeasuringPlan, answerer: Answerer) -> dict[str, Any]:
    """What was measured with what."""
    subject, config = plan.sides[0].subject, plan.config
    assert isinstance(config, EvaluateConfig)
    return {
        "alignment": subject.name,
        "subject": subject.digest,
        "shots": subject.shots,
        "prompt_form": answerer.form,
        "models": plan.identity["models"],
        "data": plan.source,
        "digests": plan.identity["digests"],
        "settings": plan.identity["settings"],
        **rewriting_facts(config.rewriter, answerer.rewrites),
    }
