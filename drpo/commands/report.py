"""drpo report"""

from __future__ import annotations

import time
import webbrowser
from pathlib import Path

import click

from drpo.commands.terminal import safe
from drpo.commands.where import open_run
from drpo.errors import InputError, StorageError
from drpo.run_view import RunView

_PAGE_BEGINS = b"<!doctype html"


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--open", "is_opened", is_flag=True, help="Open it in the browser.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write it here (default: report.html in the run)."
)
def command(run: Path, is_opened: bool, out: Path | None) -> None:
    """Write the report of a run (a directory, or a name inside the runs folder) anew and print its path.

    One HTML file that needs no network; also of a run that is under way.
    """
    view = open_run(run)
    from drpo.report import write_report  # here: --help needs no templates

    file = write_report(view.path) if out is None else _write_to(view, out)
    click.echo(safe(str(file)))
    if is_opened and not _opened(file):
        click.echo("no browser could be opened here: open the file in one", err=True)


def _write_to(view: RunView, out: Path) -> Path:
    """The report in another file, which may be an earlier page and nothing else."""
    from drpo.report import render_report
    from drpo.report.files import replace_file, state_of

    try:
        if out.is_dir():
            raise InputError(f"--out {out}: expected a file, found a folder; name a file in it")
        if out.exists() and not _is_page(out):
            raise InputError(f"--out {out}: there is such a file and it is no report; name another")
        now_s = time.time()
        replace_file(out, render_report(view, written_s=now_s, state=state_of(view.progress, now_s)))
    except FileNotFoundError:
        raise InputError(f"--out {out}: its folder is not there; make it, or name another file") from None
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error.strerror}. Free or unlock the disk") from None
    return out


def _is_page(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(_PAGE_BEGINS)).lower() == _PAGE_BEGINS


def _opened(file: Path) -> bool:
    try:
        return webbrowser.open(file.resolve().as_uri())
    except (webbrowser.Error, OSError):
        return False
