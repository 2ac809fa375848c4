"""The dynamic reward: which aspects matter for a query, and how good a response is on them (DRPO, 3.2.1)."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Protocol

from drpo.ask import Asker, derived_seed
from drpo.compose import Sampling
from drpo.errors import InputError
from drpo.llm.base import Message, Request
from drpo.parse import read_evaluation, read_selection
from drpo.reply_schemas import evaluation_schema, selection_schema
from drpo.search.engine import settle
from drpo.types import (
    HIGHEST_SCORE,
    LOWEST_SCORE,
    AspectScore,
    Evaluation,
    Failed,
    Query,
    Selection,
    left_to_right_sum,
)

FEWEST_ASPECTS, MOST_ASPECTS = 2, 5  # DRPO, Appendix E.1.2
AHEAD_AT_ONCE = 4  # keeps ahead of the search unless one choice takes as long as four levels
AHEAD = 1  # Request.priority of aspects chosen ahead: after whatever the present level needs


class Reward(Protocol):
    """Evaluates responses. Same question, same answer; a failure is `Failed`, never a low score."""

    def look_ahead(self, queries: Sequence[Query]) -> None:
        """Prepare for `queries` in the background, where there is something to prepare."""
        ...

    async def evaluate(self, query: Query, response: str, place: str) -> Evaluation | Failed:
        """The evaluation of one response. `place` tells repeated evaluations of equal responses apart."""
        ...

    async def settle(self) -> None:
        """Wait for what `look_ahead` began."""
        ...


class Selector(Protocol):
    """Chooses the aspects of a query."""

    def look_ahead(self, queries: Sequence[Query]) -> None: ...

    async def choose(self, query: Query) -> Selection | Failed: ...

    async def settle(self) -> None: ...


class StaticAspects:
    """The same aspects for every query (DRPO, Appendix A.2: static rewarding)."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    def look_ahead(self, queries: Sequence[Query]) -> None:
        """Nothing to prepare."""

    async def choose(self, query: Query) -> Selection | Failed:
        return self._selection

    async def settle(self) -> None:
        """Nothing was begun."""


class DynamicAspects:
    """Asks a selector model, once per query, for the aspects that matter for it; it may propose new ones.

    any_number: how many were chosen is not checked (the published code asked for 2 to 5 and took what came).
    """

    def __init__(self, asker: Asker, model: str, sampling: Sampling, *, any_number: bool = False) -> None:
        self._asker, self._model, self._sampling = asker, model, sampling
        self._any_number = any_number
        self._chosen: dict[str, asyncio.Task[Selection | Failed]] = {}
        self._ahead: dict[str, Query] = {}
        self._workers: set[asyncio.Task[None]] = set()

    def look_ahead(self, queries: Sequence[Query]) -> None:
        """A few at a time: all at once would be a burst of work just when the first level needs the CPU."""
        self._ahead.update({query.text: query for query in queries if query.text not in self._chosen})
        for _ in range(min(len(self._ahead), AHEAD_AT_ONCE - len(self._workers))):
            worker = asyncio.create_task(self._work_ahead())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def choose(self, query: Query) -> Selection | Failed:
        return await asyncio.shield(self._begin(query, 0))

    async def settle(self) -> None:
        """Wait until nothing is being chosen; failures stay with those who ask for the query.

        What was to be chosen ahead is chosen even if nobody came to need it: how much of it there was must
        not depend on timing, for the calls are counted in the result.
        """
        while self._workers:
            await asyncio.wait(self._workers)
        await asyncio.gather(*self._chosen.values(), return_exceptions=True)

    async def _work_ahead(self) -> None:
        while self._ahead:
            query = self._ahead.pop(next(iter(self._ahead)))
            await asyncio.wait({self._begin(query, AHEAD)})

    def _begin(self, query: Query, priority: int) -> asyncio.Task[Selection | Failed]:
        if query.text not in self._chosen:
            task = self._chosen[query.text] = asyncio.create_task(self._ask(query, priority))
            # A failure of what nobody came to need is not news: asyncio would print its traceback.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._chosen[query.text]

    async def _ask(self, query: Query, priority: int) -> Selection | Failed:
        known = self._asker.templates.book.aspects
        text = self._asker.templates.render(
            "choose_aspects", query=query.text, aspects=known, fewest=FEWEST_ASPECTS, most=MOST_ASPECTS
        )
        request = _question(text, self._model, self._sampling)
        fewest, most = (1, sys.maxsize) if self._any_number else (FEWEST_ASPECTS, MOST_ASPECTS)
        result = await self._asker.ask(
            replace(request, role="selector", priority=priority),
            lambda reply: read_selection(reply, known, fewest=fewest, most=most),
            selection_schema(known, fewest, most),
        )
        if isinstance(result, Failed):
            return Failed(f"aspects could not be chosen: {result.reason}", result.raw)
        return result


