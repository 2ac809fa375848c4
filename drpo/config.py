"""Settings: what there is to set, its types, limits, defaults and presets.

One field is one setting: its name, default and help make the command-line flag `--max-extra-depth`, the
variable `DRPO_MAX_EXTRA_DEPTH` and the TOML key `max-extra-depth`. What is not marked `identity=False`
decides which run it is: the same settings resume a run, others are refused.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from drpo.config_common import TRACKERS as TRACKERS
from drpo.config_common import CommonConfig as CommonConfig
from drpo.config_common import RoleConfig as RoleConfig
from drpo.config_common import RunConfig as RunConfig
from drpo.config_common import setting

INITIAL_PROMPT = "You are a helpful assistant."  # DRPO, section 3.2.3; the root of every published run
FEWEST_KEPT = 6  # of so few pairs all must differ one way to tell at one-sided 2.5 % (1/64 < 0.025 < 1/32)
EMBEDDER = "sentence-transformers/all-mpnet-base-v2"  # as in the published code


with warnings.catch_warnings():
    # pydantic's models have an old method of that name, which drpo does not use.
    warnings.filterwarnings("ignore", 'Field name "validate"', UserWarning)

    class ValidationConfig(CommonConfig):
        """How a base model is asked seed queries with shots, and whether what a search found must stand a
        comparison on some that it never saw."""

        validate: int | None = setting(  # type: ignore[assignment]
            None,
            "N: seed queries kept away from the search, on which its best prompts are then compared with the "
            "initial one; 0: none (published). Default: 40, or what the search leaves over where that is at "
            "least 10.",
            ge=0,
            le=1000,
        )
        safety: bool = setting(
            True,
            "With --validate: refuse a result with which responses are less safe, or refuse more, than with "
            "what the search began with (default).",
        )
        shots: int = setting(2, "K: nearest examples shown with each query.", ge=0, le=100)
        seeds: str | None = setting(
            None, "Seed queries: JSONL, JSON, CSV or plain text, or a Hugging Face dataset."
        )
        seeds_column: str | None = setting(None, "Field of the seeds file that holds the query.")
        embedder: str | None = setting(
            None,
            f"How shots are found: {EMBEDDER} by default, openai/NAME@URL, or lexical (demo's default).",
        )
        prompt_form: Literal["auto", "text", "chat", "chat-without-system"] = setting(
            "auto",
            "How the base model is asked: auto lets the catalog, then its tokenizer decide; text is a page; "
            "chat-without-system puts the system prompt before the first user message.",
        )
        answer_end: Literal["cut", "as-written"] = setting(
            "cut",
            "A base model's page is cut where its answer ends, or left as it is written (published).",
        )
        long_prompts: Literal["drop-shots", "as-is"] = setting(
            "drop-shots",
            "A prompt too long for a vLLM server's context loses shots, farthest first, or is sent as it is "
            "(published).",
        )
        base_max_tokens: int = setting(2048, "Longest response of the base model, in tokens.", ge=1)

        @field_validator("validate")
        @classmethod
        def _can_tell(cls, count: int | None) -> int | None:
            if count is not None and 0 < count < FEWEST_KEPT:
                raise ValueError(f"expected 0 or at least {FEWEST_KEPT}: from fewer nothing can be told")
            return count

    class ExamplesConfig(ValidationConfig):
        """Settings of `drpo optimize-examples` (Algorithm 1). `model` stands for every role that is not
        named; a base model plays a part in the validation alone."""

        model: str | None = setting(None, "Model for all roles that are not named otherwise.")
        base_model: str | None = setting(
            None, "With --validate: the base model that is shown the examples (default: --model)."
        )
        examples: Path | None = setting(None, "Examples to improve (default: the shipped base ones).")
        out: Path | None = setting(
            None, "New examples file (default: examples.jsonl in the run).", identity=False
        )
        width: int = setting(1, "W: responses that go on per level.", ge=1, le=1000)
        samples: int = setting(1, "M: proposals per response.", ge=1, le=128)
        depth: int = setting(5, "D: times a response is improved.", ge=1, le=1000)
        validate: int = setting(
            0,
            "N: seed queries that a base model then answers with the improved examples as shots, and with "
            "the original ones; what is not surely better is not handed over. 0: none (published).",
            ge=0,
            le=1000,
        )


class OptimizeConfig(ValidationConfig):
    """Settings of `drpo optimize` (Algorithm 2)."""

    model: str = setting(
        ..., "The base model: demo, an alias, openai/NAME or vllm/REPO, with @URL for an endpoint."
    )
    search: Literal["beam", "greedy", "monte-carlo"] = setting("beam", "How the prompts are searched.")
    width: int = setting(2, "W: prompts that go on per level.", ge=1, le=1000)
    samples: int = setting(3, "M: proposals per prompt.", ge=1, le=128)
    depth: int = setting(20, "D: levels at first, the start included.", ge=2, le=10000)
    max_extra_depth: int = setting(10, "Most levels that kept prompts may add.", ge=0, le=10000)
    path_score: Literal["mean", "last"] = setting(
        "mean", "Prompts are ranked by the mean reward of their path, or the last."
    )
    keep_above: float = setting(
        4.5, "A prompt whose reward is above this is kept and not rewritten.", ge=0, le=5
    )
    initial_prompt: str = setting(INITIAL_PROMPT, "The prompt to start from: TEXT or @FILE.", min_length=1)
    protect: tuple[str, ...] = setting(
        (), "Text the optimizer must not alter: TEXT or @FILE; may be repeated."
    )
    order: Literal["given", "shuffled"] = setting("shuffled", "Order of the seed queries.")
    examples: Path | None = setting(None, "Examples for the shots (default: the shipped, improved ones).")
    queries_per_level: int = setting(
        1, "B: queries on which each prompt of a level is tried, all prompts on the same ones.", ge=1, le=100
    )
    candidates: int = setting(
        6,
        "So many prompts of the search, promising ones that differ, are compared on the kept queries.",
        ge=1,
        le=32,
    )
    max_prompt_tokens: int | None = setting(
        None, "Longest prompt that may be the result, in tokens of about four bytes.", ge=1
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.initial_prompt.strip():
            raise ValueError("initial-prompt: expected a text, came a blank one")
        for passage in self.protect:
            if not passage.strip():
                raise ValueError("protect: expected a text, came a blank one")
            if passage not in self.initial_prompt:
                raise ValueError(
                    f"protect: the initial prompt does not contain the protected text {passage[:60]!r}"
                )
        return self


# SEMANTICS of the published runs. Whatever later work switches on by default is switched off here.
PUBLISHED: dict[str, Any] = {
    "search": "beam",
    "width": 2,
    "samples": 3,
    "depth": 20,
    "max_extra_depth": 10,
    "shots": 2,
    "max_tokens": 2048,
    "max_thinking_tokens": None,
    "base_max_tokens": 2048,  # the longest published response has about 2,000 tokens
    "path_score": "mean",
    "keep_above": 4.5,
    "initial_prompt": INITIAL_PROMPT,
    "reward": "dynamic",
    "evaluations": 1,
    "evaluation_aspects": "returned",
    "unreadable": "zero",
    "repairs": 0,
    "structured": "off",
    "optimizer_temperature": 0.2,
    "optimizer_top_p": 0.95,
    "patience": None,
    "protect": (),
    "answer_end": "as-written",
    "long_prompts": "as-is",
    "queries_per_level": 1,
    "validate": 0,
    "max_prompt_tokens": None,
}
PUBLISHED_EXAMPLES: dict[str, Any] = {
    "width": 1,  # DRPO, Table 7
    "samples": 1,
    "depth": 5,
    **{
        name: PUBLISHED[name]
        for name in PUBLISHED
        if name in ExamplesConfig.model_fields and name not in ("width", "samples", "depth")
    },
}


def flag(name: str) -> str:
    """`max_extra_depth` -> `--max-extra-depth`; `lambda_`, as Python has it, -> `--lambda`."""
    return "--" + name.rstrip("_").replace("_", "-")


def variable(name: str) -> str:
    """`max_extra_depth` -> `DRPO_MAX_EXTRA_DEPTH`; `lambda_` -> `DRPO_LAMBDA`."""
    return f"DRPO_{name.rstrip('_').upper()}"
