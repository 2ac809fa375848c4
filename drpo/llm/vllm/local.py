"""A model in a folder of this machine: what tells it apart from others, wherever the folder stands."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from drpo.errors import InputError

_WHOLE_BYTES = 16 * 2**20  # files up to this size are read whole
_ENDS_BYTES = 2**20  # of larger ones, this much of either end: tensors' names and shapes stand at the front
_SUFFIXES = {".json", ".safetensors", ".bin", ".pt", ".pth", ".gguf", ".model", ".jinja", ".txt", ".py"}


def find_local(name: str) -> Path | None:
    """The folder (or file) that `name` means, None where it is a repository's name.

    Raises InputError where it looks like a path and nothing is there.
    """
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # ~NOBODY, a name too long for a file
        path = Path(name).expanduser()
        if path.exists():
            return path.resolve()
    if name.startswith((".", "/", "~", "\\")) or "\\" in name:
        raise InputError(
            f"vllm/{name}: expected a folder with a model, there is none; "
            "a repository is written vllm/OWNER/NAME"
        )
    return None


def model_digest(path: Path) -> str:
    """12 hex digits that tell models apart: by names, sizes and contents of the files that make them.

    Those are the folder's own, by their endings: queries or notes beside a model do not change it.
    Weights of many gigabytes are not read whole, only 1 MB of either end: two models of one size that differ
    in the middle of their weights alone would pass for one.
    """
    digest = hashlib.sha256()
    try:
        files = [path] if path.is_file() else sorted(p for p in path.iterdir() if _counts(p))
        for file in files:
            name = "" if file == path else file.name
            size = file.stat().st_size
            digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
            with file.open("rb") as stream:
                digest.update(stream.read(_WHOLE_BYTES if size <= _WHOLE_BYTES else _ENDS_BYTES))
                if size > _WHOLE_BYTES:
                    stream.seek(-_ENDS_BYTES, 2)
                    digest.update(stream.read())
    except OSError as error:
        raise InputError(f"{path}: expected a model that can be read: {error}") from None
    return digest.hexdigest()[:12]


def _counts(path: Path) -> bool:
    return path.suffix in _SUFFIXES and path.is_file()
