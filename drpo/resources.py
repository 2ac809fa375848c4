"""Where the data shipped with drpo lies: prompts, seeds, in-context examples."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource_folder(name: str) -> Path:
    """The folder `prompts`, `seeds` or `icl_examples`: in the package, or beside it in a checkout."""
    shipped = _PACKAGE / "_data" / name
    return shipped if shipped.is_dir() else _PACKAGE.parent / name
