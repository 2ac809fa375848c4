"""From settings to all that a measurement starts with: queries, subjects, judge, identity. Sends nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from drpo.choices import ModelChoice, custom_choice, named_model, refuse_idle_flags
from drpo.config_asking import NONE
from drpo.config_common import RunConfig
from drpo.config_judging import AnsweringConfig, AuditConfig, CompareConfig, EvaluateConfig, JudgingConfig
from drpo.data import ExampleSet, shipped_heldout
from drpo.errors import InputError
from drpo.evaluation_data import Item, read_items
from drpo.jsonl import plain_lines
from drpo.judging.cases import Case, read_cases, shipped_judge_cases
from drpo.judging.questions import JudgeTemplates
from drpo.llm.base import LLM, Role
from drpo.llm.reward_model import check_reward_model
from drpo.measuring.subject import Subject, read_subject
from drpo.plan import Inputs, RunPlan, digest_of
from drpo.rewriting.plan import Rewriting, identity_settings, meaning_embedder, rewriting_of
from drpo.statistics import least_count
from drpo.templates import Templates
from drpo.types import Query

Custom = Mapping[Role, LLM]
"""A user's own objects for roles."""
NOBODY: Custom = {}
_NOT_SETTINGS = {
    *("model", "rewriter", "alignment", "against", "against_model", "judge", "reward_model"),
    *("data", "data_column", "limit", "cases", "embedder", "prompts", "shots"),
    *("queries", "queries_column", "pairs", "optimizer"),
}
"""What stands in an identity as models and digests."""


@dataclass(frozen=True, slots=True)
class Side:
    """A subject and who answers for it. is_rewritten: whether its queries go through the rewriter."""

    role: Role
    subject: Subject
    is_rewritten: bool = False


@dataclass(frozen=True, slots=True)
class MeasuringPlan(RunPlan):
    """A measurement before its first request. sides: one for `evaluate`, two for `compare`, none for
    `audit-judge`, which has `cases` instead of `items`. source: where the queries come from. rewriting: what
    rewrites the queries of the first side."""

    config: JudgingConfig
    judge_templates: JudgeTemplates
    items: tuple[Item, ...] = ()
    sides: tuple[Side, ...] = ()
    cases: tuple[Case, ...] = ()
    source: str = ""
    rewriting: Rewriting | None = None


def evaluate_plan(
    config: EvaluateConfig, environment: Mapping[str, str], custom: Custom = NOBODY
) -> MeasuringPlan:
    """The plan of `drpo evaluate`. Raises InputError for whatever cannot be used."""
    if config.judge is None and "judge" not in custom and config.reward_model is None:
        raise InputError(
            "who judges? give --judge (openai/NAME, vllm/REPO@URL or demo), or --reward-model, or both"
        )
    if config.reward_model is not None:
        check_reward_model(config.reward_model)
    subject = read_subject(_alignment(config), "--alignment", config)
    models: dict[Role, ModelChoice] = {
        "base": base_model(config.model, "base", "--model", subject, config, environment, custom)
    }
    side = Side("base", subject, config.rewrites)
    return _measuring("evaluate", config, environment, models, (side,), custom)


def compare_plan(
    config: CompareConfig, environment: Mapping[str, str], custom: Custom = NOBODY
) -> MeasuringPlan:
    """The plan of `drpo compare`."""
    one = read_subject(_alignment(config), "--alignment", config)
    other = read_subject(config.against, "--against", config)
    models: dict[Role, ModelChoice] = {
        "base": base_model(
            config.model, "base", "--model", one if one.found_for else other, config, environment, custom
        )
    }
    role: Role = "base"
    if config.against_model is not None or "against" in custom:
        against = base_model(
            config.against_model, "against", "--against-model", other, config, environment, custom
        )
        if against.identity != models["base"].identity:
            models["against"], role = against, "against"
    if role == "base" and one.digest == other.digest and not config.rewrites:
        raise InputError(
            f"--alignment {one.name} and --against {other.name} are the same, at the same model; there is "
            "nothing to compare"
        )
    sides = (Side("base", one, config.rewrites), Side(role, other))
    return _measuring("compare", config, environment, models, sides, custom)


