"""Settings of the commands that measure: `evaluate`, `compare` and `audit-judge`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from drpo.config_asking import NONE as NONE
from drpo.config_asking import URIAL as URIAL
from drpo.config_asking import AskingConfig
from drpo.config_common import RunConfig, setting


class JudgingConfig(RunConfig):
    """What all of them have: a judge."""

    judge: str | None = setting(None, "Model that judges: openai/NAME or vllm/REPO, with @URL, or demo.")
    demo_judge: Literal["fair", "first", "longer", "obedient"] = setting(
        "fair",
        "What a simulated judge is like: fair, or leaning to the first of two responses, to the longer one, "
        "or to what a response asks for.",
    )


class AnsweringConfig(AskingConfig, JudgingConfig):
    """What those have that let a base model answer."""

    alignment: str | None = setting(
        None,
        "What is measured: a run, an alignment file, none (the plain prompt without shots; default with a "
        "--rewriter) or urial (a fixed prompt with three fixed shots).",
    )
    data: str | None = setting(
        None,
        "Queries: JSONL, JSON, CSV or plain text, or a Hugging Face dataset such as "
        "re-align/just-eval-instruct (default: the shipped held-out ones).",
    )
    data_column: str | None = setting(None, "Field of the data that holds the query.")
    limit: int | None = setting(None, "So many queries of the data at most, the first ones.", ge=1)
    level: float = setting(0.95, "Confidence of the intervals.", identity=False, gt=0.5, le=0.999)


class EvaluateConfig(AnsweringConfig):
    """Settings of `drpo evaluate`."""

    na: Literal["leave-out", "five"] = setting(
        "leave-out",
        "What an N/A of the judge does to a mean: nothing, or count as a 5 (just-eval's habit).",
        identity=False,
    )
    reward_model: str | None = setting(
        None,
        "Also, or instead of a judge: a reward model, REPO or PATH (transformers), or vllm/NAME@URL.",
        identity=False,
    )


class CompareConfig(AnsweringConfig):
    """Settings of `drpo compare`."""

    against: str = setting(..., "What it is compared with: as --alignment.")
    against_model: str | None = setting(None, "Base model of the other side (default: the same).")


class AuditConfig(JudgingConfig):
    """Settings of `drpo audit-judge`."""

    cases: Path | None = setting(
        None, "Cases with a better and a worse response (default: the shipped ones)."
    )
