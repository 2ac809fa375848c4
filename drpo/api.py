"""The public functions: `drpo.optimize`, `drpo.optimize_examples`, `drpo.replay`, `drpo.load`."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from drpo.config import ExamplesConfig, OptimizeConfig
from drpo.errors import InputError
from drpo.llm.base import LLM, SEARCH_ROLES, Role
from drpo.plan import examples_plan, optimize_plan
from drpo.replaying import ReplayReport, replay_run
from drpo.results import ExamplesResult, OptimizeResult
from drpo.run import Hooks, run_examples, run_optimize
from drpo.settings import Config, environment, resolve
from drpo.wiring import OwnCall

T = TypeVar("T")
OwnReward = Callable[[str, str], Any]


async def optimize_async(
    config: OptimizeConfig | None = None,
    *,
    models: Mapping[Role, LLM] | None = None,
    reward: OwnReward | str | None = None,
    hooks: Hooks | None = None,
    **settings: Any,
) -> OptimizeResult:
    """Search for a system prompt (DRPO, Algorithm 2); the same call again resumes or shows the run.

    config or settings: see `OptimizeConfig`; settings may also come from DRPO_* variables and `.env`.
    models: your own `LLM` object for any role; give it a `name`, which identifies it in the record.
    reward: your own `reward(query, response)`, sync or async, instead of the evaluator: a number from 1 to 5,
    a mapping aspect -> number or {"score", "rationale"}, or None where it cannot tell. It is identified by
    its attribute `name`, else by its name and code (what it closes over is not seen). Or the setting of that
    name, "dynamic" or "static".
    """
    env = environment()
    own = _split_reward(reward, settings)
    _check_roles(models)
    config = _config(OptimizeConfig, config, settings, env, has_model="base" in (models or {}))
    plan = optimize_plan(config, env, models, own_reward=_name_of(own))
    return await run_optimize(plan, env, _with_reward(hooks, own))


def optimize(
    config: OptimizeConfig | None = None,
    *,
    models: Mapping[Role, LLM] | None = None,
    reward: OwnReward | str | None = None,
    hooks: Hooks | None = None,
    **settings: Any,
) -> OptimizeResult:
    """`optimize_async`, for callers without an event loop (or with one: it then runs in a thread)."""
    return run_async(optimize_async(config, models=models, reward=reward, hooks=hooks, **settings))


async def optimize_examples_async(
    config: ExamplesConfig | None = None,
    *,
    models: Mapping[Role, LLM] | None = None,
    reward: OwnReward | str | None = None,
    hooks: Hooks | None = None,
    **settings: Any,
) -> ExamplesResult:
    """Improve the responses of in-context examples (DRPO, Algorithm 1). Arguments as `optimize_async`."""
    env = environment()
    own = _split_reward(reward, settings)
    _check_roles(models)
    config = _config(ExamplesConfig, config, settings, env)
    plan = examples_plan(config, env, models, own_reward=_name_of(own))
    return await run_examples(plan, env, _with_reward(hooks, own))


def optimize_examples(
    config: ExamplesConfig | None = None,
    *,
    models: Mapping[Role, LLM] | None = None,
    reward: OwnReward | str | None = None,
    hooks: Hooks | None = None,
    **settings: Any,
) -> ExamplesResult:
    """`optimize_examples_async`, for callers without an event loop."""
    return run_async(optimize_examples_async(config, models=models, reward=reward, hooks=hooks, **settings))


def replay(run_dir: str | Path, **overrides: Any) -> ReplayReport:
    """The run again from its record alone, offline; `overrides` are settings such as `width=3`."""
    return run_async(replay_run(Path(run_dir), overrides))


def _config(
    kind: type[Config],
    config: Config | None,
    settings: dict[str, Any],
    env: Mapping[str, str],
    has_model: bool = False,
) -> Config:
    if config is not None and settings:
        raise InputError(f"give a config or settings, not both (came: config and {', '.join(settings)})")
    if config is not None:
        settings = config.model_dump(exclude_unset=True)
    if has_model:
        settings.setdefault("model", "demo")  # a placeholder: the user's own object plays the base role
    return resolve(kind, settings, env)


def _split_reward(reward: OwnReward | str | None, settings: dict[str, Any]) -> OwnReward | None:
    """`reward=` is a function of the user's own, or the setting of that name."""
    if isinstance(reward, str):
        settings["reward"] = reward
        return None
    return reward


def _check_roles(models: Mapping[Role, LLM] | None) -> None:
    for role in models or {}:
        if role not in SEARCH_ROLES:
            raise InputError(f"models: expected the roles {', '.join(SEARCH_ROLES)}, came {role!r}")


def _name_of(reward: OwnReward | None) -> str | None:
    if reward is None:
        return None
    named = getattr(reward, "name", None)
    if named:
        return str(named)
    name = f"{getattr(reward, '__module__', '')}.{getattr(reward, '__qualname__', type(reward).__qualname__)}"
    code = getattr(reward, "__code__", None)
    if code is None:
        return name
    # Two functions may share a name, lambdas always do: what they say tells them apart.
    said = f"{code.co_code.hex()} {code.co_names} {[c for c in code.co_consts if not hasattr(c, 'co_code')]}"
    return f"{name}#{hashlib.sha256(said.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _with_reward(hooks: Hooks | None, reward: OwnReward | None) -> Hooks:
    hooks = hooks or Hooks()
    return hooks if reward is None else replace(hooks, own_reward=_own_reward(reward))


def _own_reward(reward: OwnReward) -> OwnCall:
    async def call(query: str, response: str) -> Any:
        value = reward(query, response)
        return await value if inspect.isawaitable(value) else value

    return call


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, with an event loop of its own, in a thread where there is one already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as thread:  # a notebook, say: its loop cannot be entered again
        return thread.submit(asyncio.run, work).result()
