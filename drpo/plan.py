"""From settings to everything a run starts with: queries, examples, templates, models by name, identity.

A plan sends nothing and opens nothing; `wiring` does. It can also be read back from a run directory, so that
a run replays without the files it was made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drpo.choices import ModelChoice, choose_models, named_model
from drpo.config import (
    EMBEDDER,
    CommonConfig,
    ExamplesConfig,
    OptimizeConfig,
    RunConfig,
    ValidationConfig,
)
from drpo.data import (
    ExampleSet,
    base_examples,
    order_queries,
    read_examples,
    read_queries,
    shipped_examples,
    shipped_safety,
    shipped_seeds,
)
from drpo.errors import InputError
from drpo.llm.base import LLM, Role
from drpo.templates import Templates
from drpo.types import Query

USUALLY_KEPT, FEWEST_KEPT_UNASKED = 40, 10


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run reads. `queries` are those of the search, in the order in which they are used (none where
    examples are improved); `kept` and `safety` are those of the validation after it. files: what else belongs
    to the run, (name, text)."""

    queries: tuple[Query, ...]
    examples: ExampleSet
    templates: Templates
    notes: tuple[str, ...] = ()
    kept: tuple[Query, ...] = ()
    safety: tuple[Query, ...] = ()
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run before its first request. `identity` decides whether a run directory belongs to it."""

    config: RunConfig
    models: dict[Role, ModelChoice]
    inputs: Inputs
    embedder: str
    identity: dict[str, Any]

    @property
    def simulated(self) -> bool:
        """Whether any figure of this run comes from simulated models."""
        return any(choice.provider == "demo" for choice in self.models.values())


@dataclass(frozen=True, slots=True)
class Plan(RunPlan):
    """A search before its first request."""

    config: CommonConfig


def optimize_plan(
    config: OptimizeConfig,
    environment: Mapping[str, str],
    custom: Mapping[Role, LLM] | None = None,
    own_reward: str | None = None,
) -> Plan:
    """The plan of `drpo optimize`; `own_reward` names a reward of the user's own, which needs no evaluator.

    Raises InputError for whatever cannot be used.
    """
    models = choose_models(config, environment, custom or {}, own_reward)
    seeds = read_queries(config.seeds or shipped_seeds(), column=config.seeds_column)
    queries, kept = split_queries(config, order_queries(seeds.queries, config.order, config.random_seed))
    examples = read_examples(config.examples or shipped_examples())
    _refuse_too_few(config, examples)
    notes = seeds.cleaned
    levels = len(queries) // config.queries_per_level
    if levels < config.depth:
        notes += (f"{len(queries)} for a depth of {config.depth}: the search ends after level {levels}",)
    embedder = _embedder_of(config, models["base"])
    inputs = Inputs(queries, examples, Templates(config.prompts), notes, kept, _safety_of(config, kept))
    return Plan(config, models, inputs, embedder, _identity("optimize", config, models, inputs, embedder))


def _refuse_too_few(config: ValidationConfig, examples: ExampleSet) -> None:
    if config.shots > len(examples.examples):
        raise InputError(
            f"--shots {config.shots}: {examples.source} has {len(examples.examples)} examples; "
            "ask for fewer shots or give more examples"
        )


def _embedder_of(config: ValidationConfig, base: ModelChoice) -> str:
    return config.embedder or ("lexical" if base.provider == "demo" else EMBEDDER)


def _safety_of(config: ValidationConfig, kept: tuple[Query, ...]) -> tuple[Query, ...]:
    return tuple(read_queries(shipped_safety()).queries) if kept and config.safety else ()


def split_queries(
    config: OptimizeConfig, queries: tuple[Query, ...]
) -> tuple[tuple[Query, ...], tuple[Query, ...]]:
    """The queries of the search, and those that are kept away from it, the last ones.

    Raises InputError where there are too few for what was asked.
    """
    left = max(0, len(queries) - (config.depth + config.max_extra_depth) * config.queries_per_level)
    if config.validate is None:
        count = min(USUALLY_KEPT, left) if left >= FEWEST_KEPT_UNASKED else 0
    else:
        count = config.validate
        if count and len(queries) - count < config.depth * config.queries_per_level:
            raise InputError(
                f"--validate {count}: of {len(queries)} seed queries the search needs "
                f"{config.depth * config.queries_per_level} for itself; give more seeds, or a smaller "
                "--validate or --depth"
            )
    first = len(queries) - count
    return queries[:first], queries[first:]


def reach_of(inputs: Inputs, config: OptimizeConfig) -> int:
    """How many of the queries the search can come to."""
    return min(len(inputs.queries), (config.depth + config.max_extra_depth) * config.queries_per_level)


def asked_of_base(inputs: Inputs, config: CommonConfig) -> tuple[Query, ...]:
    """Every query that the base model may be asked, those of the search first."""
    reach = reach_of(inputs, config) if isinstance(config, OptimizeConfig) else 0
    return (*inputs.queries[:reach], *inputs.kept, *inputs.safety)


def examples_plan(
    config: ExamplesConfig,
    environment: Mapping[str, str],
    custom: Mapping[Role, LLM] | None = None,
    own_reward: str | None = None,
) -> Plan:
    """The plan of `drpo optimize-examples`; arguments and errors as `optimize_plan`. Only with --validate
    does it name a base model, and queries to ask it."""
    models = choose_models(config, environment, custom or {}, own_reward)
    base = models.pop("base", None)
    examples = read_examples(config.examples or base_examples())
    inputs, embedder = Inputs((), examples, Templates(config.prompts)), ""
    if config.validate:
        if config.base_model is not None and "base" not in (custom or {}):
            base = named_model("base", config.base_model, config, environment)
        if base is None:
            raise InputError(
                f"--validate {config.validate}: no base model is named, which is to be shown the examples; "
                "give --base-model (or --model, for every role that is not named otherwise)"
            )
        models, embedder = {"base": base, **models}, _embedder_of(config, base)
        kept, notes = _queries_for(config, examples)
        inputs = replace(inputs, kept=kept, safety=_safety_of(config, kept), notes=notes)
    identity = _identity("optimize-examples", config, models, inputs, embedder)
    return Plan(config, models, inputs, embedder, identity)


def _queries_for(config: ExamplesConfig, examples: ExampleSet) -> tuple[tuple[Query, ...], tuple[str, ...]]:
    """The seed queries on which sets of examples are compared, in seeded order, and what reading them noted.

    Those that are an example's own query are left out: there a shot would be copied, not learned from.
    """
    _refuse_too_few(config, examples)
    if not config.shots:
        raise InputError(
            f"--validate {config.validate}: with --shots 0 no example is shown, so none could help; give "
            "--shots 1 or more"
        )
    seeds = read_queries(config.seeds or shipped_seeds(), column=config.seeds_column)
    own = {example.query for example in examples.examples}
    queries = [query for query in seeds.queries if query.text not in own]
    if len(queries) < config.validate:
        raise InputError(
            f"--validate {config.validate}: {seeds.source} has {len(queries)} queries that are not an "
            "example's own; give more seeds, or a smaller --validate"
        )
    return order_queries(queries, "shuffled", config.random_seed)[: config.validate], seeds.cleaned


def with_settings(plan: Plan, config: CommonConfig, changed: Mapping[str, Any]) -> Plan:
    """The plan with other settings, `changed` noted in its identity; inputs and models stay."""
    identity = {**plan.identity, "settings": {**plan.identity["settings"], **changed}}
    return replace(plan, config=config, identity=identity)


def _without_effect(config: CommonConfig, settings: Mapping[str, Any], kept: bool) -> set[str]:
    """Settings that the chosen search does not look at: they must not make it another run."""
    # What `validate` comes to is told by the digest of the kept queries; without any, nothing of it counts.
    unused = {"validate", "safety"}
    if not kept:
        unused |= {"candidates", "max_prompt_tokens"}
    if not kept and isinstance(config, ExamplesConfig):  # which asks its base model for nothing else
        unused |= set(ValidationConfig.model_fields) - set(CommonConfig.model_fields)
    return unused | _unused_by_search(settings)


def _unused_by_search(settings: Mapping[str, Any]) -> set[str]:
    if settings.get("search") == "monte-carlo":
        return {"patience", "path_score", "keep_above", "max_extra_depth"}
    return {"width"} if settings.get("search") == "greedy" else set()


def _identity(
    command: str, config: CommonConfig, models: Mapping[Role, ModelChoice], inputs: Inputs, embedder: str
) -> dict[str, Any]:
    files = {
        "model",
        "base_model",
        "optimizer",
        "evaluator",
        "selector",
        "seeds",
        "seeds_column",
        "examples",
        "prompts",
        "embedder",
    }
    everything = config.model_dump(mode="json")
    unused = files | _without_effect(config, everything, bool(inputs.kept))
    settings = {
        name: value
        for name, value in everything.items()
        if name in config.identity_fields() and name not in unused
    }
    if "demo" not in {choice.provider for choice in models.values()}:
        settings = {name: value for name, value in settings.items() if not name.startswith("demo_")}
    return {
        "command": command,
        "models": {role: choice.identity for role, choice in models.items()},
        "embedder": embedder,
        "settings": settings,
        "digests": input_digests(inputs),
    }


def input_digests(inputs: Inputs) -> dict[str, str]:
    """What the contents of the inputs are told apart by."""
    kept = {"kept": inputs.kept, "safety": inputs.safety}
    return {
        "seeds": digest_of([query.text for query in inputs.queries]),
        **{
            name: digest_of([(q.category, q.text) for q in queries])
            for name, queries in kept.items()
            if queries
        },
        "examples": inputs.examples.digest,
        **{f"prompts/{name}": digest for name, digest in inputs.templates.digests().items()},
    }


def digest_of(value: object) -> str:
    """16 hex digits that tell plain JSON values apart."""
    text = json.dumps(value, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


_NAMED_BY: tuple[Role, ...] = ("base", "optimizer", "judge", "rewriter")


def default_name(plan: RunPlan) -> str:
    """The name of a run from its model and settings: the same command finds the same run."""
    known = (plan.models[role] for role in _NAMED_BY if role in plan.models)
    last = next(known).name.rstrip("/").split("/")[-1]
    slug = "".join(c if c.isalnum() or c in "-_" else "-" for c in last.lower()).strip("-") or "model"
    command = str(plan.identity["command"])
    prefix = {"optimize": "", "optimize-examples": "examples-"}.get(command, f"{command}-")
    return f"{prefix}{slug[:40]}-{digest_of(plan.identity)[:8]}"


def run_path(plan: RunPlan) -> Path:
    """Where the run lives: --run-dir, or --name (or the default name) inside the runs folder."""
    config = plan.config
    if config.run_dir is not None and config.name is not None:
        raise InputError("--run-dir and --name both say where the run is; give one of them")
    if config.run_dir is not None:
        return config.run_dir
    return config.runs_dir / (config.name or default_name(plan))
