"""The figures and names that trackers log, from what real searches on the simulated models tell them."""

from __future__ import annotations

from dataclasses import fields, replace
from statistics import fmean
from typing import Any

import pytest

from drpo.events import LevelDone, NodeMade, ProposalDropped, SearchDone
from drpo.llm.base import Usage
from drpo.llm.ledger import CallDone, Spent
from drpo.tracking.otel_tracker import ModelParts, call_attributes
from drpo.tracking.rows import Rows
from tests.support.tracked import Searched, improved, searched

LEVEL = LevelDone(0, 4, (0,), False)
CALL = CallDone("base", "demo/seed=0", "chat", 100.0, 1.5, "answered", usage=Usage(10, 5), usd=0.5)


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return searched(tmp_path_factory.mktemp("tracked") / "run")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return improved(tmp_path_factory.mktemp("tracked") / "examples")


def test_each_level_of_a_search_is_one_row_of_its_figures(search: Searched) -> None:
    rows = search.rows()
    assert [row.step for row in rows] == [level.level for level in search.levels] == [0, 1, 2, 3, 4]
    made: list[NodeMade] = []
    nodes = dropped = 0
    left = iter(rows)
    for event in search.events:
        match event:
            case NodeMade():
                made.append(event)
            case ProposalDropped():
                dropped += 1
            case LevelDone():
                row, nodes = next(left), nodes + len(made)
                rewards = [node.reward for node in made if node.reward is not None]
                best = next(node for node in made if node.id == event.beam[0])
                assert row.metrics["mean_reward"] == pytest.approx(fmean(rewards))
                assert row.metrics["best_reward"] == max(rewards)
                assert row.metrics.get("best_path_score") == best.score
                assert (row.metrics["nodes"], row.metrics["dropped"]) == (nodes, dropped)
                assert row.prompt == best.state["system_prompt"]
                made = []
    assert rows[-1].metrics["best_path_score"] == pytest.approx(search.results["path_score"])
    assert rows[-1].metrics["nodes"] == search.results["nodes"]


def test_rows_sum_what_was_spent(search: Searched) -> None:
    rows = search.rows()
    calls = [row.metrics["calls"] for row in rows]
    assert calls == sorted(set(calls)) and calls[-1] == len(search.calls)
    usages = [call.usage for call in search.calls if call.usage is not None]
    assert rows[-1].metrics["input_tokens"] == sum(usage.prompt_tokens for usage in usages)
    assert rows[-1].metrics["output_tokens"] == sum(usage.completion_tokens for usage in usages)
    assert rows[-1].metrics["usd"] == 0.0


def test_levels_that_come_from_the_record_have_the_same_figures_and_say_nothing_of_money(
    search: Searched,
) -> None:
    of_calls = {"calls", "input_tokens", "output_tokens", "usd"}
    first, again = search.rows(), search.resumed().rows()
    for row, repeated in zip(first, again, strict=True):
        same = {name: value for name, value in row.metrics.items() if name not in of_calls}
        assert repeated == replace(row, metrics=same)


def test_what_earlier_processes_spent_is_part_of_the_sum(search: Searched) -> None:
    rows = Rows(search.resumed().facts.spent)
    rows.call(CALL)
    [row] = rows.event(LEVEL)
    assert row.metrics["calls"] == len(search.calls) + 1
    assert row.metrics["usd"] == 0.5


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([CALL], {"calls": 1, "input_tokens": 10, "output_tokens": 5, "usd": 0.5}),
        ([replace(CALL, usd=None)], {"calls": 1, "input_tokens": 10, "output_tokens": 5}),
        ([CALL, replace(CALL, usd=None), CALL], {"calls": 3, "input_tokens": 30, "output_tokens": 15}),
        (
            [CALL, replace(CALL, ending="failed", usage=None, usd=None)],
            {"calls": 2, "input_tokens": 10, "output_tokens": 5, "usd": 0.5},
        ),
        ([replace(CALL, ending="unsent", usage=None, usd=None)], {}),
    ],
    ids=["priced", "unpriced", "one-unpriced", "failed", "unsent"],
)
def test_an_unknown_price_makes_the_sum_unknown(calls: list[CallDone], expected: dict[str, float]) -> None:
    rows = Rows(Spent())
    for call in calls:
        rows.call(call)
    [row] = rows.event(LEVEL)
    of_calls = ("calls", "input_tokens", "output_tokens", "usd")
    assert {name: value for name, value in row.metrics.items() if name in of_calls} == expected


