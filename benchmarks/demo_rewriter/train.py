"""Trains demo-rewriter from nothing: tokenizer, weights, and the files that transformers loads.

    python -m benchmarks.demo_rewriter.train --steps 2000 --seed 0 --out demo-rewriter

Stops by steps, not by time. Equal seed, threads and library versions give equal weights on equal machines.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Lfm2Config, Lfm2ForCausalLM, PreTrainedTokenizerFast

from benchmarks.demo_lm.train import rate, save
from benchmarks.demo_rewriter.text import END, LONGEST_WORDS, PAD, draw_sample

VOCABULARY, STEP_TOKENS, POOL = 1024, 2048, 256
CONTEXT = 512
PEAK = 3e-3


def train_tokenizer(seed: int) -> Any:
    """A byte-level BPE of 1,024 entries, from 6,000 samples."""
    rng = random.Random(f"tokenizer/{seed}")
    texts = ("".join(draw_sample(rng)) for _ in range(6000))
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrap: Any = PreTrainedTokenizerFast
    return wrap(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def build_model(tokenizer: Any, seed: int) -> Any:
    """The untrained model: LFM2, two short convolutions and two attentions of width 96, tied embeddings.

    A convolution tells each token what stood before it, which is half of what copying takes: the attention
    above it finds where the same was read, and takes what came next. A Llama has to invent that first.
    """
    torch.manual_seed(seed)
    config = Lfm2Config(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=4,
        layer_types=["conv", "full_attention", "conv", "full_attention"],
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    make: Any = Lfm2ForCausalLM
    return make(config)


def batches(tokenizer: Any, seed: int) -> Iterator[tuple[Any, Any]]:
    """Rows of similar length, at most 2,048 tokens with their padding: ids, and what of them is written."""
    rng = random.Random(f"train/{seed}")
    end = tokenizer.eos_token_id
    longest_words = 4  # short queries first, since copying is found on them
    while True:
        pool = []
        for _ in range(POOL):
            drawn = draw_sample(rng, longest_words)
            read, written = (tokenizer(text)["input_ids"] for text in drawn)
            if len(read) + len(written) < CONTEXT:
                pool.append(([*read, *written, end], len(read)))
        pool.sort(key=lambda sample: len(sample[0]))
        ready: list[list[tuple[list[int], int]]] = [[]]
        for sample in pool:
            if (len(ready[-1]) + 1) * len(sample[0]) > STEP_TOKENS:
                ready.append([])
            ready[-1].append(sample)
        rng.shuffle(ready)
        longest_words = min(LONGEST_WORDS, longest_words + 1)
        for rows in ready:
            longest = max(len(ids) for ids, _ in rows)
            ids = torch.zeros(len(rows), longest, dtype=torch.long)
            written = torch.zeros(len(rows), longest, dtype=torch.bool)
            for number, (row, read) in enumerate(rows):
                ids[number, : len(row)] = torch.tensor(row)
                written[number, read : len(row)] = True
            yield ids, written


def _loss(model: Any, ids: Any, written: Any) -> Any:
    """The mean over what is written; logits are made there only."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    counted = written[:, 1:]
    logits = model.lm_head(hidden[counted])
    return torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][counted])


def train(model: Any, tokenizer: Any, steps: int, seed: int) -> None:
    """Trains in place and prints a line every 50 steps."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.98))
    model.train()
    began, total = time.monotonic(), 0.0
    for step, (ids, written) in enumerate(batches(tokenizer, seed)):
        if step == steps:
            return
        for group in optimizer.param_groups:
            group["lr"] = PEAK * rate(step, steps)
        loss = _loss(model, ids, written)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += float(loss.detach())
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}  loss {total / 50:.4f}  {time.monotonic() - began:.0f} s", flush=True)
            total = 0.0


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tokenizer = train_tokenizer(given.seed)
    model = build_model(tokenizer, given.seed)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(tokenizer)} tokens", flush=True)
    train(model, tokenizer, given.steps, given.seed)
    print(f"sha256 of model.safetensors: {save(model, tokenizer, given.out)}")
    # Sampled as it was trained to write: which request follows a query is left to chance.
    end = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "do_sample": True}
    text = json.dumps(end, indent=2, sort_keys=True) + "\n"
    (given.out / "generation_config.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
