"""A real reward model on this machine: tiny, made on the spot, run through transformers and torch."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest

from drpo.errors import InputError
from drpo.llm.connections import Connections
from drpo.llm.limits import Stop
from drpo.llm.retry import Patience
from drpo.llm.reward_local import LocalRewardModel
from drpo.llm.reward_model import RewardModel, open_reward_model

TURNS = "<s>{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
SHORT = [("Why is the sky blue?", "Light scatters."), ("Hello", ""), ("What is 2 + 2?", "4, said slowly")]
MIXED = [*SHORT, ("Tell me a story", "Once upon a time. " * 40), ("é \U0001f600", "ok <pad> ok")]


def tokenizer(template: str | None) -> Any:
    """A byte-level tokenizer trained on the spot; it knows every text."""
    tokenizers, transformers = import_module("tokenizers"), import_module("transformers")
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    marks = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=marks, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(["Why is the sky blue? Once upon a time."] * 5, trainer)
    if template is None:
        pair = "<s> $A:0 </s>:0 $B:1 </s>:1"
        trained.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A </s>", pair=pair, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.chat_template = template
    return fast


def save_model(folder: Path, kind: str = "llama", template: str | None = TURNS, **settings: Any) -> Path:
    """A sequence-classification model of two layers with random weights, the same each time."""
    transformers, torch = import_module("transformers"), import_module("torch")
    torch.manual_seed(0)
    known = tokenizer(template)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = {"num_labels": 1, "pad_token_id": 0, "initializer_range": 0.5, **settings}
    name = {"llama": "Llama", "bert": "Bert"}[kind]
    config = getattr(transformers, f"{name}Config")(
        vocab_size=len(known), max_position_embeddings=128, **sizes, **settings
    )
    getattr(transformers, f"{name}ForSequenceClassification")(config).save_pretrained(folder)
    known.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("transformers", "torch"):
        if find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "chat")
    save_model(folder / "pairs", "bert", None)
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


async def local(folder: Path) -> RewardModel:
    return await open_reward_model(
        str(folder), connections=Connections(), patience=Patience(Stop(), Random(0), deadline_s=0.0)
    )


def alone(folder: Path, pair: tuple[str, str]) -> float:
    """What the library itself gives for one pair without padding, cut at 128 tokens."""
    transformers, torch = import_module("transformers"), import_module("torch")
    known = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    if known.chat_template:
        text = "<s><|user|>" + pair[0] + "</s><|assistant|>" + pair[1] + "</s>"
        ids = known(text, add_special_tokens=False)["input_ids"][:128]
        encoded = {"input_ids": torch.tensor([ids])}
    else:
        # As a batch of one: a pair by itself whose response is empty is taken for one text.
        encoded = known([pair[0]], [pair[1]], return_tensors="pt", truncation=True, max_length=128)
    with torch.inference_mode():
        return float(model(**encoded).logits[0, 0])


def real(test: Any) -> Any:
    # The warnings of torch and its kin are not ours to mend.
    return pytest.mark.embed(pytest.mark.filterwarnings("default")(test))


@real
@pytest.mark.parametrize("kind", ["chat", "pairs"])
async def test_a_real_model_gives_each_pair_what_the_library_gives_it_alone(models: Path, kind: str) -> None:
    model = await local(models / kind)
    found = await model.rewards(MIXED)
    assert model.cut == 1  # the story
    assert found == pytest.approx([alone(models / kind, pair) for pair in MIXED], abs=1e-4)
    assert max(found) - min(found) > 0.1
    assert await model.rewards(MIXED) == found
    assert await model.rewards([]) == ()
    assert await (await local(models / kind)).rewards(MIXED) == found


@real
async def test_without_a_token_for_padding_pairs_go_one_by_one(models: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "bare", pad_token_id=None)
    padded = await (await local(models / "chat")).rewards(SHORT)
    assert await (await local(folder)).rewards(SHORT) == pytest.approx(padded, abs=1e-4)


@real
async def test_nothing_is_printed_while_rewards_are_given(
    models: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await (await local(models / "chat")).rewards(MIXED)
    assert capfd.readouterr() == ("", "")


@real
async def test_the_name_of_a_folder_follows_its_files_and_not_its_place(models: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(models / "chat", tmp_path / "chat"))
    name = (await local(models / "chat")).name
    assert name.startswith("chat#")
    assert (await local(copy)).name == name
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    assert (await local(copy)).name != name


def changed(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def without_a_head(folder: Path) -> None:
    safetensors = import_module("safetensors.torch")
    tensors = safetensors.load_file(folder / "model.safetensors")
    del tensors["score.weight"]
    safetensors.save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def overflowing(folder: Path) -> None:
    safetensors = import_module("safetensors.torch")
    tensors = safetensors.load_file(folder / "model.safetensors")
    tensors["score.weight"] *= math.inf
    safetensors.save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@real
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: changed(f, id2label={"0": "a", "1": "b"}), "expected one label, the reward; it has 2"),
        (lambda f: changed(f, architectures=["LlamaForCausalLM"]), "came ['LlamaForCausalLM']"),
        (lambda f: changed(f, architectures=None), "came no kind"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "drpo opens no pickles"),
        (without_a_head, "expected trained weights, there are none for score.weight"),
        (overflowing, "expected finite rewards, came nan"),
        (lambda f: (f / "config.json").unlink(), "it cannot be read as a reward model"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 64), "reward model"),
        (
            lambda f: changed(f, model_type="odd", auto_map={"AutoConfig": "odd.Odd"}),
            "it needs code of its own to be run, which drpo never does",
        ),
        (
            lambda f: (f / "chat_template.jinja").write_text("{{ raise_exception('no such\nrole') }}"),
            "its chat template takes no query and response: no such role",
        ),
    ],
)  # fmt: skip
async def test_what_is_no_reward_model_is_refused_with_a_sentence(
    models: Path, tmp_path: Path, damage: Callable[[Path], Any], said: str
) -> None:
    folder = Path(shutil.copytree(models / "chat", tmp_path / "chat"))
    damage(folder)
    with pytest.raises(InputError) as caught:
        await (await local(folder)).rewards(SHORT)
    assert said in str(caught.value)
    assert str(caught.value).startswith("reward model chat: ")
    assert "vllm/NAME@URL" in str(caught.value)
    assert "\n" not in str(caught.value)


@real
async def test_a_model_that_is_neither_here_nor_on_the_hub_is_refused_at_once(models: Path) -> None:
    with pytest.raises(InputError, match=r"neither cached here .*hf download nobody/no-such-model"):
        async with asyncio.timeout(60):
            await LocalRewardModel("nobody/no-such-model").open()


@real
async def test_a_model_of_the_cache_is_known_by_its_commit(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--rm"
    shutil.copytree(models / "chat", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(import_module("huggingface_hub.constants"), "HF_HUB_CACHE", str(tmp_path))
    model = LocalRewardModel("org/rm")
    await model.open()
    assert model.name == f"org/rm@{commit}"
    assert await model.rewards(SHORT) == await (await local(models / "chat")).rewards(SHORT)
