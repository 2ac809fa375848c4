"""`drpo evaluate`: the responses of one alignment, scored one by one, as just-eval does it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from drpo.config_judging import EvaluateConfig
from drpo.evaluation_data import Item
from drpo.judging.scores import Judged, item_mean
from drpo.live import Resources, key_in
from drpo.llm.retry import Patience
from drpo.llm.reward_model import RewardModel
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
from drpo.plan import digest_of, run_path
from drpo.problems import Response
from drpo.rewriting.contract import Rewrite
from drpo.run import Hooks
from drpo.search.engine import settle
from drpo.types import Aspect, Failed
from drpo.wiring import open_model

REWARDS_AT_ONCE = 32
"""So many rewards are computed and recorded in one go: what a stop in the middle of it costs."""


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
    reward_model = (
        None if config.reward_model is None else await _reward_model(config.reward_model, resources)
    )
    llm = await open_model(plan.models["base"], resources)
    answerer = await open_side(plan, plan.sides[0], resources, llm)
    judge = await open_judge(plan, opened.resources) if config.judge is not None else None
    items = await settle(
        _one(index, item, answerer, judge, opened.counting) for index, item in enumerate(plan.items)
    )
    rewards, sent = None, Counter(resources.record.sent)
    if reward_model is not None:
        values = await _rewards(reward_model, items, resources, sent)
        items = [replace(one, reward=value) for one, value in zip(items, values, strict=True)]
        rewards = rewards_of(reward_model.name, items, config.level, config.random_seed)
    if (report := fit_report(answerer)) is not None:
        resources.notice(report)
    evaluation = Evaluation(
        run_dir=opened.directory.path,
        facts=_facts(plan, answerer),
        items=tuple(items),
        parts=() if judge is None else await asyncio.to_thread(_parts, plan, config, items),
        rewards=rewards,
        na=config.na,
        simulated=plan.simulated,
        sent=dict(sent),
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


async def _reward_model(wanted: str, resources: Resources) -> RewardModel:
    from drpo.llm.reward_model import KEY_VARIABLES, open_reward_model

    config = resources.config
    return await open_reward_model(
        wanted,
        connections=resources.connections,
        patience=Patience(resources.stop, random.Random(), deadline_s=config.deadline_s),
        api_key=key_in(KEY_VARIABLES, resources.environment),
        timeout_s=config.timeout_s,
        concurrency=config.concurrency,
    )


async def _rewards(
    model: RewardModel, items: Sequence[Answered], resources: Resources, sent: Counter[str]
) -> list[float | None]:
    """The reward of each response, None where there is no response; `sent` counts those not recorded."""
    pairs = {n: (one.item.query, one.response) for n, one in enumerate(items) if one.response is not None}
    found: dict[int, float] = {}
    numbers = list(pairs)
    for first in range(0, len(numbers), REWARDS_AT_ONCE):
        chunk = numbers[first : first + REWARDS_AT_ONCE]

        async def compute(wanted: list[int], chunk: Sequence[int] = chunk) -> list[Any]:
            resources.stop.check()
            sent["reward"] += len(wanted)
            return list(await model.rewards([pairs[chunk[position]] for position in wanted]))

        names = [f"reward of {digest_of([model.name, *pairs[n]])}" for n in chunk]
        values = await resources.record.facts(names, compute, offline=False)
        found.update(zip(chunk, map(float, values), strict=True))
    if model.cut:
        resources.notice(f"{model.name}: {model.cut} responses are longer than it reads; their ends were cut")
    return [found.get(n) for n in range(len(items))]


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
