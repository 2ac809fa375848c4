"""`drpo export`: from settings to the files of a target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from drpo.compose import Composer, PromptForm, Sampling
from drpo.config_use import UseConfig
from drpo.errors import InputError, StorageError
from drpo.exporting.content import render_content
from drpo.exporting.context import keep_what_fits
from drpo.exporting.export import Export, Made
from drpo.exporting.named import NamedModel, named_model
from drpo.exporting.shots import choose_shots
from drpo.exporting.targets import target_named
from drpo.jsonl import write_atomically
from drpo.measuring.subject import Subject, read_subject

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. use: commands, or what to do in words. notes: what the files do not hold."""

    files: tuple[Path, ...]
    use: tuple[str, ...]
    notes: tuple[str, ...]


async def export_alignment(
    alignment: str,
    target: str,
    config: UseConfig,
    environment: Mapping[str, str],
    *,
    folder: Path | None = None,
    shots_for: str | None = None,
    tokenizer: str | None = None,
) -> Exported:
    """Write `alignment` (a run, a file, none or urial) for `target`, a name of `TARGETS`.

    folder: default one named after both, in the current one. Shots that the context of the named model has
    no room for are left out, and a note says so. Raises InputError where the target cannot hold the
    alignment, the context not even its system prompt, and where a file is there that holds something else;
    nothing is written then.
    """
    subject = read_subject(alignment, "the alignment", config)
    folder = folder or Path(f"{_label(subject)}-{target}")
    shown = await choose_shots(subject, shots_for, environment)
    chosen = tuple(subject.examples[index] for index in shown.indices)
    form = _form(config, subject)
    composer = Composer(subject.templates, form, cut=subject.answer_end == "cut")
    _refuse_halves(subject.system_prompt, *(part for shot in chosen for part in (shot.query, shot.response)))
    model = named_model(config.model, subject.found_for)
    kept = await keep_what_fits(subject, composer, chosen, shots_for, config, model, environment)
    shots = kept.shots
    export = Export(
        subject,
        composer,
        shots,
        render_content(composer, subject.system_prompt, shots),
        Sampling(config.temperature, config.top_p, config.base_max_tokens),
        model,
        tokenizer,
        config.vllm_arg,
        folder,
        (shown.first(len(shots)).note, *kept.notes, *_model_notes(subject, model, form)),
        environment,
    )
    made = target_named(target).make(export)
    return Exported(write_files(folder, made), made.use, (*export.notes, *made.notes))


def _form(config: UseConfig, subject: Subject) -> PromptForm:
    wanted = subject.prompt_form if config.prompt_form == "auto" else config.prompt_form
    return "chat" if wanted == "auto" else wanted


def _model_notes(subject: Subject, model: NamedModel | None, form: PromptForm) -> tuple[str, ...]:
    """Notes where an alignment was found with simulated models, or is written for another than it was found
    for."""
    notes: list[str] = []
    if subject.simulated:
        notes.append("Found with simulated models; it says nothing about real ones.")
    own = named_model(None, subject.found_for)
    if model is not None and subject.found_for is not None and (own is None or model.name != own.name):
        notes.append(f"Found for {subject.found_for}, written for {model.name}, asked in the form {form}.")
    return tuple(notes)


def _label(subject: Subject) -> str:
    path = Path(subject.name)
    name = (
        path.resolve().parent.name
        if path.name == "alignment.json"
        else path.stem
        if path.is_file()
        else path.resolve().name
    )
    return _NOT_IN_NAMES.sub("-", name).strip("-.") or "alignment"


def _refuse_halves(*texts: str) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"the alignment has half a surrogate pair (U+{ord(text[error.start]):04X}) near "
                f"{text[max(error.start - 20, 0) : error.start]!r}, which no file can hold; mend it there"
            ) from None


def write_files(folder: Path, made: Made) -> tuple[Path, ...]:
    """The files in `folder`, which is made where it is not there. Raises InputError, before anything is
    written, where there is a file of that name that holds something else."""
    paths = [(folder / name, text) for name, text in made.files]
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"-o {folder}: expected a folder, found a file; name another")
        for path, text in paths:
            if path.exists() and (path.is_dir() or path.read_bytes() != text.encode("utf-8")):
                raise InputError(
                    f"{path}: is there with other content, and nothing is written over; name another -o"
                )
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be written: {error.strerror}. Free or unlock the disk"
        ) from None
    for path, text in paths:
        write_atomically(path, text)
    return tuple(path for path, _ in paths)
