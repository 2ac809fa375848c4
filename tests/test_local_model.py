"""A causal language model in this process: tiny, made on the spot, run through transformers and torch."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from drpo.choices import named_model
from drpo.config_use import GenerateConfig
from drpo.errors import InputError, ParameterRefused
from drpo.llm.base import Completion, Message, Request
from drpo.llm.catalog import parse_model
from drpo.llm.local_model import LocalModel
from drpo.llm.local_source import LANGUAGE_MODEL, LocalSource
from drpo.respond import form_of_tokenizer
from tests.support.command import Shell
from tests.support.small_models import CHAT, NO_SYSTEM, byte_tokenizer, save_causal, skip_without

PROMPTS = ("Why is the sky blue?", "Once", "Once upon a time there was a very long beginning of a page")


def real(test: Any) -> Any:
    # The warnings of torch and its kin are not ours to mend.
    return pytest.mark.train(pytest.mark.filterwarnings("default")(test))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without("transformers", "torch")
    folder = tmp_path_factory.mktemp("models")
    save_causal(folder / "page", byte_tokenizer())
    save_causal(folder / "greedy", byte_tokenizer(), do_sample=False)
    save_causal(folder / "first", byte_tokenizer(), do_sample=True, top_k=1)
    save_causal(folder / "chat", byte_tokenizer(CHAT), context=64)
    save_causal(folder / "no-system", byte_tokenizer(NO_SYSTEM))
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


async def asked(folder: Path, *requests: Request) -> list[Completion]:
    """The replies to requests that are in the air together."""
    model = LocalModel(str(folder))
    try:
        return list(await asyncio.gather(*map(model.complete, requests)))
    finally:
        model.close()


def page(prompt: str, **settings: Any) -> Request:
    return Request("local/page", prompt=prompt, **{"temperature": 0.0, "max_tokens": 12, **settings})


def by_library(folder: Path, prompt: str, tokens: int) -> str:
    """What the library itself writes greedily behind one prompt."""
    transformers, torch = import_module("transformers"), import_module("torch")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(prompt, return_tensors="pt")
    found = model.generate(**ids, max_new_tokens=tokens, do_sample=False)[0, ids["input_ids"].shape[1] :]
    return str(tokenizer.decode(found, skip_special_tokens=True))


@real
async def test_greedy_replies_are_the_librarys_own_alone_and_in_a_batch(models: Path) -> None:
    together = await asked(models / "page", *map(page, PROMPTS))
    assert [one.choices[0].text for one in together] == [
        by_library(models / "page", prompt, 12) for prompt in PROMPTS
    ]
    (alone,) = await asked(models / "page", page(PROMPTS[1]))
    assert alone == together[1]
    assert alone.choices[0].finish_reason == "length"
    assert alone.usage.completion_tokens == 12


@real
async def test_nothing_is_printed_while_a_model_writes(
    models: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await asked(models / "first", page(PROMPTS[0], temperature=None))
    assert capfd.readouterr() == ("", "")


@real
async def test_a_sampled_reply_follows_its_request_and_not_its_neighbours(models: Path) -> None:
    sampled = page(PROMPTS[0], temperature=1.0, seed=7, n=3)
    others = [page(PROMPTS[2], temperature=1.0, seed=seed) for seed in range(4)]
    together = await asked(models / "page", *others, sampled)
    assert (await asked(models / "page", sampled)) == together[-1:]
    assert (await asked(models / "page", replace(sampled, seed=8))) != together[-1:]
    assert len({choice.text for choice in together[-1].choices}) == 3
    assert len({one.choices[0].text for one in together[:-1]}) == 4


@real
async def test_draws_have_the_probabilities_of_the_model_within_top_p(models: Path) -> None:
    transformers, torch = import_module("transformers"), import_module("torch")
    tokenizer = transformers.AutoTokenizer.from_pretrained(models / "page")
    model = transformers.AutoModelForCausalLM.from_pretrained(models / "page", dtype=torch.float32)
    with torch.inference_mode():
        logits = model(**tokenizer("Once", return_tensors="pt")).logits[0, -1]
    shares = (logits / 2.0).softmax(-1)
    ordered, places = shares.sort(descending=True)
    kept = (ordered.cumsum(-1) - ordered) < 0.7
    wanted = dict(zip(places[kept].tolist(), (ordered[kept] / ordered[kept].sum()).tolist(), strict=True))
    (found,) = await asked(
        models / "page", page("Once", temperature=2.0, top_p=0.7, max_tokens=1, n=2000, seed=1)
    )
    texts = {token: tokenizer.decode([token], skip_special_tokens=True) for token in wanted}
    by_text: dict[str, float] = dict.fromkeys(texts.values(), 0.0)
    for token, share in wanted.items():
        by_text[texts[token]] += share
    counts = Counter(choice.text for choice in found.choices)
    assert set(counts) <= set(by_text)
    off = sum(abs(counts[text] / 2000 - share) for text, share in by_text.items()) / 2
    assert off < 0.12, f"total variation {off}"


@real
async def test_what_a_request_leaves_open_is_as_the_model_says(models: Path) -> None:
    greedy = [by_library(models / "page", PROMPTS[0], 12)]
    for name in ("greedy", "first"):
        (open_one,) = await asked(models / name, page(PROMPTS[0], temperature=None))
        assert [choice.text for choice in open_one.choices] == greedy
    (own,) = await asked(models / "page", page(PROMPTS[0], temperature=None, n=8))
    assert len({choice.text for choice in own.choices}) > 1


@real
async def test_a_stop_sequence_ends_a_reply_and_is_no_part_of_it(models: Path) -> None:
    (whole,) = await asked(models / "page", page(PROMPTS[0], max_tokens=40))
    text = whole.choices[0].text
    stop = text[10:13]
    (cut,) = await asked(models / "page", page(PROMPTS[0], max_tokens=40, stop=(stop,)))
    assert (cut.choices[0].text, cut.choices[0].finish_reason) == (text[: text.index(stop)], "stop")
    assert cut.usage.completion_tokens < whole.usage.completion_tokens


@real
async def test_a_prompt_without_room_is_told_and_others_are_answered(models: Path) -> None:
    chat = Request("m", messages=(Message("user", "Once"),), max_tokens=4, temperature=0.0)
    long = replace(chat, messages=(Message("user", "Once upon " * 40),))
    told, answered = await asked(models / "chat", long, chat)
    assert told.choices[0].finish_reason == "context_length"
    assert answered.usage.completion_tokens > 0
    near = replace(chat, max_tokens=1000)
    (ended,) = await asked(models / "chat", near)
    assert ended.usage.prompt_tokens + ended.usage.completion_tokens <= 64


@real
async def test_a_chat_is_read_by_the_tokenizers_template(models: Path) -> None:
    turns = (Message("system", "Be brief."), Message("user", "Why?"))
    as_chat = Request("m", messages=turns, max_tokens=8, temperature=0.0)
    written = "<|system|>Be brief.<|end|><|user|>Why?<|end|><|assistant|>"
    as_page = Request("m", prompt=written, max_tokens=8, temperature=0.0)
    one, other = await asked(models / "chat", as_chat, as_page)
    assert one == other


@real
@pytest.mark.parametrize(
    ("name", "form"), [("page", "text"), ("chat", "chat"), ("no-system", "chat-without-system")]
)
async def test_the_tokenizer_decides_the_prompt_form(models: Path, name: str, form: str) -> None:
    model = LocalModel(str(models / name))
    assert await form_of_tokenizer(model) == form
    assert await model.context_tokens() == (64 if name == "chat" else 256)
    model.close()


@real
async def test_a_request_that_cannot_be_put_fails_alone(models: Path) -> None:
    model = LocalModel(str(models / "page"))
    chat = Request("m", messages=(Message("user", "Hello"),), max_tokens=2)
    refused, answered = await asyncio.gather(
        model.complete(chat), model.complete(page("Once")), return_exceptions=True
    )
    assert isinstance(refused, InputError)
    assert "no chat template" in str(refused)
    assert isinstance(answered, Completion)
    with pytest.raises(ParameterRefused, match="JSON schema"):
        await model.complete(page("Once", reply_schema="{}"))
    model.close()


@real
async def test_no_pickled_weights_and_no_code_of_a_repository(models: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(models / "page", tmp_path / "bare"))
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(InputError, match="no pickles"):
        await asked(bare, page("Once"))
    foreign = Path(shutil.copytree(models / "page", tmp_path / "foreign"))
    config = json.loads((foreign / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}
    (foreign / "config.json").write_text(json.dumps(config))
    (foreign / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError):
        await asked(foreign, page("Once"))
    assert not (tmp_path / "ran").exists()


@real
def test_a_local_model_answers_a_command(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(tmp_path, monkeypatch, capsys)
    shell.write("queries.jsonl", '{"query": "Why is the sky blue?"}\n{"query": "Once"}\n')
    flags = ("--queries", "queries.jsonl", "--base-max-tokens", "6", "--run-dir", "run", "--json", "--quiet")
    ran = shell.done("generate", "none", "--model", f"local/{models / 'page'}", *flags)
    assert [json.loads(line)["finish_reason"] for line in ran.out.splitlines()] == ["length", "length"]
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["identity"]["models"]["base"].startswith("local/page#")
    again = shell.done("generate", "none", "--model", f"local/{models / 'page'}", *flags)
    assert again.out == ran.out


def test_a_folder_is_known_by_its_files_and_a_repository_by_its_name(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place / "m").mkdir(parents=True)
        (tmp_path / place / "m" / "config.json").write_text("{}")
    config = GenerateConfig(queries="q")

    def identity(name: str) -> str:
        return named_model("base", name, config, {}).identity

    known = identity(f"local/{tmp_path / 'one' / 'm'}")
    assert known.startswith("local/m#")
    assert identity(f"local/{tmp_path / 'two' / 'm'}") == known
    (tmp_path / "two" / "m" / "config.json").write_text("{ }")
    assert identity(f"local/{tmp_path / 'two' / 'm'}") != known
    assert identity("local/owner/name@abc") == "local/owner/name@abc"


@pytest.mark.parametrize("name", ["local/./missing", "local//nowhere/at/all", "local/a/b/c"])
def test_a_path_that_leads_nowhere_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected a folder, there is none"):
        named_model("base", name, GenerateConfig(queries="q"), {})


def test_a_local_model_has_no_url() -> None:
    with pytest.raises(InputError, match="it runs inside drpo"):
        parse_model("local/owner/name@http://127.0.0.1:8000/v1")


async def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'drpo\[train\]'"):
        await asked(tmp_path, page("Once"))


def test_models_are_loaded_one_at_a_time(tmp_path: Path) -> None:
    meeting = threading.Barrier(2)

    class Slow:
        """As the classes of transformers are asked; it waits for another load to come beside it."""

        @staticmethod
        def from_pretrained(name: str, **options: Any) -> bool:
            try:
                meeting.wait(timeout=0.3)
            except threading.BrokenBarrierError:
                return False
            return True

    sources = [LocalSource(str(tmp_path), LANGUAGE_MODEL) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda source: source.read(Slow), sources)) == [False, False]
