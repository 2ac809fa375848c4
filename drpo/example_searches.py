"""The search for better examples, from a plan to a result: one search for each, all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from drpo.config import ExamplesConfig
from drpo.events import Event, Validated
from drpo.live import Resources
from drpo.plan import Plan
from drpo.problems import (
    ExampleProblem,
    ResponseState,
)
from drpo.reward import Reward
from drpo.search.engine import Level, search, settle
from drpo.search.strategy import Beam
from drpo.search_events import BestSoFar, Emit, SoFar, end_event, level_events
from drpo.searches import open_base
from drpo.transition import Optimizer
from drpo.types import Example, Query
from drpo.validating_examples import ImprovedExample as ImprovedExample
from drpo.validating_examples import ImprovedSet, validate_examples
from drpo.wiring import OwnCall, build_optimizer, build_reward, open_models


async def search_examples(
    plan: Plan,
    resources: Resources,
    own_reward: OwnCall | None,
    emit: Emit,
    tell: Emit | None = None,
    best_so_far: BestSoFar[ImprovedSet] | None = None,
) -> ImprovedSet:
    """Algorithm 1 for each example, concurrently, and the validation of what they came to. Events are emitted
    in the order of the examples, so that a file of them is always the same; `tell` hears of them when they
    happen."""
    tell, best_so_far = tell or (lambda events: None), best_so_far or BestSoFar()
    models = await open_models(plan, resources)
    reward = build_reward(plan, models, resources.record, own_reward)
    # What is wrong with a base model or an embedder is found now, and not when everything is paid for.
    asked = (*plan.inputs.kept, *plan.inputs.safety)
    base = await open_base(plan, resources, models, asked) if asked else None
    improved = await _improve(plan, reward, build_optimizer(plan, models), emit, tell, best_so_far)
    await reward.settle()
    if base is None:
        return improved
    validation = await validate_examples(plan, base.responder, reward, improved.result, resources.notice)
    for hears in (emit, tell):
        hears([Validated(validation.as_dict())])
    base.tell_fit(resources)
    return improved.validated(validation)


async def _improve(
    plan: Plan,
    reward: Reward,
    optimizer: Optimizer,
    emit: Emit,
    tell: Emit,
    best_so_far: BestSoFar[ImprovedSet],
) -> ImprovedSet:
    config, examples = plan.config, plan.inputs.examples.examples
    assert isinstance(config, ExamplesConfig)
    sizes = (config.width, config.samples, config.depth + 1, 0, config.depth + 1)
    patience = config.patience
    strategy = Beam(*sizes, path_score="last", patience=patience, perfect=5.0, result="best seen")
    turn = _Turns()
    reward.look_ahead([Query(example.query) for example in examples])
    reached = [ImprovedExample(example, example, None, None, "budget") for example in examples]

    def all_so_far() -> ImprovedSet:
        so_far = ImprovedSet(tuple(reached))
        return so_far.left_open() if plan.inputs.kept else so_far

    async def improve(subject: int, example: Example) -> None:
        events: list[Event] = []
        so_far = SoFar[ResponseState](strategy)

        def happened(new: Sequence[Event]) -> None:
            events.extend(new)
            tell(new)

        async def observe(level: Level[ResponseState]) -> None:
            happened(level_events(level, strategy, subject))
            so_far.add(level)
            reached[subject] = ImprovedExample.of(example, so_far.outcome())
            best_so_far.reach(all_so_far)

        problem = ExampleProblem(example, reward, optimizer)
        outcome = await search(problem, strategy, unreadable=config.unreadable, observe=observe)
        happened([end_event(outcome, subject)])
        turn.done(subject, lambda: emit(events))
        reached[subject] = ImprovedExample.of(example, outcome)

    await settle(improve(i, e) for i, e in enumerate(examples))
    return ImprovedSet(tuple(reached))


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
