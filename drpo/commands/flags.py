"""The flags that every command has which begins a run: where settings come from, and what is printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from drpo.config import RunConfig
from drpo.options import settings_flags

F = TypeVar("F", bound=Callable[..., Any])


def run_flags(
    kind: type[RunConfig],
    *,
    as_json: str = "Print one JSON document.",
) -> Callable[[F], F]:
    """Adds --config, --json (`as_json` is its help), --quiet, --dry-run and a flag for each setting of
    `kind`."""
    options = [
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            envvar="DRPO_CONFIG",
            help="TOML file with settings.",
        ),
        click.option("--json", "as_json", is_flag=True, envvar="DRPO_JSON", help=as_json),
        click.option("--quiet", is_flag=True, envvar="DRPO_QUIET", help="No progress on stderr."),
        click.option(
            "--dry-run", is_flag=True, help="Print what it would do, take and cost, and send nothing."
        ),
    ]

    def decorate(function: F) -> F:
        function = settings_flags(kind)(function)
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
