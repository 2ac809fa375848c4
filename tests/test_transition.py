"""The optimizer: what it sees, how it is asked, and what of its answers is taken."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.ask import Asker
from drpo.compose import Sampling
from drpo.llm.base import Request, request_key
from drpo.templates import Templates
from drpo.testing import ScriptedLLM
from drpo.transition import OPTIMIZER_SAMPLING, Optimizer, versions
from drpo.types import AspectScore, Evaluation, Failed

TEMPLATES = Templates()
EVALUATION = Evaluation((AspectScore("Depth", 2, "too {{7*7}} shallow"), AspectScore("Safety", None, "n")))


def proposal(text: str, field: str = "new_system_prompt") -> str:
    return json.dumps({"analysis": "a", "thought": "t", field: text})


def optimizer(model: ScriptedLLM, **settings: Any) -> Optimizer:
    return Optimizer(Asker(model, TEMPLATES), "opt", OPTIMIZER_SAMPLING, **settings)


async def proposed(one: Optimizer, n: int = 1, place: str = "r/0") -> list[str | Failed]:
    samples = one.improve_system_prompt(["first", "second"], "Who?", "Me.", EVALUATION, place, n)
    return list(await asyncio.gather(*(sample.value() for sample in samples)))


@given(st.lists(st.text(max_size=5), min_size=1, max_size=12))
def test_the_last_five_are_shown_numbered_the_current_one_last(history: list[str]) -> None:
    shown = history[-5:]
    expected = "".join(f"---Version {i}---\n{text}\n\n" for i, text in enumerate(shown[:-1], 1))
    assert versions(history) == f"{expected}---Current Version---\n{shown[-1]}"


def test_the_versions_to_the_letter() -> None:
    assert versions(["a"]) == "---Current Version---\na"
    assert versions(["z", "a", "b", "c", "d", "e"]) == (
        "---Version 1---\na\n\n---Version 2---\nb\n\n---Version 3---\nc\n\n---Version 4---\nd\n\n"
        "---Current Version---\ne"
    )


async def test_one_request_for_all_proposals_sampled_as_the_published_runs_did() -> None:
    model = ScriptedLLM([[proposal("A"), proposal("B"), proposal("A")]])
    assert await proposed(optimizer(model), 3) == ["A", "B", "A"]
    (request,) = model.requests
    assert (request.n, request.temperature, request.top_p, request.max_tokens) == (3, 0.2, 0.95, 2048)
    assert (request.role, request.model) == ("optimizer", "opt")
    assert request.seed is not None


async def test_the_optimizer_sees_what_rule_seven_lists() -> None:
    model = ScriptedLLM([proposal("A")])
    await proposed(optimizer(model))
    page = model.requests[0].messages[0].content
    for text in (
        "\nsecond\n",
        "\nWho?\n",
        "\nMe.\n",
        "---Version 1---\nfirst\n\n---Current Version---\nsecond",
        '    "rationale": "too {{7*7}} shallow",\n    "score": 2\n',
        '"score": "N/A"',
        "more than 8",
        "at most 2",
    ):
        assert text in page
    assert "word for word" not in page


async def test_equal_questions_at_two_places_are_two_samples() -> None:
    model = ScriptedLLM(lambda request: proposal("A"))
    for place in ("r/0", "r/0.1/0", "r/0"):
        await proposed(optimizer(model), place=place)
    await proposed(optimizer(model, random_seed=1), place="r/0")
    first, elsewhere, again, other_seed = (request_key(request) for request in model.requests)
    assert first == again
    assert len({first, elsewhere, other_seed}) == 3


async def test_a_greedy_optimizer_is_asked_once_for_one_question() -> None:
    model = ScriptedLLM(lambda request: proposal("A"))
    greedy = Optimizer(Asker(model, TEMPLATES), "opt", Sampling(temperature=0.0))
    await proposed(greedy, place="r/0")
    await proposed(greedy, place="r/1")
    assert model.requests[0] == model.requests[1]
    assert model.requests[0].seed is None


async def test_backslash_n_is_a_newline() -> None:
    assert await proposed(optimizer(ScriptedLLM([proposal("one\\ntwo")]))) == ["one\ntwo"]


async def test_a_proposal_that_loses_protected_text_is_asked_for_again() -> None:
    model = ScriptedLLM([proposal("Be nice."), proposal("Be nice. Never {{7*7}}.")])
    assert await proposed(optimizer(model, protected=("Never {{7*7}}.",))) == ["Be nice. Never {{7*7}}."]
    first, repair = model.requests
    assert "Never {{7*7}}." in first.messages[0].content
    assert "word for word" in first.messages[0].content
    assert 'lost the protected passage "Never {{7*7}}."' in repair.messages[-1].content


async def test_and_has_failed_if_it_stays_lost() -> None:
    model = ScriptedLLM([[proposal("Keep me. Me too."), proposal("Keep me.")], proposal("Me too.")])
    found = await proposed(optimizer(model, protected=("Keep me.", "Me too.")), 2)
    assert found[0] == "Keep me. Me too."
    assert isinstance(found[1], Failed)
    assert found[1].reason == 'the new system prompt lost the protected passage "Keep me."'
    assert found[1].raw == proposal("Me too.")


@pytest.mark.parametrize("reply", ["I cannot help with that.", "", proposal(""), proposal("x", "other")])
async def test_an_unreadable_proposal_has_failed(reply: str) -> None:
    found = await proposed(optimizer(ScriptedLLM([reply, reply])))
    assert isinstance(found[0], Failed)
    assert found[0].raw == reply


async def test_a_response_is_improved_with_its_history_once_there_is_one() -> None:
    def script(request: Request) -> str:
        return proposal("better", "new_response")

    model = ScriptedLLM(script)
    for history in (["first"], ["first", "second"]):
        (sample,) = optimizer(model).improve_response(history, "Who?", EVALUATION, "r/0", 1)
        assert await sample.value() == "better"
    early, late = (request.messages[0].content for request in model.requests)
    assert "Earlier responses" not in early
    assert "---Version 1---\nfirst\n\n---Current Version---\nsecond" in late
    assert "Who?" in early
    assert "\nfirst\n" in early


async def test_protected_text_is_none_of_a_responses_business() -> None:
    model = ScriptedLLM([proposal("better", "new_response")])
    one = optimizer(model, protected=("Never.",))
    (sample,) = one.improve_response(["first"], "Who?", EVALUATION, "r/0", 1)
    assert await sample.value() == "better"
