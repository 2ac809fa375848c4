"""R(x, x') of Align-Pro: what the frozen model answers to a rewrite, rewarded for the user's own query."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from drpo.ask import Asker, derived_seed
from drpo.choices import ModelChoice, named_model
from drpo.compose import Composer, Sampling
from drpo.config_asking import AnswererConfig
from drpo.config_training import AlignProTrainConfig
from drpo.data import ExampleSet
from drpo.errors import InputError
from drpo.live import Resources, key_in
from drpo.llm.base import LLM, Role
from drpo.llm.retry import Patience
from drpo.llm.reward_model import KEY_VARIABLES, RewardModel, check_reward_model, open_reward_model
from drpo.measuring.answering import wanted_form
from drpo.measuring.subject import Subject, read_subject
from drpo.plan import digest_of
from drpo.respond import ContextFit, choose_form, fit_context
from drpo.reward import DynamicAspects, EvaluatorReward
from drpo.search.engine import settle
from drpo.templates import Templates
from drpo.types import Evaluation, Failed, Query, left_to_right_sum
from drpo.wiring import open_model, shots_of

DYNAMIC = "dynamic/"
Pair = tuple[str, str]
"""The user's query and what the frozen model reads in its place."""


@dataclass(frozen=True, slots=True)
class RewardPlan:
    """Who answers and who rewards, before anybody is asked. reward_model: "" for the dynamic reward, whose
    models are the evaluator and the selector."""

    models: dict[Role, ModelChoice]
    subject: Subject
    reward_model: str
    templates: Templates

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the rewards beside the settings."""
        names = {role: choice.identity for role, choice in self.models.items()}
        return {"models": names, "reward_model": self.reward_model, "alignment": self.subject.digest}


def reward_plan(config: AlignProTrainConfig, environment: Mapping[str, str]) -> RewardPlan:
    """The plan of the settings. Raises InputError for what cannot be used."""
    if config.answers > 1 and config.answer_temperature == 0:
        raise InputError(
            f"--answers {config.answers}: greedy answers are all the same; give --answer-temperature 1"
        )
    models: dict[Role, ModelChoice] = {"base": named_model("base", config.model, config, environment)}
    reward_model = ""
    if config.reward.startswith(DYNAMIC):
        judge = config.reward.removeprefix(DYNAMIC)
        models["evaluator"] = named_model("evaluator", judge, config, environment)
        models["selector"] = named_model("selector", judge, config, environment)
    else:
        check_reward_model(config.reward)
        reward_model = config.reward
    asking = AnswererConfig(runs_dir=config.runs_dir, prompts=config.prompts)
    subject = read_subject(config.alignment, "--alignment", asking)
    return RewardPlan(models, subject, reward_model, Templates(config.prompts))


@dataclass(frozen=True, slots=True)
class FrozenReward:
    """The frozen model and who rewards its answers. Each answer and each reward is recorded: asked once."""

    config: AlignProTrainConfig
    plan: RewardPlan
    resources: Resources
    llm: LLM
    composer: Composer
    fit: ContextFit | None
    judge: EvaluatorReward | None
    model: RewardModel | None

    async def rewards(self, pairs: Sequence[Pair]) -> list[float | None]:
        """R of each pair: the mean over its answers that could be rewarded; None where none could."""
        distinct = list(dict.fromkeys(pairs))
        found = await settle(self._answers(text) for _, text in distinct)
        asked = [(query, answer) for (query, _), some in zip(distinct, found, strict=True) for answer in some]
        values = dict(zip(asked, await self._values(asked), strict=True))
        means: dict[Pair, float | None] = {}
        for pair, some in zip(distinct, found, strict=True):
            known = [v for v in (values[pair[0], answer] for answer in some) if v is not None]
            means[pair] = left_to_right_sum(known) / len(known) if known else None
        return [means[pair] for pair in pairs]

    async def _answers(self, text: str) -> list[str]:
        subject, resources = self.plan.subject, self.resources
        indices: tuple[int, ...] = tuple(range(subject.shots))
        if subject.shots and subject.embedder:
            examples = ExampleSet(subject.examples, subject.name, subject.digest)
            (indices,) = await shots_of(examples, subject.embedder, resources, subject.shots, [Query(text)])
        shots = [subject.examples[index] for index in indices]
        if self.fit is not None:
            fits = await self.fit.shots_that_fit(subject.system_prompt, shots, text)
            if isinstance(fits, Failed):
                return []
            shots = shots[:fits]
        sampling = Sampling(self.config.answer_temperature, None, self.config.base_max_tokens)
        identity = self.plan.models["base"].identity
        request = self.composer.request(identity, sampling, subject.system_prompt, shots, text)
        requests = [request]
        if self.config.answer_temperature > 0:
            places = (f"answer {number} to {text}" for number in range(self.config.answers))
            requests = [replace(request, seed=derived_seed(self.config.random_seed, p)) for p in places]
        choices = [one.choices[0] for one in await settle(self.llm.complete(r) for r in requests)]
        return [self.composer.answer(c.text) for c in choices if c.finish_reason != "context_length"]

    async def _values(self, asked: Sequence[Pair]) -> list[float | None]:
        """Of each (query, answer)."""
        if self.judge is not None:
            judge = self.judge

            async def judged(query: str, answer: str) -> float | None:
                found = await judge.evaluate(Query(query), answer, "")
                return found.reward if isinstance(found, Evaluation) else None

            return await settle(judged(*pair) for pair in asked)
        assert self.model is not None
        model = self.model
        distinct = list(dict.fromkeys(asked))
        names = [f"reward {digest_of([self.plan.reward_model, *pair])}" for pair in distinct]

        async def compute(positions: list[int]) -> list[float]:
            return list(await model.rewards([distinct[position] for position in positions]))

        values = await self.resources.record.facts(names, compute, offline=False)
        known = dict(zip(distinct, values, strict=True))
        return [float(known[pair]) for pair in asked]


async def open_reward(plan: RewardPlan, config: AlignProTrainConfig, resources: Resources) -> FrozenReward:
    """The reward, its models behind their wrappers."""
    choice, subject = plan.models["base"], plan.subject
    asking = AnswererConfig(prompt_form=config.prompt_form)
    form = await choose_form(choice, wanted_form(asking, subject, choice), resources)
    composer = Composer(subject.templates, form, cut=subject.answer_end == "cut")
    sampling = Sampling(config.answer_temperature, None, config.base_max_tokens)
    fit = await fit_context(choice, "drop-shots", resources, composer, sampling)
    llm = await open_model(choice, resources)
    judge, model = None, None
    if plan.reward_model:
        model = await open_reward_model(
            plan.reward_model,
            connections=resources.connections,
            patience=Patience(resources.stop, random.Random(), deadline_s=config.deadline_s),
            api_key=key_in(KEY_VARIABLES, resources.environment),
            timeout_s=config.timeout_s,
            concurrency=config.concurrency,
        )
    else:
        judge = await _dynamic(plan, config, resources)
    return FrozenReward(config, plan, resources, llm, composer, fit, judge, model)


async def _dynamic(plan: RewardPlan, config: AlignProTrainConfig, resources: Resources) -> EvaluatorReward:
    greedy = Sampling(temperature=0.0, max_tokens=config.max_tokens)
    askers = {}
    for role in ("evaluator", "selector"):
        choice = plan.models[role]
        by_schema = config.structured == "on" or (config.structured == "auto" and choice.provider == "vllm")
        llm = await open_model(choice, resources)
        askers[role] = Asker(llm, plan.templates, config.repairs, by_schema)
    selector = DynamicAspects(askers["selector"], plan.models["selector"].identity, greedy)
    return EvaluatorReward(askers["evaluator"], plan.models["evaluator"].identity, greedy, selector)
