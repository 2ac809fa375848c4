"""Reads an evaluation: which features of a response it wants to be mended, and how much."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from drpo.llm.world.features import FLAWS, WORDING
from drpo.llm.world.features import Feature as F
from drpo.llm.world.judging import rubric_of
from drpo.llm.world.lexicon import Lexicon, words_of
from drpo.types import Aspect

_CLAUSE = re.compile(r"[.;:!?\n]|,\s|\band it\b|\bbut\b|\bhowever\b", re.IGNORECASE)
_BLAME = re.compile(
    r"\b(?:lacks?|lacking|misses|missing|should|could|does not|doesn't|fails?|failing|without|no|not|"
    r"too|needs?|neither|"
    r"absent|insufficient|limited|more|improved?|unclear|poor|weak)\b",
    re.IGNORECASE,
)

_NAMED: Lexicon[F] = Lexicon(
    {
        F.DIRECT: ("come ~ point", "first sentence", "direct*", "at once"),
        F.STRUCTURE: ("structur*", "organi*", "bullet*", "steps", "list"),
        F.EXAMPLE: ("example*", "concrete", "specific*"),
        F.REASONS: ("why", "reasons", "detail*", "depth", "explain*", "superficial"),
        F.HEDGE: ("uncertain*", "source*", "accura*"),
        F.LIMIT: ("limitation*", "live data", "real time"),
        F.REFUSAL: ("refuse a", "declin*", "harmful request", "unsafe"),
        F.ALTERNATIVE: ("alternative*",),
        F.WARMTH: ("empath*", "warm*", "feelings", "supportive"),
        F.LIVELY: ("natural*", "conversational*", "engaging", "lively", "tone"),
        F.QUESTION: ("clarif*", "question*", "interactive"),
        F.PREMISE: ("assumption*", "premise*", "critical*"),
        F.FORMAT: ("format", "instruction*", "requested", "asked for"),
        F.IMAGE: ("analog*", "original*", "image*", "creativ*", "vivid"),
        F.RESPECT: ("cultur*", "background*", "divers*"),
        F.NEXT_STEP: ("practical*", "next step", "actionable"),
        F.REPETITION: ("repeat*", "repetit*", "redundan*"),
        F.RAMBLE: ("rambl*", "padd*", "filler", "verbose", "wordy"),
        F.STIFF: ("stiff", "robot*", "mechanical", "formal"),
        F.JARGON: ("jargon", "technical"),
        F.FLATTERY: ("flatter*",),
        F.OVERCLAIM: ("claims more", "overconfident", "invent*", "unfounded"),
        F.OVER_REFUSAL: ("refuses a harmless", "unnecessar* refus*", "overly cautious"),
        F.DISCLAIMER: ("disclaimer*",),
        F.EXCITED: ("excited", "exclamation*", "emoji*"),
    }
)
_GUESS = 0.25  # an aspect's score says less about what to do than words of its rationale


def wishes_of(evaluation: Mapping[str, tuple[float, str]]) -> dict[F, float]:
    """Feature -> how much the evaluation wants it mended: points below 5 times how plainly it is said."""
    wishes: dict[F, float] = {}
    for name, (score, rationale) in evaluation.items():
        lost = max(0.0, 5.0 - score) + 0.3
        for clause in _clauses(rationale):
            blamed = bool(_BLAME.search(clause))
            for hit in _NAMED.hits(words_of(clause)):
                if blamed or hit.label in FLAWS:
                    wishes[hit.label] = wishes.get(hit.label, 0.0) + lost
        if lost > 1.0:
            for merit in rubric_of(Aspect(name, "")).merits:
                wishes[merit] = wishes.get(merit, 0.0) + _GUESS * (lost - 1.0)
    return wishes


def complaints(features: Sequence[F]) -> str:
    """What is wrong with a response, as a judge words it: flaws that are there, merits that are not."""
    return "; ".join(WORDING[f][0] if f in FLAWS else WORDING[f][1] for f in features)


def _clauses(text: str) -> list[str]:
    """Clauses: praise and blame of one sentence stand in different ones."""
    return [clause for clause in _CLAUSE.split(text[:4000]) if clause.strip()]
