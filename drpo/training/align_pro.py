"""`drpo align-pro train`: the frozen model and its reward, opened around the training of the prompter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drpo.config_training import AlignProTrainConfig
from drpo.data import ExampleSet, shipped_seeds
from drpo.evaluation_data import read_items
from drpo.live import Resources
from drpo.llm.ledger import Ledger, Limits
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.plan import Inputs, RunPlan, digest_of
from drpo.rewriting.templates import RewriteTemplates
from drpo.tariffs import refuse_unpriced, tariffs_of
from drpo.training.base import Base, RewriteFormat, format_of, open_base, refuse_unreadable_chat
from drpo.training.library import training_library
from drpo.training.loop import LoopThread
from drpo.training.place import Place, Trained, generation_settings
from drpo.training.policy import refuse_uneven, train_policy
from drpo.training.rewarding import FrozenReward, RewardPlan, open_reward, reward_plan
from drpo.training.trainers import Notice, end_ids_of, rank_of_process, trained_settings

_LEFT_S = 10.0  # how long calls in the air are awaited and recorded when a training ends early


def train_align_pro(config: AlignProTrainConfig, environment: Mapping[str, str], notice: Notice) -> Trained:
    """Train the prompter before the frozen model and write it to `config.out`; the same call again resumes
    from the last checkpoint, and what was answered and rewarded is not asked again.

    Raises InputError for what cannot be used, RunConflict for a folder of another training, BudgetSpent
    where a limit ends it (each of several processes has its part of it).
    """
    training_library()
    rank, processes = rank_of_process()
    refuse_uneven(config, processes)
    plan = reward_plan(config, environment)
    queries = _queries(config)
    base = open_base(config.prompter, "--prompter")
    format = format_of(base, config.format, RewriteTemplates(config.prompts))
    refuse_unreadable_chat(base, format, "--prompter")
    run = _run_plan(config, plan, base, format, queries)
    refuse_unpriced(run, environment)
    place = Place(config.out, run.identity, rank)
    try:
        if (facts := place.finished) is not None:
            return Trained(config.out, facts, before=True)
        return _train(config, environment, run, plan, base, format, queries, place, processes, notice)
    finally:
        place.close()


def _train(
    config: AlignProTrainConfig,
    environment: Mapping[str, str],
    run: RunPlan,
    plan: RewardPlan,
    base: Base,
    format: RewriteFormat,
    queries: Sequence[str],
    place: Place,
    processes: int,
    notice: Notice,
) -> Trained:
    notice(f"{len(queries)} queries, {base.identity} before {plan.models['base'].identity}")
    with LoopThread() as loop:
        resources = loop.run(_open(config, environment, run, place, processes, notice))
        try:
            reward: FrozenReward = loop.run(open_reward(plan, config, resources))
            wrote, figures = train_policy(
                config, base, format, queries, lambda pairs: loop.run(reward.rewards(pairs)), place, notice
            )
        finally:
            loop.run(_close(resources))
    drawing: dict[str, Any] = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
    }
    facts = {
        "kind": "align-pro",
        "format": format.name,
        "template": format.template,
        "base": base.identity,
        "frozen": plan.identity,
        "settings": trained_settings(config),
        "data": {"digest": digest_of(list(queries)), "queries": len(queries)},
        "simulated": run.simulated,
        "figures": figures,
    }
    if wrote:
        place.finish(generation_settings(base.folder, end_ids_of(base, base.folder), drawing), facts)
    return Trained(config.out, facts)


def _queries(config: AlignProTrainConfig) -> tuple[str, ...]:
    found = read_items(config.queries or shipped_seeds(), column=config.queries_column)
    return tuple(dict.fromkeys(item.query for item in found.items))[: config.limit]


def _run_plan(
    config: AlignProTrainConfig, plan: RewardPlan, base: Base, format: RewriteFormat, queries: Sequence[str]
) -> RunPlan:
    identity = {
        "command": "align-pro train",
        "base": base.identity,
        "frozen": plan.identity,
        "settings": trained_settings(config),
        "digests": {
            "queries": digest_of(list(queries)),
            f"rewrite/{format.name}.j2": format.template,
            **{f"prompts/{name}": value for name, value in plan.templates.digests().items()},
        },
    }
    inputs = Inputs((), ExampleSet((), "", ""), plan.templates)
    embedder = plan.subject.embedder if plan.subject.shots else ""
    return RunPlan(config, plan.models, inputs, embedder, identity)


async def _open(
    config: AlignProTrainConfig,
    environment: Mapping[str, str],
    run: RunPlan,
    place: Place,
    processes: int,
    notice: Notice,
) -> Resources:
    stop = Stop()
    calls = place.record("calls.jsonl")
    limits = Limits(
        None if config.max_calls is None else max(1, config.max_calls // processes),
        None if config.max_usd is None else config.max_usd / processes,
    )
    ledger = Ledger(
        place.record("ledger.jsonl"), tariffs_of(run, environment), limits, stop, calls=calls, notice=notice
    )
    return Resources(
        Record(calls), stop, environment, config, folder=place.training, notice=notice, ledger=ledger
    )


async def _close(resources: Resources) -> None:
    await resources.record.drain(_LEFT_S)
    await resources.close()