def audit_plan(config: AuditConfig, environment: Mapping[str, str], custom: Custom = NOBODY) -> MeasuringPlan:
    """The plan of `drpo audit-judge`."""
    judge: dict[Role, ModelChoice] = {"judge": _judge(config, environment, custom)}
    refuse_idle_flags(config, judge.values())
    cases = read_cases(config.cases or shipped_judge_cases())
    templates = JudgeTemplates(config.prompts)
    source = f"{config.cases or 'the shipped cases'}, {len(cases)} cases"
    text = plain_lines(asdict(case) for case in cases)
    inputs = Inputs((), _no_examples(), Templates(config.prompts), files=(("cases.jsonl", text),))
    digests = {"cases": digest_of([asdict(case) for case in cases]), **_prompt_digests(inputs, templates)}
    return MeasuringPlan(
        config, judge, inputs, "", identity_of("audit-judge", config, judge, "", digests), templates,
        cases=cases, source=source,
    )  # fmt: skip


def _alignment(config: AnsweringConfig) -> str:
    """What is measured: a rewriter alone stands before the plain prompt."""
    if config.alignment is not None:
        return config.alignment
    if config.rewrites:
        return NONE
    raise InputError("--alignment is missing: a run, an alignment file, none or urial; or name a --rewriter")


def _measuring(
    command: str,
    config: AnsweringConfig,
    environment: Mapping[str, str],
    models: Mapping[Role, ModelChoice],
    sides: tuple[Side, ...],
    custom: Custom,
) -> MeasuringPlan:
    """What both commands that ask a base model have in common."""
    models = dict(models)
    if config.judge is not None or "judge" in custom or command == "compare":
        models["judge"] = _judge(config, environment, custom)
    rewriting = rewriting_of(config, environment, custom)
    models |= {} if rewriting is None else rewriting.models
    refuse_idle_flags(config, models.values())
    found = read_items(config.data or shipped_heldout(), column=config.data_column)
    items = distinct(found.items)
    notes = found.cleaned
    if len(items) < len(found.items):
        notes = (f"{len(found.items) - len(items)} repetitions of a query left out: nothing new is in them",)
    items = items[: config.limit]
    _refuse_too_few(items, config)
    judge_templates = JudgeTemplates(config.prompts)
    queries = tuple(Query(item.query) for item in items)
    files = [("items.jsonl", plain_lines(asdict(item) for item in items))]
    files += [(f"{side.role}-{n}.json", side.subject.as_json()) for n, side in enumerate(sides)]
    examples = ExampleSet(sides[0].subject.examples, sides[0].subject.name, sides[0].subject.digest)
    inputs = Inputs(queries, examples, Templates(config.prompts), notes, files=tuple(files))
    digests = {
        "items": digest_of([asdict(item) for item in items]),
        **dict(zip(("alignment", "against"), (side.subject.digest for side in sides), strict=False)),
        **_prompt_digests(inputs, judge_templates),
        **({} if rewriting is None else rewriting.digests()),
    }
    embedders = sorted({side.subject.embedder for side in sides if side.subject.shots} - {""})
    embedder = embedders[0] if embedders else meaning_embedder(config)
    identity = identity_of(command, config, models, embedder, digests)
    source = found.source if config.data else "the shipped held-out queries"
    return MeasuringPlan(
        config, models, inputs, embedder, identity, judge_templates, items, sides,
        source=source, rewriting=rewriting,
    )  # fmt: skip


