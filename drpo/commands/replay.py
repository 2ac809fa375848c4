"""drpo replay"""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from drpo.commands.show import print_alignment
from drpo.commands.where import find_run
from drpo.config import parse_overrides
from drpo.errors import GateRefused
from drpo.replay import ReplayReport, replay_run


@click.command("replay")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Another setting, such as width=3.")
@click.option("--json", "as_json", is_flag=True, help="Print the result of a changed replay as JSON.")
def command(run_dir: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """Run a recorded run again from its replies alone: no socket is opened, no file changed.

    With --set, the search goes as far as the recorded replies reach.
    """
    report = asyncio.run(replay_run(find_run(run_dir), parse_overrides(list(settings))))
    if report.missed:
        raise GateRefused(_missing(report))
    if report.identical is None:
        click.echo(f"replayed with other settings: {report.levels} levels, {report.calls} recorded calls", err=True)
        if report.result is not None:
            print_alignment(report.result, as_json=as_json)
        return
    if report.differing:
        raise GateRefused(f"{report.run_dir}: not identical: {', '.join(report.differing)} came out differently")
    click.echo(f"identical: {report.levels} levels, {report.calls} recorded calls, no request sent")


def _missing(report: ReplayReport) -> str:
    click.echo(f"replayed {report.levels} levels from {report.calls} recorded calls; then these are missing:")
    for request in report.missed:
        last = request.prompt if request.prompt is not None else request.messages[-1].content
        click.echo(f"  {request.role} ({request.model}): {' '.join(last.split())[:100]!r}")
    return (
        f"{report.run_dir}: {len(report.missed)} calls of the next level were never recorded; "
        "what follows from them cannot be known"
    )
