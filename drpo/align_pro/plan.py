"""From settings to all that an estimate starts with: queries, models, reward, identity. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from drpo.choices import ModelChoice, custom_choice, named_model, refuse_idle_flags
from drpo.compose import Sampling
from drpo.config_align_pro import EstimateConfig
from drpo.data import ExampleSet, shipped_heldout
from drpo.errors import InputError
from drpo.evaluation_data import Item, read_items
from drpo.jsonl import plain_lines
from drpo.llm.base import LLM, Role
from drpo.llm.reward_model import check_reward_model
from drpo.measuring.plan import NOBODY, base_model, distinct
from drpo.measuring.subject import Subject, read_subject
from drpo.plan import Inputs, RunPlan, digest_of
from drpo.rewriting.naming import read_rewriter_name
from drpo.rewriting.plan import DYNAMIC, Rewriting
from drpo.rewriting.templates import RewriteTemplates
from drpo.templates import Templates
from drpo.types import HIGHEST_SCORE, LOWEST_SCORE, Query

COMMAND = "align-pro-estimate"
_NOT_SETTINGS = {
    *("model", "prompter", "against_model", "alignment", "shots", "embedder", "prompts"),
    *("data", "data_column", "limit"),
}
"""What stands in an identity as models and digests."""
_OF_DYNAMIC_REWARD = ("choose_aspects.j2", "evaluate.j2", "repair.j2", "aspects.toml")


@dataclass(frozen=True, slots=True)
class EstimatePlan(RunPlan):
    """An estimate before its first request. subject: what the frozen model has before a query. prompter:
    how the reference prompter is asked. source: where the queries come from."""

    config: EstimateConfig
    subject: Subject
    items: tuple[Item, ...]
    prompter: Rewriting
    source: str

    @property
    def reward_model(self) -> str:
        """The name of the reward model; "" where the reward is dynamic."""
        return "" if self.config.reward.startswith(DYNAMIC) else self.config.reward

    @property
    def reward_range(self) -> float | None:
        """Highest less lowest reward; None where nobody knows."""
        if self.config.reward_range is not None or self.reward_model:
            return self.config.reward_range
        return float(HIGHEST_SCORE - LOWEST_SCORE)


def estimate_plan(
    config: EstimateConfig, environment: Mapping[str, str], custom: Mapping[Role, LLM] = NOBODY
) -> EstimatePlan:
    """The plan of `drpo align-pro estimate`. custom: your own objects for "base", "rewriter", "against",
    "evaluator" and "selector". Raises InputError for whatever cannot be used."""
    subject = read_subject(config.alignment, "--alignment", config)
    prompter = _prompter(config, environment, custom)
    models: dict[Role, ModelChoice] = {
        "base": base_model(config.model, "base", "--model", subject, config, environment, custom),
        **prompter.models,
        **_judges(config, environment, custom),
    }
    if config.against_model is not None or "against" in custom:
        models["against"] = base_model(
            config.against_model, "against", "--against-model", subject, config, environment, custom
        )
        if models["against"].identity == models["base"].identity:
            raise InputError(
                f"--against-model {models['base'].identity} is the frozen model itself; name an aligned one"
            )
    refuse_idle_flags(config, models.values())
    found = read_items(config.data or shipped_heldout(), column=config.data_column)
    items = distinct(found.items)
    notes = found.cleaned
    if len(items) < len(found.items):
        notes = (f"{len(found.items) - len(items)} repetitions of a query left out: nothing new is in them",)
    items = items[: config.limit]
    inputs = Inputs(
        tuple(Query(item.query) for item in items),
        ExampleSet(subject.examples, subject.name, subject.digest),
        Templates(config.prompts),
        notes,
        files=(("items.jsonl", plain_lines(map(asdict, items))), ("alignment.json", subject.as_json())),
    )
    source = found.source if config.data else "the shipped held-out queries"
    embedder = subject.embedder if subject.shots else ""
    digests = {
        "items": digest_of([asdict(item) for item in items]),
        "alignment": subject.digest,
        **prompter.digests(),
    }
    if "evaluator" in models:
        digests |= {f"prompts/{name}": inputs.templates.digests()[name] for name in _OF_DYNAMIC_REWARD}
    identity = _identity(config, models, embedder, digests)
    return EstimatePlan(config, models, inputs, embedder, identity, subject, items, prompter, source)


def _identity(
    config: EstimateConfig, models: Mapping[Role, ModelChoice], embedder: str, digests: dict[str, str]
) -> dict[str, Any]:
    everything = config.model_dump(mode="json")
    names = [name for name in config.identity_fields() if name not in _NOT_SETTINGS]
    settings = {name: everything[name] for name in names}
    if "demo" not in {choice.provider for choice in models.values()}:
        settings = {name: value for name, value in settings.items() if not name.startswith("demo_")}
    # Who judges by dynamic aspects stands among the models; a reward model in a folder is known by its name.
    is_path = config.reward.startswith(("/", ".", "~"))
    settings["reward"] = PurePath(config.reward).name if is_path else config.reward
    if "evaluator" in models:
        settings["reward"] = "dynamic"
    return {
        "command": COMMAND,
        "models": {role: choice.identity for role, choice in models.items()},
        "embedder": embedder,
        "settings": settings,
        "digests": digests,
    }


def _prompter(
    config: EstimateConfig, environment: Mapping[str, str], custom: Mapping[Role, LLM]
) -> Rewriting:
    templates = RewriteTemplates(config.prompts)
    sampling = Sampling(config.rewriter_temperature, config.rewriter_top_p, config.max_tokens)
    if "rewriter" in custom:
        return Rewriting("align-pro", "prompter", custom_choice(custom["rewriter"]), templates, sampling)
    if config.prompter is None:
        raise InputError(
            "--prompter is missing: name the model that rewrites queries, such as openai/NAME, "
            "vllm/REPO@URL, the folder of a trained one, or demo"
        )
    name = read_rewriter_name(f"align-pro/{config.prompter}", templates, "--prompter")
    choice = named_model("rewriter", name.model, config, environment)
    return Rewriting("align-pro", name.format, choice, templates, sampling)


def _judges(
    config: EstimateConfig, environment: Mapping[str, str], custom: Mapping[Role, LLM]
) -> dict[Role, ModelChoice]:
    """Who chooses aspects and scores; nobody where a reward model does."""
    if not config.reward.startswith(DYNAMIC):
        check_reward_model(config.reward)
        return {}
    name = config.reward.removeprefix(DYNAMIC)
    roles: tuple[Role, ...] = ("selector", "evaluator")
    return {
        role: custom_choice(custom[role]) if role in custom else named_model(role, name, config, environment)
        for role in roles
    }
