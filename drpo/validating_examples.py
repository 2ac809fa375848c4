"""After examples were improved: whether a base model answers better when it is shown them as shots.

The improved examples and the original ones have the same queries, and shots are found by these: so both sets
are shown by the same indices, retrieved once, and what differs between the two sides is the responses alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from drpo.config import INITIAL_PROMPT
from drpo.plan import Plan
from drpo.problems import Responder, ResponseState
from drpo.reward import EvaluatorReward, Reward, StaticAspects
from drpo.search.engine import Outcome, settle
from drpo.types import Example, Query
from drpo.validating import FLOORS, Part, safety_aspect, tokens
from drpo.validation.decision import Contender, Rules
from drpo.validation.race import floor, race
from drpo.validation.result import FloorCheck, Validation, floor_check, interval_text, validation_of

ORIGINAL, IMPROVED = 0, 1
"""The two sets, as a `Validation` numbers them: its `prompts` are these two, both shown under the plain
initial prompt."""


@dataclass(frozen=True, slots=True)
class ImprovedExample:
    """One example before and after; rewards are None where the response could not be evaluated.

    found, reward_found: what the search itself came to, where its validation has put the original response in
    the place of `after`; None where `after` is what it came to.
    """

    before: Example
    after: Example
    reward_before: float | None
    reward_after: float | None
    ended: str
    found: Example | None = None
    reward_found: float | None = None

    @classmethod
    def of(cls, example: Example, outcome: Outcome[ResponseState]) -> ImprovedExample:
        """What a search has come to."""
        best = outcome.best
        after = Example(example.query, best.state.response, example.kind)
        return cls(example, after, outcome.nodes[0].reward, best.reward, outcome.ended)

    def put_back(self) -> ImprovedExample:
        """The same with the original response as the result."""
        return replace(
            self,
            after=self.before,
            reward_after=self.reward_before,
            found=self.after,
            reward_found=self.reward_after,
        )


@dataclass(frozen=True, slots=True)
class ImprovedSet:
    """The examples that are handed over, and the validation they went through; None where there was none."""

    examples: tuple[ImprovedExample, ...]
    validation: Validation | None = None

    @property
    def result(self) -> tuple[Example, ...]:
        """The examples alone."""
        return tuple(item.after for item in self.examples)

    def left_open(self) -> ImprovedSet:
        """The same for a budget that is spent before the validation is done: no example is through then."""
        return ImprovedSet(tuple(replace(item, ended="budget") for item in self.examples))

    def validated(self, validation: Validation) -> ImprovedSet:
        """The set that stood the validation: the original examples where the improved ones did not."""
        examples = self.examples
        if not validation.better:
            examples = tuple(item.put_back() for item in examples)
        return ImprovedSet(examples, validation)


@dataclass(frozen=True, slots=True)
class Sides:
    """The same queries under the same prompt, with the original examples as shots and with the improved."""

    original: Part
    improved: Part

    async def measure(self, side: int, index: int) -> float | None:
        """The reward of one response, 1 to 5; None where it could not be had."""
        part = self.improved if side == IMPROVED else self.original
        return await part.measure(INITIAL_PROMPT, index)

    async def differences(self) -> list[float | None]:
        """Per query, what the improved examples change; None where one of the two rewards is missing."""

        async def difference(index: int) -> float | None:
            before, after = await settle([self.measure(ORIGINAL, index), self.measure(IMPROVED, index)])
            return None if before is None or after is None else after - before

        return await settle(difference(index) for index in range(len(self.original.queries)))


async def validate_examples(
    plan: Plan,
    responder: Responder,
    reward: Reward,
    improved: Sequence[Example],
    notice: Callable[[str], None],
) -> Validation:
    """The improved examples against the original ones as shots, on the plan's kept queries.

    responder: the base model with the original examples, and the shots of the kept queries and then of the
    safety queries. A set that is surely better is held against the floors of safety, but for a reward of the
    user's own: what it says of safety is not known. Examples of which none was changed are asked nothing.
    """
    kept = plan.inputs.kept

    def sides(queries: Sequence[tuple[int, Query]], judge: Reward) -> Sides:
        shots = tuple(responder.shots[place] for place, _ in queries)
        original = Part(tuple(query for _, query in queries), replace(responder, shots=shots), judge)
        shown = replace(original.responder, examples=tuple(improved))
        return Sides(original, replace(original, responder=shown))

    safety: dict[str, Sides] = {}
    if isinstance(reward, EvaluatorReward):
        for name, aspect in FLOORS.items():
            numbered = enumerate(plan.inputs.safety, len(kept))
            queries = [(place, query) for place, query in numbered if query.category == name]
            if queries:
                judge = replace(reward, selector=StaticAspects(safety_aspect(plan, aspect)))
                safety[name] = sides(queries, judge)
    sets = (responder.examples, tuple(improved))
    if sets[ORIGINAL] != sets[IMPROVED]:
        notice(f"validating: the improved examples and the original ones on {len(kept)} kept queries")
    return await compare(plan, sets, sides(list(enumerate(kept)), reward), safety)


async def compare(
    plan: Plan,
    sets: tuple[Sequence[Example], Sequence[Example]],
    kept: Sides,
    safety: dict[str, Sides],
) -> Validation:
    """The race of one candidate, the second of `sets`, and its floors where it is better."""
    initial, candidate = (Contender(side, _length(sets[side])) for side in (ORIGINAL, IMPROVED))
    rules = replace(Rules(), seed=plan.config.random_seed)
    queries = range(len(kept.original.queries))
    candidates = [] if tuple(sets[ORIGINAL]) == tuple(sets[IMPROVED]) else [candidate]
    first = verdict = await race(candidates, initial, queries, kept.measure, rules)
    floors: list[FloorCheck] = []
    if first.better:
        floors = await settle(_held_against(name, part) for name, part in safety.items())
        if any(check.refused for check in floors):  # decided once more, without it
            verdict = await race([], initial, queries, kept.measure, rules)
    prompts = [INITIAL_PROMPT, INITIAL_PROMPT]
    return validation_of(first, verdict, [ORIGINAL, IMPROVED], prompts, floors)


async def _held_against(name: str, part: Sides) -> FloorCheck:
    return floor_check(IMPROVED, name, floor(await part.differences()))


def _length(examples: Sequence[Example]) -> int:
    return sum(tokens(example.response) for example in examples)


def examples_sentence(validation: Validation) -> str:
    """What the validation of a set of examples came to, in words."""
    if len(validation.prompts) == 1:
        return "no example was improved, so there was nothing to compare"
    found = validation.prompts[IMPROVED]
    if found.gain is None:
        return "the improved examples could not be compared with the original ones"
    gain = f"{found.gain:+.2f} {interval_text(found.low, found.high)} on {found.pairs} queries"
    if validation.better:
        return f"the improved examples are better shots than the original ones, by {gain}"
    refused = " and ".join(check.name for check in validation.floors if check.refused)
    if refused:
        return f"the improved examples are better shots, by {gain}, but lose on the {refused} queries"
    if found.dropped:
        return f"the improved examples are worse shots than the original ones: {gain}"
    return f"the improved examples are not surely better shots than the original ones: {gain}"
