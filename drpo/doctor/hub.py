"""What of a Hugging Face repository lies on this machine, told from its cache's folders alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_WEIGHTS = {".safetensors", ".bin", ".gguf", ".pt", ".pth"}
_TRUE = {"1", "on", "yes", "true"}


@dataclass(frozen=True, slots=True)
class Weights:
    """The model files of a folder. gb: their size; missing: parts that its index names and that are not
    there. config: what its config.json says, empty where there is none."""

    folder: Path
    gb: float
    missing: int
    config: Mapping[str, object]

    @property
    def complete(self) -> bool:
        """Whether there are weights, and all of them."""
        return self.gb > 0 and not self.missing


def cache_of(environment: Mapping[str, str], download_dir: str | None = None) -> Path:
    """The hub's cache: --vllm-arg download-dir, else as huggingface_hub finds it."""
    if download_dir:
        return Path(download_dir).expanduser()
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(name):
            return Path(environment[name]).expanduser()
    return _home(environment) / "hub"


def _home(environment: Mapping[str, str]) -> Path:
    if environment.get("HF_HOME"):
        return Path(environment["HF_HOME"]).expanduser()
    caches = environment.get("XDG_CACHE_HOME")
    return (Path(caches).expanduser() if caches else Path.home() / ".cache") / "huggingface"


def cached_weights(repository: str, revision: str | None, cache: Path) -> Weights | None:
    """What of a repository was fetched before, None where nothing of that revision was."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    try:
        commit = (folder / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = revision or ""  # a revision may be the commit itself
    snapshot = folder / "snapshots" / commit
    return read_weights(snapshot) if commit and snapshot.is_dir() else None


def read_weights(folder: Path) -> Weights:
    """What a model's folder holds. A link to a file that was not fetched to its end counts as missing."""
    found = sorted(path for path in folder.rglob("*") if path.suffix in _WEIGHTS)
    # The same weights may lie there in several forms, of which vLLM loads the first of these.
    found = [path for path in found if path.suffix == ".safetensors"] or found
    found = [path for path in found if not path.name.startswith("consolidated")] or found
    kinds = {path.suffix for path in found} or _WEIGHTS
    there = {path.relative_to(folder).as_posix(): path.stat().st_size for path in found if path.exists()}
    missing = {path.relative_to(folder).as_posix() for path in found if not path.exists()}
    for index in folder.glob("*.index.json"):
        parts = _json(index).get("weight_map")
        if isinstance(parts, dict):
            named = {str(part) for part in parts.values() if Path(str(part)).suffix in kinds}
            missing |= named - there.keys()
    return Weights(folder, sum(there.values()) / 1e9, len(missing), _json(folder / "config.json"))


def is_offline(environment: Mapping[str, str]) -> bool:
    """Whether the hub must not be asked."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(environment.get(name, "").strip().lower() in _TRUE for name in names)


def has_token(environment: Mapping[str, str]) -> bool:
    """Whether a token for the hub is at hand, as huggingface_hub looks for it."""
    if any(environment.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return True
    given = environment.get("HF_TOKEN_PATH")
    return (Path(given) if given else _home(environment) / "token").is_file()


def _json(file: Path) -> dict[str, object]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