@dataclass(frozen=True, slots=True)
class EvaluatorReward:
    """An evaluator model scores the response on the chosen aspects; scores and feedback are one request.

    repeats: evaluations per response, whose mean counts. More than one are samples: they are asked with
    `repeat_temperature` and a seed of their own, for equal greedy questions would give equal answers.
    names: "asked" (each asked aspect must be scored, no other may be) or "returned" (published rule 4).
    """

    asker: Asker
    model: str
    sampling: Sampling
    selector: Selector
    repeats: int = 1
    repeat_temperature: float = 1.0
    random_seed: int = 0
    names: Any = "asked"

    def look_ahead(self, queries: Sequence[Query]) -> None:
        self.selector.look_ahead(queries)

    async def settle(self) -> None:
        await self.selector.settle()

    async def evaluate(self, query: Query, response: str, place: str) -> Evaluation | Failed:
        selection = await self.selector.choose(query)
        if isinstance(selection, Failed):
            return selection
        text = self.asker.templates.render(
            "evaluate",
            query=query.text,
            response=response,
            aspects=selection.aspects,
            reasoning=selection.reasoning,
        )
        request = replace(_question(text, self.model, self.sampling), role="evaluator")
        requests = (
            [request] if self.repeats == 1 else [self._repeat(request, place, i) for i in range(self.repeats)]
        )

        def read(reply: str) -> Any:
            return read_evaluation(reply, selection.aspects, names=self.names)

        schema = evaluation_schema(selection.aspects)
        results = await settle(self.asker.ask(r, read, schema) for r in requests)
        return mean_evaluation(results)

    def _repeat(self, request: Request, place: str, number: int) -> Request:
        seed = derived_seed(self.random_seed, f"evaluation {number} at {place}")
        return replace(request, temperature=self.repeat_temperature, seed=seed)


def mean_evaluation(results: Sequence[Evaluation | Failed]) -> Evaluation | Failed:
    """The evaluation with each aspect's mean score, failed ones left out; the first failure where all failed.

    Rationales are those of the first readable evaluation that has the aspect; the mean may differ from them.
    """
    readable = [r for r in results if isinstance(r, Evaluation)]
    if not readable:
        return next(r for r in results if isinstance(r, Failed))
    if len(readable) == 1:
        return readable[0]
    scores = [score for evaluation in readable for score in evaluation.scores]
    first: dict[str, AspectScore] = {}
    for score in scores:
        first.setdefault(score.aspect, score)
    merged = []
    for name, earliest in first.items():
        given = [score.score for score in scores if score.aspect == name and score.score is not None]
        mean = left_to_right_sum(given) / len(given) if given else None
        merged.append(AspectScore(name, mean, earliest.rationale))
    return Evaluation(tuple(merged))


class OwnReward:
    """A user's own reward. `call(query, response)` gives the plain value of `plain_reward`, recorded."""

    def __init__(self, call: Callable[[str, str], Awaitable[Any]]) -> None:
        self._call = call

    def look_ahead(self, queries: Sequence[Query]) -> None:
        """Nothing to prepare."""

    async def settle(self) -> None:
        """Nothing was begun."""

    async def evaluate(self, query: Query, response: str, place: str) -> Evaluation | Failed:
        scores = await self._call(query.text, response)
        if scores is None:
            return Failed("the reward gave no score")
        return Evaluation(tuple(AspectScore(name, *entry) for name, entry in scores.items()))


def plain_reward(value: object) -> dict[str, tuple[float, str]] | None:
    """What a user's reward returned, as aspect -> (score, rationale); None where it could not tell.

    Taken: a number, a mapping aspect -> number, or aspect -> {"score", "rationale"}. Scores are 1 to 5, like
    all others, since --keep-above and the optimizer's instructions speak of that scale. Else InputError.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        value = {"Reward": value}
    plain: dict[str, tuple[float, str]] = {}
    for name, entry in value.items():
        score, rationale = entry, ""
        if isinstance(entry, Mapping):
            score, rationale = entry.get("score"), str(entry.get("rationale", ""))
        # numbers.Real, since numpy's own numbers are neither int nor float
        number = float(score) if not isinstance(score, bool) and isinstance(score, Real) else math.nan
        if not LOWEST_SCORE <= number <= HIGHEST_SCORE:
            raise InputError(f"reward: expected numbers from 1 to 5 (or None), came {score!r} for {name!r}")
        plain[str(name)] = (number, rationale)
    if not plain:
        raise InputError("reward: expected a number or at least one aspect, came an empty mapping")
    return plain


def _question(text: str, model: str, sampling: Sampling) -> Request:
    return Request(
        model,
        messages=(Message("user", text),),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
    )
