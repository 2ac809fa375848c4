"""How rewriters behave, as it was measured: see `habits`."""

from __future__ import annotations

from dataclasses import dataclass

from drpo.choices import ModelChoice


@dataclass(frozen=True, slots=True)
class RewritingHabits:
    """about: where they are from, in a few words. In tokens: added: by which a rewrite is longer than its
    query; thought: what is written besides it where the reply is JSON. goes_on: how often a further round
    follows a round. kept: share of queries that stay as they are. distinct: share of the rewrites of a query
    that no other one of it equals, and of the answers to those."""

    about: str
    added: float
    thought: float
    goes_on: float
    kept: float
    distinct: float


REAL_REWRITER = RewritingHabits(
    about="rewrites as a guess has them", added=40.0, thought=120.0, goes_on=0.9, kept=0.1, distinct=1.0
)
"""A guess: nothing of it was published. A paragraph of analysis as `improve.j2` asks for it, one or two
sentences more than in the query, and seldom the very same words twice, at the temperatures in use."""

DEMO_REWRITER = RewritingHabits(
    about="rewrites as in 12 simulated runs", added=19.0, thought=30.0, goes_on=0.55, kept=0.2, distinct=0.93
)
"""From `drpo rewrite` with the shipped held-out queries of both kinds in the worlds 0 and 1: bpo-prompt with
up to four rounds (641 requests for 320 queries; 2.0 rounds a query), align-pro alone and with six samples
(240 of 960 draws, 5.55 of 6 rewrites differ, 5.1 of 5.5 answers)."""


def rewriting_habits_of(rewriter: ModelChoice) -> RewritingHabits:
    """What to expect of a rewriter: simulated, or real."""
    return DEMO_REWRITER if rewriter.provider == "demo" else REAL_REWRITER
