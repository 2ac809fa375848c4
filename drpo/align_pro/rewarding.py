"""The reward of answers, judged for the user's own query: a reward model's, or the dynamic one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from drpo.ask import Asker
from drpo.compose import Sampling
from drpo.errors import DrpoError
from drpo.live import Resources, key_in
from drpo.llm.base import LLM, Role
from drpo.llm.retry import Patience
from drpo.llm.reward_model import RewardModel
from drpo.plan import RunPlan, digest_of
from drpo.reward import DynamicAspects, EvaluatorReward, Reward
from drpo.search.engine import settle
from drpo.types import Evaluation, Failed, Query
from drpo.wiring import open_model, structured_for

REWARDS_AT_ONCE = 32
"""So many rewards of a model are computed and recorded in one go: what a stop in the middle of it costs."""

Pair = tuple[str, str]


class Rewarding(Protocol):
    """Rewards of (the user's query, an answer). Same pair, same reward: what is recorded is asked once."""

    @property
    def name(self) -> str: ...

    async def rewards(self, pairs: Sequence[Pair]) -> Sequence[float | Failed]:
        """One for each pair, same order; `Failed` where a judge's reply cannot be read."""
        ...

    def report(self) -> str | None:
        """What a user wants to know when all is rewarded, in words; None where there is nothing."""
        ...


async def open_rewarding(plan: RunPlan, resources: Resources, reward_model: str) -> Rewarding:
    """The reward model of this name, or, with "", the dynamic reward of the plan's selector and evaluator.
    Raises InputError, before anything is paid for, where there is no such reward model."""
    if not reward_model:
        models: dict[Role, LLM] = {
            role: await open_model(plan.models[role], resources) for role in ("selector", "evaluator")
        }
        return DynamicRewarding(dynamic_reward(plan, models), plan.models["evaluator"].identity)
    return await open_model_rewarding(reward_model, resources)


async def open_model_rewarding(reward_model: str, resources: Resources) -> ModelRewarding:
    """The reward model of this name. Raises InputError where there is none."""
    from drpo.llm.reward_model import KEY_VARIABLES, open_reward_model

    config = resources.config
    model = await open_reward_model(
        reward_model,
        connections=resources.connections,
        patience=Patience(resources.stop, random.Random(), deadline_s=config.deadline_s),
        api_key=key_in(KEY_VARIABLES, resources.environment),
        timeout_s=config.timeout_s,
        concurrency=config.concurrency,
    )
    return ModelRewarding(model, resources)


def dynamic_reward(plan: RunPlan, models: Mapping[Role, LLM]) -> Reward:
    """Aspects chosen per query by "selector", responses scored on them by "evaluator", both greedily."""
    greedy = Sampling(temperature=0.0, max_tokens=plan.config.max_tokens)

    def asker(role: Role) -> Asker:
        return Asker(models[role], plan.inputs.templates, plan.config.repairs, structured_for(plan, role))

    selector = DynamicAspects(asker("selector"), plan.models["selector"].identity, greedy)
    return EvaluatorReward(asker("evaluator"), plan.models["evaluator"].identity, greedy, selector)


@dataclass(frozen=True, slots=True)
class DynamicRewarding:
    """The mean score, 1 to 5, of an evaluator on the aspects of the query."""

    reward: Reward
    model: str

    @property
    def name(self) -> str:
        return f"dynamic reward of {self.model}"

    async def rewards(self, pairs: Sequence[Pair]) -> list[float | Failed]:
        """All at once; the endpoint's slots bound how many."""

        async def one(query: str, answer: str) -> float | Failed:
            found = await self.reward.evaluate(Query(query), answer, "")
            return found.reward if isinstance(found, Evaluation) else found

        return await settle(one(*pair) for pair in pairs)

    def report(self) -> str | None:
        return None


class ModelRewarding:
    """The raw output of a reward model, recorded as facts, `REWARDS_AT_ONCE` at a time however many ask."""

    def __init__(self, model: RewardModel, resources: Resources) -> None:
        self._model, self._resources = model, resources
        self._found: dict[Pair, float] = {}
        self._waiting: list[Pair] = []
        self._one_at_a_time = asyncio.Lock()

    @property
    def name(self) -> str:
        return self._model.name

    async def rewards(self, pairs: Sequence[Pair]) -> list[float]:
        """Whoever has its turn computes what came before it too, so that batches are full."""
        known = {*self._found, *self._waiting}
        self._waiting += [pair for pair in dict.fromkeys(pairs) if pair not in known]
        async with self._one_at_a_time:
            while not all(pair in self._found for pair in pairs):
                chunk = self._waiting[:REWARDS_AT_ONCE]
                self._found |= await self._computed(chunk)
                del self._waiting[: len(chunk)]
        return [self._found[pair] for pair in pairs]

    def report(self) -> str | None:
        cut = self._model.cut
        return f"{self.name}: {cut} answers are longer than it reads; their ends were cut" if cut else None

    async def _computed(self, pairs: Sequence[Pair]) -> dict[Pair, float]:
        stop, record = self._resources.stop, self._resources.record

        async def compute(wanted: list[int]) -> list[Any]:
            stop.check()
            record.sent["reward"] += len(wanted)
            try:
                return list(await self._model.rewards([pairs[place] for place in wanted]))
            except DrpoError as error:
                stop.set(error)  # for the others too: what failed for one is not asked again by each
                raise

        names = [f"reward of {digest_of([self.name, *pair])}" for pair in pairs]
        values = await record.facts(names, compute, offline=False)
        return dict(zip(pairs, map(float, values), strict=True))
