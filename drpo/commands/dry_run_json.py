"""A dry run as one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from drpo.commands.dry_run_facts import DryRun, Played
from drpo.estimate.adding import Part, StudyForecast
from drpo.estimate.forecast import Forecast
from drpo.estimate.ranges import Range
from drpo.estimate.roles import RoleForecast, RunForecast
from drpo.measuring.forecasting import MeasuringForecast


def dry_run_json(told: DryRun) -> dict[str, Any]:
    """Plain JSON values: ranges as {least, expected, most}, most null where nothing bounds it."""
    said, config = told.forecast, told.plan.config
    roles = {role.role: _role(role, told.players) for role in said.roles}
    limits: dict[str, Any] = {}
    if config.max_calls is not None:
        limits["max_calls"] = {"limit": config.max_calls, "says": told.calls_verdict}
    if config.max_usd is not None:
        limits["max_usd"] = {"limit": config.max_usd, "says": told.usd_verdict}
    return {
        "dry_run": True,
        "command": told.plan.identity["command"],
        "run": {
            "path": str(told.path) if told.is_kept else None,
            "state": told.state,
            "process": told.process,
        },
        "refused": list(told.refusals),
        "simulated": told.plan.simulated,
        "embedder": told.plan.embedder or None,
        "settings": {
            s.name.rstrip("_"): {"value": s.value, "from": s.source, "default": s.is_default}
            for s in told.settings
        },
        **_extent(said),
        "roles": roles,
        "calls": _range(said.calls),
        "calls_to_come": _range(said.left),
        "usd": _range(said.usd, whole=False),
        "usd_to_come": _range(said.left_usd, whole=False),
        "unpriced": list(said.unpriced),
        "usd_per_1000_tokens_of_thinking": said.thinking_usd if said.thinking else None,
        "reused_selections": said.recorded.reused,
        "limits": limits,
        "servers": list(told.servers),
        "notes": list(told.notes),
    }


def _extent(said: RunForecast) -> dict[str, Any]:
    """How much is searched or measured."""
    if isinstance(said, MeasuringForecast):
        rewards = {"responses": said.rewards, "had": said.recorded.rewards} if said.rewards else None
        return {"items": said.items, "reward_model": rewards}
    if isinstance(said, StudyForecast):
        return {"runs": [_part(part) for part in said.parts]}
    assert isinstance(said, Forecast)
    return {"levels": _range(said.levels), "searches": said.searches}


def _part(part: Part) -> dict[str, Any]:
    """One run of a study. name: of its directory, null where that is not known yet."""
    said = part.forecast
    return {
        "run": part.what,
        "command": part.command,
        "name": part.name,
        "state": part.state,
        "recorded": sum(role.done for role in said.roles),
        "calls": _range(said.calls),
        "calls_to_come": _range(said.left),
        "usd_to_come": _range(said.left_usd, whole=False),
    }


def _role(role: RoleForecast, players: Sequence[Played]) -> dict[str, Any]:
    """models: more than one only in a study; then `model` is the first of them."""
    choices = [one.choice for one in players if one.role == role.role]
    return {
        "model": choices[0].identity if choices else None,
        "models": [choice.identity for choice in choices],
        "chosen_by_drpo": any(choice.defaulted for choice in choices),
        "price": {name: value for name, value in asdict(role.tariff).items() if name != "listed"},
        "calls": _range(role.calls),
        "paper": role.paper,
        "recorded": role.done,
        "calls_to_come": _range(role.left),
        "prompt_tokens": _range(role.prompt_tokens),
        "completion_tokens": _range(role.completion_tokens),
        "usd": None if role.usd is None else _range(role.usd, whole=False),
        "usd_to_come": None if role.left_usd is None else _range(role.left_usd, whole=False),
    }


def _range(said: Range, *, whole: bool = True) -> dict[str, Any]:
    def number(value: float | None) -> float | None:
        return value if value is None else round(value) if whole else round(value, 6)

    return {"least": number(said.least), "expected": number(said.expected), "most": number(said.most)}
