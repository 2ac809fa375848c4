"""The two searches, from a plan to a result: models, problem and strategy put together, events told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from drpo.alignment import Alignment, Found, template_digest
from drpo.compose import Composer, PromptForm, Sampling
from drpo.config import ExamplesConfig, OptimizeConfig
from drpo.errors import BudgetSpent
from drpo.events import Event, LevelDone, NodeMade, ProposalDropped, SearchDone, Validated
from drpo.live import Resources
from drpo.plan import Plan, reach_of
from drpo.problems import (
    ExampleProblem,
    PromptState,
    Responder,
    ResponseState,
    SystemPromptProblem,
    describe_state,
)
from drpo.respond import ContextFit, choose_form, fit_context
from drpo.search.engine import Level, Outcome, search, settle
from drpo.search.strategy import Beam, MonteCarlo, Strategy
from drpo.search.tree import Node
from drpo.types import Example, Query, State
from drpo.validating import validate_search
from drpo.validation.result import Validation
from drpo.wiring import OwnCall, build_optimizer, build_reward, find_shots, open_models

Emit = Callable[[Sequence[Event]], None]
T = TypeVar("T")
LEVELS_AHEAD = 2  # under a limit: the one that begins and the next, during which a selector has time enough


class BestSoFar(Generic[T]):
    """What a search would give if it ended with its last completed level; None before the first."""

    def __init__(self) -> None:
        self._make: Callable[[], T] | None = None

    def reach(self, make: Callable[[], T]) -> None:
        """A level is done, `make` gives the result as of now."""
        self._make = make

    def get(self) -> T | None:
        return None if self._make is None else self._make()


@dataclass(frozen=True, slots=True)
class ImprovedExample:
    """One example before and after; rewards are None where the response could not be evaluated."""

    before: Example
    after: Example
    reward_before: float | None
    reward_after: float | None
    ended: str


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
    so_far = _SoFar[PromptState](strategy)
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
        validation = await validate_search(plan, resources, outcome, ready.problem.responder, reward)
        emit([Validated(validation.as_dict())])
    if ready.fit is not None and (said := ready.fit.report()) is not None:
        resources.notice(said)
    return result(outcome, validation)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A search for a prompt before its first level. form: how the base model is asked."""

    problem: SystemPromptProblem
    form: PromptForm
    sampling: Sampling
    fit: ContextFit | None


async def _ready(plan: Plan, resources: Resources, own_reward: OwnCall | None) -> _Ready:
    config = plan.config
    assert isinstance(config, OptimizeConfig)
    models = await open_models(plan, resources)
    form = await choose_form(plan.models["base"], config.prompt_form, resources)
    composer = Composer(plan.inputs.templates, form, cut=config.answer_end == "cut")
    queries = plan.inputs.queries[: reach_of(plan.inputs, config)]
    shots = await find_shots(plan, resources, config.shots, queries)
    sampling = Sampling(temperature=0.0, max_tokens=config.base_max_tokens)
    fit = await fit_context(plan.models["base"], config.long_prompts, resources, composer, sampling)
    examples, base = plan.inputs.examples.examples, plan.models["base"].identity
    problem = SystemPromptProblem(
        Responder(models["base"], base, composer, sampling, examples, shots, fit),
        build_reward(plan, models, resources.record, own_reward),
        build_optimizer(plan, models),
        queries,
        config.initial_prompt,
        None if config.search == "monte-carlo" else config.keep_above,
        _ahead(config, 0, min(config.depth * config.queries_per_level, len(queries))),
        config.queries_per_level,
    )
    return _Ready(problem, form, sampling, fit)


def _ahead(config: OptimizeConfig, level: int, wanted: int) -> int:
    """For how many queries aspects are chosen when `level` begins, which tries the query of its number: all
    `wanted`; under a limit those of the next two levels, or it is spent on levels that are never reached."""
    if config.max_calls is None and config.max_usd is None:
        return wanted
    return min(wanted, (level + LEVELS_AHEAD) * config.queries_per_level)


