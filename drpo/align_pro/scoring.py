"""How far apart the answers of two requests are as distributions, where log-probabilities of answers can be
had: of models in this process, of vLLM servers, and of your own objects that have a `score`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from drpo.align_pro.bound import Distance, total_variation
from drpo.align_pro.plan import EstimatePlan
from drpo.choices import ModelChoice
from drpo.compose import PromptForm
from drpo.errors import DrpoError, InputError
from drpo.live import Resources, server_facts
from drpo.llm.base import Choice, Request
from drpo.plan import digest_of
from drpo.search.engine import settle

NEVER = -1e12
"""What stands in a record for the log-probability of what is never drawn: JSON has no infinity."""


@runtime_checkable
class Scores(Protocol):
    """A model that can say how likely an answer of its is."""

    async def score(self, request: Request, choice: Choice) -> float | None:
        """log P(choice | request) in nats as `request` samples: at most 0, of the whole answer, its end
        included where `choice.finish_reason` is "stop". None where that is not known."""
        ...


class Scoring:
    """The log-probabilities of one model, recorded as facts: what is known is never asked again."""

    def __init__(self, choice: ModelChoice, scores: Scores | None, resources: Resources) -> None:
        self._choice, self._scores, self._resources = choice, scores, resources
        self._slots = asyncio.Semaphore(resources.config.concurrency)

    async def score(self, request: Request, choice: Choice) -> float | None:
        """As `Scores.score`. A refusal for good ends the run, for all that wait too."""

        async def compute() -> float | None:
            async with self._slots:
                self._resources.stop.check()
                self._resources.record.sent["score"] += 1
                return await self._asked(request, choice)

        turns = [[message.role, message.content] for message in request.messages]
        asked = [request.prompt, turns, request.temperature, request.top_p, list(request.stop)]
        said = [self._choice.identity, *asked, choice.text, choice.finish_reason]
        value = await self._resources.record.fact(f"score of {digest_of(said)}", compute)
        return None if value is None else -math.inf if value <= NEVER else float(value)

    async def _asked(self, request: Request, choice: Choice) -> float | None:
        assert self._scores is not None
        try:
            value = await self._scores.score(request, choice)
        except DrpoError as error:
            self._resources.stop.set(error)
            raise
        except Exception as error:
            if self._choice.custom is None:
                raise
            said = f"your model {self._choice.name} raised {type(error).__name__} when asked for a score"
            raise InputError(f"{said}: {error}") from error
        if value is not None and not value <= 0:
            said = f"{self._choice.name}: expected the log-probability of an answer, at most 0"
            raise InputError(f"{said}, came {value}")
        return None if value is None else max(NEVER, float(value))


def scoring_of(
    choice: ModelChoice, resources: Resources, form: PromptForm, temperature: float
) -> Scoring | None:
    """What knows how likely the model's answers are; None where nobody does, and then nobody is asked."""
    if choice.custom is not None:
        return Scoring(choice, choice.custom, resources) if isinstance(choice.custom, Scores) else None
    # A server's figures are of temperature 1, and of a page it does not say how likely its end is.
    is_told = choice.provider == "vllm" and form != "text" and temperature == 1
    if not is_told and choice.provider != "local":
        return None
    return Scoring(choice, server_facts(choice, resources) if resources.live else None, resources)


def most_scores(plan: EstimatePlan) -> int:
    """So many log-probabilities an estimate asks for at most; 0 where nobody knows any, or needs them."""
    config = plan.config
    known = [_may_score(choice) for role, choice in plan.models.items() if role in ("base", "against")]
    if config.answers == 1 or not known[0]:
        return 0
    # An answer to the query by itself and for each rewrite, an answer to a rewrite by both; of an aligned
    # model the same.
    others = config.samples + (len(known) > 1 and known[1])
    return len(plan.items) * config.answers * (1 + 3 * others)


def _may_score(choice: ModelChoice) -> bool:
    return choice.provider in ("local", "vllm") or isinstance(choice.custom, Scores)


@dataclass(frozen=True, slots=True)
class Sampled:
    """A request, who can score it, and plain samples of its answers."""

    request: Request
    scoring: Scoring
    choices: tuple[Choice, ...]


async def distance_of(one: Sampled, other: Sampled) -> Distance | None:
    """d_TV of the two distributions of answers, by the answers of both; None where a score is not known."""
    sides = await settle([_side(one, other), _side(other, one)])
    of_one, of_other = sides
    return None if of_one is None or of_other is None else total_variation(of_one, of_other)


async def _side(own: Sampled, other: Sampled) -> Sequence[tuple[float, float]] | None:
    async def pair(choice: Choice) -> tuple[float, float] | None:
        by_own = await own.scoring.score(own.request, choice)
        if by_own is None or by_own == -math.inf:  # the text has other tokens than those that were drawn
            return None
        by_other = await other.scoring.score(other.request, choice)
        return None if by_other is None else (by_own, by_other)

    found = await settle(pair(choice) for choice in own.choices)
    known = [one for one in found if one is not None]
    return known if known and len(known) == len(found) else None
