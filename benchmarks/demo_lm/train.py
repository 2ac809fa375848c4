"""Trains demo-lm from nothing: tokenizer, weights, and the files that vLLM and transformers load.

    python -m benchmarks.demo_lm.train --steps 2400 --seed 0 --out demo-lm

Stops by steps, not by time. Equal seed, threads and library versions give equal weights on equal machines.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.demo_lm.text import CHAT_TEMPLATE, END, PAD, SPECIAL_TOKENS, TURNS, chat, draw_sample

VOCABULARY, STEP_TOKENS, POOL = 1500, 2048, 64
PEAK, WARM_UP, FLOOR = 2.5e-3, 100, 0.02


def train_tokenizer(seed: int) -> Any:
    """A byte-level BPE of 1,500 entries, from 6,000 samples."""
    rng = random.Random(f"tokenizer/{seed}")
    texts = ("".join(text for text, _ in draw_sample(rng)) for _ in range(6000))
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrap: Any = PreTrainedTokenizerFast
    return wrap(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(TURNS.values()),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def build_model(tokenizer: Any, seed: int) -> Any:
    """The untrained model: Llama, 4 layers of 192, 6 heads, tied embeddings."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    make: Any = LlamaForCausalLM
    return make(config)


def _encoded(tokenizer: Any, rng: random.Random) -> tuple[list[int], list[float]]:
    ids: list[int] = []
    weights: list[float] = []
    for text, weight in draw_sample(rng):
        part = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += part
        weights += [weight] * len(part)
    return ids, weights


def batches(tokenizer: Any, seed: int) -> Iterator[tuple[Any, Any]]:
    """Rows of similar length, at most 2,048 tokens with their padding: ids and weights."""
    rng = random.Random(f"train/{seed}")
    while True:
        pool = sorted((_encoded(tokenizer, rng) for _ in range(POOL)), key=lambda sample: len(sample[0]))
        ready: list[list[tuple[list[int], list[float]]]] = [[]]
        for sample in pool:
            if (len(ready[-1]) + 1) * len(sample[0]) > STEP_TOKENS:
                ready.append([])
            ready[-1].append(sample)
        rng.shuffle(ready)
        for rows in ready:
            longest = max(len(ids) for ids, _ in rows)
            ids = torch.zeros(len(rows), longest, dtype=torch.long)
            weights = torch.zeros(len(rows), longest)
            for number, (row, weight) in enumerate(rows):
                ids[number, : len(row)] = torch.tensor(row)
                weights[number, : len(row)] = torch.tensor(weight)
            yield ids, weights


def rate(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: warmed up, then half a cosine."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(1, steps - WARM_UP)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


def _loss(model: Any, ids: Any, weights: Any) -> Any:
    """The weighted mean; logits are made only where a token weighs something."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    counted = weights[:, 1:] > 0
    logits = model.lm_head(hidden[counted])
    losses = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][counted], reduction="none")
    kept = weights[:, 1:][counted]
    return (losses * kept).sum() / kept.sum()


def train(model: Any, tokenizer: Any, steps: int, seed: int, half: bool) -> None:
    """Trains in place and prints a line every 50 steps."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.98))
    model.train()
    began, total = time.monotonic(), 0.0
    for step, (ids, weights) in enumerate(batches(tokenizer, seed)):
        if step == steps:
            return
        for group in optimizer.param_groups:
            group["lr"] = PEAK * rate(step, steps)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = _loss(model, ids, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += float(loss.detach())
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}  loss {total / 50:.4f}  {time.monotonic() - began:.0f} s", flush=True)
            total = 0.0


def save(model: Any, tokenizer: Any, out: Path) -> str:
    """Writes the files of the model (weights as bfloat16, to be computed with as float32); their digest."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    weights = {
        name: value.detach().to(torch.bfloat16).contiguous()
        for name, value in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embeddings
    }
    save_file(weights, str(out / "model.safetensors"), metadata={"format": "pt"})
    config = {**model.config.to_diff_dict(), "architectures": [type(model).__name__], "dtype": "float32"}
    _write(out / "config.json", config)
    settings = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    _write(out / "tokenizer_config.json", {**settings, "tokenizer_class": "PreTrainedTokenizerFast"})
    (out / "model.safetensors").chmod(0o644)
    end = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "do_sample": False}
    _write(out / "generation_config.json", end)
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_template(tokenizer: Any) -> None:
    """The chat template that is saved writes what was trained on."""
    turns = [("system", "Be kind."), ("user", "What is rain?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if rendered != chat(turns):
        raise ValueError(f"the chat template writes {rendered!r}")


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true", help="for processors that compute in it")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tokenizer = train_tokenizer(given.seed)
    _check_template(tokenizer)
    model = build_model(tokenizer, given.seed)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(tokenizer)} tokens", flush=True)
    train(model, tokenizer, given.steps, given.seed, given.bfloat16)
    print(f"sha256 of model.safetensors: {save(model, tokenizer, given.out)}")


if __name__ == "__main__":
    main()
