"""What every target is given and what it gives back."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drpo.compose import Composer, Sampling
from drpo.errors import InputError
from drpo.exporting.content import Content
from drpo.exporting.named import NamedModel
from drpo.llm.wire import body_of
from drpo.measuring.subject import Subject
from drpo.types import Example

LOOPBACK = "http://127.0.0.1:8000/v1"
"""Where `vllm serve` listens if nothing else is said."""


@dataclass(frozen=True, slots=True)
class Export:
    """An alignment with its fixed shots, rendered. model: None where nobody has named one that exists outside
    of drpo. tokenizer: as given. folder: where the files go. notes: what holds for every target."""

    subject: Subject
    composer: Composer
    shots: tuple[Example, ...]
    content: Content
    sampling: Sampling
    model: NamedModel | None
    tokenizer: str | None
    vllm_args: tuple[str, ...]
    folder: Path
    notes: tuple[str, ...]
    environment: Mapping[str, str]

    def named(self) -> NamedModel:
        """The model. Raises InputError where there is none to be named."""
        if self.model is not None:
            return self.model
        made_for = self.subject.found_for
        came = f"was found for {made_for}, which no other tool knows" if made_for else "was made for no model"
        raise InputError(f"{self.subject.name} {came}; name the model of the export: --model NAME")

    def parameters(self) -> dict[str, Any]:
        """Temperature and the like as drpo sends them to this model, in the words of the OpenAI API."""
        name = self.named().name
        request = self.composer.request(name, self.sampling, "", (), "")
        refused = {
            field: None for field in ("temperature", "top_p", "max_tokens") if field in self.named().refuses
        }
        body = body_of(replace(request, **refused), name)  # type: ignore[arg-type]
        return {key: value for key, value in body.items() if key not in ("model", "messages", "prompt")}

    def path(self, name: str) -> str:
        """A file of the export, as a shell takes it."""
        return shlex.quote(str(self.folder / name))


@dataclass(frozen=True, slots=True)
class Made:
    """The files of an export by their names, what to do with them, and what the target cannot hold."""

    files: tuple[tuple[str, str], ...]
    use: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A tool that an alignment can be written for. holds: in a few words, what of it."""

    name: str
    holds: str
    make: Callable[[Export], Made]


def refuse_text_form(export: Export, target: str, instead: str) -> None:
    """Nothing, unless the alignment is asked as a page, which `target` cannot hold."""
    if export.content.form == "text":
        raise InputError(
            f"--to {target}: holds chats, and {export.subject.name} is asked as a page that a base model "
            f"continues (form text); use --to {instead}"
        )


def chat_messages(export: Export) -> list[dict[str, str]]:
    """The messages before the query, as the OpenAI API takes them."""
    return [{"role": turn.role, "content": turn.content} for turn in export.content.turns]


ANSWER_NOTE = (
    "The server stops at the next question; drpo also cuts an answer at a further heading '# Answer' that a "
    "server has let through."
)


def answer_notes(export: Export) -> tuple[str, ...]:
    """What is lost where a page is asked for and the answer is not cut by drpo."""
    is_cut = export.content.form == "text" and export.subject.answer_end == "cut"
    return (ANSWER_NOTE,) if is_cut else ()