def base_model(
    name: str | None,
    role: Role,
    flag: str,
    subject: Subject,
    config: RunConfig,
    environment: Mapping[str, str],
    custom: Custom,
) -> ModelChoice:
    """The user's own object, else the named model, else the one that the alignment was found for."""
    if role in custom:
        return custom_choice(custom[role])
    if name is not None:
        return named_model(role, name, config, environment)
    if subject.found_for is None:
        raise InputError(f"{flag}: {subject.name} was made for no model; name the one to ask")
    known = "demo" if subject.found_for.startswith("demo/") else subject.found_for
    if known != "demo" and not subject.is_own:
        raise InputError(
            f"{flag}: {subject.name} says that it was found for {subject.found_for}; a file does not decide "
            "where your queries and keys go: name the model yourself"
        )
    with contextlib.suppress(InputError):  # a folder, a user's own object, flags of a server
        choice = named_model(role, known, config, environment)
        if choice.identity == subject.found_for:
            return choice
    raise InputError(
        f"{flag}: {subject.name} was found for {subject.found_for}, which these settings do not name; name it"
    )


def _judge(config: JudgingConfig, environment: Mapping[str, str], custom: Custom) -> ModelChoice:
    if "judge" in custom:
        return custom_choice(custom["judge"])
    if config.judge is None:
        raise InputError("--judge is missing: name the model that judges, such as openai/NAME or demo")
    choice = named_model("judge", config.judge, config, environment)
    if choice.provider == "demo" and config.demo_judge != "fair":
        return replace(choice, identity=f"{choice.identity},judge={config.demo_judge}")
    return choice


def distinct(items: Sequence[Item]) -> tuple[Item, ...]:
    """The items less repetitions of a query, the first of each kept: greedy answers to it are one value."""
    kept: dict[tuple[str, bool], Item] = {}
    for item in items:
        kept.setdefault((item.query, item.safety), item)
    return tuple(kept.values())


def _refuse_too_few(items: Sequence[Item], config: AnsweringConfig) -> None:
    """Some part must have enough distinct queries for an interval; of a smaller one there is none."""
    safety = sum(item.safety for item in items)
    count, needed = max(safety, len(items) - safety), least_count(config.level)
    if count < needed:
        raise InputError(
            f"--level {config.level:g}: an interval of this level needs {needed} queries of a kind, came "
            f"{count}; give more queries or a lower --level"
        )


def _no_examples() -> ExampleSet:
    return ExampleSet((), "", "")


def _prompt_digests(inputs: Inputs, judge: JudgeTemplates) -> dict[str, str]:
    """Of what a judge reads: its templates, and the one that asks again."""
    return {**judge.digests(), "prompts/repair.j2": inputs.templates.digests()["repair.j2"]}


def identity_of(
    command: str,
    config: RunConfig,
    models: Mapping[Role, ModelChoice],
    embedder: str,
    digests: Mapping[str, str],
) -> dict[str, Any]:
    settings = {name: value for name, value in identity_settings(config).items() if name not in _NOT_SETTINGS}
    # What an audit, a rewriter and an optimizer are asked; the others only draw their intervals with it.
    if command != "audit-judge" and not {"rewriter", "optimizer"} & models.keys():
        settings.pop("random_seed")
    if "demo" not in {choice.provider for choice in models.values()}:
        settings = {name: value for name, value in settings.items() if not name.startswith("demo_")}
    named: dict[str, str] = {role: choice.identity for role, choice in models.items()}
    return {
        "command": command,
        "models": named,
        "embedder": embedder,
        "settings": settings,
        "digests": dict(digests),
    }


def self_preference(plan: MeasuringPlan) -> str | None:
    """A warning where a model judges its own answers, in words."""
    judge = plan.models.get("judge")
    asked: Sequence[ModelChoice] = [plan.models[side.role] for side in plan.sides]
    own = judge is not None and any(judge.name == choice.name for choice in asked)
    if judge is None or not own or judge.provider == "demo":
        return None
    return (
        f"{judge.identity} judges answers of its own: models tend to prefer those (Panickssery et al. 2024); "
        "name another --judge for figures that others should believe"
    )
