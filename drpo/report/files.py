"""report.html in a run directory: made from what the directory holds, replaced at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

from drpo.errors import StorageError
from drpo.progress import RunState, Snapshot
from drpo.report.page import render_report
from drpo.run_view import read_view

REPORT_NAME = "report.html"


def write_report(path: Path) -> Path:
    """The report of the run in `path`, written there as report.html.

    Raises InputError where there is no run, one of a newer drpo, or a damaged one; StorageError where the
    file cannot be written.
    """
    view, now_s = read_view(path), time.time()
    file = path / REPORT_NAME
    page = render_report(view, written_s=now_s, state=state_of(view.progress, now_s))
    try:
        replace_file(file, page)
    except OSError as error:
        raise StorageError(f"{file}: cannot be written: {error.strerror}. Free or unlock the disk") from None
    return file


def state_of(progress: Snapshot | None, now_s: float) -> RunState | None:
    """How a run stands by its last snapshot; None where nothing tells, also of one that stopped silently."""
    if progress is None:
        return None
    if progress.state in ("running", "stopping") and not progress.is_alive(now_s):
        return None
    return progress.state


def replace_file(file: Path, text: str) -> None:
    """`file` holds `text`, or what it held before: then OSError is raised.

    The disk is not waited for: a page can be made again.
    """
    temporary = temporary_of(file, os.getpid())
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_of(file: Path, pid: int) -> Path:
    """What `file` is called while the process `pid` writes it."""
    return file.with_name(f".{file.name}.{pid}.tmp")
