"""What makes two runs one: settings and inputs that change requests, or the choice among them."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from drpo.config import ExamplesConfig, OptimizeConfig
from drpo.plan import Plan, default_name, examples_plan, optimize_plan
from drpo.settings import resolve

LOCAL, PROXY = "http://127.0.0.1:8000/v1", "https://proxy.example/v1"


def config(**given: Any) -> OptimizeConfig:
    return resolve(OptimizeConfig, {"model": "demo", **given}, {})


def plan(**given: Any) -> Plan:
    return optimize_plan(config(**given), {}) if given else default_plan()


@functools.cache
def default_plan() -> Plan:
    return optimize_plan(config(), {})


CHANGES: tuple[tuple[str, Any], ...] = (
    ("width", 3),
    ("reward", "static"),
    ("evaluations", 2),
    ("evaluation_aspects", "returned"),
    ("unreadable", "zero"),
    ("repairs", 0),
    ("structured", "on"),
    ("optimizer_temperature", 0.3),
    ("optimizer_top_p", 0.9),
    ("max_tokens", 99),
    ("base_max_tokens", 99),
    ("max_thinking_tokens", 99),
    ("patience", 3),
    ("random_seed", 1),
    ("demo_seed", 1),
    ("demo_noise", 0.1),
    ("search", "greedy"),
    ("samples", 4),
    ("queries_per_level", 2),
    ("validate", 20),
    ("candidates", 2),
    ("max_prompt_tokens", 100),
    ("safety", False),
    ("depth", 3),
    ("max_extra_depth", 3),
    ("shots", 1),
    ("path_score", "last"),
    ("keep_above", 4.0),
    ("initial_prompt", "Hi."),
    ("protect", ("helpful",)),
    ("order", "given"),
    ("prompt_form", "text"),
    ("answer_end", "as-written"),
    ("long_prompts", "as-is"),
    ("model", "openai/x"),
    ("optimizer", "openai/x"),
    ("evaluator", "openai/x"),
    ("selector", "openai/x"),
    ("embedder", "openai/e"),
)
STEADY: tuple[tuple[str, Any], ...] = (
    ("concurrency", 1),
    ("timeout_s", 1.0),
    ("deadline_s", 1.0),
    ("demo_latency_ms", 1.0),
    ("reuse", False),
    ("tensor_parallel_size", 2),
    ("pipeline_parallel_size", 2),
    ("data_parallel_size", 2),
    ("vllm_arg", ("dtype=float16",)),  # a part of the identity of the models whose servers drpo runs
    ("vllm_command", "python"),
    ("vllm_ready_s", 1.0),
    ("vllm_restarts", 0),
    ("max_calls", 9),
    ("max_usd", 0.5),
    ("price", ("base=0/0",)),
    ("report", False),
    ("track", ("otel",)),
    ("runs_dir", "elsewhere"),
    ("name", "n"),
    ("run_dir", "elsewhere"),
    ("roles", {"base": {"api_key_env": "X"}}),
)
FILES = ("prompts", "seeds", "seeds_column", "examples")


def test_every_setting_is_tried_here() -> None:
    tried = {name for name, _ in (*CHANGES, *STEADY)} | set(FILES) | {"preset"}
    assert tried == set(OptimizeConfig.model_fields)


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_what_changes_requests_or_the_choice_among_them_is_another_run(name: str, value: Any) -> None:
    given = {"optimizer": "demo", name: value}
    assert plan(**given).identity != plan().identity
    assert default_name(plan(**given)) != default_name(plan())


@pytest.mark.parametrize(("name", "value"), STEADY)
def test_what_does_not_is_the_same_run(name: str, value: Any) -> None:
    assert plan(**{name: value}).identity == plan().identity


def test_the_published_preset_is_its_settings(tmp_path: Path) -> None:
    given = {"repairs": 0, "structured": "off", "unreadable": "zero", "evaluation_aspects": "returned"}
    given |= {"answer_end": "as-written", "long_prompts": "as-is", "validate": 0}
    assert plan(preset="published").identity == plan(**given).identity


def test_files_count_by_what_is_in_them_and_not_by_where_they_are(tmp_path: Path) -> None:
    def at(folder: str, query: str, answer: str, template: str) -> Plan:
        place = tmp_path / folder
        (place / "prompts").mkdir(parents=True)
        (place / "seeds.txt").write_text(f"{query}\nsecond?\nthird?\n", encoding="utf-8")
        (place / "examples.jsonl").write_text(
            json.dumps({"query": "a", "response": answer}) + "\n", encoding="utf-8"
        )
        (place / "prompts" / "repair.j2").write_text(template, encoding="utf-8")
        files = {"seeds": str(place / "seeds.txt"), "examples": place / "examples.jsonl"}
        return plan(**files, prompts=place / "prompts", shots=1)

    first = at("a", "first?", "b", "t")
    assert at("b", "first?", "b", "t").identity == first.identity
    assert default_name(first) == default_name(at("c", "first?", "b", "t"))
    for number, other in enumerate((("other?", "b", "t"), ("first?", "c", "t"), ("first?", "b", "u"))):
        assert at(f"other{number}", *other).identity != first.identity
    assert str(tmp_path) not in json.dumps(first.identity)


def test_no_key_and_no_path_is_in_an_identity() -> None:
    environment = {"OPENAI_API_KEY": "sk-secret", "DRPO_BASE_API_KEY": "sk-secret", "OPENAI_BASE_URL": PROXY}
    roles = {"optimizer": {"api_key_env": "OPENAI_API_KEY"}}
    given = config(model=f"openai/x@{LOCAL}", roles=roles, run_dir="a/b", runs_dir="c/d")
    text = json.dumps(optimize_plan(given, environment).identity)
    assert "secret" not in text
    assert "a/b" not in text
    assert "c/d" not in text


def test_the_world_of_demo_is_no_business_of_real_models() -> None:
    given = {"model": "openai/x", "optimizer": "openai/o"}
    assert plan(demo_seed=3, **given).identity == plan(**given).identity
    assert plan(demo_seed=3, optimizer="openai/o").identity != plan(optimizer="openai/o").identity


def test_a_run_is_named_by_its_model_and_settings() -> None:
    assert re.fullmatch(r"demo-[0-9a-f]{8}", default_name(plan()))
    assert default_name(plan()) == default_name(plan())
    given = {"model": f"vllm/org/Some_Model v@{LOCAL}".replace(" ", "."), "optimizer": "demo"}
    assert re.fullmatch(r"some_model-v-[0-9a-f]{8}", default_name(plan(**given)))
    examples = examples_plan(resolve(ExamplesConfig, {"model": "demo"}, {}), {})
    assert re.fullmatch(r"examples-demo-[0-9a-f]{8}", default_name(examples))
