"""drpo bpo train"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drpo.commands.running import tell
from drpo.commands.terminal import print_json, safe
from drpo.config_training import BpoTrainConfig, TrainingConfig
from drpo.options import settings_flags
from drpo.settings import environment, resolve
from drpo.training.supervised import train_bpo

_FLAGS = (
    *("data", "base", "epochs", "learning_rate", "accumulate", "warmup", "max_length"),
    *TrainingConfig.__annotations__,
    *("random_seed", "prompts"),
)


@click.command("train", epilog="Every flag is also a variable: --epochs is DRPO_EPOCHS.")
@settings_flags(BpoTrainConfig, _FLAGS)
@click.option("-o", "given_out", type=click.Path(path_type=Path), metavar="FOLDER", help="The same as --out.")
@click.option(
    "--config", type=click.Path(path_type=Path), envvar="DRPO_CONFIG", help="TOML file with settings."
)
@click.option("--json", "as_json", is_flag=True, envvar="DRPO_JSON", help="Print what it came to as JSON.")
@click.option("--quiet", is_flag=True, envvar="DRPO_QUIET", help="No progress on stderr.")
def command(given_out: Path | None, config: Path | None, as_json: bool, quiet: bool, **flags: Any) -> None:
    """Train a rewriter on pairs of a prompt and its optimized form (BPO), by supervised fine-tuning.

    Needs drpo[train]. The same command run again resumes from the last checkpoint. On several GPUs:
    accelerate launch -m drpo bpo train ... The result is used as --rewriter bpo/FOLDER.
    """
    if given_out is not None:
        flags["out"] = given_out
    settings = resolve(BpoTrainConfig, flags, environment(), config)
    trained = train_bpo(settings, (lambda said: None) if quiet else tell)
    if as_json:
        print_json(trained.facts)
    elif not quiet:
        if trained.before:
            click.echo("It was trained already; nothing was done.", err=True)
        click.echo(safe(f"written: {trained.out}  (--rewriter bpo/{trained.out})"), err=True)
