"""drpo replay"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from drpo.commands.show import print_alignment, summary
from drpo.commands.terminal import print_json, safe
from drpo.commands.where import find_run
from drpo.errors import GateRefused
from drpo.replaying import ReplayReport, replay_run
from drpo.settings import parse_overrides


@click.command("replay")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Another setting, such as width=3."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as one JSON document.")
def command(run_dir: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """Run a recorded run again from its replies alone: no socket is opened, no file changed.

    With --set, the search goes as far as the recorded replies reach.
    """
    overrides = parse_overrides(list(settings))
    report = asyncio.run(replay_run(find_run(run_dir), overrides))
    if as_json:
        print_json(_as_json(report))
    else:
        _print(report, changed=bool(overrides))
    if report.differing:
        files = ", ".join(str(report.run_dir / name) for name in report.differing)
        raise GateRefused(
            f"not identical: {files}: what is written there is not what the recorded calls lead to. "
            "The file was edited, or written by another version of drpo"
        )
    if report.missing or report.unknown:
        raise GateRefused(_refusal(report, changed=bool(overrides)))


def _print(report: ReplayReport, *, changed: bool) -> None:
    reached = f"{_counted(report.levels, 'level')}, {_counted(report.calls, 'recorded call')}"
    if report.missing:
        click.echo(f"replayed {reached}; then these calls are missing:")
        for call in report.missing:
            click.echo(safe(f"  {call.role + ':':<10} {call.about}"))
    elif report.unknown:
        click.echo(f"replayed {reached}; then {report.unknown}")
    elif changed:
        click.echo(f"replayed with other settings: {reached}, no request sent", err=True)
        if report.result is not None:
            print_alignment(report.result, as_json=False)
    elif report.identical:
        click.echo(f"identical: {reached}, no request sent")
        for name in report.unwritten:
            click.echo(f"not written to its end yet: {name} (the run's command writes it)")


def _refusal(report: ReplayReport, *, changed: bool) -> str:
    what = _counted(len(report.missing), "call") if report.missing else "something that the search reads"
    why = (
        "was never recorded, because the run had other settings"
        if changed
        else "is not recorded: the run has not finished (run its command again to resume it)"
    )
    if len(report.missing) > 1:
        why = why.replace("was never", "were never").replace("is not", "are not", 1)
    return f"{report.run_dir}: {what} {why}; what follows from there cannot be known"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _as_json(report: ReplayReport) -> dict[str, Any]:
    return {
        "identical": report.identical,
        "differing": list(report.differing),
        "unwritten": list(report.unwritten),
        "missing": [{"role": c.role, "model": c.model, "about": c.about} for c in report.missing],
        "unknown": report.unknown,
        "levels": report.levels,
        "calls": report.calls,
        "result": None if report.result is None else summary(report.result),
    }
