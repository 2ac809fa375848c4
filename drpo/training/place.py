"""The folder that a training writes: whose it is, one process at a time, and what is in it in the end.

Beside the files of the model: drpo-rewriter.json tells what it is and how it came about; `training/` holds
what a training resumes from (training.json, checkpoints, the record of calls) and may go once it is done.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from drpo.errors import InputError, RunConflict, StorageError
from drpo.jsonl import write_atomically
from drpo.rewriting.naming import FACTS_NAME
from drpo.run_dir import differences

TRAINING, IDENTITY_NAME, CHECKPOINTS = "training", "training.json", "checkpoints"
_PICKLES = ("training_args.bin",)


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained rewriter. facts: its drpo-rewriter.json. before: it was done already, nothing was trained."""

    out: Path
    facts: dict[str, Any]
    before: bool = False


class Place:
    """The folder of one training, held until `close`.

    rank: of this process among those that train together, as `accelerate launch` starts them; the first
    writes. Raises RunConflict where another training holds the folder or made it, InputError where it holds
    something else.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any], rank: int = 0) -> None:
        self.out, self.rank = out, rank
        self._identity = dict(identity)
        self._refuse_foreign()
        try:
            self.training.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.training / (f".lock-{rank}" if rank else ".lock"))
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunConflict(
                f"--out {out}: another process is training there; wait for it, or name another"
            ) from None
        except OSError as error:
            raise StorageError(f"--out {out}: cannot be written: {error.strerror}. Free the disk") from None
        if rank == 0:
            self._write_json(self.training / IDENTITY_NAME, self._identity)

    @property
    def training(self) -> Path:
        """What a training resumes from."""
        return self.out / TRAINING

    @property
    def checkpoints(self) -> Path:
        """Where TRL keeps its checkpoints."""
        return self.training / CHECKPOINTS

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest one that is whole: TRL writes the trainer's state last."""
        found = [
            path for path in self.checkpoints.glob("checkpoint-*") if (path / "trainer_state.json").is_file()
        ]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def record(self, name: str) -> Path:
        """A file of this process beside the checkpoints."""
        stem, _, suffix = name.rpartition(".")
        return self.training / (f"{stem}-{self.rank}.{suffix}" if self.rank else name)

    @property
    def finished(self) -> dict[str, Any] | None:
        """What the training has come to, where it is done."""
        try:
            facts = json.loads((self.out / FACTS_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return facts if isinstance(facts, dict) else None

    def finish(self, generation: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Write how the model is sampled and what it is; the last file makes the folder a rewriter's."""
        for name in _PICKLES:
            (self.out / name).unlink(missing_ok=True)
        self._write_json(self.out / "generation_config.json", generation)
        self._write_json(self.out / FACTS_NAME, facts)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def close(self) -> None:
        """Release the folder."""
        self._lock.release()

    def _refuse_foreign(self) -> None:
        file = self.training / IDENTITY_NAME
        if not file.exists():
            if self.rank == 0 and self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
                raise InputError(
                    f"--out {self.out}: there is something already that no training of drpo began; name a "
                    "new folder"
                )
            return
        try:
            theirs = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunConflict(f"{file}: cannot be read: {error}. Name another --out") from None
        ours = json.loads(json.dumps(self._identity))
        if theirs != ours:
            said = "; ".join(differences(theirs, ours)[:3])
            raise RunConflict(f"--out {self.out}: belongs to another training: {said}. Name another folder")

    def _write_json(self, path: Path, value: Mapping[str, Any]) -> None:
        write_atomically(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def generation_settings(base: Path, end_ids: list[int], drawing: Mapping[str, Any]) -> dict[str, Any]:
    """The generation_config.json of the result: the base's end marks, and how rewrites are drawn."""
    try:
        known = json.loads((base / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    kept = {name: known[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id") if name in known}
    if kept.get("eos_token_id") is None:
        kept["eos_token_id"] = end_ids[0] if len(end_ids) == 1 else end_ids
    return {**kept, "do_sample": True, **drawing}
