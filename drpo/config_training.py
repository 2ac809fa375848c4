"""Settings of the commands that train rewriters: `bpo train` and `align-pro train`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from drpo.config_common import RunConfig, setting


class TrainingConfig(RunConfig):
    """What both have. Without `--lora` all weights are trained. Where several processes train, as `accelerate
    launch` starts them, `--batch` is of each."""

    out: Path = setting(..., "Folder for the trained rewriter; its checkpoints lie in it until it is done.")
    lora: bool = setting(False, "Train a LoRA adapter, merged into the weights at the end, instead of all.")
    lora_rank: int = setting(16, "Rank of the adapter; its alpha is twice that.", ge=1, le=1024)
    batch: int = setting(8, "Sequences a device works on at once.", ge=1)
    save_steps: int = setting(
        100, "A checkpoint after so many steps, from which it resumes.", identity=False, ge=1
    )
    log_steps: int = setting(10, "Say where it stands after so many steps.", identity=False, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "What is computed in; auto: bfloat16 on GPUs that have it, else float32."
    )
    checkpointing: bool = setting(
        False, "Compute activations twice and keep fewer of them: for models that do not fit.", identity=False
    )


class BpoTrainConfig(TrainingConfig):
    """Settings of `drpo bpo train`; defaults as published."""

    data: Path = setting(
        ..., "Pairs: a folder of `drpo bpo build`, or JSONL with prompt and optimized_prompt."
    )
    base: str = setting(..., "Causal model that is trained: REPO, REPO@REVISION or PATH.")
    epochs: float = setting(5.0, "How often the pairs are gone through.", gt=0)
    learning_rate: float = setting(2e-5, "Peak of the learning rate.", gt=0, le=1)
    accumulate: int = setting(8, "Batches that make one step: with --batch 8, 64 pairs.", ge=1)
    warmup: float = setting(0.03, "Share of the steps in which the learning rate rises.", ge=0, lt=1)
    max_length: int = setting(
        2048, "Longest pair in tokens, with its template; longer ones are left out.", ge=16
    )


class AlignProTrainConfig(TrainingConfig):
    """Settings of `drpo align-pro train`; learning rate and sampling as published."""

    model: str = setting(..., "The frozen model that answers: as for optimize, or local/REPO-OR-PATH.")
    prompter: str = setting(..., "Causal model that is trained, and the reference: REPO or PATH.")
    reward: str = setting(
        ..., "dynamic/MODEL (chooses aspects and scores), or a reward model, REPO, PATH or vllm/NAME@URL."
    )
    lambda_: float = setting(0.2, "Weight of the KL to the reference.", gt=0)
    algorithm: Literal["rloo", "grpo"] = setting(
        "rloo",
        "rloo: the KL is lambda's to the letter. grpo: it counts per token, so lambda holds about.",
    )
    queries: str | None = setting(
        None,
        "Queries: JSONL, JSON, CSV or plain text, or a Hugging Face dataset (default: the shipped ones).",
    )
    queries_column: str | None = setting(None, "Field of that file that holds the query.")
    limit: int | None = setting(None, "So many queries at most, the first ones.", ge=1)
    format: Literal["auto", "prompter", "apply"] = setting(
        "auto",
        "What the prompter reads: the meta-prompt, or the short one of trained rewriters; auto: what its "
        "drpo-rewriter.json says, else the meta-prompt where it has a chat template.",
    )
    steps: int = setting(200, "Steps of training.", ge=1)
    learning_rate: float = setting(1.41e-5, "Learning rate, without a schedule.", gt=0, le=1)
    temperature: float = setting(1.5, "Sampling of rewrites, in training and in use.", gt=0, le=5)
    top_p: float = setting(
        0.6, "Sampling of rewrites; below 1 the objective is not quite rho*'s.", gt=0, le=1
    )
    top_k: int = setting(20, "Sampling of rewrites; 0: among all tokens, as rho* wants it.", ge=0)
    rewrites: int = setting(8, "Rewrites per query and step, whose rewards are compared.", ge=2)
    batch: int = setting(8, "Rewrites a device works on at once.", ge=1)
    accumulate: int = setting(4, "Batches that make one step: with --batch 8, 32 rewrites.", ge=1)
    rewrite_tokens: int = setting(256, "Longest rewrite; a longer one counts as the user's own words.", ge=1)
    answers: int = setting(1, "Answers of the frozen model per rewrite; their mean reward counts.", ge=1)
    answer_temperature: float = setting(
        0.0, "Sampling of the frozen model; above 0 for more than one answer.", ge=0, le=2
    )
    base_max_tokens: int = setting(2048, "Longest answer of the frozen model, in tokens.", ge=1)
    prompt_form: Literal["auto", "text", "chat", "chat-without-system"] = setting(
        "auto", "How the frozen model is asked."
    )
    alignment: str = setting("none", "How the frozen model is asked: a run, an alignment file or none.")
