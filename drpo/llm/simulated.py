"""Simulated models for `--model demo`: a small world in which a better prompt makes better responses.

Nothing is known here but the request: the base model reads the system prompt, shots and query, the evaluator
reads the response it is shown, the optimizer reads the evaluation, or the two responses of a preference pair,
the judge reads what it is to compare, the rewriter reads the query it is to put in other words.
Every reply is a function of the world and the request, on every machine alike. Figures from these models say
nothing about real ones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import assert_never

from drpo.errors import InputError
from drpo.llm.base import Choice, Completion, Request, Usage
from drpo.llm.world import reading, rewriting
from drpo.llm.world.arbiter import Arbiter
from drpo.llm.world.criticism import wishes_of
from drpo.llm.world.damage import damaged
from drpo.llm.world.editing import Task, propose
from drpo.llm.world.judging import judge, rationale_of, score_of
from drpo.llm.world.mending import mend
from drpo.llm.world.pairs import PreferencePair, preference_pairs
from drpo.llm.world.responding import Readings, respond
from drpo.llm.world.responses import read_response
from drpo.llm.world.selecting import choose, explain
from drpo.llm.world.settings import Dice, Latency, World
from drpo.llm.world.truth import (
    best_known_prompt,
    expected_reward,
    true_reward,
    true_reward_of_rewrite,
)

__all__ = [
    "Latency",
    "PreferencePair",
    "SimulatedLLM",
    "World",
    "best_known_prompt",
    "expected_reward",
    "preference_pairs",
    "true_reward",
    "true_reward_of_rewrite",
]

_NO_REWRITE = "I have read the query. It could be put in many ways, so I would rather leave that to you."

_CHARACTERS_PER_TOKEN = 4  # about what English text comes to
_SERVED_AS = "simulated"

Reply = tuple[str, str]  # text and finish reason


class SimulatedLLM:
    """All models of one world; `request.role` says which of them is asked."""

    def __init__(self, world: World = World()) -> None:  # noqa: B008 - frozen, so one default serves all
        self.world = world
        self._readings = Readings()

    async def complete(self, request: Request) -> Completion:
        """`request.n` choices. An `InputError` says which part of a request could not be found."""
        seconds: float = getattr(self.world.latency_s, request.role)
        if seconds > 0:
            await asyncio.sleep(seconds)
        answer = self._answerer(request)
        choices = tuple(_limited(request, answer(sample)) for sample in _samples(request))
        asked = request.prompt if request.prompt is not None else "".join(m.content for m in request.messages)
        usage = Usage(_tokens(asked), sum(_tokens(choice.text) for choice in choices))
        return Completion(choices, usage, served_model=_SERVED_AS)

    def _answerer(self, request: Request) -> Callable[[str], Reply]:
        match request.role:
            case "base" | "against":
                return self._base(request)
            case "selector":
                return self._selector(request)
            case "evaluator":
                return self._evaluator(request)
            case "optimizer":
                return self._optimizer(request)
            case "judge":
                return self._judge(request)
            case "rewriter":
                return self._rewriter(request)
            case _:
                assert_never(request.role)

    def _base(self, request: Request) -> Callable[[str], Reply]:
        seen = reading.conversation(request)
        return lambda sample: (
            respond(self.world, self._readings, seen.system_prompt, seen.shots, seen.query, sample),
            "stop",
        )

    def _selector(self, request: Request) -> Callable[[str], Reply]:
        parts = reading.take_apart(request)
        query = self._readings.query(parts.text("query", "selector"))
        known = reading.listed_aspects(parts, "selector")
        fewest, most = reading.wanted_number(parts)

        def answer(sample: str) -> Reply:
            chosen = choose(self.world, query, known, fewest, most, sample)
            return _json(explain(query, chosen)), "stop"

        return answer

    def _evaluator(self, request: Request) -> Callable[[str], Reply]:
        parts = reading.take_apart(request)
        query = self._readings.query(parts.text("query", "evaluator"))
        response = read_response(parts.text("response", "evaluator"), query)
        aspects = reading.judged_aspects(parts)
        verdicts = [judge(aspect, query, response) for aspect in aspects]

        def answer(sample: str) -> Reply:
            dice = self._dice(request, sample)
            reply = _json(
                {
                    aspect.name: {
                        "rationale": rationale_of(verdict, response.unsafe, Dice.of(dice.key, aspect.name)),
                        "score": str(score_of(self.world, verdict, dice.gauss("error", aspect.name))),
                    }
                    for aspect, verdict in zip(aspects, verdicts, strict=True)
                }
            )
            return self._perhaps_damaged(request, reply, dice)

        return answer

    def _judge(self, request: Request) -> Callable[[str], Reply]:
        parts = reading.take_apart(request)
        query = self._readings.query(parts.text("query", "judge"))
        compares = "response-a" in parts.fenced
        asked = reading.weighed_criteria(parts) if compares else reading.judged_aspects(parts, "judge")

        def answer(sample: str) -> Reply:
            arbiter = Arbiter(self.world, query, sample)
            if compares:
                sides = parts.text("response-a", "judge"), parts.text("response-b", "judge")
                reply = _json(arbiter.preference(*sides, asked))
            else:
                reply = _json(arbiter.scores(parts.text("response", "judge"), asked))
            return self._perhaps_damaged(request, reply, self._dice(request, sample))

        return answer

    def _perhaps_damaged(self, request: Request, reply: str, dice: Dice, *words: str) -> Reply:
        if not reading.is_repair(request) and dice.chance(self.world.damage, "damaged"):
            return damaged(reply, dice, *words)
        return reply, "stop"

    def _rewriter(self, request: Request) -> Callable[[str], Reply]:
        parts = reading.take_apart(request)
        if "query" not in parts.fenced:
            raise InputError(
                "simulated rewriter: found no part marked <query-...> in the request. It plays the templates"
                " improve.j2 and prompter.j2; apply.j2 is for trained models, so name one to rewrite with"
            )
        query = parts.text("query", "rewriter")
        if not reading.wants_rewrite_as_json(parts):
            return lambda sample: (
                rewriting.prompter(self.world, query, self._dice(request, sample)),
                "stop",
            )
        bold = reading.is_bold(parts)

        def improved(sample: str) -> Reply:
            dice = self._dice(request, sample)
            changes, new = rewriting.improve(self.world, query, bold, dice)
            reply = _json({"changes": changes, "rewritten_query": new})
            return self._perhaps_damaged(request, reply, dice, "rewrite", _NO_REWRITE)

        return improved

    def _builder(self, request: Request, parts: reading.Parts) -> Callable[[str], Reply]:
        pair = rewriting.Pair(
            parts.text("instruction", "optimizer"),
            parts.text("good-response", "optimizer"),
            parts.text("bad-response", "optimizer"),
            parts.fenced.get("protected", ()),
        )

        def built(sample: str) -> Reply:
            dice = self._dice(request, sample)
            comparison, new = rewriting.build(self.world, pair, dice)
            reply = _json({"comparison": comparison, "optimized_instruction": new})
            return self._perhaps_damaged(request, reply, dice, "comparison", _NO_REWRITE)

        return built

    def _optimizer(self, request: Request) -> Callable[[str], Reply]:
        parts = reading.take_apart(request)
        if "instruction" in parts.fenced:
            return self._builder(request, parts)
        wishes = wishes_of(reading.evaluation_of(parts.text("evaluation", "optimizer")))
        query = self._readings.query(parts.text("query", "optimizer"))
        if "system-prompt" not in parts.fenced:
            response = parts.text("response", "optimizer")

            def mended(sample: str) -> Reply:
                analysis, thought, new = mend(response, query, wishes, self._dice(request, sample))
                return _json({"analysis": analysis, "thought": thought, "new_response": new}), "stop"

            return mended
        most_bullets, most_new = reading.bullet_limits(parts)
        task = Task(
            parts.text("system-prompt", "optimizer"),
            query,
            wishes,
            parts.fenced.get("protected", ()),
            most_bullets,
            most_new,
        )

        def edited(sample: str) -> Reply:
            new = propose(self.world, task, self._dice(request, sample))
            return _json(
                {"analysis": new.analysis, "thought": new.thought, "new_system_prompt": new.system_prompt}
            ), "stop"

        return edited

    def _dice(self, request: Request, sample: str) -> Dice:
        """The dice of one reply: thrown by the texts of the request, and by seed and place of a sample."""
        texts = [request.prompt or "", *[part for m in request.messages for part in (m.role, m.content)]]
        return Dice.of(self.world.seed, request.role, sample, *texts)


def _samples(request: Request) -> list[str]:
    """One name per choice; all are empty, and so all choices alike, where nothing is sampled."""
    sampled = request.seed is not None or bool(request.temperature)
    return [f"{request.seed} {i}" if sampled else "" for i in range(max(1, request.n))]


def _limited(request: Request, reply: Reply) -> Choice:
    text, reason = reply
    for stop in request.stop:
        at = text.find(stop)
        if at >= 0 and stop:
            text, reason = text[:at], "stop"
    if request.max_tokens is not None and len(text) > request.max_tokens * _CHARACTERS_PER_TOKEN:
        text, reason = text[: request.max_tokens * _CHARACTERS_PER_TOKEN], "length"
    return Choice(text, reason)


def _tokens(text: str) -> int:
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
