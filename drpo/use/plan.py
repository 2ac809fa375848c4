"""From settings to an alignment and the model that is to be asked by it. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from drpo.choices import ModelChoice, refuse_idle_flags
from drpo.config_use import GenerateConfig, UseConfig
from drpo.data import ExampleSet
from drpo.evaluation_data import Item, read_items
from drpo.jsonl import plain_lines
from drpo.llm.base import LLM, Role
from drpo.measuring.plan import base_model
from drpo.measuring.subject import Subject, read_subject
from drpo.plan import Inputs, RunPlan, digest_of
from drpo.rewriting.plan import Rewriting, identity_settings, meaning_embedder, rewriting_of
from drpo.templates import Templates
from drpo.types import Query

_NOT_SETTINGS = {
    *("model", "rewriter", "embedder", "prompts", "shots"),
    *("queries", "queries_column", "limit"),
}


@dataclass(frozen=True, slots=True)
class UsePlan(RunPlan):
    """An alignment and a model before the first request. items: the queries of `generate`, from `source`.
    rewriting: what rewrites a query before the model reads it."""

    config: UseConfig
    subject: Subject
    items: tuple[Item, ...] = ()
    source: str = ""
    rewriting: Rewriting | None = None

    @property
    def choice(self) -> ModelChoice:
        """The base model."""
        return self.models["base"]


def use_plan(
    command: str,
    alignment: str,
    config: UseConfig,
    environment: Mapping[str, str],
    custom: Mapping[Role, LLM] | None = None,
) -> UsePlan:
    """The plan of `command`, which uses `alignment`: a run, a file, none or urial. Raises InputError for
    whatever cannot be used."""
    subject = read_subject(alignment, "the alignment", config)
    models: dict[Role, ModelChoice] = {
        "base": base_model(config.model, "base", "--model", subject, config, environment, custom or {})
    }
    rewriting = rewriting_of(config, environment, custom)
    models |= {} if rewriting is None else rewriting.models
    refuse_idle_flags(config, models.values())
    items: tuple[Item, ...] = ()
    source, cleaned = "", tuple[str, ...]()
    if isinstance(config, GenerateConfig):
        found = read_items(config.queries, column=config.queries_column)
        items, source, cleaned = found.items[: config.limit], found.source, found.cleaned
    examples = ExampleSet(subject.examples, subject.name, subject.digest)
    files = (("alignment.json", subject.as_json()), ("items.jsonl", plain_lines(map(asdict, items))))
    queries = tuple(Query(item.query) for item in items)
    inputs = Inputs(queries, examples, Templates(config.prompts), cleaned, files=files)
    embedder = (subject.embedder if subject.shots else "") or meaning_embedder(config)
    identity = _identity(command, config, models, embedder, subject, items)
    identity["digests"] |= {} if rewriting is None else rewriting.digests()
    return UsePlan(config, models, inputs, embedder, identity, subject, items, source, rewriting)


def _identity(
    command: str,
    config: UseConfig,
    models: Mapping[Role, ModelChoice],
    embedder: str,
    subject: Subject,
    items: tuple[Item, ...],
) -> dict[str, Any]:
    settings = {name: value for name, value in identity_settings(config).items() if name not in _NOT_SETTINGS}
    if "demo" not in {choice.provider for choice in models.values()}:
        settings = {name: value for name, value in settings.items() if not name.startswith("demo_")}
    return {
        "command": command,
        "models": {role: choice.identity for role, choice in models.items()},
        "embedder": embedder,
        "settings": settings,
        "digests": {"alignment": subject.digest, "items": digest_of([asdict(item) for item in items])},
    }
