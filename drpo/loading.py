"""An alignment together with the templates that it was searched with."""

from __future__ import annotations

from pathlib import Path

from drpo.alignment import Alignment, read_alignment, template_digest
from drpo.compose import RESPOND_TEMPLATES
from drpo.errors import InputError
from drpo.run_dir import read_inputs
from drpo.run_file import RUN_NAME, read_run
from drpo.templates import Templates


def load_alignment(path: Path, prompts: Path | None = None) -> tuple[Alignment, Templates]:
    """The alignment of a run directory or file, and its templates: those of `prompts`, else the run's own
    (a run directory has them), else the shipped ones.

    Raises InputError where there is none, and where these templates are not those of the search.
    """
    alignment = read_alignment(path)
    if prompts is not None:
        templates = Templates(prompts)
    else:
        inside = path.is_dir() and (path / RUN_NAME).exists()
        templates = read_inputs(path).templates if inside and read_run(path) else Templates()
    if template_digest(templates, alignment.prompt_form) != alignment.template_digest:
        raise InputError(
            f"{path}: was searched with another {RESPOND_TEMPLATES[alignment.prompt_form]} than the one at "
            "hand; name its templates folder (--prompts, or prompts= in Python)"
        )
    return alignment, templates
