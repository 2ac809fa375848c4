"""drpo pull"""

from __future__ import annotations

from pathlib import Path

import click

from drpo.commands.result_text import SIMULATED
from drpo.commands.terminal import line_of, safe


@click.command("pull")
@click.argument("repository", metavar="USER/REPO")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The folder to write.  [REPO]")
@click.option("--revision", help="A branch, tag or commit.  [main]")
def command(repository: str, out: Path | None, revision: str | None) -> None:
    """Fetch an alignment that was shared with `drpo push`, check it, and say how to use it.

    Only the files of a shared alignment are taken, and no program: a template that could do more than render
    is refused. Token, where the repository is private: HF_TOKEN, or hf auth login.
    """
    from drpo.settings import environment
    from drpo.sharing.card import model_to_name
    from drpo.sharing.folder import PROMPTS_FOLDER, check_files, needs_prompts, write_folder
    from drpo.sharing.hub import Hub, repository_name

    name = repository_name(repository).partition("/")[2]
    pulled = Hub(environment()).pull(repository, revision)
    alignment = check_files(pulled.files, repository)
    folder = out or Path(name)
    is_new = write_folder(pulled.files, folder)
    click.echo(safe(str(folder)))
    click.echo(
        f"{'written' if is_new else 'unchanged, it was here already'}: {safe(str(folder))}, commit "
        f"{line_of(pulled.commit)}" + (f"; {pulled.left} other files were left there" if pulled.left else ""),
        err=True,
    )
    base, embedder = alignment.models.get("base", "-"), alignment.embedder
    click.echo(
        line_of(
            f"found for {base}; {alignment.shots} of {len(alignment.examples)} examples, found by {embedder}"
        ),
        err=True,
    )
    if alignment.simulated:
        click.echo(SIMULATED, err=True)
    more = "" if (model := model_to_name(alignment)) is None else f" --model {model}"
    more += f" --prompts {folder / PROMPTS_FOLDER}" if needs_prompts(folder) else ""
    click.echo(safe(f"drpo show {folder}; drpo chat {folder}{more}"), err=True)
