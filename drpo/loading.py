"""An alignment together with the templates that it was searched with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from drpo.alignment import Alignment, read_alignment, template_digest
from drpo.compose import RESPOND_TEMPLATES
from drpo.errors import InputError
from drpo.run_dir import read_inputs
from drpo.run_file import RUN_NAME, read_run
from drpo.templates import Templates


def load_alignment(path: Path, prompts: Path | None = None) -> tuple[Alignment, Templates]:
    """The alignment of a run directory or file, and the templates it was searched with: the run's own (a run
    directory has them), those beside it (of a shared one), those of `prompts`, or the shipped ones.

    Raises InputError where there is no alignment, and where none of these templates is the one of the search.
    """
    alignment = read_alignment(path)
    for templates in _candidates(path, prompts):
        if template_digest(templates, alignment.prompt_form) == alignment.template_digest:
            return alignment, templates
    raise InputError(
        f"{path}: was searched with another {RESPOND_TEMPLATES[alignment.prompt_form]} than "
        f"{'the shipped one' if prompts is None else f'that of {prompts} and the shipped one'}; name its "
        "templates folder (--prompts, or prompts= in Python)"
    )


def _candidates(path: Path, prompts: Path | None) -> Iterator[Templates]:
    if path.is_dir() and (path / RUN_NAME).exists() and read_run(path):
        yield read_inputs(path).templates
    elif (beside := path / "prompts").is_dir():  # as `drpo pull` leaves it
        yield Templates(beside)
    if prompts is not None:
        yield Templates(prompts)
    yield Templates()
