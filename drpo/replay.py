"""The same run again, offline: from the replies in its record alone, and whether it came out identical."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.alignment import FILE_NAME, Alignment
from drpo.config import CommonConfig, ExamplesConfig, OptimizeConfig, resolve
from drpo.errors import InputError, ReplayMissed
from drpo.events import Event, LevelDone, event_line
from drpo.llm.base import Request, Role
from drpo.llm.recorder import Record
from drpo.plan import ModelChoice, Plan, with_settings
from drpo.llm.limits import Stop
from drpo.run import examples_json
from drpo.run_dir import read_inputs, read_run
from drpo.searches import search_examples, search_prompt
from drpo.wiring import Resources

PATHS = ("prompts", "runs_dir", "run_dir", "name", "examples", "seeds", "out")


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay found.

    identical: events and result are the same to the byte (None where settings were changed, and so nothing
    was to be identical). differing: the files that are not. missed: requests that the record does not answer;
    what would follow from them cannot be known. levels: how many were replayed.
    """

    run_dir: Path
    identical: bool | None
    differing: tuple[str, ...]
    missed: tuple[Request, ...]
    levels: int
    calls: int
    result: Alignment | None


async def replay_run(path: Path, overrides: Mapping[str, str]) -> ReplayReport:
    """Replay the run in `path`, perhaps with other settings, without opening a socket or changing a file."""
    plan = read_plan(path, overrides)
    record = Record(path / "calls.jsonl", writable=False)
    lines: list[str] = []
    levels = 0

    def emit(events: Sequence[Event]) -> None:
        nonlocal levels
        lines.extend(event_line(event) for event in events)
        levels += sum(isinstance(event, LevelDone) for event in events)

    own = _recorded_reward if str(plan.identity["models"].get("evaluator", "")).startswith("reward/") else None
    resources = Resources(record, Stop(), {}, plan.config, live=False)
    result: Alignment | None = None
    try:
        if isinstance(plan.config, OptimizeConfig):
            result = await search_prompt(plan, resources, own, emit)
            produced = {FILE_NAME: result.as_json()}
        else:
            improved = await search_examples(plan, resources, own, emit)
            produced = {"result.json": examples_json(plan, improved, record.calls_by_role())}
    except ReplayMissed:
        return ReplayReport(path, None, (), tuple(record.missed.values()), levels, len(record.asked), None)
    finally:
        await resources.close()
    produced["events.jsonl"] = "".join(lines)
    differing = tuple(name for name, text in sorted(produced.items()) if not _same(path / name, text))
    identical = None if overrides else not differing
    return ReplayReport(path, identical, differing, (), levels, len(record.asked), result)


def read_plan(path: Path, overrides: Mapping[str, str]) -> Plan:
    """The plan that a run was begun with, from its directory alone."""
    run = read_run(path)
    identity: dict[str, Any] = run["identity"]
    kind: type[CommonConfig] = OptimizeConfig if identity["command"] == "optimize" else ExamplesConfig
    for name in overrides:
        if name not in identity["settings"]:
            known = ", ".join(sorted(identity["settings"]))
            raise InputError(f"--set {name}: expected a setting of this run's search, one of: {known}")
    settings = {name: value for name, value in run["settings"].items() if name not in PATHS}
    config = resolve(kind, {**settings, **overrides}, {})
    choices: dict[Role, ModelChoice] = {
        role: ModelChoice(name, name.split("/")[0], name, None, None, ()) for role, name in identity["models"].items()
    }
    plan = Plan(config, choices, read_inputs(path), identity["embedder"], identity)
    changed = {name: json.loads(config.model_dump_json())[name] for name in overrides}
    return with_settings(plan, config, changed) if overrides else plan


async def _recorded_reward(query: str, response: str) -> Any:
    raise AssertionError("the own reward of a run is read from its facts")


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_bytes() == text.encode("utf-8", "backslashreplace")
