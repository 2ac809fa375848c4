"""Settings: what there is to set, its types, limits, defaults and presets.

One field is one setting: its name, default and help make the command-line flag `--max-extra-depth`, the
variable `DRPO_MAX_EXTRA_DEPTH` and the TOML key `max-extra-depth`. What is not marked `identity=False`
decides which run it is: the same settings resume a run, others are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

INITIAL_PROMPT = "You are a helpful assistant."  # DRPO, section 3.2.3; the root of every published run
TRACKERS = ("mlflow", "wandb", "otel")
EMBEDDER = "sentence-transformers/all-mpnet-base-v2"  # as in the published code


def _field(default: Any, text: str, *, identity: bool = True, **limits: Any) -> Any:
    return Field(default, description=text, json_schema_extra={"identity": identity}, **limits)


class CommonConfig(BaseModel):
    """What both searches have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    optimizer: str | None = _field(
        None, "Model that rewrites (default: demo for demo, else the catalog's strong one)."
    )
    evaluator: str | None = _field(None, "Model that scores responses (default: as the optimizer).")
    selector: str | None = _field(None, "Model that chooses aspects (default: the evaluator).")
    preset: Literal["published"] | None = _field(
        None, "published: every switch as in the published runs.", identity=False
    )
    reward: Literal["dynamic", "static"] = _field(
        "dynamic", "dynamic: aspects chosen per query; static: always the six evaluation aspects."
    )
    evaluations: int = _field(1, "Evaluations per response; their mean counts.", ge=1, le=100)
    evaluation_aspects: Literal["asked", "returned"] = _field(
        "asked",
        "Which aspects a readable evaluation has: exactly the asked ones, or whatever came (published).",
    )
    unreadable: Literal["drop", "zero"] = _field(
        "drop", "A candidate whose evaluation cannot be read is dropped, or gets reward 0 (published)."
    )
    repairs: int = _field(1, "How often an unreadable reply is asked for again.", ge=0, le=5)
    structured: Literal["auto", "on", "off"] = _field(
        "auto", "Replies of optimizer, evaluator and selector by JSON schema; auto: from vLLM servers."
    )
    optimizer_temperature: float = _field(0.2, "Sampling of proposals.", ge=0, le=2)
    optimizer_top_p: float = _field(0.95, "Sampling of proposals.", gt=0, le=1)
    max_tokens: int = _field(2048, "Longest reply of optimizer, evaluator and selector, in tokens.", ge=16)
    patience: int | None = _field(
        None, "End after so many levels whose best score is not above the best before.", ge=1
    )
    random_seed: int = _field(0, "Orders the seed queries and seeds sampled requests.", ge=0)
    prompts: Path | None = _field(
        None, "Folder with templates (*.j2, aspects.toml) that replace the shipped ones."
    )
    demo_seed: int = _field(0, "Which simulated world `demo` is.", ge=0)
    demo_noise: float = _field(
        0.5, "Standard deviation of the simulated evaluator's error, in points.", ge=0, le=5
    )
    demo_latency_ms: float = _field(0.0, "How slow each simulated reply is.", identity=False, ge=0)
    concurrency: int = _field(64, "Requests in the air per endpoint.", identity=False, ge=1, le=4096)
    timeout_s: float = _field(300.0, "Longest one request may take.", identity=False, gt=0)
    deadline_s: float = _field(900.0, "Longest one call may take with all its retries.", identity=False, gt=0)
    tensor_parallel_size: int | None = _field(
        None,
        "GPUs over which a vLLM server that drpo starts splits each layer (default: as many as it needs).",
        identity=False,
        ge=1,
    )
    pipeline_parallel_size: int = _field(
        1, "GPUs or machines over which it splits the layers.", identity=False, ge=1
    )
    data_parallel_size: int = _field(1, "Copies of the model that share its requests.", identity=False, ge=1)
    vllm_arg: tuple[str, ...] = _field(
        (),
        "Any other flag of that server, such as max-model-len=8192; may be repeated. What changes answers is "
        "part of the model's identity.",
        identity=False,
    )
    vllm_command: str | None = _field(
        None, "What starts it instead of the installed vLLM, such as '/other/bin/vllm serve'.", identity=False
    )
    vllm_ready_s: float = _field(
        1800.0, "Longest it may take to be ready, downloads included.", identity=False, gt=0
    )
    vllm_restarts: int = _field(3, "How often it is started again when it dies.", identity=False, ge=0)
    max_calls: int | None = _field(
        None,
        "Most requests the run may send, over all its processes; then the best so far is written.",
        identity=False,
        ge=1,
    )
    max_usd: float | None = _field(
        None,
        "Most it may spend in US dollars: what a request can cost at most is set aside before it is sent.",
        identity=False,
        gt=0,
    )
    price: tuple[str, ...] = _field(
        (),
        "What a role costs where no list knows: ROLE=IN/OUT, dollars a million tokens; may be repeated.",
        identity=False,
    )
    max_thinking_tokens: int | None = _field(
        None,
        "Tokens a reasoning model that takes no --max-tokens may think, on top of those (default: no limit).",
        ge=0,
    )
    report: bool = _field(
        True, "Keep report.html in the run, renewed at each level (default).", identity=False
    )
    track: tuple[str, ...] = _field(
        (), "Also log the run to mlflow, wandb or otel; may be repeated.", identity=False
    )
    reuse: bool = _field(
        True, "Reuse aspects that other runs chose for the same question (default).", identity=False
    )
    runs_dir: Path = _field(Path("runs"), "Folder of the runs.", identity=False)
    name: str | None = _field(None, "Name of the run inside the runs folder.", identity=False)
    run_dir: Path | None = _field(None, "Directory of the run, wherever it is.", identity=False)
    roles: dict[Literal["base", "optimizer", "evaluator", "selector"], RoleConfig] = _field(
        {}, "Per role in a TOML file: model and the variable that holds its key.", identity=False
    )

    @field_validator("track")
    @classmethod
    def _is_known_tracker(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in TRACKERS:
                raise ValueError(f"expected one of {', '.join(TRACKERS)}")
        return names

    @field_validator("name")
    @classmethod
    def _stays_inside(cls, name: str | None) -> str | None:
        if name is not None and (
            not name.strip() or name in {".", ".."} or set(name) & set("/\\:") or not name.isprintable()
        ):
            raise ValueError("expected a plain folder name inside the runs folder; use --run-dir for a path")
        return name

    @classmethod
    def identity_fields(cls) -> tuple[str, ...]:
        """The settings that decide which run it is."""
        return tuple(
            name
            for name, field in cls.model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra["identity"]
        )


class RoleConfig(BaseModel):
    """[roles.optimizer] in a TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    api_key_env: str | None = None

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(
                "expected the name of an environment variable (the key itself stays out of files)"
            )
        return name


class OptimizeConfig(CommonConfig):
    """Settings of `drpo optimize` (Algorithm 2)."""

    model: str = _field(
        ..., "The base model: demo, an alias, openai/NAME or vllm/REPO, with @URL for an endpoint."
    )
    search: Literal["beam", "greedy", "monte-carlo"] = _field("beam", "How the prompts are searched.")
    width: int = _field(2, "W: prompts that go on per level.", ge=1, le=1000)
    samples: int = _field(3, "M: proposals per prompt.", ge=1, le=128)
    depth: int = _field(20, "D: levels at first, the start included.", ge=2, le=10000)
    max_extra_depth: int = _field(10, "Most levels that kept prompts may add.", ge=0, le=10000)
    shots: int = _field(2, "K: nearest examples shown with each query.", ge=0, le=100)
    path_score: Literal["mean", "last"] = _field(
        "mean", "Prompts are ranked by the mean reward of their path, or the last."
    )
    keep_above: float = _field(
        4.5, "A prompt whose reward is above this is kept and not rewritten.", ge=0, le=5
    )
    initial_prompt: str = _field(INITIAL_PROMPT, "The prompt to start from: TEXT or @FILE.", min_length=1)
    protect: tuple[str, ...] = _field(
        (), "Text the optimizer must not alter: TEXT or @FILE; may be repeated."
    )
    seeds: str | None = _field(
        None, "Seed queries: JSONL, JSON, CSV or plain text, or a Hugging Face dataset."
    )
    seeds_column: str | None = _field(None, "Field of the seeds file that holds the query.")
    order: Literal["given", "shuffled"] = _field("shuffled", "Order of the seed queries.")
    examples: Path | None = _field(None, "Examples for the shots (default: the shipped, improved ones).")
    embedder: str | None = _field(
        None, f"How shots are found: {EMBEDDER} by default, openai/NAME@URL, or lexical (demo's default)."
    )
    prompt_form: Literal["auto", "text", "chat", "chat-without-system"] = _field(
        "auto",
        "How the base model is asked: auto lets the catalog, then its tokenizer decide; text is a page; "
        "chat-without-system puts the system prompt before the first user message.",
    )
    answer_end: Literal["cut", "as-written"] = _field(
        "cut", "A base model's page is cut where its answer ends, or left as it is written (published)."
    )
    long_prompts: Literal["drop-shots", "as-is"] = _field(
        "drop-shots",
        "A prompt too long for a vLLM server's context loses shots, farthest first, or is sent as it is "
        "(published).",
    )
    base_max_tokens: int = _field(2048, "Longest response of the base model, in tokens.", ge=1)

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


class ExamplesConfig(CommonConfig):
    """Settings of `drpo optimize-examples` (Algorithm 1). `model` stands for every role that is not named."""

    model: str | None = _field(None, "Model for all roles that are not named otherwise.")
    examples: Path | None = _field(None, "Examples to improve (default: the shipped base ones).")
    out: Path | None = _field(None, "New examples file (default: examples.jsonl in the run).", identity=False)
    width: int = _field(1, "W: responses that go on per level.", ge=1, le=1000)
    samples: int = _field(1, "M: proposals per response.", ge=1, le=128)
    depth: int = _field(5, "D: times a response is improved.", ge=1, le=1000)


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
    """`max_extra_depth` -> `--max-extra-depth`."""
    return "--" + name.replace("_", "-")
