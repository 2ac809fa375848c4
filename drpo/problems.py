"""What is searched: a system prompt (Algorithm 2), or the response of one example (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from drpo.ask import Sample
from drpo.compose import Composer, Sampling
from drpo.llm.base import LLM
from drpo.reward import Reward
from drpo.search.engine import settle
from drpo.search.problem import Draw, Keep, Proposals
from drpo.search.tree import Node
from drpo.transition import Optimizer
from drpo.types import Evaluation, Example, Failed, Query, Scored, Unscored, left_to_right_sum


@dataclass(frozen=True, slots=True)
class PromptState:
    """A system prompt tried on one query; `shots` are indices of examples, nearest first. others: what it did
    on the other queries of its level, where it was tried on several."""

    system_prompt: str
    query: Query
    shots: tuple[int, ...]
    response: str
    finish_reason: str
    evaluation: Evaluation | None
    others: tuple[PromptState, ...] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """What the base model answered, and the indices of the shots that it was shown."""

    text: str
    finish_reason: str
    shots: tuple[int, ...]


class Fit(Protocol):
    """Knows the base model's context."""

    async def shots_that_fit(self, system_prompt: str, shots: Sequence[Example], query: str) -> int | Failed:
        """How many of `shots` can be shown, the nearest ones; `Failed` where the rest alone is too long."""
        ...


@dataclass(frozen=True, slots=True)
class Responder:
    """The base model behind the one renderer, with the shots of each seed query."""

    llm: LLM
    model: str
    composer: Composer
    sampling: Sampling
    examples: tuple[Example, ...]
    shots: tuple[tuple[int, ...], ...]
    fit: Fit | None = None

    async def respond(self, system_prompt: str, query: Query, trial: int) -> Response | Failed:
        """The response. Refusing and being cut off are responses like any other, not to fit is none."""
        indices = self.shots[trial]
        shots = [self.examples[index] for index in indices]
        if self.fit is not None:
            kept = await self.fit.shots_that_fit(system_prompt, shots, query.text)
            if isinstance(kept, Failed):
                return kept
            indices, shots = indices[:kept], shots[:kept]
        request = self.composer.request(self.model, self.sampling, system_prompt, shots, query.text)
        choice = (await self.llm.complete(request)).choices[0]
        return Response(self.composer.answer(choice.text), choice.finish_reason, indices)


@dataclass(frozen=True, slots=True)
class SystemPromptProblem:
    """State: a system prompt with its response. Action: the optimizer's proposal. Reward: mean of the scores.

    keep_above: a node whose own reward is above it keeps its prompt (None: never, for sampling without
    direction); one without an evaluation always does, since there is nothing to improve upon. per_level: B
    queries on which a prompt is tried, trial t on the queries from t x B on; its reward is the mean of those
    that could be evaluated, and the optimizer is shown the one on which it did worst.
    """

    responder: Responder
    reward: Reward
    optimizer: Optimizer
    queries: tuple[Query, ...]
    initial_prompt: str
    keep_above: float | None
    first_queries: int
    per_level: int = 1

    async def root(self) -> Scored[PromptState] | Unscored[PromptState]:
        self.reward.look_ahead(self.queries[: self.first_queries])
        return await self._try(self.initial_prompt, 0, "r")

    async def expand(self, node: Node[PromptState], draw: Draw) -> Proposals[Sample[str]] | Keep | Failed:
        evaluation = node.state.evaluation
        good = self.keep_above is not None and node.reward is not None and node.reward > self.keep_above
        if evaluation is None or good:
            return Keep()
        history = [ancestor.state.system_prompt for ancestor in node.path()]
        state = node.state
        return Proposals(
            self.optimizer.improve_system_prompt(
                history, state.query.text, state.response, evaluation, draw.place, len(draw.trials)
            )
        )

    async def step(
        self, node: Node[PromptState], action: Sample[str] | Keep, trial: int
    ) -> Scored[PromptState] | Unscored[PromptState] | Failed:
        if isinstance(action, Keep):
            return await self._try(node.state.system_prompt, trial, f"{node.place}/k")
        prompt = await action.value()
        if isinstance(prompt, Failed):
            return prompt
        return await self._try(prompt, trial, f"{node.place}:{prompt}")

    async def _try(self, prompt: str, trial: int, place: str) -> Scored[PromptState] | Unscored[PromptState]:
        first = trial * self.per_level
        tried = await settle(self._try_on(prompt, first + i, place) for i in range(self.per_level))
        scored = [one for one in tried if isinstance(one, Scored)]
        if len(tried) == 1 or not scored:
            return tried[0]
        worst = min(scored, key=lambda one: one.reward)
        others = tuple(one.state for one in tried if one is not worst)
        mean = left_to_right_sum(one.reward for one in scored) / len(scored)
        return Scored(replace(worst.state, others=others), mean)

    async def _try_on(
        self, prompt: str, index: int, place: str
    ) -> Scored[PromptState] | Unscored[PromptState]:
        query = self.queries[index]
        answered = await self.responder.respond(prompt, query, index)
        response = Response("", "context_length", ()) if isinstance(answered, Failed) else answered
        evaluation: Evaluation | Failed
        if isinstance(answered, Failed):
            evaluation = answered
        elif response.finish_reason == "context_length":
            evaluation = Failed("the prompt with its shots is longer than the base model's context")
        else:
            evaluation = await self.reward.evaluate(query, response.text, place)
        known = None if isinstance(evaluation, Failed) else evaluation
        state = PromptState(prompt, query, response.shots, response.text, response.finish_reason, known)
        if isinstance(evaluation, Failed):
            return Unscored(state, evaluation)
        return Scored(state, evaluation.reward)


