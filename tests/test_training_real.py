"""Both trainings as their user runs them, by TRL on small real models, and their results in use."""

from __future__ import annotations

import asyncio
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from drpo.config_training import BpoTrainConfig
from drpo.llm.base import Request
from drpo.llm.local_model import LocalModel
from drpo.rewriting.checks import cleaned, why_kept
from drpo.rewriting.templates import RewriteTemplates
from drpo.training.place import Trained
from drpo.training.supervised import train_bpo
from tests.support.command import Shell
from tests.support.small_models import CHAT, byte_tokenizer, save_causal, skip_without

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("default")]

ROOT = Path(__file__).resolve().parent.parent
DEMO_REWRITER = ROOT / "demo-rewriter"
REQUEST = "Give one concrete example."
ASKED = (
    "How do bees make honey?",
    "Why does bread rise?",
    "What is a balanced diet?",
    "Why do leaves turn red?",
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without("torch", "trl", "datasets", "accelerate", "peft")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def queries(name: str, count: int) -> list[str]:
    """The first queries of a shipped file that fit a line."""
    lines = (ROOT / "seeds" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line)["query"] for line in lines]
    return [query for query in found if "\n" not in query and len(query.split()) < 20][:count]


def rewrites(folder: Path, asked: list[str], **settings: Any) -> list[str]:
    """What a trained rewriter makes of queries, asked in the form of its training."""
    templates = RewriteTemplates()

    async def ask() -> list[str]:
        model = LocalModel(str(folder))
        requests = [Request("r", prompt=templates.apply(q), max_tokens=96, **settings) for q in asked]
        replies = await asyncio.gather(*map(model.complete, requests))
        model.close()
        return [cleaned(reply.choices[0].text, q) for reply, q in zip(replies, asked, strict=True)]

    return asyncio.run(ask())


def test_bpo_learns_what_the_pairs_have_in_common_and_keeps_queries_it_never_saw(shell: Shell) -> None:
    pairs = [{"prompt": q, "optimized_prompt": f"{q} {REQUEST}"} for q in queries("seeds", 64)]
    (shell.folder / "data").mkdir()
    shell.write("data/pairs.jsonl", "".join(json.dumps(pair) + "\n" for pair in pairs))
    command = ["bpo", "train", "--data", "data", "--base", DEMO_REWRITER, "-o", "mine", "--epochs", 3]
    command += ["--learning-rate", "1e-3", "--batch", 16, "--accumulate", 1, "--log-steps", 6]
    ran = shell.done(*command)
    assert "step 12 of 12: loss" in ran.err
    facts = json.loads((shell.folder / "mine" / "drpo-rewriter.json").read_text())
    assert (facts["kind"], facts["format"]) == ("bpo", "apply")
    assert facts["template"] == RewriteTemplates().digests()["rewrite/apply.j2"]
    assert facts["data"]["trained_on"] == len(pairs)
    assert facts["losses"][-1]["loss"] < facts["losses"][0]["loss"] / 2
    settings = json.loads((shell.folder / "mine" / "generation_config.json").read_text())
    assert (settings["temperature"], settings["top_p"], settings["do_sample"]) == (0.6, 0.9, True)
    assert not list((shell.folder / "mine").rglob("*.bin"))

    unseen = queries("rewriting_heldout", 24)
    written = rewrites(shell.folder / "mine", unseen)
    kept = [why_kept(query, text) == "" for query, text in zip(unseen, written, strict=True)]
    assert sum(kept) >= 20, written
    assert sum(text == f"{query} {REQUEST}" for query, text in zip(unseen, written, strict=True)) >= 17
    before = rewrites(DEMO_REWRITER, unseen)
    assert sum(REQUEST in text for text in before) <= 4
    told = shell.done("rewrite", unseen[0], "--rewriter", "bpo/mine", "--json", "--quiet").out
    assert json.loads(told)["rewritten"].endswith(REQUEST)
    assert "trained already" in shell.done(*command).err
    assert "batch is 16 there" in shell.refused(6, *command, "--batch", 8)


