"""The public function that makes the paper's tables: `drpo.study`."""

from __future__ import annotations

from typing import Any

from drpo.api import run_async
from drpo.config_study import StudyConfig
from drpo.errors import InputError
from drpo.run import Hooks
from drpo.settings import environment, resolve
from drpo.studies.result import StudyResult
from drpo.studies.running import ALL, run_studies, study_plan


async def study_async(name: str, *, hooks: Hooks | None = None, **settings: Any) -> StudyResult:
    """Make one of the paper's tables: results, transfer, parts, search, reward or shots.

    settings: see `StudyConfig`, such as model="mistral-7b", judge="openai/NAME", repeats=3; also from DRPO_*
    variables and `.env`. Runs every search and evaluation that the table needs; the same call again resumes,
    or reads. Cells that failed are in `StudyResult.failures` and have no figure; what stops the whole is
    raised.
    """
    if name == ALL:
        raise InputError("drpo.study makes one table at a time; call it for each")
    env = environment()
    plan = study_plan(name, resolve(StudyConfig, settings, env), env)
    return (await run_studies(plan, env, hooks or Hooks()))[0]


def study(name: str, *, hooks: Hooks | None = None, **settings: Any) -> StudyResult:
    """`study_async`, for callers without an event loop (or with one: it then runs in a thread)."""
    return run_async(study_async(name, hooks=hooks, **settings))
