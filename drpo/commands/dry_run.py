"""`--dry-run` of the commands that search: what they would do and take, without doing any of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from drpo.choices import ModelChoice
from drpo.commands.dry_run_facts import DryRun, check_embedder, dry_run_of
from drpo.config import OptimizeConfig
from drpo.errors import ReplayMissed
from drpo.estimate.counts import replies_may_be_cut
from drpo.estimate.forecast import Forecast, forecast
from drpo.estimate.roles import Recorded
from drpo.live import cache_folder, is_lasting
from drpo.llm.adapt import Adapt
from drpo.llm.base import Completion, Request, request_key
from drpo.llm.recorder import Record
from drpo.llm.reuse import Store
from drpo.plan import Plan
from drpo.reward import EvaluatorReward
from drpo.types import Query
from drpo.wiring import build_reward


def look_ahead(
    plan: Plan, environment: Mapping[str, str], flags: Mapping[str, Any], file: Path | None
) -> DryRun:
    """What the command would do with this plan. Nothing is sent, started or written.

    Raises what the command itself would raise before its first request: for a folder that is none of its
    runs or belongs to other settings (RunConflict), for settings that cannot be used (InputError). A missing
    key or price is told, and no error: the figures are of use without.
    """

    def foresee(path: Path, recorded: Recorded) -> tuple[Forecast, list[str]]:
        if plan.embedder:
            check_embedder(plan.embedder, plan.inputs.examples.examples, environment)
        record = Record(path / "calls.jsonl", writable=False)
        said = forecast(plan, replace(recorded, reused=_reusable(plan, environment, record)), environment)
        return said, _notes(plan, said)

    return dry_run_of(plan, environment, flags, file, foresee)


class _Known:
    """Stands for the selector, whose questions it counts: recorded, or answered in another run."""

    def __init__(self, record: Record, store: Store) -> None:
        self._record, self._store = record, store
        self.reusable = 0

    async def complete(self, request: Request) -> Completion:
        """Never: nothing is sent."""
        if not self._record.holds(request) and self._store.get(request_key(request)) is not None:
            self.reusable += 1
        raise ReplayMissed("a dry run sends nothing")


def _reusable(plan: Plan, environment: Mapping[str, str], record: Record) -> int:
    """For how many of the queries that are surely used another run has chosen the aspects; their questions
    are made by what makes them in a run."""
    config, choice = plan.config, plan.models.get("selector")
    if choice is None or config.reward == "static" or not config.reuse or not is_lasting(choice):
        return 0
    if choice.provider == "reward":
        return 0
    store = Store(cache_folder(environment) / "selections.jsonl")
    known = _Known(record, store)
    queries = [Query(example.query) for example in plan.inputs.examples.examples]
    if isinstance(config, OptimizeConfig):
        queries = list(plan.inputs.queries[: config.depth])

    async def ask_all() -> None:
        model = Adapt(known, record, _refused(choice), config.max_thinking_tokens)
        reward = build_reward(plan, {"selector": model, "evaluator": model}, record)
        assert isinstance(reward, EvaluatorReward)
        await asyncio.gather(*(reward.selector.choose(q) for q in queries), return_exceptions=True)

    asyncio.run(ask_all())
    return known.reusable


def _refused(choice: ModelChoice) -> list[str]:
    return sorted(choice.entry.refuses) if choice.entry else []


def _notes(plan: Plan, said: Forecast) -> list[str]:
    found = [f"seeds: {note}" for note in plan.inputs.notes]
    if replies_may_be_cut(plan.config, said.habits):
        found.append(
            f"--max-tokens {plan.config.max_tokens}: many replies may be cut off and lost. A search whose "
            "replies cannot be read ends after four levels, so `at least` reckons with that"
        )
    return found