def test_align_pro_gains_reward_before_a_frozen_model_and_asks_nothing_twice(shell: Shell) -> None:
    shell.write("q.jsonl", "".join(json.dumps({"query": query}) + "\n" for query in ASKED))
    command = ["align-pro", "train", "--model", "demo", "--reward", "dynamic/demo", "--demo-noise", 0]
    command += ["--prompter", DEMO_REWRITER, "--queries", "q.jsonl", "--lambda", 0.01, "-o", "mine"]
    command += ["--temperature", 1, "--top-p", 1, "--top-k", 0, "--learning-rate", "4e-4", "--steps", 20]
    command += ["--rewrites", 16, "--batch", 64, "--accumulate", 1, "--rewrite-tokens", 48, "--log-steps", 4]
    shell.done(*command)
    facts = json.loads((shell.folder / "mine" / "drpo-rewriter.json").read_text())
    assert (facts["kind"], facts["format"], facts["simulated"]) == ("align-pro", "apply", True)
    first, last = facts["figures"][0], facts["figures"][-1]
    assert last["reward"] > first["reward"] + 0.15
    assert last["kl"] > 0.5 > abs(first["kl"])
    calls = (shell.folder / "mine" / "training" / "calls.jsonl").read_text().splitlines()
    keys = [json.loads(line).get("key") for line in calls]
    known = [key for key in keys if key is not None]
    assert len(known) == len(set(known)) < 20 * 64 * 2
    written = rewrites(shell.folder / "mine", list(ASKED), seed=3)
    assert all(text.startswith(query) for query, text in zip(ASKED, written, strict=True))
    assert sum(text != query for query, text in zip(ASKED, written, strict=True)) >= 2
    shell.write("asked.txt", "\n".join(ASKED))
    told = shell.done("rewrite", "--in", "asked.txt", "--rewriter", "align-pro/mine", "--json", "--quiet").out
    assert [json.loads(line)["query"] for line in told.splitlines()] == list(ASKED)
    assert all(not json.loads(line)["kept"] for line in told.splitlines())


def small_training(out: Path, base: Path, **settings: Any) -> BpoTrainConfig:
    data = out.parent / "pairs.jsonl"
    pairs = ({"prompt": f"Why {n}?", "optimized_prompt": f"Why {n}, and how?"} for n in range(12))
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    given = {"data": data, "base": str(base), "out": out, "epochs": 2, "batch": 4, "accumulate": 1}
    return BpoTrainConfig.model_validate({**given, "log_steps": 1, "save_steps": 2, **settings})


def test_an_interrupted_training_resumes_and_comes_to_the_same_weights(tmp_path: Path) -> None:
    base = save_causal(tmp_path / "base", byte_tokenizer(CHAT))
    said: list[str] = []

    def interrupting(message: str) -> None:
        if message.startswith("step 3 "):
            raise KeyboardInterrupt
        said.append(message)

    config = small_training(tmp_path / "out", base, learning_rate=1e-3)
    with pytest.raises(KeyboardInterrupt):
        train_bpo(config, interrupting)
    assert not (tmp_path / "out" / "drpo-rewriter.json").exists()
    resumed: list[str] = []
    result = train_bpo(config, resumed.append)
    assert [line.split(":")[0] for line in resumed if line.startswith("step")] == [
        f"step {number} of 6" for number in range(3, 7)
    ]
    whole = train_bpo(config.model_copy(update={"out": tmp_path / "whole"}), lambda said: None)
    assert result.facts["losses"] == whole.facts["losses"]
    assert [loss["step"] for loss in result.facts["losses"]] == [1, 2, 3, 4, 5, 6]
    assert weights(result) == weights(whole)


def weights(trained: Trained) -> bytes:
    return (trained.out / "model.safetensors").read_bytes()


def test_an_adapter_is_merged_into_the_weights(tmp_path: Path) -> None:
    base = save_causal(tmp_path / "base", byte_tokenizer(CHAT))
    config = small_training(tmp_path / "out", base, lora=True, lora_rank=2, learning_rate=1e-2, epochs=1)
    train_bpo(config, lambda said: None)
    load = import_module("safetensors.torch").load_file
    before, after = (load(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert set(before) == set(after)
    changed = {name for name in before if not bool((before[name] == after[name]).all())}
    assert changed and all("proj" in name for name in changed)
