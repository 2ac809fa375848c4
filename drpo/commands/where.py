"""Finds the run that a user means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from drpo.errors import InputError
from drpo.measured import is_measurement
from drpo.run_file import RUN_NAME

if TYPE_CHECKING:
    from drpo.run_view import RunView

FILE_NAME = "alignment.json"


def runs_folder() -> Path:
    """Where runs are: DRPO_RUNS_DIR, also in `.env`, or `runs`."""
    return Path(os.environ.get("DRPO_RUNS_DIR", _from_env_file("DRPO_RUNS_DIR")) or "runs")


def _from_env_file(name: str) -> str:
    """A variable of `.env` as `drpo.api.environment` sees it, without all that comes with that."""
    file = Path(".env")
    if not file.is_file():
        return ""
    from dotenv import dotenv_values

    try:
        return dotenv_values(file).get(name) or ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: expected lines NAME=VALUE in UTF-8: {error}. Mend or move it") from None


def find_run(given: Path) -> Path:
    """`given` as a path, or as the name of a run inside the runs folder."""
    runs = runs_folder()
    try:
        if given.exists():
            return given
        if len(given.parts) == 1 and (runs / given).exists():
            return runs / given
    except OSError as error:
        raise InputError(f"{given}: cannot be read: {error.strerror}") from None
    raise InputError(f"{given}: expected a run directory, an alignment file, or the name of a run in {runs}/")


def is_only_a_result(found: Path) -> bool:
    """Whether that is an alignment file, or a folder with one and no run. Raises InputError where nobody may
    look."""
    try:
        if (found / RUN_NAME).exists():
            return False
        return found.is_file() or (found / FILE_NAME).exists()
    except OSError as error:
        raise InputError(f"{found}: cannot be read: {error.strerror}. Unlock it") from None


def open_run(given: Path) -> RunView:
    """The run that is meant, with something to show. Raises InputError where no level of it is done yet."""
    from drpo.run_view import read_view  # here: `drpo runs` needs none of it

    found = find_run(given)
    if is_measurement(found):
        raise InputError(
            f"{found}: expected a search, found a measurement; drpo show {found} prints its figures"
        )
    view = read_view(found)
    if not view.has_level:
        raise InputError(
            f"{view.path}: expected a run with a level that is done, found none: there is nothing to show "
            f"yet. drpo watch {view.path} says whether it is under way; its command, given again, resumes it"
        )
    return view
