"""How good a prompt really is in a world: what an evaluator without noise would say of the responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist

from drpo.llm.world.directives import HELPFUL, Directive
from drpo.llm.world.editing import INTRODUCTIONS
from drpo.llm.world.features import Feature
from drpo.llm.world.judging import judge
from drpo.llm.world.prompts import MOST_BULLETS, read_prompt, shifts_of
from drpo.llm.world.queries import QueryReading, read_query
from drpo.llm.world.responding import Readings, plan, respond, shot_shares
from drpo.llm.world.responses import read_response
from drpo.llm.world.selecting import KNOWN, choose
from drpo.llm.world.settings import Dice, World
from drpo.llm.world.writing import write_response
from drpo.types import HIGHEST_SCORE, LOWEST_SCORE, Aspect, Example, Query, left_to_right_sum

Shots = Sequence[Example] | Callable[[Query], Sequence[Example]]

_SEARCHED = 24  # queries on which the best prompt is looked for; more change it little and take longer
_NORMAL = NormalDist()


def true_reward(
    world: World,
    system_prompt: str,
    queries: Sequence[Query],
    shots: Shots = (),
    aspects: Sequence[Aspect] | None = None,
) -> float:
    """Mean quality, 1 to 5, of the greedy responses to these queries, neither rounded nor disturbed by noise.

    `shots`: the same ones for every query, or a function that retrieves them. `aspects`: the same ones for
    every query; without them those that the selector chooses for each.
    """
    return _mean(world, system_prompt, queries, shots, aspects, lambda quality: quality)


def expected_reward(
    world: World,
    system_prompt: str,
    queries: Sequence[Query],
    shots: Shots = (),
    aspects: Sequence[Aspect] | None = None,
) -> float:
    """As `true_reward`, but what the evaluator's whole scores come to on average over its noise.

    Scores end at 1 and 5, so noise pulls good responses down and bad ones up: this, not the true reward, is
    what a mean over ever more evaluations of the same responses tends to.
    """
    return _mean(
        world, system_prompt, queries, shots, aspects, lambda quality: _expected_score(world, quality)
    )


def true_reward_of_rewrite(
    world: World, query: str, rewritten: str, system_prompt: str = "", shots: Shots = ()
) -> float:
    """The true quality, 1 to 5, of the frozen model's greedy answer to `rewritten`, judged for `query`.

    `shots`: the same ones always, or a function that retrieves them; it is given the rewritten query. Where
    the two texts are equal this is the `true_reward` of the query.
    """
    pairs = [(example.query, example.response) for example in _shots_for(shots, Query(rewritten))]
    return quality_for(world, query, respond(world, Readings(), system_prompt, pairs, rewritten))


def quality_for(world: World, query: str, response: str) -> float:
    """The true quality, 1 to 5, of any response to a query, on aspects that the selector chooses for it."""
    reading = read_query(query)
    return _quality(response, reading, choose(world, reading, KNOWN), lambda quality: quality)


def best_known_prompt(world: World, queries: Sequence[Query], shots: Shots = ()) -> tuple[str, float]:
    """The best system prompt that a thorough search with full knowledge finds, and its true reward.

    Greedy: bullets of helpful directives, in their sharpest wording, are added one at a time, always the one
    with which the true reward is highest, up to eight, and the best stage is kept; then each bullet is
    exchanged for each other one as long as that helps; all this on up to 24 of the queries, evenly spread,
    without response noise. Then the introductions are compared on all queries. A lower bound of the best
    prompt there is, not a proof of it.
    """
    step = max(1, -(-len(queries) // _SEARCHED))
    trial = _Trial(world, queries[::step], shots)
    chosen: list[Directive] = []
    best = trial.reward(chosen)
    grown: list[Directive] = []
    while len(grown) < MOST_BULLETS:
        rest = [d for d in HELPFUL if d not in grown]
        reward, index = max((trial.reward([*grown, d]), -i) for i, d in enumerate(rest))
        grown = [*grown, rest[-index]]
        if reward > best:
            best, chosen = reward, grown
    for place in range(len(chosen)):
        for other in [d for d in HELPFUL if d not in chosen]:
            changed = [*chosen[:place], other, *chosen[place + 1 :]]
            reward = trial.reward(changed)
            if reward > best:
                best, chosen = reward, changed
    texts = [_text(introduction, chosen) for introduction in INTRODUCTIONS]
    rewards = [true_reward(world, text, queries, shots) for text in texts]
    return max(zip(texts, rewards, strict=True), key=lambda pair: pair[1])


class _Trial:
    """Rates prompts without noise on the same queries; each response is written and judged once."""

    def __init__(self, world: World, queries: Sequence[Query], shots: Shots) -> None:
        self._world = world
        readings = Readings()
        self._queries = [readings.query(query.text) for query in queries]
        self._natures = [readings.nature(world.seed, query.clarity.core) for query in self._queries]
        self._shares = [
            shot_shares([readings.shot(e.query, e.response) for e in _shots_for(shots, query)])
            for query in queries
        ]
        self._aspects = [choose(world, query, KNOWN) for query in self._queries]
        self._rated: dict[tuple[int, frozenset[Feature]], float] = {}

    def reward(self, directives: Sequence[Directive]) -> float:
        return self.reward_of(_text(INTRODUCTIONS[0], directives))

    def reward_of(self, prompt: str) -> float:
        shifts = shifts_of(read_prompt(prompt))
        total = 0.0
        for at, (query, shares) in enumerate(zip(self._queries, self._shares, strict=True)):
            features = plan(self._world, shifts, shares, query, self._natures[at], None)
            if (at, features) not in self._rated:
                dice = Dice.of(self._world.seed, "wording", query.clarity.core, "")
                text = write_response(features, query, dice)
                self._rated[at, features] = _quality(text, query, self._aspects[at], lambda quality: quality)
            total += self._rated[at, features]
        return total / max(1, len(self._queries))


def _text(introduction: str, directives: Sequence[Directive]) -> str:
    return "\n".join([introduction, *[f"- {directive.bullets[-1]}" for directive in directives]])


def _mean(
    world: World,
    system_prompt: str,
    queries: Sequence[Query],
    shots: Shots,
    aspects: Sequence[Aspect] | None,
    counted: Callable[[float], float],
) -> float:
    if not queries:
        raise ValueError("a true reward needs at least one query")
    readings = Readings()
    rewards = []
    for query in queries:
        pairs = [(example.query, example.response) for example in _shots_for(shots, query)]
        text = respond(world, readings, system_prompt, pairs, query.text)
        reading = readings.query(query.text)
        asked = choose(world, reading, KNOWN) if aspects is None else tuple(aspects)
        rewards.append(_quality(text, reading, asked, counted))
    return left_to_right_sum(rewards) / len(rewards)


def _shots_for(shots: Shots, query: Query) -> Sequence[Example]:
    return shots(query) if callable(shots) else shots


def _quality(
    text: str, query: QueryReading, aspects: Sequence[Aspect], counted: Callable[[float], float]
) -> float:
    response = read_response(text, query)
    values = [counted(judge(aspect, query, response).quality) for aspect in aspects]
    return left_to_right_sum(values) / len(values)


def _expected_score(world: World, quality: float) -> float:
    if world.noise <= 0:
        return float(max(LOWEST_SCORE, min(HIGHEST_SCORE, round(quality))))
    above = (
        1.0 - _NORMAL.cdf((k - 0.5 - quality) / world.noise)
        for k in range(LOWEST_SCORE + 1, HIGHEST_SCORE + 1)
    )
    return LOWEST_SCORE + left_to_right_sum(above)
