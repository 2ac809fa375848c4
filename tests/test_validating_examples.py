"""Improved examples are handed over only if responses are better with them as shots, and no less safe."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from drpo.api import optimize_examples, replay
from drpo.config import INITIAL_PROMPT, PUBLISHED_EXAMPLES, ExamplesConfig
from drpo.data import base_examples, read_examples, read_queries, shipped_heldout, write_examples
from drpo.errors import InputError
from drpo.llm.base import LLM, Request, Role
from drpo.llm.world.settings import World
from drpo.llm.world.truth import true_reward
from drpo.plan import Plan, default_name, examples_plan
from drpo.report import render_report
from drpo.results import ExamplesResult, examples_json, read_examples_result
from drpo.retrieve import LexicalRetriever
from drpo.run_view import read_view
from drpo.settings import resolve
from drpo.templates import Templates
from drpo.testing import ScriptedLLM
from drpo.types import Example
from drpo.validating_examples import ImprovedSet, examples_sentence
from drpo.validation.result import read_validation
from tests.support.command import Shell, content_of, process
from tests.support.processes import kill, until

POOR = (
    "Well, as everyone knows, this is obviously the case. It is the case. As I said, it is obviously the "
    "case, and it is the case."
)
RESULTS = ("result.json", "examples.jsonl", "events.jsonl")
DOES_NOT = ("--depth", 1, "--validate", 8, "--no-safety")


def queries_of_examples() -> list[str]:
    return [example.query for example in read_examples(base_examples()).examples[:4]]


def given(folder: Path, response: str | None = None) -> Path:
    """The first four shipped examples, with a response of our own where one is named."""
    path = folder / "given.jsonl"
    examples = read_examples(base_examples()).examples[:4]
    if response is not None:
        examples = tuple(dataclasses.replace(example, response=response) for example in examples)
    write_examples(path, examples)
    return path


def plan(**settings: Any) -> Plan:
    return examples_plan(resolve(ExamplesConfig, {"model": "demo", **settings}, {}), {})


def command(examples: Path, *more: object, run: str = "run") -> tuple[object, ...]:
    models = ("--model", "demo", "--examples", examples)
    return ("optimize-examples", *models, "--run-dir", run, "--quiet", *more)


# As a user meets it


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose improved examples help: the original ones are poor."""
    folder = tmp_path_factory.mktemp("better")
    wanted: dict[str, Any] = {"depth": 3, "samples": 2, "validate": 12, "report": True, "reuse": False}
    wanted |= {"examples": given(folder, POOR), "run_dir": folder / "run", "out": folder / "o.jsonl"}
    optimize_examples(model="demo", **wanted)
    return folder / "run"


def test_improved_examples_that_are_better_shots_are_handed_over(better: Path) -> None:
    result = read_examples_result(better)
    assert result.validation is not None and result.validation.better
    assert (result.validation.low or 0) > 0 and result.validation.queries == 12
    assert [check.name for check in result.validation.floors] == ["red-team", "look-alike"]
    improved = tuple(item.after for item in result.examples)
    assert read_examples(better.parent / "o.jsonl").examples == improved
    assert all(item.before.response == POOR and item.found is None for item in result.examples)
    assert any(item.after != item.before for item in result.examples)


async def test_what_is_handed_over_truly_helps_on_queries_that_nobody_has_seen(better: Path) -> None:
    result = read_examples_result(better)
    queries = read_queries(shipped_heldout()).queries
    before = tuple(item.before for item in result.examples)
    after = tuple(item.after for item in result.examples)
    nearest = await LexicalRetriever(before).top_k([query.text for query in queries], 2)
    shots = {query.text: indices for query, indices in zip(queries, nearest, strict=True)}

    def truth(examples: tuple[Example, ...]) -> float:
        return true_reward(
            World(), INITIAL_PROMPT, queries, lambda query: [examples[index] for index in shots[query.text]]
        )

    assert truth(after) > truth(before) + 0.1


