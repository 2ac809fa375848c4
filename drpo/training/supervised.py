"""BPO's training (arXiv 2311.04155): supervised fine-tuning on prompts and their optimized forms.

The loss is on the optimized prompt and the end mark behind it alone. What is read is rendered by the template
that is used at inference, `rewrite/apply.j2`, in the same form: a user message where the tokenizer has a chat
template, else a page.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from drpo.config_training import BpoTrainConfig
from drpo.errors import InputError
from drpo.rewriting.templates import RewriteTemplates
from drpo.training.base import Base, RewriteFormat, format_of, open_base, refuse_unreadable_chat
from drpo.training.library import training_library
from drpo.training.pairs import Pair, Pairs, read_pairs
from drpo.training.place import Place, Trained, generation_settings
from drpo.training.trainers import (
    Notice,
    adapter_of,
    common_arguments,
    end_ids_of,
    history_of,
    listening,
    quiet,
    rank_of_process,
    save,
    train,
    trained_settings,
)

SAMPLING = {"temperature": 0.6, "top_p": 0.9}
"""Of BPO's published inference; written beside the trained model."""


def train_bpo(config: BpoTrainConfig, notice: Notice) -> Trained:
    """Train the base on the pairs and write it to `config.out`; the same call again resumes from the last
    checkpoint. Raises InputError for what cannot be used, RunConflict for a folder of another training."""
    trl = training_library()
    pairs = read_pairs(config.data)
    base = open_base(config.base, "--base")
    format = format_of(base, "apply", RewriteTemplates(config.prompts))
    refuse_unreadable_chat(base, format, "--base")
    rank, _ = rank_of_process()
    place = Place(config.out, _identity(config, base, pairs, format), rank)
    try:
        if (facts := place.finished) is not None:
            return Trained(config.out, facts, before=True)
        return _train(trl, config, pairs, base, format, place, notice)
    finally:
        place.close()


def _train(
    trl: Any,
    config: BpoTrainConfig,
    pairs: Pairs,
    base: Base,
    format: RewriteFormat,
    place: Place,
    notice: Notice,
) -> Trained:
    kept = _that_fit(pairs, base, format, config.max_length)
    if len(kept) < len(pairs.pairs):
        left = len(pairs.pairs) - len(kept)
        notice(
            f"{left} of {len(pairs.pairs)} pairs are longer than --max-length {config.max_length}: left out"
        )
    notice(f"{len(kept)} pairs, {base.identity}, {config.epochs:g} epochs")
    rows = [{"prompt": format.prompt(p.prompt), "completion": format.completion(p.optimized)} for p in kept]
    trainer = trl.SFTTrainer(
        model=str(base.folder),
        args=trl.SFTConfig(
            **common_arguments(config, place),
            num_train_epochs=config.epochs,
            lr_scheduler_type="cosine",
            warmup_steps=config.warmup,  # below 1: a share of all steps
            completion_only_loss=True,
            max_length=None,  # a pair without its end would teach not to end
        ),
        train_dataset=import_module("datasets").Dataset.from_list(rows),
        processing_class=base.tokenizer,
        peft_config=adapter_of(config),
        callbacks=[listening(notice, _told)],
    )
    quiet(trainer)
    train(trainer, place)
    facts = {
        "kind": "bpo",
        "format": format.name,
        "template": format.template,
        "base": base.identity,
        "settings": trained_settings(config),
        "data": {
            "digest": pairs.digest,
            "pairs": len(pairs.pairs),
            "trained_on": len(kept),
            "unchanged": pairs.unchanged,
        },
        "losses": history_of(trainer, {"loss": "loss"}),
    }
    if save(trainer, base, place, lora=config.lora):
        place.finish(generation_settings(base.folder, end_ids_of(base, base.folder), SAMPLING), facts)
    return Trained(config.out, facts)


def _that_fit(pairs: Pairs, base: Base, format: RewriteFormat, longest: int) -> tuple[Pair, ...]:
    kept = tuple(p for p in pairs.pairs if format.tokens(base.tokenizer, p.prompt, p.optimized) <= longest)
    if not kept:
        raise InputError(f"--max-length {longest}: no pair of {pairs.source} is that short; give more")
    return kept


def _identity(config: BpoTrainConfig, base: Base, pairs: Pairs, format: RewriteFormat) -> dict[str, Any]:
    return {
        "command": "bpo train",
        "base": base.identity,
        "settings": trained_settings(config),
        "digests": {"data": pairs.digest, f"rewrite/{format.name}.j2": format.template},
    }


def _told(logs: Mapping[str, Any], step: int, steps: int) -> str:
    return f"step {step} of {steps}: loss {float(logs.get('loss', 0.0)):.3f}"
