"""Settings of `drpo align-pro estimate`."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from drpo.align_pro.closed_form import check_lambda
from drpo.config_asking import NONE, AnswererConfig
from drpo.config_common import setting

MOST_LAMBDAS = 100


class EstimateConfig(AnswererConfig):
    """Settings of `drpo align-pro estimate`. What changes no request (lambdas, level, range) is no part of
    the run's identity: with others the same run is reckoned anew, and nobody is asked."""

    prompter: str | None = setting(
        None,
        "The reference prompter, asked by prompts/rewrite/prompter.j2: demo, openai/NAME, vllm/REPO@URL, or "
        "a trained one, PATH or REPO@URL.",
    )
    reward: str = setting(
        ...,
        "What judges an answer for the user's own query: dynamic/MODEL (chooses aspects and scores), or a "
        "reward model, REPO, PATH or vllm/NAME@URL.",
    )
    lambda_: tuple[float, ...] = setting(
        (0.1, 0.3, 1.0, 3.0),
        "Weights of the KL term, parted by commas; in units of the reward.",
        identity=False,
    )
    samples: int = setting(8, "N: rewrites drawn per query.", ge=1, le=256)
    answers: int = setting(
        1, "m: answers of the frozen model to each rewrite; 1: greedy, more: sampled.", ge=1, le=64
    )
    answer_temperature: float = setting(1.0, "With --answers above 1: how they are sampled.", gt=0, le=2)
    rewriter_temperature: float = setting(1.5, "Sampling of the prompter (published).", gt=0, le=2)
    rewriter_top_p: float = setting(0.6, "Sampling of the prompter (published).", gt=0, le=1)
    against_model: str | None = setting(
        None,
        "An aligned (RLHF) version of the frozen model, asked the users' own queries greedily: its reward is "
        "shown beside, and the bound's first term becomes known.",
    )
    reward_range: float | None = setting(
        None,
        "Highest less lowest reward, for the bound (dynamic rewards: 4; of a reward model nobody knows it).",
        identity=False,
        gt=0,
    )
    alignment: str = setting(
        NONE, "What the frozen model has before the query: a run, an alignment file, none or urial."
    )
    data: str | None = setting(
        None,
        "Queries: JSONL, JSON, CSV or plain text, a Hugging Face dataset, or ultrafeedback, helpsteer or "
        "orca (default: the shipped held-out ones).",
    )
    data_column: str | None = setting(None, "Field of the data that holds the query.")
    limit: int | None = setting(100, "So many queries of the data at most, the first ones (published).", ge=1)
    level: float = setting(0.95, "Confidence of the intervals.", identity=False, gt=0.5, le=0.999)

    @field_validator("lambda_", mode="before")
    @classmethod
    def _are_lambdas(cls, given: Any) -> tuple[float, ...]:
        """Rising, each once, from a list, numbers, or a text such as 0.1,0.3."""
        parts = [given] if isinstance(given, str | int | float) else list(given)
        texts = [text for part in parts for text in str(part).replace(",", " ").split()]
        try:
            found = {float(text) for text in texts}
            for lambda_ in found:
                check_lambda(lambda_)
        except ValueError:
            found = set()
        if not 1 <= len(found) <= MOST_LAMBDAS:
            raise ValueError(f"expected 1 to {MOST_LAMBDAS} numbers above 0, parted by commas")
        return tuple(sorted(found))
