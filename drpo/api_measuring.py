"""The public functions that measure: `drpo.evaluate`, `drpo.compare`, `drpo.audit_judge`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from drpo.api import environment, run_async
from drpo.config_judging import AuditConfig, CompareConfig, EvaluateConfig, JudgingConfig
from drpo.errors import InputError
from drpo.llm.base import LLM, Role
from drpo.measuring.auditing import AuditResult, run_audit
from drpo.measuring.comparing import Comparison, run_compare
from drpo.measuring.evaluating import run_evaluate
from drpo.measuring.plan import audit_plan, compare_plan, evaluate_plan
from drpo.measuring.results import Evaluation
from drpo.run import Hooks
from drpo.settings import resolve

Config = TypeVar("Config", bound=JudgingConfig)
Models = Mapping[Role, LLM]
ROLES: tuple[Role, ...] = ("base", "against", "judge", "rewriter")


async def evaluate_async(
    *, models: Models | None = None, hooks: Hooks | None = None, **settings: Any
) -> Evaluation:
    """Score the responses of an alignment, as just-eval does it; the same call again resumes, or reads.

    settings: see `EvaluateConfig`, such as alignment="runs/x", judge="openai/NAME"; also from DRPO_*
    variables and `.env`. models: your own `LLM` object for "base", "judge" or "rewriter" (whose kind the
    setting `rewriter` still names); give it a `name`, which identifies it in the record. Ask `Evaluation.is_believable` before you quote its figures.
    """
    env, models = environment(), _checked(models)
    config = _config(EvaluateConfig, settings, env, models)
    return await run_evaluate(evaluate_plan(config, env, models), env, hooks or Hooks())


def evaluate(*, models: Models | None = None, hooks: Hooks | None = None, **settings: Any) -> Evaluation:
    """`evaluate_async`, for callers without an event loop (or with one: it then runs in a thread)."""
    return run_async(evaluate_async(models=models, hooks=hooks, **settings))


async def compare_async(
    *, models: Models | None = None, hooks: Hooks | None = None, **settings: Any
) -> Comparison:
    """Let a judge say which of two alignments is preferred, every pair in both orders.

    settings: see `CompareConfig`, such as alignment="runs/x", against="none". models: also for "against", the
    base model of the other side.
    """
    env, models = environment(), _checked(models)
    config = _config(CompareConfig, settings, env, models)
    return await run_compare(compare_plan(config, env, models), env, hooks or Hooks())


def compare(*, models: Models | None = None, hooks: Hooks | None = None, **settings: Any) -> Comparison:
    """`compare_async`, for callers without an event loop."""
    return run_async(compare_async(models=models, hooks=hooks, **settings))


async def audit_judge_async(
    *, models: Models | None = None, hooks: Hooks | None = None, **settings: Any
) -> AuditResult:
    """Find out whether a judge can be trusted: `AuditResult.audit.flagged` is empty where nothing speaks
    against it. settings: see `AuditConfig`."""
    env, models = environment(), _checked(models)
    config = _config(AuditConfig, settings, env, models)
    return await run_audit(audit_plan(config, env, models), env, hooks or Hooks())


def audit_judge(*, models: Models | None = None, hooks: Hooks | None = None, **settings: Any) -> AuditResult:
    """`audit_judge_async`, for callers without an event loop."""
    return run_async(audit_judge_async(models=models, hooks=hooks, **settings))


def _checked(models: Models | None) -> Models:
    for role in models or {}:
        if role not in ROLES:
            raise InputError(f"models: expected the roles {', '.join(ROLES)}, came {role!r}")
    return models or {}


def _config(kind: type[Config], settings: dict[str, Any], env: Mapping[str, str], models: Models) -> Config:
    fields = {"base": "model", "against": "against_model", "judge": "judge"}
    for role in fields.keys() & models.keys():  # a placeholder: the user's own object plays the role
        if fields[role] in kind.model_fields:
            settings.setdefault(fields[role], "demo")
    return resolve(kind, settings, env)
