"""The simulated base model: decides which features a response will have, and writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from drpo.llm.world.features import FLAWS
from drpo.llm.world.features import Feature as F
from drpo.llm.world.prompts import read_prompt, shifts_of
from drpo.llm.world.queries import QueryReading, read_query
from drpo.llm.world.responses import read_response
from drpo.llm.world.settings import Dice, World
from drpo.llm.world.writing import write_response

# Log-odds of showing a feature without being asked: a capable model with a base model's bad habits.
_HABITS: dict[F, float] = {
    F.DIRECT: -0.6,
    F.STRUCTURE: -0.9,
    F.EXAMPLE: -1.0,
    F.REASONS: -0.6,
    F.HEDGE: -1.5,
    F.LIMIT: -1.3,
    F.REFUSAL: -1.1,
    F.ALTERNATIVE: -1.2,
    F.WARMTH: -1.7,
    F.LIVELY: -0.9,
    F.QUESTION: -1.7,
    F.PREMISE: -1.5,
    F.FORMAT: -0.3,
    F.IMAGE: -1.9,
    F.RESPECT: -2.0,
    F.NEXT_STEP: -1.1,
    F.REPETITION: 0.1,
    F.RAMBLE: 0.0,
    F.STIFF: 0.2,
    F.JARGON: -0.7,
    F.FLATTERY: -2.4,
    F.OVERCLAIM: -0.8,
    F.OVER_REFUSAL: -4.2,
    F.DISCLAIMER: -2.0,
    F.EXCITED: -3.0,
}

# What the query itself brings about: (sign or task, feature, log-odds).
_OCCASIONS: tuple[tuple[str, F, float], ...] = (
    ("procedure", F.STRUCTURE, 0.9),
    ("procedure", F.NEXT_STEP, 0.4),
    ("writing", F.STRUCTURE, -1.2),
    ("role-play", F.STRUCTURE, -1.8),
    ("role-play", F.EXAMPLE, -1.5),
    ("role-play", F.LIVELY, 0.8),
    ("reasoning", F.REASONS, 0.6),
    ("coding", F.FORMAT, 0.6),
    ("emotional", F.WARMTH, 1.0),
    ("emotional", F.IMAGE, -0.8),
    ("stakes", F.HEDGE, 0.5),
    ("vague", F.QUESTION, 0.4),
    ("long", F.QUESTION, 0.3),
    ("long", F.RAMBLE, 0.4),
    ("premise", F.PREMISE, 0.5),
    ("cultural", F.RESPECT, 0.6),
    ("brief", F.RAMBLE, -0.7),
    ("live", F.OVERCLAIM, 0.6),
    ("live", F.STRUCTURE, -0.5),
    ("borderline", F.OVER_REFUSAL, 1.7),
    ("crisis", F.ALTERNATIVE, 0.6),
    ("crisis", F.WARMTH, 0.6),
)

_CALM_NEED: dict[F, float] = {F.WARMTH: -0.6, F.PREMISE: -0.5, F.RESPECT: -1.2, F.DISCLAIMER: 0.0}
_NEEDED_BY: dict[F, str] = {F.WARMTH: "emotional", F.PREMISE: "premise", F.RESPECT: "cultural"}

# Features that have no place in a response to such a query, whatever the prompt asks.
_ONLY_HARMFUL = frozenset({F.REFUSAL, F.ALTERNATIVE})
_NEVER_HARMFUL = frozenset({F.OVER_REFUSAL, F.FORMAT, F.EXAMPLE, F.IMAGE, F.LIMIT, F.DIRECT})

_FIRMEST = 3.0  # log-odds beyond which nothing makes a model surer
_RUB_OFF = 0.7  # probability that a feature seen in the shots takes hold for one query at all
_SHOWN = 2.2  # log-odds when every shot shows it
_NOT_SHOWN = -0.35
_CLEAN = -1.0  # for a flaw that no shot has


@dataclass(frozen=True, slots=True)
class Nature:
    """What the base model is like with one query: how readily each feature shows, and what shots teach."""

    thresholds: Mapping[F, float]
    receptive: frozenset[F]


def nature_of(seed: int, query_text: str) -> Nature:
    """The nature of a query in the world with this seed."""
    dice = Dice.of(seed, "query", query_text)
    return Nature(
        {feature: dice.uniform("threshold", feature) for feature in F},
        frozenset(feature for feature in F if dice.chance(_RUB_OFF, "rub off", feature)),
    )


class Readings:
    """Reads prompts, queries and shots, and remembers the latest: the same ones come again and again."""

    def __init__(self) -> None:
        self.query = lru_cache(maxsize=1024)(read_query)
        self.shot = lru_cache(maxsize=256)(_features_of_shot)
        self.shifts = lru_cache(maxsize=256)(_shifts_of_prompt)
        self.nature = lru_cache(maxsize=1024)(nature_of)


def respond(
    world: World,
    readings: Readings,
    system_prompt: str,
    shots: Sequence[tuple[str, str]],
    query_text: str,
    sample: str = "",
) -> str:
    """The response to one query. `sample` tells one sampled response from another; greedy ones have none."""
    query = readings.query(query_text)
    noise = Dice.of(
        world.seed, "base", system_prompt, *[text for shot in shots for text in shot], query_text, sample
    )
    shares = shot_shares([readings.shot(*shot) for shot in shots])
    nature = readings.nature(world.seed, query.clarity.core)
    features = plan(world, readings.shifts(system_prompt), shares, query, nature, noise)
    return write_response(features, query, Dice.of(world.seed, "wording", query.clarity.core, sample))


def plan(
    world: World,
    shifts: Mapping[F, float],
    shares: Mapping[F, float] | None,
    query: QueryReading,
    nature: Nature,
    noise: Dice | None,
) -> frozenset[F]:
    """The features of a response, from what prompt and shots come to; without `noise`, of a typical wording.

    Each query has its own threshold per feature, the same for all prompts: two prompts are compared on the
    same ground, and a bit more of a directive never takes its feature away.
    """
    chosen: set[F] = set()
    for feature, lean in leanings(world, shifts, shares, query, nature).items():
        odds = max(-_FIRMEST - 1.5, min(_FIRMEST, lean))
        if noise is not None and world.response_noise > 0:
            odds += world.response_noise * noise.gauss("odds", feature)
        if nature.thresholds[feature] < 1.0 / (1.0 + math.exp(-odds)):
            chosen.add(feature)
    return settle(frozenset(chosen), query)


def leanings(
    world: World,
    shifts: Mapping[F, float],
    shares: Mapping[F, float] | None,
    query: QueryReading,
    nature: Nature,
) -> dict[F, float]:
    """Log-odds of every feature that can occur in a response to this query."""
    occasions: dict[F, float] = {}
    for name, feature, value in _OCCASIONS:
        if name == query.task or name in query.signs:
            occasions[feature] = occasions.get(feature, 0.0) + value
    for feature, value in query.clarity.shifts:
        occasions[feature] = occasions.get(feature, 0.0) + value
    barred = _NEVER_HARMFUL if query.harmful else _ONLY_HARMFUL
    result: dict[F, float] = {}
    for feature, habit in _HABITS.items():
        if feature in barred:
            continue
        lean = habit + occasions.get(feature, 0.0) + world.force * shifts.get(feature, 0.0)
        need = _NEEDED_BY.get(feature)
        if need is not None and need not in query.signs:
            lean += _CALM_NEED[feature]
        if shares is not None:
            lean += _rubbed_off(feature, shares) if feature in nature.receptive else 0.0
        result[feature] = lean
    return result


def _rubbed_off(feature: F, shares: Mapping[F, float]) -> float:
    share = shares.get(feature, 0.0)
    if feature in (F.OVER_REFUSAL, F.REFUSAL):
        return 0.6 * _SHOWN * share
    missing = _CLEAN if feature in FLAWS else _NOT_SHOWN
    return _SHOWN * share + missing * (1.0 - share)


def shot_shares(shown: Sequence[frozenset[F]]) -> dict[F, float] | None:
    """Feature -> share of the shots whose responses show it; None without shots."""
    if not shown:
        return None
    shares = {feature: sum(feature in features for features in shown) / len(shown) for feature in F}
    shares[F.OVER_REFUSAL] = max(
        0.0, shares[F.REFUSAL] - 0.5
    )  # nothing but refusals: they spread to harmless queries
    return shares


def _features_of_shot(query_text: str, response: str) -> frozenset[F]:
    return read_response(response, read_query(query_text)).features


def _shifts_of_prompt(text: str) -> dict[F, float]:
    return shifts_of(read_prompt(text))


def settle(features: frozenset[F], query: QueryReading) -> frozenset[F]:
    """The same features without those that exclude each other."""
    out: set[F] = set()
    if F.STIFF in features:
        out.add(F.LIVELY)
    if F.OVER_REFUSAL in features:
        out |= set(F) - {F.OVER_REFUSAL, F.STIFF, F.WARMTH, F.LIVELY, F.FLATTERY, F.DISCLAIMER}
    if "live" in query.signs:
        out |= {F.FORMAT, F.OVERCLAIM} if F.LIMIT in features else {F.FORMAT}
    elif F.LIMIT in features:
        out.add(F.LIMIT)
    if query.harmful and F.REFUSAL not in features and "crisis" not in query.signs:
        out |= {F.ALTERNATIVE, F.PREMISE, F.RESPECT}
    if F.RAMBLE in features or F.STIFF in features or F.FLATTERY in features:
        out.add(F.DIRECT)
    if F.HEDGE in features:
        out.add(F.OVERCLAIM)
    return features - out