@dataclass(frozen=True, slots=True)
class ResponseState:
    """A response to the example's query."""

    response: str
    evaluation: Evaluation | None


@dataclass(frozen=True, slots=True)
class ExampleProblem:
    """State: the response of one example. The query, and so the aspects, stay the same at every depth.

    Departure from Algorithm 1 as printed, which returns the last state unevaluated: each state is evaluated,
    so that the best one seen can be kept.
    """

    example: Example
    reward: Reward
    optimizer: Optimizer

    async def root(self) -> Scored[ResponseState] | Unscored[ResponseState]:
        return await self._try(self.example.response, "r")

    async def expand(self, node: Node[ResponseState], draw: Draw) -> Proposals[Sample[str]] | Keep | Failed:
        evaluation = node.state.evaluation
        if evaluation is None:
            return Keep()
        history = [ancestor.state.response for ancestor in node.path()]
        place = f"{self.example.query}:{draw.place}"
        return Proposals(
            self.optimizer.improve_response(history, self.example.query, evaluation, place, len(draw.trials))
        )

    async def step(
        self, node: Node[ResponseState], action: Sample[str] | Keep, trial: int
    ) -> Scored[ResponseState] | Unscored[ResponseState] | Failed:
        if isinstance(action, Keep):
            return await self._try(node.state.response, f"{node.place}/k")
        response = await action.value()
        if isinstance(response, Failed):
            return response
        return await self._try(response, f"{node.place}:{response}")

    async def _try(self, response: str, place: str) -> Scored[ResponseState] | Unscored[ResponseState]:
        evaluation = await self.reward.evaluate(Query(self.example.query), response, place)
        if isinstance(evaluation, Failed):
            return Unscored(ResponseState(response, None), evaluation)
        return Scored(ResponseState(response, evaluation), evaluation.reward)


def describe_state(state: Any) -> dict[str, Any]:
    """A state as plain JSON values, for events and reports."""
    evaluation = None if state.evaluation is None else state.evaluation.as_dict()
    if isinstance(state, ResponseState):
        return {"response": state.response, "evaluation": evaluation}
    assert isinstance(state, PromptState)
    others = {"others": [describe_state(other) for other in state.others]} if state.others else {}
    return {
        "system_prompt": state.system_prompt,
        "query": state.query.text,
        "shots": list(state.shots),
        "response": state.response,
        "finish_reason": state.finish_reason,
        "evaluation": evaluation,
        **others,
    }
