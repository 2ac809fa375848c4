"""Align-Pro's training (arXiv 2501.03486, section 5): a prompter trained by policy gradient for a reward.

The objective is E[R(x, x')] - lambda KL(rho || rho_sft), whose maximum is rho* (Lemma 5.1). What TRL 1.16
makes of it, read in its code:

- *RLOO* takes beta times the log ratio of a whole rewrite, log rho(x'|x) - log rho_sft(x'|x), off its reward,
  and compares it with the other rewrites of the query. Advantages are not scaled, losses are not divided by
  lengths, each rewrite is used for one step. The gradient is that of the objective and **beta is lambda**.
- *GRPO* adds beta times a KL estimate (k3) to the loss of each token. Differentiated as it stands, that is
  the gradient of the other divergence, KL(rho_sft || rho); with `use_bias_correction_kl` it is that of the
  token's own KL. What a token does to the KL of those behind it is left out, so lambda holds about, and
  exactly for rewrites of one decision. `scale_rewards="none"` and `loss_type="dr_grpo"` (divided by a
  constant, not by lengths) keep reward and KL on one scale. A reward is compared with a mean that it is part
  of, which takes 1/G off the reward's gradient: beta is lambda (G - 1) / G to make up for that.
- *Temperature.* TRL divides the logits of both models by it, so the policy is the prompter at this
  temperature, and the reference too: nothing is biased, and the result is to be sampled at the same one.
- *top_p and top_k* cut what is sampled, but not the probabilities in the gradient and in the KL. The KL is
  then estimated on what was left, and tokens that are cut are never drawn: the objective is not quite that of
  rho*. With `--top-p 1 --top-k 0` it is. The published values (1.5, 0.6, 20) are the defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from drpo.config_training import AlignProTrainConfig
from drpo.errors import InputError
from drpo.rewriting.checks import FLOORS, cleaned, why_kept
from drpo.training.base import Base, RewriteFormat, Text
from drpo.training.place import Place
from drpo.training.trainers import (
    Notice,
    adapter_of,
    common_arguments,
    end_ids_of,
    history_of,
    listening,
    quiet,
    save,
    train,
)

Rewards = Callable[[Sequence[tuple[str, str]]], Sequence[float | None]]
"""Pairs of a query and what the frozen model reads in its place -> R of each, None where there is none."""
FIGURES = {
    "reward": "reward",
    "reward_std": "reward_std",
    "kl": "kl_per_token",
    "completions/mean_length": "tokens",
}


def train_policy(
    config: AlignProTrainConfig,
    base: Base,
    format: RewriteFormat,
    queries: Sequence[str],
    rewards: Rewards,
    place: Place,
    notice: Notice,
) -> tuple[bool, list[dict[str, float]]]:
    """Train the prompter and write the model into `place`; whether this process wrote, and the figures: per
    logged step the mean reward, its deviation, the KL in nats (of a whole rewrite, by its mean length)."""
    trl = import_module("trl")
    kinds = {"rloo": (trl.RLOOTrainer, trl.RLOOConfig), "grpo": (trl.GRPOTrainer, trl.GRPOConfig)}
    trainer_kind, config_kind = kinds[config.algorithm]
    trainer = trainer_kind(
        model=str(base.folder),
        reward_funcs=reward_function(base, format, rewards),
        args=config_kind(**common_arguments(config, place), **_objective(config)),
        train_dataset=import_module("datasets").Dataset.from_list(
            [{"prompt": format.prompt(query), "query": query} for query in queries]
        ),
        processing_class=base.tokenizer,
        peft_config=adapter_of(config),
        callbacks=[listening(notice, told)],
    )
    quiet(trainer)
    train(trainer, place)
    figures = history_of(trainer, FIGURES)
    for one in figures:
        one["kl"] = one.pop("kl_per_token", 0.0) * one.get("tokens", 0.0)
    return save(trainer, base, place, lora=config.lora), figures


def _objective(config: AlignProTrainConfig) -> dict[str, Any]:
    """What of TRL's settings makes the objective that of Lemma 5.1, as far as it can be: see above."""
    shared = {
        "max_steps": config.steps,
        "lr_scheduler_type": "constant",
        "num_generations": config.rewrites,
        "num_iterations": 1,
        "max_completion_length": config.rewrite_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
    }
    if config.algorithm == "rloo":
        return {**shared, "beta": config.lambda_, "normalize_advantages": False}
    return {
        **shared,
        "beta": config.lambda_ * (config.rewrites - 1) / config.rewrites,
        "scale_rewards": "none",
        "loss_type": "dr_grpo",
        "use_bias_correction_kl": True,
    }


def refuse_uneven(config: AlignProTrainConfig, processes: int) -> None:
    """InputError where the rewrites of a query do not come into one step together."""
    together = config.batch * config.accumulate * processes
    if together % config.rewrites:
        raise InputError(
            f"--rewrites {config.rewrites}: a step has --batch {config.batch} x --accumulate "
            f"{config.accumulate} x {processes} processes = {together} rewrites, expected a multiple of "
            f"{config.rewrites}"
        )


def reward_function(base: Base, format: RewriteFormat, rewards: Rewards) -> Callable[..., list[float | None]]:
    """What TRL calls with rewrites as they were sampled.

    A rewrite that could not stand in use (empty, an answer, one that lost the query, cut at its end) is
    rewarded as the user's own words, for these are what the frozen model would read.
    """
    ends = {*end_ids_of(base, base.folder), base.tokenizer.eos_token_id, base.tokenizer.pad_token_id}

    def reward(
        *,
        completions: Sequence[Text],
        completion_ids: Sequence[Sequence[int]],
        query: Sequence[str],
        **_: Any,
    ) -> list[float | None]:
        pairs = []
        for asked, written, ids in zip(query, completions, completion_ids, strict=True):
            text = cleaned(format.rewrite(written), asked)
            is_whole = bool(ids) and int(ids[-1]) in ends
            stands = is_whole and not why_kept(asked, text, None, FLOORS["aggressive"])
            pairs.append((asked, text if stands else asked))
        return list(rewards(pairs))

    return reward


def told(logs: Mapping[str, Any], step: int, steps: int) -> str:
    """Where a training stands, in words."""
    kl = float(logs.get("kl") or 0.0) * float(logs.get("completions/mean_length") or 0.0)
    return f"step {step} of {steps}: reward {float(logs.get('reward') or 0.0):.3f}, KL {kl:.3f}"
