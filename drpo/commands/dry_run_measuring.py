"""`--dry-run` of the commands that measure: what they would do and take, without doing any of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drpo.commands.dry_run_facts import DryRun, check_embedder, dry_run_of
from drpo.estimate.roles import Recorded
from drpo.llm.recorder import Record
from drpo.measuring.ahead import ahead_of
from drpo.measuring.answering import notices_of
from drpo.measuring.forecasting import MeasuringForecast, measuring_forecast
from drpo.measuring.plan import MeasuringPlan


def look_ahead_measuring(
    plan: MeasuringPlan, environment: Mapping[str, str], flags: Mapping[str, Any], file: Path | None
) -> DryRun:
    """What the command would do with this plan. Nothing is sent, started or written.

    What the run directory holds is taken off: the measurement is gone through over its record, so what is
    left is known by the request. Raises as `drpo.commands.dry_run.look_ahead`.
    """

    def foresee(path: Path, recorded: Recorded) -> tuple[MeasuringForecast, list[str]]:
        for side in plan.sides:
            if side.subject.shots and side.subject.embedder:
                check_embedder(side.subject.embedder, side.subject.examples, environment)
        record = Record(path / "calls.jsonl", writable=False)
        ahead = asyncio.run(ahead_of(plan, record, environment))
        notes = [*(f"data: {note}" for note in plan.inputs.notes), *notices_of(plan)]
        return measuring_forecast(plan, ahead, recorded, environment), notes

    return dry_run_of(plan, environment, flags, file, foresee)
