"""Small real models of transformers, made on the spot: random weights, the same each time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHAT
MARKS = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")


def skip_without(*packages: str) -> None:
    """Skip the test, naming what is missing."""
    for package in packages:
        if find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")


def byte_tokenizer(template: str | None = None) -> Any:
    """A byte-level tokenizer trained on the spot; it knows every text."""
    tokenizers = import_module("tokenizers")
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(MARKS),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(["Why is the sky blue? Once upon a time."] * 5, trainer)
    return _wrapped(trained, template)


def word_tokenizer(words: Sequence[str]) -> Any:
    """Each of `words` is one token, all others are one and the same; what ends a text also pads it."""
    tokenizers = import_module("tokenizers")
    known = {word: number for number, word in enumerate([MARKS[1], "<|unknown|>", *words])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(known, unk_token="<|unknown|>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return _wrapped(made, None, unk_token="<|unknown|>", pad_token=MARKS[1])


def _wrapped(tokenizer: Any, template: str | None, **marks: str) -> Any:
    wrap = import_module("transformers").PreTrainedTokenizerFast
    fast = wrap(tokenizer_object=tokenizer, **{"eos_token": MARKS[1], "pad_token": MARKS[0], **marks})
    fast.chat_template = template
    return fast


def save_causal(
    folder: Path, tokenizer: Any, context: int = 256, spread: float = 0.3, **generation: Any
) -> Path:
    """A Llama of two layers. spread: of its weights; the larger, the surer it is of what comes next."""
    transformers, torch = import_module("transformers"), import_module("torch")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        initializer_range=spread,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, **generation}
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
