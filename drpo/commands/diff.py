"""drpo diff"""

from __future__ import annotations

from pathlib import Path

import click

from drpo.commands.diff_sides import read_side
from drpo.commands.diff_text import compare, comparison_json, comparison_lines, warnings_about
from drpo.commands.terminal import print_json
from drpo.errors import InputError


@click.command("diff")
@click.argument("run_a", type=click.Path(path_type=Path))
@click.argument("run_b", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(run_a: Path, run_b: Path, as_json: bool) -> None:
    """Compare the results of two runs (directories, names inside the runs folder, or alignment files).

    Shows what differs in the prompt, the examples, the settings, models and inputs, and the figures of both.
    Of a run that has not finished, its best so far. In texts, [-removed-] is in the first only and {+added+}
    in the second. Exit code 0 whether or not they differ.
    """
    a, b = read_side(run_a), read_side(run_b)
    if a.command != b.command:
        raise InputError(
            f"{a.name} is of drpo {a.command} and {b.name} of drpo {b.command}: a prompt and examples' "
            "responses cannot be compared; give two runs of one command"
        )
    for warning in warnings_about(a, b):
        click.echo(f"warning: {warning}", err=True)
    comparison = compare(a, b)
    if as_json:
        print_json(comparison_json(comparison))
        return
    click.echo("\n".join(comparison_lines(comparison)))
