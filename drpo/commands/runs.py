"""drpo runs"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from drpo.commands.terminal import columns, line_of, print_json
from drpo.commands.where import runs_folder
from drpo.errors import InputError
from drpo.money import dollars
from drpo.run_file import RUN_NAME
from drpo.run_list import RunEntry, list_runs

_HEADINGS = ("run", "state", "best", "gain", "validated", "cost", "age", "model")
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_LEAST_MODEL = 12
_ORDERS: dict[str, Callable[[RunEntry], Any]] = {
    "age": lambda run: -run.changed_s,
    "name": lambda run: run.name,
    "best": lambda run: -_or_least(run.best),
    "gain": lambda run: -_or_least(run.gain),
    "validated": lambda run: -_or_least(run.validated),
    "cost": lambda run: -_or_least(None if run.usd is None else run.usd + run.held_usd),
}


@click.command("runs")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--sort",
    type=click.Choice(list(_ORDERS)),
    default="age",
    show_default=True,
    help="The newest, or the highest, first.",
)
@click.option("--limit", type=click.IntRange(min=1), help="So many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(folder: Path | None, sort: str, limit: int | None, as_json: bool) -> None:
    """List the runs in FOLDER (default: DRPO_RUNS_DIR, or runs): state, best reward, gain, cost, age, model.

    best: the path score of the best prompt, or the mean reward of the examples; gain: how much more that is
    than the reward of the start. validated: what the result gains on queries that the search
    never saw, 0 where it is the initial prompt. cost: a range where requests got no answer and may have been
    charged. age: since the run was at work. A star marks simulated models.
    """
    where = runs_folder() if folder is None else folder
    now_s = time.time()
    runs = _runs(where, now_s, must_be_there=folder is not None)
    runs = sorted(runs, key=_ORDERS[sort])[:limit]  # stable: equal ones stay the newest first
    if not runs:
        click.echo(f"no runs in {line_of(str(where))}: drpo optimize makes one", err=True)
    if as_json:
        print_json([_row_json(run, now_s) for run in runs])
    elif runs:
        click.echo("\n".join(_lines(runs, now_s)))


def _runs(where: Path, now_s: float, *, must_be_there: bool) -> Sequence[RunEntry]:
    if not where.is_dir():
        if must_be_there or where.exists():
            raise InputError(
                f"{where}: expected a folder of runs, found {'a file' if where.exists() else 'none'}"
            )
        return ()
    runs = list_runs(where, now_s)
    if not runs and (where / RUN_NAME).is_file():
        raise InputError(f"{where}: is a run itself; drpo show {where} prints it")
    return runs


def _or_least(value: float | None) -> float:
    return float("-inf") if value is None else value


def _lines(runs: Sequence[RunEntry], now_s: float) -> list[str]:
    rows = [_row(run, now_s) for run in runs]
    lines = columns(_HEADINGS, rows, right=("best", "gain", "validated", "cost", "age"))
    if not sys.stdout.isatty():
        return lines  # there is somebody who searches it: nothing is cut
    import shutil  # here, as the next: to import them takes as long as to read a hundred runs

    from drpo.commands.change_lines import cells, cut

    width = shutil.get_terminal_size().columns
    before = max(cells(line) - cells(row[-1]) for line, row in zip(lines[1:], rows, strict=True))
    room = max(width, before + _LEAST_MODEL)
    return [lines[0], *(cut(line, room) for line in lines[1:])]


def _row(run: RunEntry, now_s: float) -> tuple[str, ...]:
    about = run.problem if run.problem is not None else run.model + (" *" if run.simulated else "")
    return (
        line_of(run.name),
        line_of(run.state),
        "-" if run.best is None else f"{run.best:.2f}",
        "-" if run.gain is None else f"{run.gain:+.2f}",
        "-" if run.validated is None else f"{run.validated:+.2f}",
        _cost(run),
        _age(now_s - run.changed_s) if run.changed_s else "-",
        line_of(about),
    )


def _cost(run: RunEntry) -> str:
    if run.problem is not None:
        return "-"
    if run.usd is None:
        return "unknown"
    least = dollars(run.usd)
    most = dollars(run.usd + run.held_usd)
    return least if least == most else f"{least} to {most}"


def _age(seconds: float) -> str:
    """In the largest unit of which there is one."""
    for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _row_json(run: RunEntry, now_s: float) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": str(run.path),
        "command": run.command or None,
        "model": run.model or None,
        "simulated": run.simulated,
        "state": run.state,
        "best": run.best,
        "start_reward": run.start_reward,
        "gain": run.gain,
        "validated": run.validated,
        "usd": run.usd,
        "held_usd": run.held_usd,
        "calls": run.calls,
        "age_s": max(0.0, now_s - run.changed_s) if run.changed_s else None,
        "problem": run.problem,
    }
