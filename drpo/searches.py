"""The search for a prompt, from a plan to a result: models, problem and strategy together, told as events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drpo.alignment import Alignment, Found, template_digest
from drpo.compose import Composer, PromptForm, Sampling
from drpo.config import OptimizeConfig, ValidationConfig
from drpo.errors import BudgetSpent
from drpo.events import Validated
from drpo.live import Resources
from drpo.llm.base import LLM, Role
from drpo.plan import Plan, reach_of
from drpo.problems import (
    PromptState,
    Responder,
    SystemPromptProblem,
)
from drpo.respond import ContextFit, choose_form, fit_context
from drpo.search.engine import Level, Outcome, search
from drpo.search.strategy import Beam, MonteCarlo, Strategy
from drpo.search_events import BestSoFar, Emit, SoFar, end_event, level_events
from drpo.types import Query
from drpo.validating import validate_search
from drpo.validating_examples import ImprovedExample as ImprovedExample
from drpo.validation.result import Validation
from drpo.wiring import OwnCall, build_optimizer, build_reward, find_shots, open_models

LEVELS_AHEAD = 2  # under a limit: the one that begins and the next, during which a selector has time enough


async def search_prompt(
    plan: Plan,
    resources: Resources,
    own_reward: OwnCall | None,
    emit: Emit,
    best_so_far: BestSoFar[Alignment] | None = None,
) -> Alignment:
    """The search itself, over live models or a strict replay, and the validation of what it found."""
    config = plan.config
    assert isinstance(config, OptimizeConfig)
    ready = await _ready(plan, resources, own_reward)
    reward, queries = ready.problem.reward, ready.problem.queries
    strategy = prompt_strategy(config, len(queries) // config.queries_per_level)
    so_far = SoFar[PromptState](strategy)
    wanted = min(config.depth * config.queries_per_level, len(queries))

    def result(outcome: Outcome[PromptState], validation: Validation | None = None) -> Alignment:
        return _alignment(plan, resources, outcome, ready, validation)

    async def observe(level: Level[PromptState]) -> None:
        nonlocal wanted
        wanted = max(wanted, min(level.limit * config.queries_per_level, len(queries)))
        reward.look_ahead(queries[: _ahead(config, level.number + 1, wanted)])
        emit(level_events(level, strategy))
        so_far.add(level)
        if best_so_far is not None:
            best_so_far.reach(lambda: result(so_far.outcome()))

    outcome = await search(ready.problem, strategy, unreadable=config.unreadable, observe=observe)
    # What a limit has put off: the result tells how many calls there were, and must not depend on limits.
    reward.look_ahead(queries[:wanted])
    await reward.settle()
    if isinstance(resources.stop.cause, BudgetSpent):
        resources.stop.check()
    emit([end_event(outcome)])
    validation = None
    if plan.inputs.kept:
        validation = await validate_search(plan, resources, outcome, ready.base.responder, reward)
        emit([Validated(validation.as_dict())])
    ready.base.tell_fit(resources)
    return result(outcome, validation)


@dataclass(frozen=True, slots=True)
class Base:
    """A base model ready to answer some queries. form: how it is asked."""

    responder: Responder
    form: PromptForm
    fit: ContextFit | None

    def tell_fit(self, resources: Resources) -> None:
        """Say how often its context was too short, if it was."""
        if self.fit is not None and (said := self.fit.report()) is not None:
            resources.notice(said)


async def open_base(
    plan: Plan, resources: Resources, models: Mapping[Role, LLM], queries: Sequence[Query]
) -> Base:
    config, choice = plan.config, plan.models["base"]
    assert isinstance(config, ValidationConfig)
    form = await choose_form(choice, config.prompt_form, resources)
    composer = Composer(plan.inputs.templates, form, cut=config.answer_end == "cut")
    shots = await find_shots(plan, resources, config.shots, queries)
    sampling = Sampling(temperature=0.0, max_tokens=config.base_max_tokens)
    fit = await fit_context(choice, config.long_prompts, resources, composer, sampling)
    examples = plan.inputs.examples.examples
    responder = Responder(models["base"], choice.identity, composer, sampling, examples, shots, fit)
    return Base(responder, form, fit)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A search for a prompt before its first level."""

    problem: SystemPromptProblem
    base: Base


async def _ready(plan: Plan, resources: Resources, own_reward: OwnCall | None) -> _Ready:
    config = plan.config
    assert isinstance(config, OptimizeConfig)
    models = await open_models(plan, resources)
    queries = plan.inputs.queries[: reach_of(plan.inputs, config)]
    base = await open_base(plan, resources, models, queries)
    problem = SystemPromptProblem(
        base.responder,
        build_reward(plan, models, resources.record, own_reward),
        build_optimizer(plan, models),
        queries,
        config.initial_prompt,
        None if config.search == "monte-carlo" else config.keep_above,
        _ahead(config, 0, min(config.depth * config.queries_per_level, len(queries))),
        config.queries_per_level,
    )
    return _Ready(problem, base)


def _ahead(config: OptimizeConfig, level: int, wanted: int) -> int:
    """For how many queries aspects are chosen when `level` begins, which tries the query of its number: all
    `wanted`; under a limit those of the next two levels, or it is spent on levels that are never reached."""
    if config.max_calls is None and config.max_usd is None:
        return wanted
    return min(wanted, (level + LEVELS_AHEAD) * config.queries_per_level)


def _alignment(
    plan: Plan,
    resources: Resources,
    outcome: Outcome[PromptState],
    ready: _Ready,
    validation: Validation | None,
) -> Alignment:
    config = plan.config
    assert isinstance(config, OptimizeConfig)
    found = Found(
        settings=plan.identity,
        path_score=outcome.score,
        path_rewards=outcome.best.path_rewards(),
        nodes=len(outcome.nodes),
        levels=outcome.levels,
        ended=outcome.ended,
        calls=resources.record.calls_by_role(),
    )
    return Alignment(
        system_prompt=outcome.best.state.system_prompt if validation is None else validation.prompt,
        examples=plan.inputs.examples.examples,
        shots=config.shots,
        prompt_form=ready.base.form,
        answer_end=config.answer_end,
        embedder=plan.embedder,
        models=dict(plan.identity["models"]),
        sampling=ready.base.responder.sampling,
        template_digest=template_digest(plan.inputs.templates, ready.base.form),
        found=found,
        simulated=plan.simulated,
        validation=validation,
    )


def prompt_strategy(config: OptimizeConfig, trials: int) -> Strategy:
    """The strategy that the settings name, over `trials` queries."""
    if config.search == "monte-carlo":
        return MonteCarlo(config.width, config.samples, config.depth, trials)
    width = 1 if config.search == "greedy" else config.width
    return Beam(
        width,
        config.samples,
        config.depth,
        config.max_extra_depth,
        trials,
        path_score=config.path_score,
        patience=config.patience,
    )
