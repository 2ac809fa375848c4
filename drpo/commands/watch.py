"""drpo watch"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from drpo.commands.display import last_seen, render, state_words
from drpo.commands.painter import Painter, draws_on, terminal_size
from drpo.commands.progress_lines import state_line
from drpo.commands.terminal import print_json, safe
from drpo.commands.where import find_run
from drpo.errors import InputError
from drpo.progress import PROGRESS_NAME, SCHEMA, Snapshot, read_progress
from drpo.run_dir import read_run

_EVERY_S = 1.0  # as often as a run renews its progress
_JUST_BEGUN_S = 10.0  # a run that is younger than this may have no progress yet
_RESUMES = "The run's command, given again, resumes it."
_NEXT = {
    "finished": "drpo show prints the result.",
    "budget": "The run's command, given again with a higher --max-calls or --max-usd, resumes it.",
    "interrupted": _RESUMES,
    "failed": f"Its run.log says why. {_RESUMES}",
}


@click.command("watch")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Print the state one time, as plain text.")
@click.option("--json", "as_json", is_flag=True, help="Print the state one time, as one JSON document.")
def command(run: Path, once: bool, as_json: bool) -> None:
    """Show where a run of another process stands (a directory, or a name inside the runs folder), until it
    ends. Ctrl-C ends the watching only.

    Where stdout is no terminal: a line when a level is done.
    """
    try:
        path = find_run(run)
        read_run(path)
        snapshot = _progress(path)
        if as_json:
            alive = snapshot.is_alive(time.time())
            print_json({"schema": SCHEMA, **asdict(snapshot), "alive": alive})
        elif once:
            width, _ = terminal_size(sys.stdout)
            click.echo(render(snapshot, width, time.time()).plain)
            _say_what_next(snapshot)
        elif draws_on(sys.stdout, os.environ):
            _draw(path, snapshot)
        else:
            _print_lines(path, snapshot)
    except KeyboardInterrupt:
        click.echo("\nNo longer watched; the run is left alone.")  # nothing has failed


def _progress(path: Path) -> Snapshot:
    """The first look at it. Raises InputError where there is nothing to see."""
    file = path / PROGRESS_NAME
    snapshot = read_progress(file)
    if snapshot is not None:
        return snapshot
    if file.exists():
        raise InputError(f"{file}: expected the progress of a run; use the drpo that wrote it")
    if time.time() - (path / "run.json").stat().st_mtime < _JUST_BEGUN_S:
        raise InputError(f"{path}: no progress yet, the run has only just begun: try again in a second")
    raise InputError(
        f"{path}: expected a run that keeps {PROGRESS_NAME}, found none: it ended before its first level, or "
        f"another version of drpo made it. drpo show prints its result. {_RESUMES}"
    )


def _states(path: Path, first: Snapshot) -> Iterator[Snapshot]:
    """The state once a second, to the last one of a run that ends or whose process is gone."""
    snapshot = first
    while True:
        yield snapshot
        if not snapshot.is_alive(time.time()):
            return
        time.sleep(_EVERY_S)
        snapshot = read_progress(path / PROGRESS_NAME) or snapshot


def _draw(path: Path, first: Snapshot) -> None:
    painter = Painter(sys.stdout)
    if hasattr(signal, "SIGCONT"):  # back in the foreground (fg): the shell has written below the display
        signal.signal(signal.SIGCONT, lambda *_: painter.forget())
    for snapshot in _states(path, first):
        columns, lines = painter.size
        painter.draw(render(snapshot, columns, time.time(), lines - 1))
        last = snapshot
    _say_what_next(last)


def _print_lines(path: Path, first: Snapshot) -> None:
    levels, said = -1, ""
    for snapshot in _states(path, first):
        if snapshot.said and snapshot.said != said:
            click.echo(safe(snapshot.said))
        if snapshot.levels != levels:
            click.echo(state_line(snapshot))
        levels, said = snapshot.levels, snapshot.said
        last = snapshot
    word, _ = state_words(last, time.time())
    click.echo(f"{word}. {_what_next(last)}")


def _say_what_next(snapshot: Snapshot) -> None:
    if said := _what_next(snapshot):
        click.echo(f"\n{said}")


def _what_next(snapshot: Snapshot) -> str:
    """What can be done now; nothing while the run goes on."""
    now_s = time.time()
    if snapshot.is_alive(now_s):
        return ""
    if snapshot.state in _NEXT:
        return _NEXT[snapshot.state]
    return f"Last seen {last_seen(snapshot, now_s)}: its process is gone or hangs. {_RESUMES}"
