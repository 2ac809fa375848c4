"""The public functions that measure and rewrite: `drpo.evaluate`, `drpo.compare`, `drpo.audit_judge`,
`drpo.align_pro_estimate`, `drpo.rewrite`, `drpo.bpo_build`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from drpo.align_pro.estimating import run_estimate
from drpo.align_pro.plan import estimate_plan
from drpo.align_pro.results import Estimation
from drpo.api import run_async
from drpo.bpo.building import Built, build_plan, run_build
from drpo.config_align_pro import EstimateConfig
from drpo.config_bpo import BuildConfig
from drpo.config_judging import AuditConfig, CompareConfig, EvaluateConfig, JudgingConfig
from drpo.config_use import RewriteConfig
from drpo.errors import InputError
from drpo.llm.base import LLM, Role
from drpo.measuring.auditing import AuditResult, run_audit
from drpo.measuring.comparing import Comparison, run_compare
from drpo.measuring.evaluating import run_evaluate
from drpo.measuring.plan import audit_plan, compare_plan, evaluate_plan
from drpo.measuring.results import Evaluation
from drpo.rewriting.contract import Rewrite
from drpo.run import Hooks
from drpo.settings import environment, resolve
from drpo.use.rewording import rewrite_plan, run_rewrite

Config = TypeVar("Config", bound=JudgingConfig)
Models = Mapping[Role, LLM]
ROLES: tuple[Role, ...] = ("base", "against", "judge", "rewriter")
JUDGES: tuple[Role, ...] = ("selector", "evaluator")


async def evaluate_async(
    *, models: Models | None = None, hooks: Hooks | None = None, **settings: Any
) -> Evaluation:
    """Score the responses of an alignment, as just-eval does it; the same call again resumes, or reads.

    settings: see `EvaluateConfig`, such as alignment="runs/x", judge="openai/NAME"; also from DRPO_*
    variables and `.env`. models: your own `LLM` object for "base", "judge" or "rewriter" (whose kind the
    setting `rewriter` still names); give it a `name`, which identifies it in the record. Ask
    `Evaluation.is_believable` before you quote its figures.
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


async def align_pro_estimate_async(
    *, models: Models | None = None, hooks: Hooks | None = None, **settings: Any
) -> Estimation:
    """What the best prompter near a reference would gain, at each lambda, without training one.

    settings: see `EstimateConfig`, such as model="vllm/REPO@URL", prompter="demo", reward="dynamic/MODEL",
    lambda_=(0.1, 1). models: your own object for "base", "rewriter" (the prompter), "against", and for both
    "selector" and "evaluator" (then `reward` need not be given). One for "base" that has a `score`, see
    `drpo.align_pro.scoring.Scores`, makes the bound known for sampled answers too. The same call again reads
    the record; ask `Estimation.is_believable` before you quote its figures.
    """
    env, models = environment(), _checked(models, ("base", "rewriter", "against", *JUDGES))
    if set(JUDGES) <= set(models):
        settings.setdefault("reward", "dynamic/demo")  # a placeholder: your own objects judge
    plan = estimate_plan(resolve(EstimateConfig, settings, env), env, models)
    return await run_estimate(plan, env, hooks or Hooks())


def align_pro_estimate(
    *, models: Models | None = None, hooks: Hooks | None = None, **settings: Any
) -> Estimation:
    """`align_pro_estimate_async`, for callers without an event loop."""
    return run_async(align_pro_estimate_async(models=models, hooks=hooks, **settings))


async def rewrite_async(
    queries: str | Sequence[str] = (),
    /,
    *,
    models: Models | None = None,
    hooks: Hooks | None = None,
    **settings: Any,
) -> tuple[tuple[Rewrite, ...], ...]:
    """Per query its rewrites, the one to use first; what a rewriter spoils gives the query back, and says so.

    queries: one or several; none where the setting `queries` names a file. settings: see `RewriteConfig`,
    such as rewriter="bpo/PATH". models: your own object for "rewriter" (whose kind the setting `rewriter`
    still names), and where rewrites are weighed for "base" and "evaluator" (who then chooses aspects too). A
    run is kept, and resumed, of a file, or where `run_dir` or `name` is given.
    """
    env, models = environment(), _checked(models, ("base", "rewriter", "evaluator"))
    asked = (queries,) if isinstance(queries, str) else tuple(queries)
    config = resolve(RewriteConfig, settings, env)
    with tempfile.TemporaryDirectory(prefix="drpo-") as folder:
        if config.queries is None and config.run_dir is None and config.name is None:
            config = config.model_copy(update={"run_dir": Path(folder) / "run"})
        found = await run_rewrite(rewrite_plan(config, asked, env, models), env, hooks or Hooks())
    return found.rewrites


def rewrite(
    queries: str | Sequence[str] = (),
    /,
    *,
    models: Models | None = None,
    hooks: Hooks | None = None,
    **settings: Any,
) -> tuple[tuple[Rewrite, ...], ...]:
    """`rewrite_async`, for callers without an event loop."""
    return run_async(rewrite_async(queries, models=models, hooks=hooks, **settings))


async def bpo_build_async(
    *, models: Models | None = None, hooks: Hooks | None = None, **settings: Any
) -> Built:
    """Pairs of prompts from human preferences; the same call again resumes, or reads.

    settings: see `BuildConfig`, such as pairs="feedback.jsonl", optimizer="openai/NAME". models: your own
    object for "optimizer". `Built.kept` are the pairs to train on; ask `Built.is_believable` before you do.
    """
    env, models = environment(), _checked(models, ("optimizer",))
    plan = build_plan(resolve(BuildConfig, settings, env), env, models)
    return await run_build(plan, env, hooks or Hooks())


def bpo_build(*, models: Models | None = None, hooks: Hooks | None = None, **settings: Any) -> Built:
    """`bpo_build_async`, for callers without an event loop."""
    return run_async(bpo_build_async(models=models, hooks=hooks, **settings))


def _checked(models: Models | None, roles: tuple[Role, ...] = ROLES) -> Models:
    for role in models or {}:
        if role not in roles:
            raise InputError(f"models: expected the roles {', '.join(roles)}, came {role!r}")
    return models or {}


def _config(kind: type[Config], settings: dict[str, Any], env: Mapping[str, str], models: Models) -> Config:
    fields = {"base": "model", "against": "against_model", "judge": "judge"}
    for role in fields.keys() & models.keys():  # a placeholder: the user's own object plays the role
        if fields[role] in kind.model_fields:
            settings.setdefault(fields[role], "demo")
    return resolve(kind, settings, env)
