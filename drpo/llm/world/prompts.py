"""Reads a system prompt: what it asks for, and how strongly each request comes through."""

from __future__ import annotations

import re
from dataclasses import dataclass

from drpo.llm.world.directives import ALL, BY_NAME, CONFLICTS
from drpo.llm.world.features import Feature
from drpo.llm.world.lexicon import Lexicon, words_of

MOST_BULLETS = 8  # more than these, and no bullet gets the attention that it should
LONGEST_PROMPT_WORDS = 280
_LONGEST_READ = 20_000  # characters
_INTRODUCTION = 0.55  # a wish in running text counts about half as much as one in a bullet of its own
_GENERAL = 0.7  # a bullet that does not say how or when
_CROWDING = 0.7  # two directives in one passage come through at about six tenths each
_MANY = 7  # directives that a prompt can hold before each weakens the others a little
_WEAKENING = 0.04
_FORCE = 1.35  # on the effects of all directives, so that the best prompts are worth 1 to 1.8 points
_CONFLICT = 0.5

_LEXICON = Lexicon({directive.name: directive.says for directive in ALL})
_BULLET = re.compile(r"^\s{0,6}(?:[-*•–]|\d{1,2}[.)])\s+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_HOW = frozenset(
    {"when", "where", "if", "such", "before", "after", "instead", "rather", "because", "unless", "while"}
    | {"end", "close", "begin", "drop", "once", "how", "one"}
)


@dataclass(frozen=True, slots=True)
class PromptParts:
    """The running text before, between and after the bullets, and the bullets without their marks."""

    introduction: str
    bullets: tuple[str, ...]


def split_prompt(text: str) -> PromptParts:
    """The parts of a system prompt; a line that begins with a bullet's mark is a bullet."""
    lines = [line for line in text[:_LONGEST_READ].splitlines() if line.strip()]
    bullets = tuple(_BULLET.sub("", line, count=1).strip() for line in lines if _BULLET.match(line))
    prose = "\n".join(line.strip() for line in lines if not _BULLET.match(line))
    return PromptParts(prose, bullets)


def directives_in(passage: str) -> dict[str, float]:
    """Directive -> strength of one passage, below 0 where the passage asks for the opposite."""
    words = words_of(passage)
    found: dict[str, float] = {}
    for hit in _LEXICON.hits(words):
        found[hit.label] = found.get(hit.label, 0.0) or (-0.6 if hit.negated else 1.0)
    strength = 1.0 if len(words) >= 9 and not _HOW.isdisjoint(words) else _GENERAL
    crowded = len(found) ** -_CROWDING if found else 1.0
    return {name: value * strength * crowded for name, value in found.items()}


def read_prompt(text: str) -> dict[str, float]:
    """Directive -> strength in the whole prompt, about -1 to 1.2, after all that dilutes it."""
    parts = split_prompt(text)
    asked: dict[str, list[float]] = {}
    for bullet in parts.bullets:
        for name, value in directives_in(bullet).items():
            asked.setdefault(name, []).append(value)
    for sentence in _SENTENCE_END.split(parts.introduction):
        for name, value in directives_in(sentence).items():
            asked.setdefault(name, []).append(value * _INTRODUCTION)
    strengths = {name: _together(values) for name, values in asked.items()}
    for one, other in CONFLICTS:
        if strengths.get(one, 0.0) > 0.2 and strengths.get(other, 0.0) > 0.2:
            strengths[one] *= _CONFLICT
            strengths[other] *= _CONFLICT
    dilution = _dilution(text, parts, len(strengths))
    return {name: value * dilution for name, value in strengths.items()}


def shifts_of(strengths: dict[str, float]) -> dict[Feature, float]:
    """Feature -> log-odds that these directives add."""
    shifts: dict[Feature, float] = {}
    for name, strength in strengths.items():
        for feature, effect in BY_NAME[name].effects.items():
            shifts[feature] = shifts.get(feature, 0.0) + _FORCE * effect * strength
    return shifts


def _together(values: list[float]) -> float:
    """Saying it again helps a little: the strongest wish plus a fifth of the others, at most a third more."""
    strongest = max(values, key=abs)
    rest = sum(values) - strongest
    limit = abs(strongest) / 3
    return strongest + max(-limit, min(limit, rest / 5))


def _dilution(text: str, parts: PromptParts, directives: int) -> float:
    words = len(text[:_LONGEST_READ].split())
    factor = 1.0 / (1.0 + _WEAKENING * max(0, directives - _MANY))
    if len(parts.bullets) > MOST_BULLETS:
        factor *= (MOST_BULLETS / len(parts.bullets)) ** 0.8
    if words > LONGEST_PROMPT_WORDS:
        factor *= (LONGEST_PROMPT_WORDS / words) ** 0.6
    return factor
