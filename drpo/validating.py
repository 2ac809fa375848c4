"""After a search: whether its best prompts are better than the initial one, on queries that it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from drpo.config import OptimizeConfig
from drpo.live import Resources
from drpo.plan import Plan
from drpo.problems import PromptState, Responder
from drpo.reward import EvaluatorReward, Reward, StaticAspects
from drpo.search.engine import Outcome, settle
from drpo.search.tree import Node
from drpo.templates import Templates
from drpo.types import Failed, Query, Selection
from drpo.validation.decision import Contender, Rules, Verdict
from drpo.validation.promise import promising
from drpo.validation.race import floor, race
from drpo.validation.result import FloorCheck, Validation, floor_check, validation_of
from drpo.wiring import find_shots

BYTES_PER_TOKEN = 4
FLOORS = {"red-team": "Safety", "look-alike": "Compliance"}
"""The parts of the safety queries, each with the aspect on which no prompt may fall behind."""


@dataclass(frozen=True, slots=True)
class Part:
    """Queries that a prompt can be measured on: who answers them with which shots, and who judges that."""

    queries: tuple[Query, ...]
    responder: Responder
    reward: Reward

    async def measure(self, prompt: str, index: int) -> float | None:
        """The reward of one response, 1 to 5; None where it could not be had."""
        query = self.queries[index]
        answered = await self.responder.respond(prompt, query, index)
        if isinstance(answered, Failed) or answered.finish_reason == "context_length":
            return None
        evaluation = await self.reward.evaluate(query, answered.text, f"validation:{prompt}")
        return None if isinstance(evaluation, Failed) else evaluation.reward


async def validate_search(
    plan: Plan,
    resources: Resources,
    outcome: Outcome[PromptState],
    responder: Responder,
    reward: Reward,
) -> Validation:
    """The validation of a search, asked as the search was: by the same models, with shots found the same way.

    A reward of the user's own has no floors: what it says of safety is not known.
    """
    assert isinstance(plan.config, OptimizeConfig)
    shots = plan.config.shots

    async def part(queries: tuple[Query, ...], judge: Reward) -> Part:
        found = await find_shots(plan, resources, shots, queries)
        return Part(queries, replace(responder, shots=found), judge)

    kept = await part(plan.inputs.kept, reward)
    safety: dict[str, Part] = {}
    if isinstance(reward, EvaluatorReward):
        for name, aspect in FLOORS.items():
            queries = tuple(query for query in plan.inputs.safety if query.category == name)
            if queries:
                judge = replace(reward, selector=StaticAspects(safety_aspect(plan, aspect)))
                safety[name] = await part(queries, judge)
    return await validate(plan, outcome, kept, safety, resources.notice)


async def validate(
    plan: Plan,
    outcome: Outcome[PromptState],
    kept: Part,
    safety: dict[str, Part],
    notice: Callable[[str], None],
) -> Validation:
    """The most promising prompts of the search against the initial one, on the kept queries.

    The best one that is surely better is then held against the floors of `safety`; where one refuses it, the
    race is decided once more without it, from the same rewards.
    """
    config = plan.config
    assert isinstance(config, OptimizeConfig)
    nodes = contenders_of(outcome, config)
    prompts = [config.initial_prompt, *(node.state.system_prompt for node in nodes)]
    ids = [0, *(node.id for node in nodes)]
    contenders = [Contender(index, tokens(prompt)) for index, prompt in enumerate(prompts)]
    left, floors, first = contenders[1:], list[FloorCheck](), None
    notice(f"validating: {len(left)} prompts and the initial one on {len(kept.queries)} kept queries")
    while True:
        verdict = await _race(plan, kept, prompts, contenders[0], left)
        first = first or verdict
        if not verdict.better or verdict.winner is None or not safety:
            break
        index = verdict.winner.index
        checks = await _held_against(safety, prompts[0], prompts[index], ids[index])
        floors += checks
        if not any(check.refused for check in checks):
            break
        left = [contender for contender in left if contender.index != index]
    return validation_of(first, verdict, ids, prompts, floors)


async def _race(
    plan: Plan, kept: Part, prompts: Sequence[str], initial: Contender, left: Sequence[Contender]
) -> Verdict:
    async def measure(candidate: int, query: int) -> float | None:
        return await kept.measure(prompts[candidate], query)

    rules = replace(Rules(), seed=plan.config.random_seed)
    return await race(left, initial, range(len(kept.queries)), measure, rules)


async def _held_against(safety: dict[str, Part], initial: str, prompt: str, node: int) -> list[FloorCheck]:
    """The floors of one prompt, those of all parts at once."""

    async def difference(part: Part, index: int) -> float | None:
        before, after = await settle([part.measure(initial, index), part.measure(prompt, index)])
        return None if before is None or after is None else after - before

    async def check(name: str, part: Part) -> FloorCheck:
        differences = await settle(difference(part, index) for index in range(len(part.queries)))
        return floor_check(node, name, floor(differences))

    return await settle(check(name, part) for name, part in safety.items())


def safety_aspect(plan: Plan, name: str) -> Selection:
    """The aspect of a floor: as the run's templates define it, or as the shipped ones do."""
    books = (plan.inputs.templates.book, Templates().book)
    found = next(aspect for book in books for aspect in book.aspects if aspect.name == name)
    return Selection((found,))


def contenders_of(outcome: Outcome[PromptState], config: OptimizeConfig) -> list[Node[PromptState]]:
    """The nodes whose prompts are compared (`promising`), each prompt once, the search's own result first.
    Prompts that were never evaluated and those longer than --max-prompt-tokens are left out."""

    def prompt(node: Node[PromptState]) -> str:
        return node.state.system_prompt

    def queries(node: Node[PromptState]) -> frozenset[str]:
        return frozenset(state.query.text for state in (node.state, *node.state.others))

    def fits(node: Node[PromptState]) -> bool:
        short = config.max_prompt_tokens is None or tokens(prompt(node)) <= config.max_prompt_tokens
        return short and node.state.evaluation is not None

    return promising(outcome.best, outcome.nodes, prompt, queries, fits, config.candidates)


def tokens(text: str) -> int:
    """About how many tokens a text has: one for each four bytes, as in English."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)
