"""What is searched: when a prompt is kept, what a base model's answer may be, what goes unscored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from drpo.ask import Asker
from drpo.compose import Composer, Sampling
from drpo.llm.base import Choice, Completion
from drpo.problems import (
    ExampleProblem,
    PromptState,
    Responder,
    ResponseState,
    SystemPromptProblem,
    describe_state,
)
from drpo.search.problem import Draw, Keep, Proposals
from drpo.search.tree import Node
from drpo.templates import Templates
from drpo.testing import ScriptedLLM
from drpo.transition import OPTIMIZER_SAMPLING, Optimizer
from drpo.types import AspectScore, Evaluation, Example, Failed, Query, Scored, Unscored

TEMPLATES = Templates()
QUERIES = tuple(Query(f"query {number}?", style="s") for number in range(4))
EXAMPLES = (Example("shot 0?", "answer 0"), Example("shot 1?", "answer 1"))


def of(score: float) -> Evaluation:
    return Evaluation((AspectScore("Depth", score, "why"),))


@dataclass
class Judge:
    """A reward that says what it is told to and remembers what it was asked."""

    result: Evaluation | Failed
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)

    def look_ahead(self, queries: Sequence[Query]) -> None:
        self.ahead += [query.text for query in queries]

    async def evaluate(self, query: Query, response: str, place: str) -> Evaluation | Failed:
        self.asked.append((query.text, response, place))
        return self.result

    async def settle(self) -> None:
        pass


def prompt_problem(
    base: ScriptedLLM, judge: Judge, optimizer: ScriptedLLM | None = None, keep_above: float | None = 4.5
) -> SystemPromptProblem:
    shots = ((0, 1), (1, 0), (), (0,))
    responder = Responder(base, "base", Composer(TEMPLATES, "chat"), Sampling(max_tokens=9), EXAMPLES, shots)
    asker = Asker(optimizer or ScriptedLLM([]), TEMPLATES, 0)
    rewrite = Optimizer(asker, "opt", OPTIMIZER_SAMPLING)
    return SystemPromptProblem(responder, judge, rewrite, QUERIES, "Be kind.", keep_above, 2)


def node(
    score: float | None, prompt: str = "Be kind.", parent: Node[PromptState] | None = None
) -> Node[PromptState]:
    evaluation = None if score is None else of(score)
    state = PromptState(prompt, QUERIES[0], (0,), "Me.", "stop", evaluation)
    depth = parent.depth + 1 if parent else 0
    return Node(0, "r" if parent is None else f"{parent.place}/0.0", depth, state, score, parent)


DRAW = Draw("r/0", (1, 1, 1))


async def test_the_start_is_tried_on_the_first_query_with_its_shots() -> None:
    base, judge = ScriptedLLM(["Me."]), Judge(of(3))
    result = await prompt_problem(base, judge).root()
    assert result == Scored(PromptState("Be kind.", QUERIES[0], (0, 1), "Me.", "stop", of(3)), 3.0)
    contents = [message.content for message in base.requests[0].messages]
    assert contents == ["Be kind.", "shot 0?", "answer 0", "shot 1?", "answer 1", "query 0?"]
    assert base.requests[0].max_tokens == 9
    assert judge.asked == [("query 0?", "Me.", "r")]
    assert judge.ahead == ["query 0?", "query 1?"]


@pytest.mark.parametrize(
    ("score", "keep_above", "kept"),
    [
        (4.5, 4.5, False),
        (4.500001, 4.5, True),
        (5, 4.5, True),
        (1, 4.5, False),
        (5, None, False),
        (None, 4.5, True),
        (None, None, True),
    ],
)
async def test_a_prompt_is_kept_strictly_above_the_threshold_or_unscored(
    score: float | None, keep_above: float | None, kept: bool
) -> None:
    optimizer = ScriptedLLM([])
    problem = prompt_problem(ScriptedLLM([]), Judge(of(3)), optimizer, keep_above)
    decision = await problem.expand(node(score), DRAW)
    assert isinstance(decision, Keep if kept else Proposals)
    assert optimizer.requests == []  # expanding asks nobody: a proposal is asked for where it is tried


async def test_proposals_are_made_from_the_path_the_response_and_its_evaluation() -> None:
    replies = [[json.dumps({"new_system_prompt": text}) for text in "ABC"]]
    optimizer = ScriptedLLM(replies)
    base, judge = ScriptedLLM(lambda request: "ok"), Judge(of(4))
    problem = prompt_problem(base, judge, optimizer)
    root = node(2, "first")
    leaf = node(2.5, "second", root)
    decision = await problem.expand(leaf, Draw("r/0.0/0", (2, 2, 2)))
    assert isinstance(decision, Proposals)
    results = [await problem.step(leaf, action, 2) for action in decision.actions]
    assert [r.state.system_prompt for r in results if isinstance(r, Scored)] == ["A", "B", "C"]
    (request,) = optimizer.requests
    page = request.messages[0].content
    assert "---Version 1---\nfirst\n\n---Current Version---\nsecond" in page
    assert "query 0?" in page
    assert '"score": 2.5' in page
    assert [asked[0] for asked in judge.asked] == ["query 2?"] * 3
    assert [message.content for message in base.requests[0].messages] == ["A", "query 2?"]


async def test_a_kept_prompt_is_tried_on_the_next_query() -> None:
    judge = Judge(of(4))
    result = await prompt_problem(ScriptedLLM(["ok"]), judge).step(node(5), Keep(), 1)
    assert isinstance(result, Scored)
    assert (result.state.system_prompt, result.state.query, result.state.shots) == (
        "Be kind.",
        QUERIES[1],
        (1, 0),
    )
    assert judge.asked == [("query 1?", "ok", "r/k")]


async def test_a_proposal_that_failed_is_tried_on_nothing() -> None:
    base, judge = ScriptedLLM([]), Judge(of(4))
    problem = prompt_problem(base, judge, ScriptedLLM([["no", "no", "no"]]))
    decision = await problem.expand(node(2), DRAW)
    assert isinstance(decision, Proposals)
    result = await problem.step(node(2), decision.actions[0], 1)
    assert isinstance(result, Failed)
    assert (base.requests, judge.asked) == ([], [])


@pytest.mark.parametrize(
    "choice",
    [
        Choice("I'm sorry, I can't help with that."),
        Choice("It begins well but", "length"),
        Choice("", "content_filter"),
        Choice("", "stop"),
    ],
)
async def test_refusing_and_being_cut_off_are_responses_like_any_other(choice: Choice) -> None:
    judge = Judge(of(5))
    result = await prompt_problem(ScriptedLLM([Completion((choice,))]), judge).root()
    assert isinstance(result, Scored)
    assert (result.reward, result.state.finish_reason) == (5.0, choice.finish_reason)
    assert judge.asked == [("query 0?", choice.text, "r")]


async def test_a_prompt_longer_than_the_context_goes_unscored_and_is_not_evaluated() -> None:
    judge = Judge(of(5))
    base = ScriptedLLM([Completion((Choice("", "context_length"),))])
    result = await prompt_problem(base, judge).root()
    assert isinstance(result, Unscored)
    assert "longer than the base model's context" in result.failure.reason
    assert (result.state.evaluation, judge.asked) == (None, [])


async def test_an_evaluation_that_failed_is_no_reward() -> None:
    result = await prompt_problem(ScriptedLLM(["ok"]), Judge(Failed("unreadable", "raw"))).root()
    assert isinstance(result, Unscored)
    assert result.failure == Failed("unreadable", "raw")
    assert result.state.response == "ok"


def example_problem(judge: Judge, *replies: Any) -> ExampleProblem:
    asker = Asker(ScriptedLLM(replies), TEMPLATES, 0)
    return ExampleProblem(Example("Why?", "Because."), judge, Optimizer(asker, "opt", OPTIMIZER_SAMPLING))


def response_node(score: float | None, parent: Node[ResponseState] | None = None) -> Node[ResponseState]:
    state = ResponseState(f"response {score}", None if score is None else of(score))
    return Node(0, "r", 0, state, score, parent)


async def test_an_example_starts_from_its_response() -> None:
    judge = Judge(of(3))
    assert await example_problem(judge).root() == Scored(ResponseState("Because.", of(3)), 3.0)
    assert judge.asked == [("Why?", "Because.", "r")]


async def test_a_response_is_improved_however_good_it_is_with_its_history() -> None:
    judge = Judge(of(4))
    problem = example_problem(judge, json.dumps({"new_response": "Since."}))
    leaf = response_node(5.0, response_node(2))
    decision = await problem.expand(leaf, Draw("r/0", (1,)))
    assert isinstance(decision, Proposals)
    result = await problem.step(leaf, decision.actions[0], 1)
    assert result == Scored(ResponseState("Since.", of(4)), 4.0)
    asked = problem.optimizer.asker.llm
    assert isinstance(asked, ScriptedLLM)
    page = asked.requests[0].messages[0].content
    assert "---Version 1---\nresponse 2\n\n---Current Version---\nresponse 5.0" in page


async def test_examples_at_the_same_place_are_different_samples() -> None:
    seeds = []
    for query in ("Why?", "How?"):
        model = ScriptedLLM([json.dumps({"new_response": "x"})])
        optimizer = Optimizer(Asker(model, TEMPLATES, 0), "opt", OPTIMIZER_SAMPLING)
        problem = ExampleProblem(Example(query, "Because."), Judge(of(3)), optimizer)
        decision = await problem.expand(response_node(2), Draw("r/0", (1,)))
        assert isinstance(decision, Proposals)
        await decision.actions[0].value()
        seeds.append(model.requests[0].seed)
    assert seeds[0] != seeds[1]


async def test_an_unscored_response_stays_and_an_unreadable_one_has_failed() -> None:
    problem = example_problem(Judge(Failed("no")), "no")
    assert isinstance(await problem.expand(response_node(None), Draw("r/0", (1,))), Keep)
    kept = await problem.step(response_node(None), Keep(), 1)
    assert kept == Unscored(ResponseState("response None", None), Failed("no"))
    decision = await problem.expand(response_node(2), Draw("r/0", (1,)))
    assert isinstance(decision, Proposals)
    assert isinstance(await problem.step(response_node(2), decision.actions[0], 1), Failed)


def test_states_are_described_in_plain_values() -> None:
    scored = {"Depth": {"rationale": "why", "score": 4}}
    state = PromptState("p", QUERIES[0], (1, 0), "r", "length", of(4))
    described = describe_state(state)
    assert (
        json.loads(json.dumps(described))
        == described
        == {
            "system_prompt": "p",
            "query": "query 0?",
            "shots": [1, 0],
            "response": "r",
            "finish_reason": "length",
            "evaluation": scored,
        }
    )
    assert describe_state(ResponseState("r", None)) == {"response": "r", "evaluation": None}
    assert describe_state(ResponseState("r", of(4)))["evaluation"] == scored
