"""What training rests on, without its libraries: pairs, the folder that is written, what is refused."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from drpo.config_training import AlignProTrainConfig
from drpo.errors import InputError, RunConflict
from drpo.rewriting.templates import RewriteTemplates
from drpo.training.base import RewriteFormat
from drpo.training.loop import LoopThread
from drpo.training.pairs import Pair, read_pairs
from drpo.training.place import Place, generation_settings
from drpo.training.policy import refuse_uneven
from drpo.training.rewarding import reward_plan
from drpo.training.trainers import trained_settings


def line(prompt: str, optimized: str, **other: str) -> str:
    return json.dumps({"prompt": prompt, "optimized_prompt": optimized, **other}) + "\n"


def test_pairs_are_those_of_a_folder_or_a_file_and_unchanged_ones_stay(tmp_path: Path) -> None:
    text = (
        line("Why?", "Why, and since when?", context="at sea") + "\n" + line("What is rain?", "What is rain?")
    )
    (tmp_path / "pairs.jsonl").write_text(text)
    found = read_pairs(tmp_path)
    assert found.pairs == (Pair("Why?", "Why, and since when?"), Pair("What is rain?", "What is rain?"))
    assert found.unchanged == 1
    assert read_pairs(tmp_path / "pairs.jsonl").digest == found.digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at least one pair"),
        (line("a", "b") + "{broken\n", r"pairs\.jsonl:2: expected a JSON object"),
        ('["a", "b"]\n', "pairs.jsonl:1: expected texts"),
        (line("a", "  "), "expected texts in prompt and optimized_prompt"),
        ("[" * 100_000, "expected a JSON object"),
    ],
)
def test_pairs_that_cannot_be_used_are_named_by_their_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(text)
    with pytest.raises(InputError, match=said):
        read_pairs(tmp_path)
    with pytest.raises(InputError, match="there is none"):
        read_pairs(tmp_path / "elsewhere")


def test_what_is_read_in_training_is_the_template_of_use() -> None:
    templates = RewriteTemplates()
    query = "Why {{ is }} the sky blue?\n<|end|>"
    as_page = RewriteFormat("apply", templates, as_chat=False)
    assert as_page.prompt(query) == templates.apply(query)
    assert as_page.completion(query) == "\n" + query
    as_chat = RewriteFormat("prompter", templates, as_chat=True)
    assert as_chat.prompt(query) == [{"role": "user", "content": templates.prompter(query)}]
    for format in (as_page, as_chat):
        assert format.rewrite(format.completion(query)).strip() == query
    assert as_page.template != as_chat.template


def test_a_folder_is_one_trainings_and_resumes_from_a_whole_checkpoint(tmp_path: Path) -> None:
    out, identity = tmp_path / "out", {"command": "bpo train", "settings": {"epochs": 5.0}}
    place = Place(out, identity)
    with pytest.raises(RunConflict, match="another process"):
        Place(out, identity)
    for number, whole in ((20, True), (100, True), (120, False)):
        (place.checkpoints / f"checkpoint-{number}").mkdir(parents=True)
        if whole:
            (place.checkpoints / f"checkpoint-{number}" / "trainer_state.json").write_text("{}")
    last = place.last_checkpoint
    assert last is not None and last.name == "checkpoint-100"
    assert place.finished is None
    (out / "training_args.bin").write_bytes(b"a pickle")
    place.finish({"do_sample": True}, {"kind": "bpo"})
    place.close()
    assert not place.checkpoints.exists()
    assert not (out / "training_args.bin").exists()
    again = Place(out, identity)
    assert again.finished == {"kind": "bpo"}
    again.close()
    with pytest.raises(RunConflict, match="epochs"):
        Place(out, {**identity, "settings": {"epochs": 2.0}})


def test_nothing_of_anybody_else_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no training of drpo began"):
        Place(tmp_path / "out", {})
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_the_result_is_sampled_as_it_was_trained_and_ends_as_its_base_does(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(
        '{"eos_token_id": [7, 9], "temperature": 0.1, "top_k": 3}'
    )
    settings = generation_settings(tmp_path, [7], {"temperature": 1.5, "top_p": 0.6})
    assert settings == {"eos_token_id": [7, 9], "do_sample": True, "temperature": 1.5, "top_p": 0.6}
    assert generation_settings(tmp_path / "none", [1], {})["eos_token_id"] == 1


def test_rewrites_of_a_query_come_into_one_step() -> None:
    config = settings(batch=4, accumulate=2, rewrites=8)
    refuse_uneven(config, 1)
    with pytest.raises(InputError, match="= 6 rewrites, expected a multiple of 8"):
        refuse_uneven(settings(batch=3, accumulate=2, rewrites=8), 1)
    refuse_uneven(settings(batch=4, accumulate=1, rewrites=8), 2)


def settings(**given: object) -> AlignProTrainConfig:
    known = {"out": "o", "model": "demo", "prompter": "p", "reward": "dynamic/demo"}
    return AlignProTrainConfig.model_validate({**known, **given})


def test_who_answers_and_who_rewards_is_known_before_anything_is_loaded() -> None:
    plan = reward_plan(settings(), {})
    assert {role: choice.provider for role, choice in plan.models.items()} == {
        "base": "demo",
        "evaluator": "demo",
        "selector": "demo",
    }
    other = reward_plan(settings(reward="owner/reward-model"), {})
    assert (set(other.models), other.reward_model) == ({"base"}, "owner/reward-model")
    with pytest.raises(InputError, match="--answer-temperature"):
        reward_plan(settings(answers=3), {})
    with pytest.raises(InputError, match="expected @URL"):
        reward_plan(settings(reward="vllm/reward-model"), {})


def test_settings_of_simulated_models_count_only_where_they_play() -> None:
    simulated = trained_settings(settings())
    real = trained_settings(settings(model="local/owner/name", reward="owner/name"))
    assert {name for name in simulated if name not in real} == {"demo_seed", "demo_noise"}
    assert "log_steps" not in real and "save_steps" not in real


def test_work_in_the_loops_thread_shares_one_loop_and_its_errors_come_out() -> None:
    async def loop_of() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def fails() -> None:
        raise InputError("expected this")

    with LoopThread() as thread:
        assert thread.run(loop_of()) is thread.run(loop_of())
        with pytest.raises(InputError, match="expected this"):
            thread.run(fails())


@pytest.mark.parametrize("kind", ["bpo", "align-pro"])
def test_without_the_libraries_a_command_says_what_to_install(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drpo.commands import align_pro_train, bpo_train

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "pairs.jsonl").write_text(line("a", "b"))
    arguments = {
        "bpo": (bpo_train.command, ["--data", ".", "--base", "owner/name", "-o", "out"]),
        "align-pro": (
            align_pro_train.command,
            ["--model", "demo", "--reward", "dynamic/demo", "--prompter", "owner/name", "-o", "out"],
        ),
    }
    command, flags = arguments[kind]
    with pytest.raises(InputError, match=r"pip install 'drpo\[train\]'"):
        command(flags, standalone_mode=False)
    assert not (tmp_path / "out").exists()
