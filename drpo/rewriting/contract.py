"""The contract of every rewriter: a query in, what a base model is to read out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Why = Literal["", "failed", "empty", "answered", "lost", "longer"]
"""Why the user's own words stand: "" where they were rewritten; the model failed or could not be read; it
wrote nothing, an answer, something that lost too much of the query, or much more than a query."""
REASONS: dict[str, str] = {
    "failed": "no readable reply",
    "empty": "nothing written",
    "answered": "answered instead",
    "lost": "too much of the query lost",
    "longer": "too long",
}
"""The same for people."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What the base model reads in place of `query`.

    text: `query` itself where `kept` says why. rounds: the text after each round, the last one is `text`;
    empty where there was no round. weight: of several rewrites of one query, those of all sum to 1. note:
    what was written instead, or what was wrong. reward: of the base model's answer to it, where that was
    weighed.
    """

    query: str
    text: str
    kept: Why = ""
    rounds: tuple[str, ...] = ()
    weight: float = 1.0
    note: str = ""
    reward: float | None = None

    @property
    def is_changed(self) -> bool:
        """Whether the base model reads other words than the user wrote."""
        return self.text != self.query


class Rewriter(Protocol):
    """Rewrites queries. Same query and place, same rewrites; whatever goes wrong with a model's reply gives
    the query back, with the reason."""

    async def rewrite(self, query: str, place: str = "") -> tuple[Rewrite, ...]:
        """At least one rewrite; the first is the one to use. `place` tells repeated samples apart."""
        ...
