"""drpo push"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from drpo.commands.terminal import line_of, safe
from drpo.commands.where import find_run
from drpo.errors import InputError
from drpo.measured import is_measurement
from drpo.run_file import RUN_NAME

if TYPE_CHECKING:
    from drpo.alignment import Alignment
    from drpo.sharing.folder import Files

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


@click.command("push")
@click.argument("alignment", type=click.Path(path_type=Path))
@click.argument("repository", metavar="USER/REPO")
@click.option("--public", is_flag=True, help="Everybody can see it; without this only you can.")
@click.option("--license", "licence", metavar="ID", help="For the card, such as apache-2.0. Not given: none.")
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="Templates of an alignment file that has others."
)
@click.option("--yes", is_flag=True, help="Upload without asking, for scripts.")
@click.option("--dry-run", is_flag=True, help="Write the folder here and send nothing.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="With --dry-run: this folder.  [REPO]")
def command(
    alignment: Path,
    repository: str,
    public: bool,
    licence: str | None,
    prompts: Path | None,
    yes: bool,
    dry_run: bool,
    out: Path | None,
) -> None:
    """Upload ALIGNMENT (a run or an alignment file) to a Hugging Face repository, with a model card.

    Says what goes where and asks first. Uploaded are the alignment with its examples, the templates that
    render it, and the card; no record, no seeds, nothing that a model answered in the search, no addresses.
    Token: HF_TOKEN, or hf auth login.
    """
    from drpo.loading import load_alignment
    from drpo.settings import environment
    from drpo.sharing.card import card_text
    from drpo.sharing.folder import shared_files, write_folder
    from drpo.sharing.hub import Hub, has_token, repository_name
    from drpo.sharing.private import without_private

    repository_name(repository)
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise InputError(
            f"--license {licence[:100]}: expected an identifier of the hub, such as apache-2.0 or mit"
        )
    if out is not None and not dry_run:
        raise InputError("-o is for --dry-run, which writes the folder; without it nothing is written")
    found = find_run(alignment)
    if found.is_dir() and (found / RUN_NAME).exists() and is_measurement(found):
        raise InputError(
            f"{found}: expected a search or an alignment, found a measurement; name its alignment"
        )
    env = environment()
    hub = Hub(env)
    original, templates = load_alignment(found, prompts)
    shared = without_private(original)
    files = shared_files(shared, templates, card_text(shared, repository, licence), str(found))
    _tell(shared, files, hub.url_of(repository), public=public)
    if shared != original:
        click.echo("Left out: addresses of servers and folders of this machine.", err=True)
    if dry_run:
        folder = out or Path(repository.partition("/")[2])
        write_folder(files, folder)
        click.echo(f"Nothing was sent. Written: {safe(str(folder))}", err=True)
        return
    if not (yes or _is_agreed()):
        click.echo("Nothing was sent.", err=True)
        return
    if not has_token(env):
        raise InputError("no token for the hub: set HF_TOKEN, or run hf auth login; nothing was sent")
    pushed = hub.push(repository, files, public=public)
    click.echo(pushed.url)
    click.echo(f"commit {line_of(pushed.commit)}; others: drpo pull {repository}", err=True)


def _tell(alignment: Alignment, files: Files, url: str, *, public: bool) -> None:
    """What would be uploaded and where, on stderr, where the question follows."""
    seen = "public: everybody can see it" if public else "private: only you and your organization can see it"
    click.echo(f"to   {safe(url)} ({seen})", err=True)
    for name, content in files.items():
        click.echo(f"     {name:<24}{len(content):>10,} bytes", err=True)
    click.echo(
        f"with the system prompt ({len(alignment.system_prompt):,} characters), {len(alignment.examples)} "
        "examples with their responses, the prompts compared with it, settings, names of models, figures.",
        err=True,
    )
    if alignment.simulated:
        click.echo("The card says first that its models are simulated.", err=True)


def _is_agreed() -> bool:
    """The user's answer; InputError where nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InputError(
            "nothing was sent: uploading needs a yes, and there is no terminal to ask on; give --yes, or "
            "look first with --dry-run"
        )
    return click.confirm("Upload this?", default=False, err=True)
