"""The settings that all runs have in common, and those of both searches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from drpo.llm.base import Role

TRACKERS = ("mlflow", "wandb", "otel")


def setting(default: Any, text: str, *, identity: bool = True, **limits: Any) -> Any:
    """One field: its default, its help, and whether it decides which run it is."""
    return Field(default, description=text, json_schema_extra={"identity": identity}, **limits)


class RoleConfig(BaseModel):
    """[roles.optimizer] in a TOML file."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

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


class RunConfig(BaseModel):
    """What every run has that asks models, whatever it asks them."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    repairs: int = setting(1, "How often an unreadable reply is asked for again.", ge=0, le=5)
    structured: Literal["auto", "on", "off"] = setting(
        "auto", "Replies of models that rewrite or judge by JSON schema; auto: from vLLM servers."
    )
    max_tokens: int = setting(2048, "Longest reply of a model that rewrites or judges, in tokens.", ge=16)
    random_seed: int = setting(0, "Orders the seed queries and seeds sampled requests.", ge=0)
    prompts: Path | None = setting(
        None, "Folder with templates (*.j2, aspects.toml) that replace the shipped ones."
    )
    demo_seed: int = setting(0, "Which simulated world `demo` is.", ge=0)
    demo_noise: float = setting(
        0.5, "Standard deviation of the simulated evaluator's error, in points.", ge=0, le=5
    )
    demo_latency_ms: float = setting(0.0, "How slow each simulated reply is.", identity=False, ge=0)
    concurrency: int = setting(64, "Requests in the air per endpoint.", identity=False, ge=1, le=4096)
    timeout_s: float = setting(300.0, "Longest one request may take.", identity=False, gt=0)
    deadline_s: float = setting(
        900.0, "Longest one call may take with all its retries.", identity=False, gt=0
    )
    tensor_parallel_size: int | None = setting(
        None,
        "GPUs over which a vLLM server that drpo starts splits each layer (default: as many as it needs).",
        identity=False,
        ge=1,
    )
    pipeline_parallel_size: int = setting(
        1, "GPUs or machines over which it splits the layers.", identity=False, ge=1
    )
    data_parallel_size: int = setting(1, "Copies of the model that share its requests.", identity=False, ge=1)
    vllm_arg: tuple[str, ...] = setting(
        (),
        "Any other flag of that server, such as max-model-len=8192; may be repeated. What changes answers is "
        "part of the model's identity.",
        identity=False,
    )
    vllm_command: str | None = setting(
        None, "What starts it instead of the installed vLLM, such as '/other/bin/vllm serve'.", identity=False
    )
    vllm_ready_s: float = setting(
        1800.0, "Longest it may take to be ready, downloads included.", identity=False, gt=0
    )
    vllm_restarts: int = setting(3, "How often it is started again when it dies.", identity=False, ge=0)
    max_calls: int | None = setting(
        None,
        "Most requests the run may send, over all its processes; then the best so far is written.",
        identity=False,
        ge=1,
    )
    max_usd: float | None = setting(
        None,
        "Most it may spend in US dollars: what a request can cost at most is set aside before it is sent.",
        identity=False,
        gt=0,
    )
    price: tuple[str, ...] = setting(
        (),
        "What a role costs where no list knows: ROLE=IN/OUT, dollars a million tokens; may be repeated.",
        identity=False,
    )
    max_thinking_tokens: int | None = setting(
        None,
        "Tokens a reasoning model that takes no --max-tokens may think, on top of those (default: no limit).",
        ge=0,
    )
    runs_dir: Path = setting(Path("runs"), "Folder of the runs.", identity=False)
    name: str | None = setting(None, "Name of the run inside the runs folder.", identity=False)
    run_dir: Path | None = setting(None, "Directory of the run, wherever it is.", identity=False)
    roles: dict[Role, RoleConfig] = setting(
        {}, "Per role in a TOML file: model and the variable that holds its key.", identity=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _takes_paths(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

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


class CommonConfig(RunConfig):
    """What both searches have in common."""

    optimizer: str | None = setting(
        None, "Model that rewrites (default: demo for demo, else the catalog's strong one)."
    )
    evaluator: str | None = setting(None, "Model that scores responses (default: as the optimizer).")
    selector: str | None = setting(None, "Model that chooses aspects (default: the evaluator).")
    preset: Literal["published"] | None = setting(
        None, "published: every switch as in the published runs.", identity=False
    )
    reward: Literal["dynamic", "static"] = setting(
        "dynamic", "dynamic: aspects chosen per query; static: always the six evaluation aspects."
    )
    evaluations: int = setting(1, "Evaluations per response; their mean counts.", ge=1, le=100)
    evaluation_aspects: Literal["asked", "returned"] = setting(
        "asked",
        "Which aspects a readable evaluation has: exactly the asked ones, or whatever came (published).",
    )
    unreadable: Literal["drop", "zero"] = setting(
        "drop", "A candidate whose evaluation cannot be read is dropped, or gets reward 0 (published)."
    )
    optimizer_temperature: float = setting(0.2, "Sampling of proposals.", ge=0, le=2)
    optimizer_top_p: float = setting(0.95, "Sampling of proposals.", gt=0, le=1)
    patience: int | None = setting(
        None, "End after so many levels whose best score is not above the best before.", ge=1
    )
    report: bool = setting(
        True, "Keep report.html in the run, renewed at each level (default).", identity=False
    )
    track: tuple[str, ...] = setting(
        (), "Also log the run to mlflow, wandb or otel; may be repeated.", identity=False
    )
    reuse: bool = setting(
        True, "Reuse aspects that other runs chose for the same question (default).", identity=False
    )

    @field_validator("track")
    @classmethod
    def _is_known_tracker(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in TRACKERS:
                raise ValueError(f"expected one of {', '.join(TRACKERS)}")
        return names
