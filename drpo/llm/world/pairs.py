"""Preference pairs of a simulated world: two responses to one prompt, the better one first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drpo.llm.world.responding import Readings, respond
from drpo.llm.world.rewriting import wished
from drpo.llm.world.settings import Dice, World
from drpo.llm.world.truth import quality_for

_TRIES = 8  # throws for a pair whose two responses differ in quality


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A prompt and two responses of one model, as people would have preferred them.

    context: material that came with the prompt after a blank line, "" where there was none. gap: points of
    true quality, above 0, by which the good response is better.
    """

    prompt: str
    good: str
    bad: str
    context: str = ""
    gap: float = 0.0


def preference_pairs(world: World, queries: Sequence[str], count: int) -> tuple[PreferencePair, ...]:
    """At most `count` pairs, the same ones every time, the queries in turn; fewer where responses are alike.

    The frozen model answers each query as it is and as somebody with sense would have put it. The good one of
    the two answers is the one with the higher true quality for the query as it is.
    """
    readings = Readings()
    pairs: list[PreferencePair] = []
    rounds = -(-count // len(queries)) if queries else 0
    for turn in range(rounds):
        for query in queries:
            pair = _pair(world, readings, query, turn) if len(pairs) < count else None
            pairs += [pair] if pair is not None else []
    return tuple(pairs)


def _pair(world: World, readings: Readings, query: str, turn: int) -> PreferencePair | None:
    head, _, material = query.partition("\n\n")
    has_context = head.rstrip().endswith(":") and bool(material.strip())
    for throw in range(_TRIES):
        sample = f"pair {turn} {throw}"
        better_put = wished(query, Dice.of(world.seed, "pair", query, sample))
        texts = [respond(world, readings, "", (), text, sample) for text in (query, better_put)]
        plain, clear = (quality_for(world, query, text) for text in texts)
        if plain == clear:
            continue
        good, bad = texts[::-1] if clear > plain else texts
        prompt, context = (head, material) if has_context else (query, "")
        return PreferencePair(prompt, good, bad, context, abs(clear - plain))
    return None
