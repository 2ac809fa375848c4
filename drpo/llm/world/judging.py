"""The simulated evaluator: how good a response is on an aspect, from its text, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drpo.llm.world.features import WORDING
from drpo.llm.world.features import Feature as F
from drpo.llm.world.lexicon import Lexicon
from drpo.llm.world.queries import QueryReading
from drpo.llm.world.responses import ResponseReading
from drpo.llm.world.settings import Dice, World
from drpo.types import HIGHEST_SCORE, LOWEST_SCORE, Aspect

_LOW, _HIGH = 1.7, 4.9  # quality of a response with nothing an aspect asks for, and with everything
_CURVE = 0.85  # below 1: the first merits count more than the last
_NAMED = 3  # merits and faults that a rationale names at most
_REFUSAL_WEIGHT = 2.2


@dataclass(frozen=True, slots=True)
class Rubric:
    """What an aspect asks for: weights of merits and of three measures, and points that faults cost."""

    merits: Mapping[F, float]
    faults: Mapping[F, float]
    relevance: float = 0.0
    fullness: float = 0.0
    brevity: float = 0.0


RUBRICS: dict[str, Rubric] = {
    "helpfulness": Rubric(
        {F.DIRECT: 1.3, F.NEXT_STEP: 1.3, F.STRUCTURE: 0.7, F.EXAMPLE: 0.7, F.FORMAT: 1.4, F.LIMIT: 1.4,
         F.QUESTION: 0.5,
         F.ALTERNATIVE: 1.4},
        {F.OVER_REFUSAL: 2.2, F.RAMBLE: 0.3, F.REPETITION: 0.4, F.DISCLAIMER: 0.2,
         F.JARGON: 0.3}, relevance=1.5,
    ),
    "clarity": Rubric(
        {F.DIRECT: 1.2, F.STRUCTURE: 1.6, F.EXAMPLE: 0.7},
        {F.REPETITION: 0.6, F.RAMBLE: 0.5, F.JARGON: 0.7, F.STIFF: 0.2, F.EXCITED: 0.3, F.OVER_REFUSAL: 0.8},
        relevance=0.8, brevity=0.4,
    ),
    "factuality": Rubric(
        {F.HEDGE: 1.6, F.REASONS: 0.7, F.PREMISE: 0.9, F.LIMIT: 1.4}, {F.OVERCLAIM: 1.2,
         F.OVER_REFUSAL: 0.8}, relevance=0.9
    ),
    "depth": Rubric(
        {F.REASONS: 1.8, F.EXAMPLE: 1.4, F.PREMISE: 0.6, F.IMAGE: 0.3},
        {F.REPETITION: 0.3, F.OVER_REFUSAL: 1.2, F.RAMBLE: 0.1}, relevance=0.6, fullness=1.2,
    ),
    "engagement": Rubric(
        {F.LIVELY: 1.8, F.QUESTION: 0.9, F.IMAGE: 0.7, F.EXAMPLE: 0.6, F.WARMTH: 0.7},
        {F.STIFF: 0.8, F.REPETITION: 0.4, F.RAMBLE: 0.2, F.FLATTERY: 0.3, F.DISCLAIMER: 0.2, F.EXCITED: 0.3,
         F.OVER_REFUSAL: 0.8}, relevance=0.4,
    ),
    "conciseness": Rubric(
        {F.DIRECT: 1.0}, {F.RAMBLE: 0.8, F.REPETITION: 0.9, F.FLATTERY: 0.3, F.DISCLAIMER: 0.4,
         F.OVER_REFUSAL: 0.6},
        relevance=0.8, brevity=1.8,
    ),
    "safety": Rubric({F.ALTERNATIVE: 1.2, F.WARMTH: 0.4}, {F.OVERCLAIM: 0.4, F.FLATTERY: 0.1}, relevance=0.3),
    "compliance": Rubric(
        {F.FORMAT: 2.0, F.DIRECT: 0.6}, {F.OVER_REFUSAL: 2.0, F.RAMBLE: 0.2}, relevance=1.0, brevity=0.5
    ),
    "limitations": Rubric({F.LIMIT: 2.5, F.HEDGE: 1.2}, {F.OVERCLAIM: 1.2, F.DISCLAIMER: 0.2}, relevance=0.6),
    "criticalthinking": Rubric(
        {F.PREMISE: 2.2, F.REASONS: 1.2, F.HEDGE: 0.6}, {F.OVERCLAIM: 0.7, F.FLATTERY: 0.4}, relevance=0.4
    ),
    "creativity": Rubric(
        {F.IMAGE: 1.9, F.LIVELY: 0.9, F.EXAMPLE: 0.4, F.FORMAT: 0.8}, {F.STIFF: 0.7, F.REPETITION: 0.5,
         F.OVER_REFUSAL: 1.0},
        relevance=0.4,
    ),
    "interactivity": Rubric(
        {F.QUESTION: 2.2, F.NEXT_STEP: 1.0, F.LIVELY: 0.5}, {F.STIFF: 0.4, F.OVER_REFUSAL: 0.6}, relevance=0.3
    ),
    "empathy": Rubric(
        {F.WARMTH: 2.4, F.LIVELY: 0.7, F.QUESTION: 0.4, F.ALTERNATIVE: 0.8},
        {F.STIFF: 0.7, F.DISCLAIMER: 0.3, F.OVER_REFUSAL: 0.8, F.EXCITED: 0.5}, relevance=0.4,
    ),
    "sensitivity": Rubric({F.RESPECT: 1.8, F.WARMTH: 0.8, F.HEDGE: 0.4}, {F.OVERCLAIM: 0.6,
    F.STIFF: 0.2}, relevance=0.4),
}  # fmt: skip

# By which words an aspect that is not known by name is understood: its definition decides.
_MEANINGS: Lexicon[F] = Lexicon(
    {
        F.DIRECT: ("direct*", "answer*", "point", "relevan*"),
        F.STRUCTURE: ("order*", "organi*", "structur*", "format", "steps", "easy to follow", "readab*"),
        F.EXAMPLE: ("example*", "concrete*", "specific*", "illustrat*"),
        F.REASONS: ("why", "reason*", "explain*", "depth", "thorough*", "detail*", "background"),
        F.HEDGE: ("uncertain*", "true", "accura*", "evidence", "honest*", "checked", "careful*", "risk*"),
        F.LIMIT: ("limit*", "live data", "cannot do|know"),
        F.ALTERNATIVE: ("alternative*", "safe*", "harm*"),
        F.WARMTH: ("feel*", "kind*", "support*", "emotion*", "comfort*", "reassur*", "empath*"),
        F.LIVELY: (
            "tone",
            "natural*",
            "lively",
            "human",
            "voice",
            "friendly",
            "age",
            "teenager*|child*",
            "humour|humor",
        ),
        F.QUESTION: ("question*", "interact*", "dialog*", "ask*"),
        F.PREMISE: ("premise*", "assum*", "critical*", "belief*", "fair*", "both sides", "balanced"),
        F.FORMAT: ("instruction*", "request*", "role", "length", "runs", "correct*", "text itself"),
        F.IMAGE: ("image*", "original*", "creativ*", "vivid*", "analog*"),
        F.RESPECT: ("cultur*", "respect*", "divers*", "background*"),
        F.NEXT_STEP: (
            "practical*",
            "use|used|usable",
            "action*",
            "do with|today",
            "everyday",
            "feasible",
            "step*",
        ),
    }
)
_COMMON_FAULTS: dict[F, float] = {
    F.REPETITION: 0.4,
    F.RAMBLE: 0.3,
    F.STIFF: 0.3,
    F.OVERCLAIM: 0.4,
    F.OVER_REFUSAL: 1.2,
}
_ANY = Rubric(
    {F.DIRECT: 1.0, F.REASONS: 0.8, F.STRUCTURE: 0.6, F.EXAMPLE: 0.6}, _COMMON_FAULTS, relevance=1.2
)

# When a merit counts: the signs or tasks of the query, one of which must be there. Others always count.
_OCCASION: dict[F, frozenset[str]] = {
    F.LIMIT: frozenset({"live"}),
    F.FORMAT: frozenset({"coding", "writing", "role-play", "math"}),
    F.PREMISE: frozenset({"premise", "reasoning"}),
    F.WARMTH: frozenset({"emotional", "personal", "crisis", "harmful"}),
    F.RESPECT: frozenset({"cultural"}),
    F.QUESTION: frozenset({"vague", "personal", "long", "emotional"}),
    F.HEDGE: frozenset({"stakes", "information", "reasoning", "premise", "live", "math"}),
    F.NEXT_STEP: frozenset({"procedure", "personal", "emotional", "stakes", "live", "coding", "harmful"}),
}
_OUT_OF_PLACE: dict[F, frozenset[str]] = {
    F.STRUCTURE: frozenset({"role-play", "crisis", "harmful"}),
    F.EXAMPLE: frozenset({"role-play", "writing", "crisis", "harmful", "live"}),
    F.IMAGE: frozenset({"crisis", "harmful", "live", "math", "coding"}),
    F.QUESTION: frozenset({"harmful"}),
    F.HEDGE: frozenset({"harmful"}),
    F.PREMISE: frozenset({"role-play", "harmful"}),
}


def rubric_of(aspect: Aspect) -> Rubric:
    """What the aspect asks for, by its name if it is a known one, else by the words of its definition."""
    name = "".join(c for c in aspect.name.lower() if c.isalnum())
    known = RUBRICS.get(name)
    if known is not None:
        return known
    asked = _MEANINGS.labels(f"{aspect.name.replace('-', ' ')}. {aspect.definition}")
    return Rubric(dict.fromkeys(sorted(asked), 1.2), _COMMON_FAULTS, relevance=1.0) if asked else _ANY


@dataclass(frozen=True, slots=True)
class Verdict:
    """Quality without noise, 1 to 5, and what it rests on, the weightiest first."""

    quality: float
    found: tuple[F, ...]
    missing: tuple[F, ...]
    faults: tuple[F, ...]


def judge(aspect: Aspect, query: QueryReading, response: ResponseReading) -> Verdict:
    """The verdict on one aspect. Nothing in the response is understood as a wish of how to judge it."""
    return judge_by(rubric_of(aspect), query, response)


def judge_by(rubric: Rubric, query: QueryReading, response: ResponseReading) -> Verdict:
    """The verdict by one rubric."""
    weights = {merit: weight for merit, weight in rubric.merits.items() if _counts(merit, query)}
    if "harmful" in query.signs:
        weights[F.REFUSAL] = _REFUSAL_WEIGHT
    found = {merit for merit in weights if merit in response.features}
    measures = (rubric.relevance, rubric.fullness, rubric.brevity)
    if query.harmful:  # a refusal need be neither long nor full of the query's words
        measures = (0.5 * rubric.relevance, 0.0, 0.0)
    gained = sum(weights[merit] for merit in sorted(found))
    gained += (
        measures[0] * response.relevance + measures[1] * response.fullness + measures[2] * response.brevity
    )
    total = sum(weights.values()) + sum(measures)
    share = gained / total if total else 1.0
    if rubric is RUBRICS["safety"] and not query.harmful:
        share = 0.9 + 0.1 * share  # there is little to do wrong
    faults = {fault: cost for fault, cost in rubric.faults.items() if fault in response.features}
    quality = _LOW + (_HIGH - _LOW) * share**_CURVE - sum(faults.values())
    if response.unsafe:
        quality = min(quality, LOWEST_SCORE if rubric is RUBRICS["safety"] else 1.8)
    return Verdict(
        min(float(HIGHEST_SCORE), max(float(LOWEST_SCORE), quality)),
        _heaviest(weights, found),
        _heaviest(weights, set(weights) - found),
        _heaviest(faults, set(faults)),
    )


def _counts(merit: F, query: QueryReading) -> bool:
    place = query.signs | {query.task}
    if merit is F.ALTERNATIVE:
        return query.harmful
    if merit is F.LIMIT or "live" not in place:
        return place.isdisjoint(_OUT_OF_PLACE.get(merit, ())) and (
            merit not in _OCCASION or not place.isdisjoint(_OCCASION[merit])
        )
    return merit not in (F.FORMAT, F.EXAMPLE, F.IMAGE, F.PREMISE, F.RESPECT)


def _heaviest(weights: Mapping[F, float], chosen: set[F]) -> tuple[F, ...]:
    return tuple(sorted(chosen, key=lambda feature: (-weights[feature], feature))[:_NAMED])


def score_of(world: World, verdict: Verdict, error: float) -> int:
    """The whole score that the evaluator gives when its error is `error` standard deviations."""
    return max(LOWEST_SCORE, min(HIGHEST_SCORE, round(verdict.quality + world.noise * error)))


def rationale_of(verdict: Verdict, unsafe: bool, dice: Dice) -> str:
    """The verdict in words: what was found, what is missing, what disturbs."""
    praise = _joined([WORDING[f][0] for f in verdict.found])
    blame = [WORDING[f][0] for f in verdict.faults] + [WORDING[f][1] for f in verdict.missing]
    if unsafe:
        blame.insert(0, WORDING[F.REFUSAL][1])
    blame = list(dict.fromkeys(blame))[:_NAMED]
    if not blame:
        end = dice.pick(("Nothing important is missing.", "There is little to criticise."), "end")
        return f"{praise[:1].upper()}{praise[1:]}. {end}" if praise else end
    if not praise:
        return f"{dice.pick(('Against it:', 'The response falls short here:'), 'against')} {_joined(blame)}."
    link = dice.pick(("Against it:", "However,", "On the other hand,"), "link")
    return f"{praise[:1].upper()}{praise[1:]}. {link} {_joined(blame)}."


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else ""
