"""The dynamic reward: aspects once per query, scores never made up, repeats that are samples."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from drpo.ask import Asker
from drpo.compose import Sampling
from drpo.errors import InputError, ProviderDown
from drpo.llm.base import Completion, Request, request_key
from drpo.reward import (
    DynamicAspects,
    EvaluatorReward,
    OwnReward,
    StaticAspects,
    mean_evaluation,
    plain_reward,
)
from drpo.templates import Templates
from drpo.testing import ScriptedLLM
from drpo.types import AspectScore, Evaluation, Failed, Query, Selection

TEMPLATES = Templates()
GREEDY = Sampling(temperature=0.0, max_tokens=100)
WHO, HOW = Query("Who?"), Query("How?")


def selected(*aspects: Any) -> str:
    return json.dumps({"aspects_selection": {"reasoning": "they matter", "selected_aspects": aspects}})


def scored(**scores: Any) -> str:
    return json.dumps(
        {name.replace("_", "-"): {"rationale": "r", "score": score} for name, score in scores.items()}
    )


def evaluation(*scores: tuple[str, float | None], rationale: str = "r") -> Evaluation:
    return Evaluation(tuple(AspectScore(name, score, rationale) for name, score in scores))


def dynamic(selector: Any, repairs: int = 1) -> DynamicAspects:
    return DynamicAspects(Asker(selector, TEMPLATES, repairs), "sel", GREEDY)


def reward(selector: Any, evaluator: Any, **settings: Any) -> EvaluatorReward:
    return EvaluatorReward(
        Asker(evaluator, TEMPLATES, 0), "eval", GREEDY, dynamic(selector, repairs=0), **settings
    )


async def test_aspects_are_asked_once_per_query_however_many_want_them() -> None:
    selector = ScriptedLLM(lambda request: selected("Depth", "Clarity"))
    aspects = dynamic(selector)
    aspects.look_ahead([WHO, HOW, WHO])
    found = await asyncio.gather(
        *(aspects.choose(query) for query in (WHO, WHO, HOW, Query("Who?", style="x")))
    )
    await aspects.settle()
    assert len(selector.requests) == 2
    assert len({id(selection) for selection in found}) == 2
    assert isinstance(found[0], Selection)
    assert [aspect.name for aspect in found[0].aspects] == ["Depth", "Clarity"]


@pytest.mark.parametrize("any_number", [False, True])
async def test_how_many_were_chosen_is_not_checked_where_published_runs_are_reproduced(
    any_number: bool,
) -> None:
    six = ("Depth", "Clarity", "Safety", "Empathy", "Creativity", "Factuality")
    asker = Asker(ScriptedLLM(lambda request: selected(*six)), TEMPLATES, 0)
    found = await DynamicAspects(asker, "sel", GREEDY, any_number=any_number).choose(WHO)
    assert isinstance(found, Selection) == any_number


async def test_what_is_chosen_ahead_lets_the_present_level_go_first() -> None:
    selector = ScriptedLLM(lambda request: selected("Depth", "Clarity"))
    aspects = dynamic(selector)
    await aspects.choose(WHO)
    aspects.look_ahead([WHO, HOW])
    await aspects.settle()
    now, ahead = selector.requests
    assert (now.priority, ahead.priority) == (0, 1)
    assert (now.role, now.model, now.temperature, now.seed) == ("selector", "sel", 0.0, None)
    assert "Who?" in now.messages[0].content
    assert "2 to 5" in now.messages[0].content


async def test_a_failure_ahead_belongs_to_who_asks_for_that_query() -> None:
    def script(request: Request) -> Any:
        return ProviderDown("gone") if "How?" in request.messages[0].content else selected("Depth", "Safety")

    aspects = dynamic(ScriptedLLM(script))
    aspects.look_ahead([WHO, HOW])
    await aspects.settle()
    assert isinstance(await aspects.choose(WHO), Selection)
    with pytest.raises(ProviderDown):
        await aspects.choose(HOW)


async def test_one_who_stops_waiting_does_not_end_the_choosing() -> None:
    gate = asyncio.Event()

    class Slow:
        async def complete(self, request: Request) -> Completion:
            await gate.wait()
            return await ScriptedLLM([selected("Depth", "Safety")]).complete(request)

    aspects = dynamic(Slow())
    waiting = asyncio.create_task(aspects.choose(WHO))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert isinstance(await aspects.choose(WHO), Selection)


async def test_aspects_that_cannot_be_chosen_are_no_reward() -> None:
    selector, evaluator = ScriptedLLM(["no idea"]), ScriptedLLM([])
    result = await reward(selector, evaluator).evaluate(WHO, "Me.", "r")
    assert isinstance(result, Failed)
    assert result.reason.startswith("aspects could not be chosen: ")
    assert result.raw == "no idea"
    assert evaluator.requests == []


async def test_a_proposed_aspect_works_to_the_end() -> None:
    selector = ScriptedLLM([selected("Depth", {"name": "Rhyme", "definition": "It rhymes {{7*7}}."})])
    evaluator = ScriptedLLM([scored(Depth="4", Rhyme=1)])
    result = await reward(selector, evaluator).evaluate(WHO, "Me.", "r")
    assert result == evaluation(("Depth", 4), ("Rhyme", 1))
    assert isinstance(result, Evaluation)
    assert result.reward == 2.5
    page = evaluator.requests[0].messages[0].content
    assert "- Rhyme: It rhymes {{7*7}}.\n" in page
    assert '"Rhyme": {"rationale"' in page
    assert "they matter" in page


async def test_static_rewarding_asks_nobody_and_uses_the_six() -> None:
    six = TEMPLATES.book.static
    evaluator = ScriptedLLM([scored(**{aspect.name: 3 for aspect in six})])
    aspects = StaticAspects(Selection(six))
    static = EvaluatorReward(Asker(evaluator, TEMPLATES), "eval", GREEDY, aspects)
    static.look_ahead([WHO])
    result = await static.evaluate(WHO, "Me.", "r")
    await static.settle()
    assert isinstance(result, Evaluation)
    assert [score.aspect for score in result.scores] == [aspect.name for aspect in six]
    assert "Why these aspects matter" not in evaluator.requests[0].messages[0].content


async def test_one_evaluation_is_greedy_and_the_same_wherever_it_is_asked() -> None:
    selector = ScriptedLLM(lambda request: selected("Depth", "Safety"))
    evaluator = ScriptedLLM(lambda request: scored(Depth=4, Safety="N/A"))
    judge = reward(selector, evaluator)
    assert await judge.evaluate(WHO, "Me.", "r/0") == evaluation(("Depth", 4), ("Safety", None))
    await judge.evaluate(WHO, "Me.", "r/1")
    one, other = evaluator.requests
    assert one == other
    assert (one.temperature, one.seed, one.role, one.model) == (0.0, None, "evaluator", "eval")


async def test_repeated_evaluations_are_samples_and_their_mean_counts() -> None:
    selector = ScriptedLLM(lambda request: selected("Depth", "Safety"))
    evaluator = ScriptedLLM([scored(Depth=n, Safety=5) for n in (1, 2, 5)] * 3)
    judge = reward(selector, evaluator, repeats=3, random_seed=7)
    result = await judge.evaluate(WHO, "Me.", "r/0")
    assert result == evaluation(("Depth", 8 / 3), ("Safety", 5))
    await judge.evaluate(WHO, "Me.", "r/1")
    await judge.evaluate(WHO, "Me.", "r/0")
    keys = [request_key(request) for request in evaluator.requests]
    assert len(set(keys[:6])) == 6
    assert keys[6:] == keys[:3]
    assert {request.temperature for request in evaluator.requests} == {1.0}


async def test_a_repeat_that_fails_is_left_out_and_not_counted_low() -> None:
    selector = ScriptedLLM(lambda request: selected("Depth", "Safety"))
    replies = [scored(Depth=4, Safety=4), "I refuse", scored(Depth=5, Safety=9)]
    judge = reward(selector, ScriptedLLM(replies), repeats=3)
    assert await judge.evaluate(WHO, "Me.", "r") == evaluation(("Depth", 4), ("Safety", 4))


async def test_repeats_that_all_fail_have_failed() -> None:
    selector = ScriptedLLM(lambda request: selected("Depth", "Safety"))
    result = await reward(selector, ScriptedLLM(["first", "second"]), repeats=2).evaluate(WHO, "Me.", "r")
    assert isinstance(result, Failed)
    assert result.raw == "first"


@pytest.mark.parametrize("names", ["asked", "returned"])
async def test_aspects_nobody_asked_for_count_only_in_the_published_way(names: str) -> None:
    selector = ScriptedLLM(lambda request: selected("Depth", "Safety"))
    reply = scored(Depth=4, Empathy=1)
    result = await reward(selector, ScriptedLLM([reply]), names=names).evaluate(WHO, "Me.", "r")
    if names == "asked":
        assert isinstance(result, Failed)
    else:
        assert result == evaluation(("Depth", 4), ("Empathy", 1))


def test_the_mean_leaves_out_what_does_not_apply() -> None:
    one = evaluation(("Depth", 4), ("Safety", None), rationale="first")
    two = evaluation(("Depth", 5), ("Safety", 2))
    assert mean_evaluation([one, two]) == evaluation(("Depth", 4.5), ("Safety", 2), rationale="first")
    assert mean_evaluation([one, one]) == one
    assert mean_evaluation([Failed("x"), two]) is two
    assert mean_evaluation([Failed("x"), Failed("y")]) == Failed("x")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (3, {"Reward": (3.0, "")}),
        (1.5, {"Reward": (1.5, "")}),
        (np.float32(2.5), {"Reward": (2.5, "")}),
        (np.int64(5), {"Reward": (5.0, "")}),
        ({"A": 1, "B": 5.0}, {"A": (1.0, ""), "B": (5.0, "")}),
        ({"A": {"score": 4, "rationale": "why"}}, {"A": (4.0, "why")}),
    ],
)
def test_what_a_reward_of_the_users_own_may_give(value: object, plain: Mapping[str, Any] | None) -> None:
    found = plain_reward(value)
    assert found == plain
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    "value",
    [
        0,
        5.1,
        -1,
        float("nan"),
        float("inf"),
        True,
        np.bool_(True),
        "4",
        [4],
        {},
        {"A": None},
        {"A": {}},
        {"A": "4"},
    ],
)
def test_what_it_may_not_give(value: object) -> None:
    with pytest.raises(InputError, match=r"^reward: expected .*came "):
        plain_reward(value)


async def test_an_own_reward_is_an_evaluation_or_has_failed() -> None:
    async def call(query: str, response: str) -> Any:
        assert query == "Who?"
        return {"A": [4.0, "why"], "B": (2.0, "")} if response else None

    own = OwnReward(call)
    own.look_ahead([WHO])
    expected = Evaluation((AspectScore("A", 4.0, "why"), AspectScore("B", 2.0, "")))
    assert await own.evaluate(WHO, "Me.", "r") == expected
    assert isinstance(await own.evaluate(WHO, "", "r"), Failed)
    await own.settle()
