"""The values that flow through a search. All frozen; none knows a model, a file or a clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State")
State_co = TypeVar("State_co", covariant=True)

LOWEST_SCORE = 1
HIGHEST_SCORE = 5


@dataclass(frozen=True, slots=True)
class Query:
    """One user question used to test a prompt; all but `text` are labels, empty where unknown."""

    text: str
    style: str = ""
    topic: str = ""
    task: str = ""
    category: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A query with a wanted response, used as a shot."""

    query: str
    response: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Aspect:
    """One named criterion of quality; `proposed` when a selector invented it for one query."""

    name: str
    definition: str
    proposed: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """The aspects that matter for one query, and why (2 to 5 when dynamic)."""

    aspects: tuple[Aspect, ...]
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class AspectScore:
    """Score 1 to 5 (higher is better) on one aspect, None where the evaluator wrote "N/A"."""

    aspect: str
    score: float | None
    rationale: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The evaluator's scores for one response. At least one of them is a number."""

    scores: tuple[AspectScore, ...]

    @property
    def reward(self) -> float:
        """Mean of the given scores, 1 to 5; "N/A" is left out (DRPO, section 3.2.1)."""
        given = [s.score for s in self.scores if s.score is not None]
        return left_to_right_sum(given) / len(given)

    def as_dict(self) -> dict[str, dict[str, object]]:
        """The shape of Appendix E.1.1: aspect -> {"rationale", "score"}, scores as numbers or "N/A"."""
        return {
            s.aspect: {"rationale": s.rationale, "score": "N/A" if s.score is None else _plain(s.score)}
            for s in self.scores
        }


@dataclass(frozen=True, slots=True)
class Failed:
    """Expected misbehaviour of a model as a value: why, and what it wrote. Never turned into a score."""

    reason: str
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Scored(Generic[State_co]):
    """A state and its reward, 1 to 5, higher is better."""

    state: State_co
    reward: float


@dataclass(frozen=True, slots=True)
class Unscored(Generic[State_co]):
    """A state that exists (there is a prompt and a response) but whose response could not be evaluated."""

    state: State_co
    failure: Failed


def left_to_right_sum(values: Iterable[float]) -> float:
    """The sum as double-precision additions from the first value on.

    Not the builtin: from Python 3.12 on `sum` compensates rounding, which decides two published ties
    otherwise (SEMANTICS of the published runs, rule 11).
    """
    total = 0.0
    for value in values:
        total += value
    return total


def _plain(score: float) -> float | int:
    return int(score) if score == int(score) else score