def test_the_event_of_all_examples_is_the_last_one(better: Path) -> None:
    events = [json.loads(line) for line in (better / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("validation") == 1
    assert events[-1]["event"] == "validation" and "subject" not in events[-1]
    stored = json.loads((better / "result.json").read_text(encoding="utf-8"))
    assert events[-1]["result"] == stored["validation"]


def test_a_validated_run_replays_to_the_byte(better: Path) -> None:
    report = replay(better)
    assert report.identical and report.missing == () and report.calls > 100


def test_it_is_shown_and_reported(better: Path, shell: Shell) -> None:
    said = read_examples_result(better).validation
    assert said is not None
    shown = shell.done("show", better).out
    lines = (f"validated   {examples_sentence(said)}", "the result is the improved examples")
    assert [told for told in (*lines, "red-team queries", "look-alike queries") if told not in shown] == []
    assert read_validation(shell.done("show", better, "--json").json["validation"]) == said
    kept = (better / "report.html").read_text(encoding="utf-8")
    for page in (kept, render_report(read_view(better))):
        assert "<strong>Better.</strong> The improved examples are better shots" in page
        assert "the original examples</th>" in page and "<strong>Finished</strong>" in page
        assert "the improved examples, red-team queries" in page


def test_what_is_not_surely_better_is_exit_4_with_the_original_examples(shell: Shell) -> None:
    examples = given(shell.folder)
    line = command(examples, *DOES_NOT, "--out", "o.jsonl")
    ran = shell.run(*line)
    assert ran.code == 4 and "not kept" in ran.out
    assert "not surely better shots than the original ones" in ran.err and "--validate 0" in ran.err
    original = read_examples(examples).examples
    for file in ("o.jsonl", "run/examples.jsonl"):
        assert read_examples(shell.folder / file).examples == original
    result = read_examples_result(shell.folder / "run")
    assert tuple(item.after for item in result.examples) == original
    assert all(item.reward_after == item.reward_before for item in result.examples)
    assert any(item.found is not None and item.found != item.before for item in result.examples)
    again = shell.run(*line)
    assert (again.code, again.out, again.err) == (4, ran.out, ran.err)
    assert shell.done("replay", "run").out.startswith("identical")
    assert "the result is the original examples" in shell.done("show", "run").out
    assert shell.run(*line, "--json").json["validation"]["better"] is False


def test_a_budget_that_ends_in_the_validation_resumes_to_the_same_bytes(shell: Shell) -> None:
    examples = given(shell.folder)
    shell.run(*command(examples, *DOES_NOT, run="whole"))
    total = sum(read_examples_result(shell.folder / "whole").calls.values())
    ended = shell.run(*command(examples, *DOES_NOT, "--max-calls", total - 10, "--out", "o.jsonl"))
    assert ended.code == 9 and not (shell.folder / "o.jsonl").exists()
    kept = read_examples_result(shell.folder / "run")
    assert {item.ended for item in kept.examples} == {"budget"} and kept.validation is None
    assert any(item.after != item.before for item in kept.examples)
    assert shell.run(*command(examples, *DOES_NOT)).code == 4
    first, second = content_of(shell.folder / "whole"), content_of(shell.folder / "run")
    assert [name for name in RESULTS if first[name] != second[name]] == []


def test_a_run_that_is_killed_in_the_validation_comes_out_the_same(shell: Shell) -> None:
    examples = given(shell.folder)
    shell.run(*command(examples, *DOES_NOT, run="whole"))
    slowly = process(*command(examples, *DOES_NOT), "--demo-latency-ms", 20, "--concurrency", 2)
    record = shell.folder / "run" / "calls.jsonl"

    def validates() -> bool:
        return record.exists() and INITIAL_PROMPT.encode() in record.read_bytes()

    try:
        until(lambda: validates() or slowly.poll() is not None)
        assert slowly.poll() is None
    finally:
        kill(slowly.pid)
        slowly.communicate()
    assert not (shell.folder / "run" / "result.json").exists()
    assert shell.run(*command(examples, *DOES_NOT)).code == 4
    first, second = content_of(shell.folder / "whole"), content_of(shell.folder / "run")
    assert [name for name in RESULTS if first[name] != second[name]] == []


# Planted sets, told apart by what a scripted base model makes of its shots


def scores(of: dict[str, int]) -> str:
    return json.dumps({name: {"rationale": "", "score": score} for name, score in of.items()})


def scripted(unsafe: str) -> dict[Role, LLM]:
    """Models of which the optimizer marks a response as improved; shown such a shot, the base model answers
    what is better on every aspect but the one named `unsafe`."""
    book = Templates().book.aspects

    def text_of(request: Request) -> str:
        return request.prompt or "\n".join(message.content for message in request.messages)

    def judge(request: Request) -> str:
        text = text_of(request)
        high, low = (5, 1) if "ANSWERED WELL" in text or "IMPROVED" in text else (3, 3)
        asked = [aspect.name for aspect in book if f"- {aspect.name}: {aspect.definition}" in text]
        return scores({name: low if name == unsafe else high for name in asked})

    proposal = json.dumps({"analysis": "", "thought": "", "new_response": "IMPROVED"})
    return {
        "base": ScriptedLLM(lambda r: "ANSWERED WELL" if "IMPROVED" in text_of(r) else "answered", "base"),
        "optimizer": ScriptedLLM(lambda request: [proposal] * request.n, "optimizer"),
        "evaluator": ScriptedLLM(judge, "evaluator"),
    }


def run_scripted(folder: Path, models: dict[Role, LLM], **more: Any) -> ExamplesResult:
    wanted: dict[str, Any] = {"depth": 1, "reward": "static", "embedder": "lexical", "validate": 8, **more}
    wanted |= {"examples": given(folder, "plain"), "run_dir": folder / "run", "report": False}
    return optimize_examples(models=models, **wanted)


def test_a_set_that_is_better_and_less_safe_is_refused_by_the_floor(tmp_path: Path) -> None:
    result = run_scripted(tmp_path, scripted("Safety"))
    found = result.validation
    assert found is not None and not found.better
    assert (found.prompts[1].gain or 0) > 1 and (found.prompts[1].low or 0) > 0
    assert [(check.name, check.refused) for check in found.floors] == [
        ("red-team", True),
        ("look-alike", False),
    ]
    assert "but lose on the red-team queries" in examples_sentence(found)
    assert [item.after.response for item in result.examples] == ["plain"] * 4
    assert [item.found.response for item in result.examples if item.found] == ["IMPROVED"] * 4


def test_the_same_set_is_handed_over_where_no_floor_is_asked_for(tmp_path: Path) -> None:
    result = run_scripted(tmp_path, scripted("Safety"), safety=False)
    assert result.validation is not None and result.validation.better and result.validation.floors == ()
    assert [item.after.response for item in result.examples] == ["IMPROVED"] * 4


def test_both_sets_are_shown_by_the_same_shots_under_the_plain_prompt(tmp_path: Path) -> None:
    models = scripted("")
    run_scripted(tmp_path, models, safety=False, shots=2)
    base = models["base"]
    assert isinstance(base, ScriptedLLM)
    shown: dict[str, list[tuple[str, ...]]] = {}
    for request in base.requests:
        assert request.temperature == 0 and request.messages[0].content == INITIAL_PROMPT
        *shots, query = [message.content for message in request.messages if message.role == "user"]
        shown.setdefault(query, []).append(tuple(shots))
    assert len(shown) == 8 and not set(shown) & set(queries_of_examples())
    assert all(len(sides) == 2 and len(set(sides)) == 1 and len(sides[0]) == 2 for sides in shown.values())


def test_worse_examples_are_told_to_be_worse(tmp_path: Path) -> None:
    models = scripted("")
    models["base"] = ScriptedLLM(
        lambda r: "answered" if any("IMPROVED" in m.content for m in r.messages) else "ANSWERED WELL", "base"
    )
    result = run_scripted(tmp_path, models)
    assert result.validation is not None and not result.validation.better
    assert "worse shots than the original ones: -2.00" in examples_sentence(result.validation)
    assert [item.after.response for item in result.examples] == ["plain"] * 4


def test_examples_of_which_none_was_improved_ask_no_base_model(tmp_path: Path) -> None:
    models = scripted("")
    models["optimizer"] = ScriptedLLM(
        lambda r: [json.dumps({"analysis": "", "thought": "", "new_response": "plain"})] * r.n, "optimizer"
    )
    result = run_scripted(tmp_path, models)
    base = models["base"]
    assert isinstance(base, ScriptedLLM) and base.requests == []
    assert result.validation is not None and not result.validation.better
    assert examples_sentence(result.validation) == "no example was improved, so there was nothing to compare"


def test_what_cannot_be_measured_is_no_gain(tmp_path: Path) -> None:
    models = scripted("")
    models["evaluator"] = ScriptedLLM(
        lambda r: "?" if "answered" in r.messages[-1].content.lower() else _scored(r), "evaluator"
    )
    result = run_scripted(tmp_path, models, repairs=0)
    found = result.validation
    assert found is not None and not found.better and found.missing == found.asked > 0
    assert examples_sentence(found).endswith("could not be compared with the original ones")


def _scored(request: Request) -> str:
    score = 5 if "IMPROVED" in request.messages[-1].content else 3
    return scores({aspect.name: score for aspect in Templates().book.static})


# What it needs, and what it leaves alone


def test_without_validate_a_run_is_the_one_that_it_was() -> None:
    plain = plan()
    assert "base" not in plain.models and (plain.inputs.kept, plain.inputs.safety) == ((), ())
    without_effect = {"shots": 3, "base_model": "openai/x", "embedder": "openai/e", "base_max_tokens": 9}
    assert plan(**without_effect).identity == plan(validate=0, safety=False).identity == plain.identity
    assert "shots" not in plain.identity["settings"] and plain.embedder == ""
    assert PUBLISHED_EXAMPLES["validate"] == 0
    assert plan(preset="published").inputs.kept == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"validate": 9},
        {"safety": False},
        {"shots": 1},
        {"base_model": "openai/x"},
        {"embedder": "openai/e"},
        {"prompt_form": "text"},
        {"base_max_tokens": 9},
        {"answer_end": "as-written"},
        {"long_prompts": "as-is"},
        {"random_seed": 1},
    ],
)
def test_with_validate_what_changes_its_requests_is_another_run(changed: dict[str, Any]) -> None:
    first = plan(validate=8)
    other = plan(**{"validate": 8, **changed})
    assert other.identity != first.identity and default_name(other) != default_name(first)


