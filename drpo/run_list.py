"""The runs in a folder, by their small files alone, so that a thousand of them are read in an instant."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.errors import InputError
from drpo.progress import PROGRESS_NAME, Snapshot, handed_over, read_progress
from drpo.run_file import RUN_NAME, read_run

ALIGNMENT_NAME, RESULT_NAME, EVENTS_NAME = "alignment.json", "result.json", "events.jsonl"
OF_BUDGET = "budget"
"""How a result says that it is only the best before the budget was spent."""
_ROOT_AT_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class RunEntry:
    """One run. state: as in progress.json, or stopped (its process is gone), unfinished (of a drpo that kept
    no progress), unreadable (`problem` says why, and nothing else is known).

    model: identity of the base model, for `optimize-examples` of the optimizer. best: the result's path score
    or the mean reward of the examples, 1 to 5, as of now; start_reward: that of what it began with.
    validated: what the result gains on kept queries, 0 where it is the initial prompt. usd: None where a
    price is unknown or none was kept; held_usd: what requests without an answer may cost on top.
    changed_s: when the run was last at work, seconds since 1970, 0 where nobody may look.
    """

    name: str
    path: Path
    state: str
    changed_s: float
    command: str = ""
    model: str = ""
    simulated: bool = False
    best: float | None = None
    start_reward: float | None = None
    validated: float | None = None
    usd: float | None = None
    held_usd: float = 0.0
    calls: int | None = None
    problem: str | None = None

    @property
    def gain(self) -> float | None:
        """What the search has added to the reward of the start, on the queries that it saw."""
        if self.best is None or self.start_reward is None:
            return None
        return self.best - self.start_reward


def list_runs(folder: Path, now_s: float) -> tuple[RunEntry, ...]:
    """The runs right inside `folder`, the last at work first. Raises InputError where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError as error:
        raise InputError(f"{folder}: expected a folder of runs: {error.strerror}") from None
    found = [entry for name in names if (entry := read_entry(folder / name, now_s)) is not None]
    return tuple(sorted(found, key=lambda entry: (-entry.changed_s, entry.name)))


def read_entry(path: Path, now_s: float) -> RunEntry | None:
    """The run in `path`, None where there is none. What is wrong with it is told in it, not raised."""
    file = path / RUN_NAME
    try:
        return _entry(path, read_run(path)["identity"], now_s)
    except InputError as error:
        if not _is_there(file):
            return None
        problem = str(error).removeprefix(f"{file}: ").removeprefix(f"{path}: ")
        return RunEntry(path.name, path, "unreadable", _changed_s(path), problem=problem)


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # a folder that nobody may look into: that is told
        return True


def state_of(snapshot: Snapshot | None, finished: bool, now_s: float) -> str:
    """What a run does, by its last snapshot and whether its result is there."""
    if finished:  # also when the process was killed between its result and its last snapshot
        return "finished"
    if snapshot is None:
        return "unfinished"
    if snapshot.state in ("running", "stopping") and not snapshot.is_alive(now_s):
        return "stopped"
    return snapshot.state


def _entry(path: Path, identity: Mapping[str, Any], now_s: float) -> RunEntry:
    models: Mapping[str, str] = identity["models"]
    name, command = path.name, str(identity["command"])
    known = (models.get(role) for role in ("base", "optimizer", "judge", "rewriter"))
    model = next((name for name in known if name), "")
    simulated = any(model.startswith("demo/") for model in models.values())
    snapshot = read_progress(path / PROGRESS_NAME)
    if snapshot is None or not _is_sound(snapshot):
        result = _result(path)
        best, start = _rewards(path, result)
        validated = handed_over(result.get("validation")) if isinstance(result, dict) else None
        state = "finished" if _is_final(result) else OF_BUDGET if result is not None else "unfinished"
        figures = (best, start, validated, None, 0.0, _calls(result))
        return RunEntry(name, path, state, _changed_s(path), command, model, simulated, *figures)
    is_over = snapshot.state != OF_BUDGET and not snapshot.is_alive(now_s)
    finished = snapshot.state == "finished" or (is_over and _is_final(_result(path)))
    return RunEntry(
        name,
        path,
        state_of(snapshot, finished, now_s),
        snapshot.updated_s,
        command,
        model,
        simulated,
        best=snapshot.best,
        start_reward=snapshot.start_reward,
        validated=snapshot.validated,
        usd=snapshot.usd,
        held_usd=snapshot.held_usd,
        calls=snapshot.calls,
    )


def _is_sound(snapshot: Snapshot) -> bool:
    """Whether the fields that are used are what they should be: nobody has checked them."""
    numbers: list[Any] = [snapshot.updated_s, snapshot.held_usd, snapshot.calls]
    numbers += [
        n for n in (snapshot.best, snapshot.start_reward, snapshot.validated, snapshot.usd) if n is not None
    ]
    state: Any = snapshot.state
    return isinstance(state, str) and all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers)


def _changed_s(path: Path) -> float:
    """When a run was last at work, by its files."""
    changed_s = 0.0
    for name in (RUN_NAME, EVENTS_NAME, "calls.jsonl", ALIGNMENT_NAME, RESULT_NAME):
        with contextlib.suppress(OSError):
            changed_s = max(changed_s, (path / name).stat().st_mtime)
    return changed_s


def _result(path: Path) -> Any:
    for name in (ALIGNMENT_NAME, RESULT_NAME):
        try:
            return json.loads((path / name).read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: expected the result of a run in {name}: {error}") from None
    return None


def _is_final(result: Any) -> bool:
    """Whether a result is the last one: what a spent budget has left is not."""
    match result:
        case {"found": {"ended": str(ended)}}:
            return ended != OF_BUDGET
        case {"examples": [*rows]}:
            return all(isinstance(row, dict) and row.get("ended") != OF_BUDGET for row in rows)
    return False


def _rewards(path: Path, result: Any) -> tuple[float | None, float | None]:
    """Best and start's reward of a result."""
    match result:
        case {"found": {"path_score": float() | int() as score}} if math.isfinite(score):
            return score, _root_reward(path / EVENTS_NAME)
        case {"examples": [*rows]}:
            return _mean(rows, "after"), _mean(rows, "before")
    return None, None


def _mean(rows: list[Any], when: str) -> float | None:
    rewards = []
    for row in rows:
        match row.get(when) if isinstance(row, dict) else None:
            case {"reward": float() | int() as reward} if math.isfinite(reward):
                rewards.append(reward)
    return sum(rewards) / len(rewards) if rewards else None


def _calls(result: Any) -> int | None:
    """Distinct requests of a result."""
    match result:
        case {"found": {"calls": dict(calls)}} | {"calls": dict(calls)}:
            return sum(count for count in calls.values() if isinstance(count, int))
    return None


def _root_reward(file: Path) -> float | None:
    """The reward of the first node, which is the first line of the events."""
    try:
        with file.open("rb") as events:
            line = json.loads(events.readline(_ROOT_AT_MOST))
    except (OSError, ValueError, RecursionError):
        return None
    match line:
        case {"event": "node", "parent": None, "reward": float() | int() as reward} if math.isfinite(reward):
            return reward
    return None
