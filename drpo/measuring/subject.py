"""What is measured: a way of asking a base model, from a run, a file or by the name of a baseline."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from drpo.alignment import FILE_NAME, AnswerEnd, template_digest
from drpo.compose import PromptForm
from drpo.config import INITIAL_PROMPT
from drpo.config_asking import NONE, URIAL, AnswererConfig
from drpo.data import read_examples
from drpo.errors import InputError
from drpo.loading import load_alignment
from drpo.measured import is_measurement
from drpo.plan import digest_of
from drpo.resources import resource_folder
from drpo.run_file import RUN_NAME
from drpo.templates import Templates
from drpo.types import Example

URIAL_SHOTS = 3


@dataclass(frozen=True, slots=True)
class Subject:
    """A system prompt with its examples. shots: how many are shown with a query, the nearest ones by
    `embedder`; with an empty `embedder` the first ones, the same for every query.

    name: as the user gave it. prompt_form: "auto" where no search has settled it. found_for: the base model
    that it was searched for, None for a baseline. is_own: it comes with the run that found it.
    """

    name: str
    system_prompt: str
    examples: tuple[Example, ...]
    shots: int
    embedder: str
    templates: Templates
    prompt_form: PromptForm | Literal["auto"] = "auto"
    answer_end: AnswerEnd = "cut"
    found_for: str | None = None
    is_own: bool = False
    simulated: bool = False

    @property
    def digest(self) -> str:
        """Tells apart what makes other requests."""
        return digest_of(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for the record of a run."""
        shown = [asdict(example) for example in self.examples] if self.shots else []
        forms: tuple[PromptForm, ...] = ("chat", "text")
        return {
            "system_prompt": self.system_prompt,
            "examples": shown,
            "shots": self.shots,
            "embedder": self.embedder,
            "prompt_form": self.prompt_form,
            "answer_end": self.answer_end,
            "templates": [template_digest(self.templates, form) for form in forms],
        }

    def as_json(self) -> str:
        """The text of a file that keeps it."""
        return json.dumps({"name": self.name, **self.as_dict()}, ensure_ascii=False, indent=2) + "\n"


def read_subject(name: str, flag: str, config: AnswererConfig) -> Subject:
    """The subject that `name` means: none, urial, a run (a directory, or a name in the runs folder) or an
    alignment file. flag: the setting that names it, for errors (InputError)."""
    if name in (NONE, URIAL) and not Path(name).exists():
        return _with_shots(_baseline(name, config), flag, config)
    path = Path(name)
    if not path.exists() and len(path.parts) == 1:
        path = config.runs_dir / name
    if not path.exists():
        raise InputError(
            f"{flag} {name}: expected a run, an alignment file, {NONE} or {URIAL}, found nothing of that name"
            f" here or in {config.runs_dir}/"
        )
    _refuse_what_is_none(path, name, flag)
    alignment, templates = load_alignment(path, config.prompts)
    subject = Subject(
        name=name,
        system_prompt=alignment.system_prompt,
        examples=alignment.examples,
        shots=alignment.shots,
        embedder=config.embedder or alignment.embedder,
        templates=templates,
        prompt_form=alignment.prompt_form,
        answer_end=alignment.answer_end,
        found_for=alignment.models.get("base"),
        is_own=(path / RUN_NAME).exists(),
        simulated=alignment.simulated,
    )
    return _with_shots(subject, flag, config)


def _refuse_what_is_none(path: Path, name: str, flag: str) -> None:
    """A folder without an alignment is told by what it is."""
    if not path.is_dir() or (path / FILE_NAME).exists():
        return
    if not (path / RUN_NAME).exists():
        raise InputError(f"{flag} {name}: expected a run or an alignment file, found a folder that is none")
    if is_measurement(path):
        raise InputError(f"{flag} {name}: expected a run of optimize, found a measurement")


def _baseline(name: str, config: AnswererConfig) -> Subject:
    templates = Templates(config.prompts)
    if name == NONE:
        return Subject(NONE, INITIAL_PROMPT, (), 0, "", templates)
    folder = resource_folder("icl_examples")
    prompt = (folder / "urial_prompt.txt").read_text(encoding="utf-8").rstrip("\n")
    examples = read_examples(folder / "urial.jsonl").examples
    return Subject(URIAL, prompt, examples, URIAL_SHOTS, "", templates)


def _with_shots(subject: Subject, flag: str, config: AnswererConfig) -> Subject:
    """The subject with as many shots as the settings say."""
    if config.shots is None:
        return subject
    if config.shots > len(subject.examples):
        raise InputError(
            f"--shots {config.shots}: {flag} {subject.name} has {len(subject.examples)} examples; ask for "
            "fewer shots"
        )
    return replace(subject, shots=config.shots)