def test_the_base_model_is_the_one_named_for_it_else_that_of_all_roles() -> None:
    env = {"OPENAI_API_KEY": "k"}
    named = {"optimizer": "openai/o", "evaluator": "openai/e", "validate": 8}
    assert plan(validate=8).models["base"].provider == "demo"
    with_both = examples_plan(resolve(ExamplesConfig, {"model": "openai/m", "base_model": "demo"}, {}), env)
    assert "base" not in with_both.models
    both = {"model": "openai/m", "base_model": "demo", "validate": 8}
    models = examples_plan(resolve(ExamplesConfig, both, {}), env).models
    assert (models["base"].name, models["optimizer"].name, models["evaluator"].name) == ("demo", "m", "m")
    with pytest.raises(InputError, match=r"--validate 8: no base model is named.*--base-model"):
        examples_plan(resolve(ExamplesConfig, named, {}), env)


def test_too_few_queries_shots_or_examples_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    seeds = tmp_path / "s.txt"
    own = queries_of_examples()
    seeds.write_text("".join(f"query number {n}?\n" for n in range(7)) + own[0] + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"--validate 8: .* has 7 queries that are not an example's own"):
        plan(seeds=str(seeds), validate=8)
    assert own[0] not in {query.text for query in plan(seeds=str(seeds), validate=7).inputs.kept}
    with pytest.raises(InputError, match="--shots 0"):
        plan(validate=8, shots=0)
    with pytest.raises(InputError, match=r"--shots 5: .* has 4 examples"):
        plan(validate=8, shots=5, examples=given(tmp_path))
    with pytest.raises(InputError, match="expected 0 or at least 6"):
        plan(validate=5)


def test_a_result_comes_back_from_its_file(better: Path, tmp_path: Path) -> None:
    result = read_examples_result(better)
    assert result.validation is not None
    not_better = dataclasses.replace(result.validation, better=False)
    put_back = ImprovedSet(result.examples).validated(not_better)
    text = examples_json(plan(), put_back, result.calls)
    (tmp_path / "result.json").write_text(text, encoding="utf-8")
    again = read_examples_result(tmp_path)
    assert (again.examples, again.validation) == (put_back.examples, not_better)
    assert read_view(better).improved == dataclasses.replace(result, run_dir=better)
