"""Finds the run that a user means."""

from __future__ import annotations

from pathlib import Path

from drpo.api import environment
from drpo.errors import InputError


def find_run(given: Path) -> Path:
    """`given` as a path, or as the name of a run inside the runs folder."""
    runs = Path(environment().get("DRPO_RUNS_DIR") or "runs")
    inside = runs / given
    if given.exists():
        return given
    if len(given.parts) == 1 and inside.exists():
        return inside
    raise InputError(f"{given}: expected a run directory, an alignment file, or the name of a run in {runs}/")
