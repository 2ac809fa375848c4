"""drpo export"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.api import run_async
from drpo.commands.terminal import print_json, safe
from drpo.config_use import UseConfig
from drpo.exporting.exporting import export_alignment
from drpo.exporting.targets import TARGETS
from drpo.options import settings_flags
from drpo.settings import environment, resolve

_SETTINGS = (
    *("model", "shots", "embedder", "prompt_form", "temperature", "top_p", "base_max_tokens"),
    *("long_prompts", "prompts", "vllm_arg", "runs_dir"),
)
_WIDTH = max(len(target.name) for target in TARGETS)
_TARGETS = "\n".join(f"  {target.name:{_WIDTH}}  {target.holds}" for target in TARGETS)


@click.command("export", epilog=f"\b\nWhat each target holds:\n{_TARGETS}")
@click.argument("alignment")
@click.option(
    "--to", "target", type=click.Choice([target.name for target in TARGETS]), required=True, help="The tool."
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder (default: named after alignment and target)."
)
@click.option(
    "--shots-for",
    help="A typical query: its nearest examples are shown with every one (default: the most central).",
)
@click.option(
    "--tokenizer", help="Where the model's own chat template is: a folder, or a repository in the cache."
)
@click.option(
    "--config", type=click.Path(path_type=Path), envvar="DRPO_CONFIG", help="TOML file with settings."
)
@click.option(
    "--json", "as_json", is_flag=True, envvar="DRPO_JSON", help="Print files, use and notes as JSON."
)
@settings_flags(UseConfig, _SETTINGS)
def command(
    alignment: str,
    target: str,
    out: Path | None,
    shots_for: str | None,
    tokenizer: str | None,
    config: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Write ALIGNMENT (a run, an alignment file, none or urial) for another tool.

    Other tools cannot look for the nearest examples of each query: the files hold fixed ones and say so.
    --model may also be a name that only the tool knows, such as llama3.2. Nothing is written over.
    """
    env = environment()
    done = run_async(
        export_alignment(
            alignment,
            target,
            resolve(UseConfig, flags, env, config),
            env,
            folder=out,
            shots_for=shots_for,
            tokenizer=tokenizer,
        )
    )
    if as_json:
        print_json(
            {"files": [str(path) for path in done.files], "use": list(done.use), "notes": list(done.notes)}
        )
        return
    for path in done.files:
        click.echo(f"written: {safe(str(path))}")
    for text in done.use:
        click.echo(f"use: {safe(text)}")
    for note in done.notes:
        click.echo(f"note: {safe(note)}", err=True)
