"""What happens in a run, as a closed union of values without clocks, hosts or counts of retries.

Events are emitted at the barrier of each level, in candidate order, so the file is the same to the byte
whatever the latencies, the concurrency and the crashes were.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, assert_never

from drpo.errors import RecordDamaged, StorageError


@dataclass(frozen=True, slots=True)
class NodeMade:
    """A node joined the tree. `score` is the search's ranking of it, `subject` the example it belongs to."""

    id: int
    place: str
    parent: int | None
    depth: int
    kept: bool
    reward: float | None
    score: float | None
    state: dict[str, Any]
    failure: str | None = None
    subject: int | None = None


@dataclass(frozen=True, slots=True)
class ProposalDropped:
    """A proposal became no node: it could not be read, or its response could not be evaluated."""

    place: str
    parent: int
    reason: str
    raw: str
    subject: int | None = None


@dataclass(frozen=True, slots=True)
class LevelDone:
    """The next beam is chosen, best first. `limit`: how many nodes a path may have now."""

    level: int
    limit: int
    beam: tuple[int, ...]
    stalled: bool
    subject: int | None = None


@dataclass(frozen=True, slots=True)
class SearchDone:
    """The search is over. `ended`: depth, queries, stalled, patience, perfect."""

    best: int
    score: float | None
    nodes: int
    levels: int
    ended: str
    subject: int | None = None


@dataclass(frozen=True, slots=True)
class Validated:
    """The search's best prompts were compared with the initial one (`drpo.validation.result.Validation`)."""

    result: dict[str, Any]
    subject: int | None = None


Event = NodeMade | ProposalDropped | LevelDone | SearchDone | Validated


def event_line(event: Event) -> str:
    """One event as one line of JSON; fields that do not apply are left out."""
    match event:
        case NodeMade():
            kind = "node"
        case ProposalDropped():
            kind = "dropped"
        case LevelDone():
            kind = "level"
        case SearchDone():
            kind = "end"
        case Validated():
            kind = "validation"
        case _:
            assert_never(event)
    # Shallow on purpose: the values are plain JSON already, and dataclasses.asdict would copy them deeply.
    named = {field.name: getattr(event, field.name) for field in fields(event)}
    if event.subject is None:
        del named["subject"]
    return json.dumps({"event": kind, **named}, ensure_ascii=False, allow_nan=False) + "\n"


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a file as plain values, one after the other; a torn last line is left out. Raises
    ValueError where the next line is no JSON."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return map(json.loads, lines)


class EventFile:
    """Writes events. A resumed search emits the same ones again: they are compared, not written twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
        self._length = 0  # bytes that agree with what was emitted so far
        self._line = 0

    def emit(self, events: Iterable[Event]) -> None:
        """Append `events`. Raises RecordDamaged where the file already says something else at this place."""
        lines = [event_line(event).encode("utf-8", "backslashreplace") for event in events]
        new: list[bytes] = []
        for line in lines:
            self._line += 1
            rest = self._known[self._length : self._length + len(line)]
            if new or rest != line:
                if not new and not line.startswith(self._known[self._length :]):
                    raise RecordDamaged(
                        f"{self._path}:{self._line}: expected the event that the recorded calls lead to, "
                        "found another one: the file was edited, or written by another version of drpo. "
                        "Delete it and run again: it is rebuilt from the recorded calls"
                    )
                new.append(line)
            else:
                self._length += len(line)
        if new:
            self._write(b"".join(new))

    def finish(self) -> None:
        """All was emitted and is on the disk. Raises RecordDamaged where the file says more than that."""
        if len(self._known) > self._length:
            raise RecordDamaged(
                f"{self._path}:{self._line + 1}: expected the end of the run, found more: the file was "
                "edited. Delete it and run again: it is rebuilt from the recorded calls"
            )
        try:
            with self._path.open("ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}") from error

    def _write(self, data: bytes) -> None:
        try:
            with self._path.open("r+b" if self._path.exists() else "w+b") as file:
                file.truncate(self._length)
                file.seek(self._length)
                file.write(data)
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._length += len(data)
        self._known = b""  # all that was known is behind us


LEVELS_NAME = "levels.jsonl"


class LevelFile:
    """Keeps the events of searches that go on at once, as they happen, for whoever looks at the run.

    The run itself never reads it: a disk that refuses costs what it would have shown. What an earlier process
    has written stays, and what is told again is not written twice.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: set[bytes] = set()
        self._length = 0
        with suppress(OSError):
            data = path.read_bytes() if path.exists() else b""
            self._length = data.rfind(b"\n") + 1  # a torn last line is written over
            self._known.update(data[: self._length].splitlines(keepends=True))

    def add(self, events: Iterable[Event]) -> None:
        """Append those that are not in the file yet."""
        lines = [event_line(event).encode("utf-8", "backslashreplace") for event in events]
        new = b"".join(line for line in lines if line not in self._known)
        if not new:
            return
        with suppress(OSError):
            with self._path.open("r+b" if self._path.exists() else "w+b") as file:
                file.truncate(self._length)
                file.seek(self._length)
                file.write(new)
            self._known.update(lines)
            self._length += len(new)

    def remove(self) -> None:
        """The run is finished, its events are all in their file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
