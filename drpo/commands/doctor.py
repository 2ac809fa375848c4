"""drpo doctor"""

from __future__ import annotations

import asyncio
import os
import textwrap
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from drpo.commands.terminal import print_json, safe
from drpo.config import OptimizeConfig
from drpo.doctor.check import SEVERITY, Check, of_error
from drpo.doctor.examine import Findings, examine
from drpo.doctor.prepare import Sources
from drpo.errors import (
    BudgetSpent,
    DrpoError,
    InputError,
    ProviderDown,
    ProviderRefused,
    RecordDamaged,
    RunConflict,
    StorageError,
)
from drpo.options import settings_flags
from drpo.settings import environment

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
_INDENT = " " * 9
_MEANINGS = {
    InputError: "settings",
    RunConflict: "run directory",
    StorageError: "disk",
    RecordDamaged: "damaged record",
    ProviderRefused: "refused by a provider",
    ProviderDown: "out of reach",
    BudgetSpent: "limit reached",
    DrpoError: "a bug of drpo",
}


def _exit_codes() -> str:
    """What the exit code says, in the order in which a run would meet the problems."""
    meanings = {kind.exit_code: said for kind, said in _MEANINGS.items()}
    codes = ", ".join(f"{code} {meanings[code]}" for code in SEVERITY)
    said = (
        "Exit codes: 0 where nothing is a problem (warnings are none); else the one that a run would end "
        f"with, the first of {codes}."
    )
    return f"\b\n{textwrap.fill(said, 76)}\n"


@click.command("doctor", epilog=_exit_codes())
@click.option(
    "--config", type=click.Path(path_type=Path), envvar="DRPO_CONFIG", help="TOML file with settings."
)
@click.option("--offline", "--no-requests", "offline", is_flag=True, help="Send nothing at all.")
@click.option(
    "--load-embedder", is_flag=True, help="Load a local embedding model and ask it, which takes a while."
)
@click.option(
    "--json", "as_json", is_flag=True, envvar="DRPO_JSON", help="Print one JSON document with all checks."
)
@click.option("--model", help="The base model, as for `drpo optimize`; without it the rest is looked at.")
@settings_flags(OptimizeConfig, [name for name in OptimizeConfig.model_fields if name != "model"])
def command(config: Path | None, offline: bool, load_embedder: bool, as_json: bool, **flags: Any) -> None:
    """Check what `drpo optimize` with the same flags would need, before it is begun.

    Settings and files, keys (never shown), endpoints, the embedder, vLLM and its GPUs, the run's directory
    and limits, trackers, the disk: a line each, and what to do where something is wrong. Each endpoint and
    model is sent one tiny request, which may take --timeout-s, at most 30 s. No server is started and no run
    is begun.
    """
    sources, checks = _sources(flags, config)
    findings = asyncio.run(examine(sources, requests=not offline, load=load_embedder))
    findings = replace(findings, checks=(*checks, *findings.checks))
    if as_json:
        print_json(_as_json(findings))
    else:
        _print(findings)
    click.get_current_context().exit(findings.exit_code)


def _sources(flags: dict[str, Any], config: Path | None) -> tuple[Sources, tuple[Check, ...]]:
    """Where settings come from; a `.env` that cannot be read is set aside."""
    try:
        return Sources(flags, environment(), config), ()
    except InputError as error:
        return Sources(flags, dict(os.environ), config), (of_error("settings", error, "Mend or move it"),)


def _print(findings: Findings) -> None:
    for check in findings.checks:
        status = click.style(f"{check.status:<8}", fg=_COLOURS[check.status])
        click.echo(f"{status} {_line(check.name)}: {_line(check.said)}")
        if check.remedy:
            click.echo(f"{_INDENT}-> {_line(check.remedy)}")
    if findings.simulated:
        click.echo("Models named demo are simulated: their figures say nothing about real models.")
    counts = Counter(check.status for check in findings.checks)
    ended = f": a run would end with exit code {findings.exit_code}" if counts["problem"] else ""
    click.echo(f"{_counted(counts['problem'], 'problem')}, {_counted(counts['warning'], 'warning')}{ended}")


def _line(text: str) -> str:
    return safe(" ".join(text.split()))


def _counted(number: int, thing: str) -> str:
    return f"{number or 'no'} {thing}{'' if number == 1 else 's'}"


def _as_json(findings: Findings) -> dict[str, Any]:
    return {
        "exit_code": findings.exit_code,
        "requests": findings.sent,
        "simulated": findings.simulated,
        "checks": [asdict(check) for check in findings.checks],
    }