class _SoFar(Generic[State]):
    """The outcome of a search that ends with its last completed level, because its budget is spent."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._nodes: list[Node[State]] = []
        self._beam: tuple[Node[State], ...] = ()

    def add(self, level: Level[State]) -> None:
        self._nodes += level.nodes
        self._beam = level.beam

    def outcome(self) -> Outcome[State]:
        best = self._strategy.best(self._beam, self._nodes)
        levels = self._beam[0].depth + 1
        return Outcome(best, self._strategy.score(best), tuple(self._nodes), levels, "budget")


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
        prompt_form=ready.form,
        answer_end=config.answer_end,
        embedder=plan.embedder,
        models=dict(plan.identity["models"]),
        sampling=ready.sampling,
        template_digest=template_digest(plan.inputs.templates, ready.form),
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


async def search_examples(
    plan: Plan,
    resources: Resources,
    own_reward: OwnCall | None,
    emit: Emit,
    tell: Emit | None = None,
    best_so_far: BestSoFar[tuple[ImprovedExample, ...]] | None = None,
) -> tuple[ImprovedExample, ...]:
    """Algorithm 1 for each example, concurrently. Events are emitted in the order of the examples, so that a
    file of them is always the same; `tell` hears of them when they happen."""
    config = plan.config
    assert isinstance(config, ExamplesConfig)
    models = await open_models(plan, resources)
    reward = build_reward(plan, models, resources.record, own_reward)
    optimizer = build_optimizer(plan, models)
    strategy = Beam(
        config.width,
        config.samples,
        config.depth + 1,
        0,
        config.depth + 1,
        path_score="last",
        patience=config.patience,
        perfect=5.0,
        result="best seen",
    )
    turn = _Turns()
    reward.look_ahead([Query(example.query) for example in plan.inputs.examples.examples])
    reached = [ImprovedExample(e, e, None, None, "budget") for e in plan.inputs.examples.examples]

    async def improve(subject: int, example: Example) -> ImprovedExample:
        events: list[Event] = []
        so_far = _SoFar[ResponseState](strategy)

        def happened(new: Sequence[Event]) -> None:
            events.extend(new)
            if tell:
                tell(new)

        async def observe(level: Level[ResponseState]) -> None:
            happened(level_events(level, strategy, subject))
            so_far.add(level)
            reached[subject] = _improved(example, so_far.outcome())
            if best_so_far is not None:
                best_so_far.reach(lambda: tuple(reached))

        problem = ExampleProblem(example, reward, optimizer)
        outcome = await search(problem, strategy, unreadable=config.unreadable, observe=observe)
        happened([end_event(outcome, subject)])
        turn.done(subject, lambda: emit(events))
        reached[subject] = _improved(example, outcome)
        return reached[subject]

    improved = await settle(improve(i, e) for i, e in enumerate(plan.inputs.examples.examples))
    await reward.settle()
    return tuple(improved)


def _improved(example: Example, outcome: Outcome[ResponseState]) -> ImprovedExample:
    best = outcome.best
    after = Example(example.query, best.state.response, example.kind)
    return ImprovedExample(example, after, outcome.nodes[0].reward, best.reward, outcome.ended)


class _Turns:
    """Runs actions in the order of their numbers, whenever they become ready."""

    def __init__(self) -> None:
        self._ready: dict[int, Callable[[], None]] = {}
        self._next = 0

    def done(self, number: int, action: Callable[[], None]) -> None:
        self._ready[number] = action
        while self._next in self._ready:
            self._ready.pop(self._next)()
            self._next += 1


def level_events(level: Level[Any], strategy: Strategy, subject: int | None = None) -> list[Event]:
    """A level as events: its nodes, its dropped proposals, its beam."""
    events: list[Event] = [
        NodeMade(
            id=node.id,
            place=node.place,
            parent=None if node.parent is None else node.parent.id,
            depth=node.depth,
            kept=node.kept,
            reward=node.reward,
            score=strategy.score(node),
            state=describe_state(node.state),
            failure=node.failure.reason if node.failure else None,
            subject=subject,
        )
        for node in level.nodes
    ]
    events += [
        ProposalDropped(d.place, d.parent_id, d.failure.reason, d.failure.raw, subject) for d in level.dropped
    ]
    beam = tuple(node.id for node in level.beam)
    return [*events, LevelDone(level.number, level.limit, beam, level.stalled, subject)]


def end_event(outcome: Outcome[Any], subject: int | None = None) -> SearchDone:
    """The end of a search as an event."""
    return SearchDone(
        outcome.best.id, outcome.score, len(outcome.nodes), outcome.levels, outcome.ended, subject
    )
