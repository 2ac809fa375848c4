"""drpo align-pro train"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.commands.running import tell
from drpo.commands.terminal import print_json, safe
from drpo.config_training import AlignProTrainConfig
from drpo.options import settings_flags
from drpo.settings import environment, resolve
from drpo.training.align_pro import train_align_pro

_NOT_FLAGS = {"roles", "runs_dir", "name", "run_dir"}  # the record of a training lies in its own folder
_FLAGS = tuple(name for name in AlignProTrainConfig.model_fields if name not in _NOT_FLAGS)


@click.command("train", epilog="Every flag is also a variable: --lambda is DRPO_LAMBDA.")
@settings_flags(AlignProTrainConfig, _FLAGS)
@click.option("-o", "given_out", type=click.Path(path_type=Path), metavar="FOLDER", help="The same as --out.")
@click.option(
    "--config", type=click.Path(path_type=Path), envvar="DRPO_CONFIG", help="TOML file with settings."
)
@click.option("--json", "as_json", is_flag=True, envvar="DRPO_JSON", help="Print what it came to as JSON.")
@click.option("--quiet", is_flag=True, envvar="DRPO_QUIET", help="No progress on stderr.")
def command(given_out: Path | None, config: Path | None, as_json: bool, quiet: bool, **flags: Any) -> None:
    """Train a prompter before a frozen model, by policy gradient for the reward of that model's answers, with
    the KL to the prompter as it was weighed by lambda (Align-Pro).

    Needs drpo[train]. The same command run again resumes from the last checkpoint and asks nothing twice. On
    several GPUs: accelerate launch -m drpo align-pro train ... The result is used as --rewriter
    align-pro/FOLDER. Keys as for optimize: OPENAI_API_KEY, or DRPO_BASE_API_KEY for a model named by @URL.
    """
    if given_out is not None:
        flags["out"] = given_out
    env = environment()
    settings = resolve(AlignProTrainConfig, flags, env, config)
    trained = train_align_pro(settings, env, (lambda said: None) if quiet else tell)
    if as_json:
        print_json(trained.facts)
    elif not quiet:
        if trained.before:
            click.echo("It was trained already; nothing was done.", err=True)
        click.echo(safe(f"written: {trained.out}  (--rewriter align-pro/{trained.out})"), err=True)