def test_money_of_unknown_price_before_makes_the_sum_unknown() -> None:
    rows = Rows(Spent(answered=1, unpriced=1))
    rows.call(CALL)
    [row] = rows.event(LEVEL)
    assert row.metrics["calls"] == 2 and "usd" not in row.metrics


def test_each_example_is_one_row_in_the_order_of_the_examples_however_they_end(examples: Searched) -> None:
    rows = examples.rows()
    subjects = {event.subject for event in examples.events}
    assert [row.step for row in rows] == list(range(len(subjects)))
    backwards = sorted(examples.events, key=lambda event: -(event.subject or 0))
    of_calls = ("calls", "input_tokens", "output_tokens", "usd")
    turned = replace(examples, events=tuple(backwards)).rows()
    for row, other in zip(rows, turned, strict=True):
        for name in row.metrics.keys() - set(of_calls):
            assert other.metrics[name] == row.metrics[name]
    for row in rows:
        own = [event for event in examples.events if event.subject == row.step]
        rewards = {event.id: event.reward for event in own if isinstance(event, NodeMade)}
        [end] = [event for event in own if isinstance(event, SearchDone)]
        assert row.metrics["reward_before"] == rewards[0]
        assert row.metrics["reward_after"] == rewards[end.best]
        assert row.metrics["levels"] == sum(isinstance(event, LevelDone) for event in own)
    after = [row.metrics["reward_after"] for row in rows]
    assert rows[-1].metrics["mean_reward_after"] == pytest.approx(fmean(after))


@pytest.mark.parametrize(
    ("identity", "parts"),
    [
        ("openai/gpt-4o", ModelParts("openai", "gpt-4o", "api.openai.com", 443)),
        ("openai/m@http://127.0.0.1:8000/v1", ModelParts("openai", "m", "127.0.0.1", 8000)),
        ("openai/m@https://host/v1", ModelParts("openai", "m", "host", 443)),
        ("vllm/org/m@http://[::1]:80/v1", ModelParts("vllm", "org/m", "::1", 80)),
        ("vllm/org/m@http://a:1/v1,http://b:1/v1", ModelParts("vllm", "org/m")),
        ("vllm/org/m@rev[dtype=float32]", ModelParts("vllm", "org/m@rev")),
        ("demo/seed=0,noise=0.5", ModelParts("demo", "demo")),
        ("custom/mine@http://[", ModelParts("custom", "mine@http://[")),
        ("mine", ModelParts("custom", "mine")),
    ],
)
def test_a_models_identity_is_told_in_the_parts_of_the_conventions(identity: str, parts: ModelParts) -> None:
    assert ModelParts.of(identity) == parts


def test_a_request_has_the_attributes_of_the_genai_conventions() -> None:
    call = replace(CALL, finish_reasons=("stop", "length"), max_tokens=64, temperature=0.2)
    assert call_attributes(replace(call, usage=Usage(10, 5, 4))) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.response.finish_reasons": ("stop", "length"),
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "drpo.role": "base",
        "drpo.usd": 0.5,
    }


@pytest.mark.parametrize(
    ("ending", "problem", "named"),
    [
        ("failed", "ProviderRefused", "ProviderRefused"),
        ("failed", "context_length", "context_length"),
        ("unknown", None, "unknown"),
        ("failed", "HTTP 400: what you wrote was: my secret prompt", "failed"),
    ],
)
def test_an_error_is_told_by_its_kind_and_never_by_a_servers_words(
    ending: Any, problem: str | None, named: str
) -> None:
    attributes = call_attributes(replace(CALL, ending=ending, problem=problem, usage=None))
    assert attributes["error.type"] == named
    assert "secret" not in str(attributes)


def test_embeddings_have_no_output_tokens() -> None:
    attributes = call_attributes(replace(CALL, operation="embeddings"))
    assert attributes["gen_ai.usage.input_tokens"] == 10
    assert "gen_ai.usage.output_tokens" not in attributes


def test_every_field_of_a_call_but_its_names_and_times_is_an_attribute_or_a_status() -> None:
    elsewhere = {"model", "began_s", "took_s", "ending"}
    full = CallDone(
        "base", "m", "chat", 1.0, 1.0, "failed", True, Usage(1, 2, 3), 0.1, ("stop",), 64, 0.2, "TimeoutError"
    )
    for field in fields(CallDone):
        if field.name not in elsewhere | {"operation", "role"}:
            default: dict[str, Any] = {field.name: field.default}
            emptied = replace(full, **default)
            assert call_attributes(emptied) != call_attributes(full), field.name
