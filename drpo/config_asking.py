"""Settings of whatever asks a base model by an alignment: to measure it, and to use it."""

from __future__ import annotations

from typing import Literal

from drpo.config_common import RunConfig, setting
from drpo.config_rewriting import RewritingConfig

NONE, URIAL = "none", "urial"
"""Baselines that have a name: the plain prompt without shots, and a fixed prompt with three fixed shots."""


class AnswererConfig(RunConfig):
    """A base model that answers queries as they come to it."""

    model: str | None = setting(
        None, "The base model: as for optimize (default: the one the alignment was found for)."
    )
    shots: int | None = setting(None, "K: examples shown (default: as many as the alignment says).", ge=0)
    embedder: str | None = setting(None, "How shots are found (default: as the alignment was searched).")
    prompt_form: Literal["auto", "text", "chat", "chat-without-system"] = setting(
        "auto",
        "How the base model is asked; auto: as the alignment was searched, where the model is the same.",
    )
    base_max_tokens: int = setting(2048, "Longest response of the base model, in tokens.", ge=1)
    long_prompts: Literal["drop-shots", "as-is"] = setting(
        "drop-shots", "What becomes of a prompt too long for a vLLM server's context."
    )


class AskingConfig(AnswererConfig, RewritingConfig):
    """What asks a base model, with a rewriter in front of it or without."""
