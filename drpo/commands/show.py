"""drpo show"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.alignment import FILE_NAME, Alignment, read_alignment
from drpo.commands.examples_table import print_examples
from drpo.commands.terminal import print_json, safe
from drpo.commands.where import find_run
from drpo.results import read_examples_result
from drpo.run_dir import read_run


@click.command("show")
@click.argument("run_or_file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(run_or_file: Path, as_json: bool) -> None:
    """Print the result of a run (a directory, or a name inside the runs folder) or of an alignment file."""
    found = find_run(run_or_file)
    if found.is_dir() and not (found / FILE_NAME).exists():
        run = read_run(found)
        if run["identity"]["command"] == "optimize-examples":
            print_examples(read_examples_result(found), as_json)
            return
    print_alignment(read_alignment(found), as_json=as_json)


def print_alignment(alignment: Alignment, *, as_json: bool) -> None:
    """The result on stdout, for people or as JSON."""
    if as_json:
        print_json(summary(alignment))
        return
    found = alignment.found
    rewards = " ".join(f"{reward:.2f}" for reward in found.path_rewards) or "-"
    score = "not scored" if found.path_score is None else f"{found.path_score:.4f}"
    calls = ", ".join(f"{role} {count}" for role, count in found.calls.items())
    click.echo(safe(alignment.system_prompt))
    click.echo()
    click.echo(f"path score  {score} (rewards, 1 to 5: {rewards})")
    click.echo(f"searched    {found.levels} levels, {found.nodes} nodes; ended: {explain_end(found.ended)}")
    click.echo(f"calls       {calls}")
    click.echo(
        f"shots       {alignment.shots} of {len(alignment.examples)} examples, found by {alignment.embedder}"
    )
    click.echo(f"model       {alignment.models.get('base', '-')}, asked as {alignment.prompt_form}")
    if alignment.simulated:
        click.echo("Simulated models: these figures say nothing about real ones.")


def summary(alignment: Alignment) -> dict[str, Any]:
    """What `--json` prints."""
    found = alignment.found
    return {
        "system_prompt": alignment.system_prompt,
        "path_score": found.path_score,
        "path_rewards": list(found.path_rewards),
        "nodes": found.nodes,
        "levels": found.levels,
        "ended": found.ended,
        "calls": found.calls,
        "shots": alignment.shots,
        "examples": len(alignment.examples),
        "prompt_form": alignment.prompt_form,
        "embedder": alignment.embedder,
        "models": alignment.models,
        "simulated": alignment.simulated,
        "settings": found.settings["settings"],
    }


def explain_end(ended: str) -> str:
    """Why the search ended, in words."""
    return {
        "depth": "the limit of levels was reached",
        "queries": "there was no further seed query",
        "stalled": "on three levels in a row no proposal could be evaluated; this is the best so far",
        "patience": "no gain for as many levels as --patience allows",
        "perfect": "every score was the highest",
    }.get(ended, ended)
