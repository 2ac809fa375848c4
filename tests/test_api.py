"""drpo from Python: a user's own models and reward, with and without an event loop, and the result in use."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import drpo
from drpo import testing
from drpo.compose import PromptForm
from drpo.errors import InputError, ProviderRefused, RunConflict
from drpo.llm.base import Request
from drpo.testing import ScriptedLLM

OPTIONS: dict[str, Any] = {"depth": 3, "width": 1, "samples": 2, "embedder": "lexical"}


def answer(request: Request) -> str:
    return f"An answer to: {(request.prompt or request.messages[-1].content)[-40:]}"


def propose(request: Request) -> list[str]:
    return [
        json.dumps({"analysis": "a", "thought": "t", "new_system_prompt": f"Be kind, {request.seed}-{i}."})
        for i in range(request.n)
    ]


def own_models() -> dict[Any, drpo.LLM]:
    return {"base": ScriptedLLM(answer, "mine"), "optimizer": ScriptedLLM(propose, "improver")}


def longer_is_better(query: str, response: str) -> float:
    return 1 + len(response) % 4


async def longer_is_better_later(query: str, response: str) -> float:
    await asyncio.sleep(0)
    return longer_is_better(query, response)


def by_aspect(query: str, response: str) -> Mapping[str, object]:
    return {"Length": longer_is_better(query, response), "Tone": {"score": 4, "rationale": "warm"}}


def sometimes_none(query: str, response: str) -> float | None:
    return None if len(response) % 2 else 3.0


@pytest.mark.parametrize("reward", [longer_is_better, longer_is_better_later, by_aspect, sometimes_none])
def test_own_models_and_an_own_reward_need_no_evaluator(
    tmp_path: Path, reward: Callable[[str, str], Any]
) -> None:
    models = own_models()
    result = drpo.optimize(models=models, reward=reward, run_dir=tmp_path / "run", **OPTIONS)
    assert set(result.alignment.found.calls) <= {"base", "optimizer"}
    assert result.sent == result.alignment.found.calls
    assert result.alignment.models["base"] == "custom/mine"
    assert result.alignment.models["evaluator"].split("#")[0].endswith(f".{reward.__name__}")
    with testing.closed_sockets():
        report = drpo.replay(tmp_path / "run")
    assert report.identical and report.result == result.alignment
    again = drpo.optimize(models=models, reward=reward, run_dir=tmp_path / "run", **OPTIONS)
    assert again.finished_before and again.alignment == result.alignment


def test_a_mapping_is_what_the_optimizer_reads(tmp_path: Path) -> None:
    models = own_models()
    drpo.optimize(models=models, reward=by_aspect, run_dir=tmp_path / "run", **OPTIONS)
    optimizer = models["optimizer"]
    assert isinstance(optimizer, ScriptedLLM)
    assert '"Tone"' in optimizer.requests[0].messages[0].content
    assert "warm" in optimizer.requests[0].messages[0].content


@pytest.mark.parametrize(
    "value", [0, 6, 5.1, float("nan"), "4", True, {}, {"A": 0.5}, {"A": {"score": None}}]
)
def test_a_reward_out_of_range_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(InputError, match="reward: expected"):
        drpo.optimize(models=own_models(), reward=lambda q, r: value, run_dir=tmp_path / "run", **OPTIONS)


def test_an_own_reward_that_never_tells_ends_stalled_with_the_start(tmp_path: Path) -> None:
    result = drpo.optimize(
        models=own_models(), reward=lambda q, r: None, run_dir=tmp_path / "run", **{**OPTIONS, "depth": 6}
    )
    assert result.alignment.system_prompt == "You are a helpful assistant."
    assert result.alignment.found.path_score is None


def test_what_a_users_own_code_raises_reaches_the_user(tmp_path: Path) -> None:
    def broken(query: str, response: str) -> float:
        raise ZeroDivisionError("mine")

    with pytest.raises(InputError, match="ZeroDivisionError: mine"):
        drpo.optimize(models=own_models(), reward=broken, run_dir=tmp_path / "run", **OPTIONS)
    models = {**own_models(), "base": ScriptedLLM([ProviderRefused("no")], "mine")}
    with pytest.raises(ProviderRefused, match="no"):
        drpo.optimize(models=models, reward=by_aspect, run_dir=tmp_path / "other", **OPTIONS)
    log = (tmp_path / "other" / "run.log").read_text()
    assert "ProviderRefused: no" in log


def test_another_reward_is_another_run(tmp_path: Path) -> None:
    drpo.optimize(models=own_models(), reward=by_aspect, run_dir=tmp_path / "run", **OPTIONS)
    with pytest.raises(RunConflict, match="evaluator"):
        drpo.optimize(models=own_models(), reward=longer_is_better, run_dir=tmp_path / "run", **OPTIONS)


async def test_inside_a_running_event_loop_both_forms_work(tmp_path: Path) -> None:
    awaited = await drpo.optimize_async(model="demo", run_dir=tmp_path / "awaited", **OPTIONS)
    called = drpo.optimize(model="demo", run_dir=tmp_path / "called", **OPTIONS)
    assert called.alignment == awaited.alignment
    assert drpo.replay(tmp_path / "called").identical
    assert drpo.load(tmp_path / "called").messages("Hello?")[-1] == {"role": "user", "content": "Hello?"}


def test_a_typed_config_is_the_same_as_settings(tmp_path: Path) -> None:
    config = drpo.OptimizeConfig(model="demo", run_dir=tmp_path / "run", **OPTIONS)
    result = drpo.optimize(config)
    again = drpo.optimize(model="demo", run_dir=tmp_path / "run", **OPTIONS)
    assert again.finished_before and again.alignment == result.alignment
    with pytest.raises(InputError, match="not both"):
        drpo.optimize(config, width=3)
    with pytest.raises(InputError, match="did you mean 'depth'"):
        drpo.optimize(model="demo", dept=3)
    with pytest.raises(InputError, match="async complete"):
        drpo.optimize(models={"base": object()}, reward=by_aspect)  # type: ignore[dict-item]


def test_hooks_see_every_event(tmp_path: Path) -> None:
    seen: list[object] = []
    hooks = drpo.Hooks(observers=(seen.append,))
    drpo.optimize(model="demo", run_dir=tmp_path / "run", hooks=hooks, **OPTIONS)
    assert len(seen) == len((tmp_path / "run" / "events.jsonl").read_text().splitlines())


@pytest.mark.parametrize("form", ["chat", "text"])
def test_a_loaded_alignment_renders_what_the_search_sent(tmp_path: Path, form: PromptForm) -> None:
    models = own_models()
    result = drpo.optimize(
        models=models, reward=longer_is_better, run_dir=tmp_path / "run", prompt_form=form, **OPTIONS
    )
    shutil.copy(tmp_path / "run" / "alignment.json", tmp_path / "copied.json")
    lines = (tmp_path / "run" / "calls.jsonl").read_text().splitlines()
    calls = [entry for line in lines if (entry := json.loads(line))["kind"] == "call"]
    asked = [call["request"] for call in calls if call["role"] == "base"]
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    queries = {event["state"]["query"] for event in events if event["event"] == "node"}
    prompt = result.alignment.system_prompt
    for path in (tmp_path / "run", tmp_path / "run" / "alignment.json", tmp_path / "copied.json"):
        loaded = drpo.load(path)
        assert loaded.alignment == result.alignment
        sent: list[Any]
        made: list[Any]
        if form == "chat":
            sent = [[list(m) for m in request["messages"]] for request in asked]
            made = [[[m["role"], m["content"]] for m in loaded.messages(query)] for query in queries]
            of_this_prompt = [messages for messages in sent if messages[0] == ["system", prompt]]
        else:
            sent = [request["prompt"] for request in asked]
            made = [loaded.prompt(query) for query in queries]
            of_this_prompt = [page for page in sent if prompt in page]
        assert of_this_prompt and all(one in made for one in of_this_prompt)


def test_an_alignment_of_own_templates_needs_them(tmp_path: Path) -> None:
    templates = tmp_path / "mine"
    templates.mkdir()
    shipped = drpo.optimize(model="demo", run_dir=tmp_path / "shipped", **OPTIONS)
    source = (shipped.run_dir / "inputs" / "prompts" / "respond_chat.j2").read_text()
    (templates / "respond_chat.j2").write_text(source + "\n{# mine #}\n")
    result = drpo.optimize(model="demo", prompts=templates, run_dir=tmp_path / "run", **OPTIONS)
    shutil.copy(result.run_dir / "alignment.json", tmp_path / "copied.json")
    assert drpo.load(result.run_dir).messages("Hello?")
    assert drpo.load(tmp_path / "copied.json", prompts=templates).messages("Hello?")
    with pytest.raises(InputError, match=r"respond_chat\.j2"):
        drpo.load(tmp_path / "copied.json")


def test_examples_are_improved_from_python_too(tmp_path: Path) -> None:
    def better(request: Request) -> str:
        return json.dumps({"analysis": "a", "thought": "t", "new_response": f"better {request.seed}"})

    file = tmp_path / "examples.jsonl"
    file.write_text('{"query": "a?", "response": "x"}\n{"query": "b?", "response": "yy"}\n')
    settings: dict[str, Any] = {"examples": file, "depth": 2, "run_dir": tmp_path / "run"}
    models: dict[Any, drpo.LLM] = {"optimizer": ScriptedLLM(better, "improver")}
    result = drpo.optimize_examples(models=models, reward=longer_is_better, **settings)
    assert [item.before.query for item in result.examples] == ["a?", "b?"]
    assert all((item.reward_after or 0) >= (item.reward_before or 0) for item in result.examples)
    assert drpo.replay(tmp_path / "run").identical


def test_reward_is_also_the_setting_of_that_name(tmp_path: Path) -> None:
    result = drpo.optimize(model="demo", depth=2, reward="static", run_dir=tmp_path / "run")
    assert result.alignment.found.settings["settings"]["reward"] == "static"
    assert "selector" not in result.alignment.found.calls


def test_two_functions_without_a_name_of_their_own_are_two_rewards(tmp_path: Path) -> None:
    run = {"models": own_models(), "runs_dir": tmp_path, **OPTIONS}
    scores = [
        drpo.optimize(reward=reward, **run).alignment.found.path_score
        for reward in (lambda q, r: 2, lambda q, r: 4)
    ]
    assert scores == [2.0, 4.0]


def test_a_typed_config_is_resolved_like_keywords(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Serve the library.")
    config = drpo.OptimizeConfig(
        model="demo", depth=2, preset="published", initial_prompt=f"@{prompt}", run_dir=tmp_path / "run"
    )
    settings = drpo.optimize(config).alignment.found.settings["settings"]
    assert (settings["unreadable"], settings["repairs"], settings["depth"]) == ("zero", 0, 2)
    assert settings["initial_prompt"] == "Serve the library."


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (drpo.Completion(()), "at least one choice, came Completion"),
        ("a text", "came str"),
        (ValueError("no weights"), "your model mine raised ValueError: no weights"),
    ],
)
def test_a_mistake_of_an_own_model_is_named_and_never_recorded(tmp_path: Path, wrong: Any, said: str) -> None:
    class Mine:
        name = "mine"

        async def complete(self, request: Request) -> drpo.Completion:
            if isinstance(wrong, Exception):
                raise wrong
            return wrong  # type: ignore[no-any-return]

    run_dir = tmp_path / "run"
    with pytest.raises(InputError, match=said):
        drpo.optimize(models={**own_models(), "base": Mine()}, reward=by_aspect, run_dir=run_dir, **OPTIONS)
    mended = drpo.optimize(models=own_models(), reward=by_aspect, run_dir=run_dir, **OPTIONS)
    assert mended.alignment.found.calls["base"] > 0


def test_models_of_unknown_roles_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected the roles base.*came 'critic'"):
        drpo.optimize(model="demo", models={"critic": ScriptedLLM([])})  # type: ignore[dict-item]
