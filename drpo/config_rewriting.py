"""Settings of a rewriter, which whatever asks a base model may have in front of it."""

from __future__ import annotations

from typing import Literal

from drpo.config_common import RunConfig, setting


class RewritingConfig(RunConfig):
    """A rewriter before the base model: shots are found for the rewritten query and the base model answers
    it, while a judge sees the user's own."""

    rewriter: str | None = setting(
        None,
        "Rewrites each query before the base model reads it: bpo/PATH or bpo/REPO@URL (trained), "
        "bpo-prompt/MODEL (by instruction alone), align-pro/MODEL, or none.",
    )
    rewriter_mode: Literal["stable", "aggressive"] = setting(
        "stable", "How freely a BPO rewriter may change a query."
    )
    rounds: int = setting(1, "How often a BPO rewriter rewrites what it wrote.", ge=1, le=10)
    rewriter_temperature: float | None = setting(
        None,
        "Sampling of the rewriter (default: 0.6 for BPO, 1.5 for Align-Pro, as published; of a trained "
        "prompter, its own).",
        ge=0,
        le=2,
    )
    rewriter_top_p: float | None = setting(
        None, "Sampling of the rewriter (default: 0.9 for BPO, 0.6 for Align-Pro, as published).", gt=0, le=1
    )
    samples: int = setting(
        1,
        "N: rewrites that align-pro draws per query; more than 1 are weighed by --rewriter-reward.",
        ge=1,
        le=256,
    )
    lambda_: float = setting(
        0.3, "Weight of align-pro's KL term; small: the best rewrite, large: any.", gt=0, le=1e300
    )
    pick: Literal["resample", "best"] = setting(
        "resample", "Which of the weighed rewrites is used: one drawn by its weight, or the heaviest."
    )
    rewriter_reward: str | None = setting(
        None,
        "What weighs align-pro's rewrites: dynamic/MODEL (chooses aspects and scores), or a reward model, "
        "REPO, PATH or vllm/NAME@URL.",
    )

    @property
    def rewrites(self) -> bool:
        """Whether queries are rewritten."""
        return self.rewriter not in (None, "none")
