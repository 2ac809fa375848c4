"""Where a run stands, as one value: shown on a terminal, and kept in a small file for other processes.

The file is replaced once a second while the run goes on and never read by it: losing it costs nothing.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

PROGRESS_NAME = "progress.json"
SCHEMA = 1
STALE_S = 15.0
"""A running run renews its file every second; after so long without that its process is gone or stuck."""

UNITS = {
    "optimize-examples": "examples",
    "evaluate": "queries",
    "compare": "pairs",
    "audit-judge": "questions",
    "generate": "queries",
    "rewrite": "queries",
    "align-pro-estimate": "queries",
    "bpo-build": "preferences",
}
"""What is counted of a run, by its command; where none stands here, levels of a search."""

RunState = Literal["running", "stopping", "finished", "budget", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class RoleProgress:
    """The requests of one role. in_air: sent and not answered yet. done: answered. failed: answered by an
    error, or not at all. retried: how many of all were sent again. usd: None where a price is unknown."""

    in_air: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run stands. Times are seconds, `updated_s` and `started_s` since 1970.

    levels: how many are done, `limit` of them there may be at most, as of now (other commands count what
    `UNITS` says). path: rewards from the start to the best, 1 to 5; best: its path score (`optimize`), or the
    mean reward or score so far. validated: what the result gains on kept queries, 0 where it is the initial
    prompt, None before that is known.
    change: the newest prompt against the one it was made from, as
    (mark, text) with the marks "same", "removed" and "added". usd and held_usd: what was spent, and what the
    requests that have no answer may cost at most; usd is None where a price is unknown. recorded: calls
    answered from the record. left_s: how long it will take at the pace so far, None where that is unknown.
    said: the last notice.
    """

    command: str
    state: RunState
    run: str
    pid: int
    started_s: float
    updated_s: float
    elapsed_s: float
    levels: int = 0
    limit: int | None = None
    nodes: int = 0
    dropped: int = 0
    start_reward: float | None = None
    best: float | None = None
    validated: float | None = None
    path: tuple[float | None, ...] = ()
    change: tuple[tuple[str, str], ...] = ()
    roles: dict[str, RoleProgress] = field(default_factory=dict)
    recorded: int = 0
    calls: int = 0
    max_calls: int | None = None
    usd: float | None = 0.0
    held_usd: float = 0.0
    max_usd: float | None = None
    left_s: float | None = None
    said: str = ""
    simulated: bool = False

    def is_alive(self, now_s: float) -> bool:
        """Whether the process that wrote it goes on."""
        return self.state in ("running", "stopping") and now_s - self.updated_s < STALE_S


def handed_over(result: object) -> float | None:
    """What the prompt that is handed over gains on kept queries, by the plain values of its validation: 0
    where it is the initial prompt; None where it is unknown."""
    match result:
        case {"better": True, "gain": float() | int() as gain} if math.isfinite(gain):
            return float(gain)
        case {"better": False}:
            return 0.0
    return None


def write_progress(path: Path, snapshot: Snapshot) -> None:
    """Replace the file at once, without waiting for the disk. A disk that refuses costs the file only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = json.dumps({"schema": SCHEMA, **asdict(snapshot)}, ensure_ascii=True) + "\n"
    with suppress(OSError):
        temporary.write_text(text, encoding="ascii")
        temporary.replace(path)


def read_progress(path: Path) -> Snapshot | None:
    """The last snapshot; None where there is none, or one of another drpo."""
    try:
        data: Any = json.loads(path.read_text(encoding="ascii"))
        if data["schema"] != SCHEMA:
            return None
        known = {item.name for item in fields(Snapshot)}
        values = {name: value for name, value in data.items() if name in known}
        values["roles"] = {role: RoleProgress(**counts) for role, counts in values["roles"].items()}
        values["path"] = tuple(values["path"])
        values["change"] = tuple((mark, text) for mark, text in values["change"])
        return Snapshot(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
