"""What a tracker is, what it is told of a run, and what it may pass on: no keys, and text only as text."""

from __future__ import annotations

import importlib
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from drpo.errors import InputError, StorageError
from drpo.events import Event
from drpo.jsonl import write_atomically
from drpo.llm.ledger import CallDone, Spent
from drpo.plan import digest_of

TRACKING_NAME = "tracking.json"
SCHEMA = 1
_LONGEST_ERROR = 400
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|HEADERS|CREDENTIAL")
_SHORTEST_SECRET = 6
"""A shorter value would be found, and crossed out, all over the place."""


class NotDelivered(Exception):
    """A tracker's server did not take what it was sent; the message is a sentence for the user."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a run when it begins.

    models: identity per role. settings: plain JSON values. resumed: other processes have worked on this run
    before, and `spent` is what their requests came to. id: what the tracked run is found again by when the
    run is resumed; `Trackers` fills it in.
    """

    name: str
    path: Path
    command: str
    models: Mapping[str, str]
    settings: Mapping[str, Any]
    digests: Mapping[str, str]
    simulated: bool
    resumed: bool = False
    spent: Spent = field(default_factory=Spent)
    id: str = ""


class Tracker(Protocol):
    """Somewhere that a run is logged to. Its methods are called in order, by one thread that is its own.

    What they raise ends the tracker, never the run. They may wait for a server, but for good they may not.
    """

    @property
    def where(self) -> str:
        """Where the tracked run can be looked at, without keys; empty until it has begun."""
        ...

    def begin(self, run: RunFacts) -> None:
        """Called once, before anything is sent to a model."""
        ...

    def event(self, event: Event) -> None:
        """What has happened, at the barriers of levels. A resumed run's levels are told once more."""
        ...

    def call(self, call: CallDone) -> None:
        """A request that has ended, however it ended."""
        ...

    def end(self, state: str, results: Mapping[str, float], files: Sequence[Path]) -> None:
        """Called once: state as in progress.json, and the files worth keeping; not all of them need exist."""
        ...


def tracked_id(run: RunFacts) -> str:
    """The id of the tracked run: as long as the run directory lives, it is the same.

    It stands in a file of the directory, so that a run that is moved stays itself, while the same settings
    in a new directory are another run. Where that cannot be written it follows from settings and path.
    """
    file = run.path / TRACKING_NAME
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["schema"] == SCHEMA and re.fullmatch(r"drpo-[0-9a-f]{16}", known["run_id"]):
            return str(known["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or not ours: a new one
    identity = digest_of([run.command, dict(run.models), dict(run.settings), dict(run.digests)])
    made = f"drpo-{identity[:8]}{secrets.token_hex(4)}"
    try:
        write_atomically(file, json.dumps({"schema": SCHEMA, "run_id": made}) + "\n")
    except StorageError:
        return f"drpo-{digest_of([identity, str(run.path.absolute())])}"
    return made


@dataclass(frozen=True, slots=True)
class Clean:
    """Makes text fit to be logged: without the secrets of the environment, UTF-8, nothing that steers a
    terminal or ends a text early."""

    hidden: tuple[str, ...] = ()

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Clean:
        """Hides the values of variables that are named like keys."""
        found: set[str] = set()
        for name, value in environment.items():
            if _SECRET_NAME.search(name.upper()):
                # OTEL_EXPORTER_OTLP_HEADERS: a=one,b=two
                found |= {value, *(part.partition("=")[2] for part in value.split(","))}
        long = {value.strip() for value in found if len(value.strip()) >= _SHORTEST_SECRET}
        return cls(tuple(sorted(long, key=len, reverse=True)))

    def __call__(self, text: str, longest: int | None = None) -> str:
        """The text, cut where it is longer than `longest`."""
        for value in self.hidden:
            text = text.replace(value, "***")
        text = _USER_IN_URL.sub("***@", text)
        text = "".join(c if c in "\n\t" or unicodedata.category(c) not in _UNFIT else _shown(c) for c in text)
        return text if longest is None or len(text) <= longest else f"{text[: longest - 1]}…"

    def error(self, error: BaseException) -> str:
        """What went wrong, on one line."""
        said = " ".join(str(error).split())
        if not isinstance(error, NotDelivered):
            said = f"{type(error).__name__}: {said}" if said else type(error).__name__
        return self(said, _LONGEST_ERROR).rstrip(".")


_UNFIT = ("Cc", "Cf", "Cs")


def _shown(character: str) -> str:
    return f"\\u{ord(character):04x}"


def as_utf8(text: str) -> str:
    """The text as it is, but for what no file can hold: halves of characters, which are shown."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def as_text(value: object) -> str:
    """A setting's value as one would write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def parameters(run: RunFacts) -> Iterator[tuple[str, Any]]:
    """Settings, models and digests by name; what is not set is left out."""
    yield "command", run.command
    for group, values in (("model", run.models), ("", run.settings), ("digest", run.digests)):
        for name, value in values.items():
            if value is not None:
                yield (f"{group}.{name}" if group else name), value


def import_library(tracker: str, name: str, needed: str) -> ModuleType:
    """The module `name`, which must have the attribute `needed`; InputError with the remedy else."""
    try:
        module = importlib.import_module(name)
        # A folder of that name (wandb makes one where it runs) is a package as well, an empty one.
        if hasattr(module, needed):
            return module
        problem = f"no {needed} in {getattr(module, '__file__', None) or list(module.__path__)}"
    except Exception as error:  # noqa: BLE001 - a broken installation raises whatever it likes
        problem = f"{type(error).__name__}: {error}"
    raise InputError(
        f"--track {tracker}: {name} cannot be imported ({problem}): pip install 'drpo[{tracker}]'"
    )


def offer(environment: Mapping[str, str], prefix: str, defaults: Mapping[str, str]) -> None:
    """Put what a library reads from the process's own environment there: what a .env file says under
    `prefix`, and `defaults` for what nobody has said anything about."""
    for name, value in environment.items():
        if name.startswith(prefix):
            os.environ.setdefault(name, value)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
