"""The requests to rewriters, as text: `prompts/rewrite/*.j2`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jinja2

from drpo.errors import InputError
from drpo.resources import resource_folder
from drpo.templates import UNUSABLE, compiled, read_source, refuse_misnamed

FOLDER = "rewrite"
VARIABLES: dict[str, tuple[str, ...]] = {
    "build": ("instruction", "context", "good_response", "bad_response", "protected"),
    "improve": ("query", "mode"),
    "apply": ("query",),
    "prompter": ("query",),
}
Mode = Literal["stable", "aggressive"]


class RewriteTemplates:
    """The four templates of `folder`/rewrite; what it lacks comes from the shipped ones.

    build: a preference pair to an optimized instruction (BPO). improve: a query by instruction alone. apply:
    what a trained model reads and was trained on. prompter: the reference prompter of Align-Pro. Each file is
    read once and checked before the first call: an `InputError` names the file and the line.
    """

    def __init__(self, folder: Path | None = None) -> None:
        shipped = resource_folder("prompts") / FOLDER
        own = None if folder is None else folder / FOLDER
        self._folders = [own, shipped] if own is not None and own.is_dir() else [shipped]
        names = [f"{job}.j2" for job in VARIABLES]
        refuse_misnamed(self._folders[0], [*names, ""])
        self._sources = {name: read_source(self._path(name)) for name in names}
        self._jobs = {job: self._load(job, variables) for job, variables in VARIABLES.items()}

    def build(
        self,
        instruction: str,
        good_response: str,
        bad_response: str,
        context: str = "",
        protected: Sequence[str] = (),
    ) -> str:
        """The request to compare two responses and to rewrite their instruction; the reply is JSON with
        "analysis" and "optimized_instruction"."""
        return self._render(
            "build",
            instruction=instruction,
            context=context,
            good_response=good_response,
            bad_response=bad_response,
            protected=tuple(protected),
        )

    def improve(self, query: str, mode: Mode = "stable") -> str:
        """The request to rewrite a query; the reply is JSON with "analysis" and "rewritten_query"."""
        return self._render("improve", query=query, mode=mode)

    def apply(self, query: str) -> str:
        """What a trained rewriter continues; its reply is the new query alone."""
        return self._render("apply", query=query).rstrip("\n")

    def prompter(self, query: str) -> str:
        """The request to the reference prompter; its reply is the new query alone."""
        return self._render("prompter", query=query)

    def digests(self) -> dict[str, str]:
        """ "rewrite/FILE" -> first 16 hex digits of the SHA-256 of its text, for the record of a run."""
        return {
            f"{FOLDER}/{name}": hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
            for name, text in self._sources.items()
        }

    def source(self, name: str) -> str:
        """The text of a template file, without mark and carriage returns."""
        return self._sources[name]

    def _path(self, name: str) -> Path:
        return next((f / name for f in self._folders if (f / name).is_file()), self._folders[-1] / name)

    def _render(self, job: str, **values: object) -> str:
        try:
            return self._jobs[job].render(**values)
        except UNUSABLE as error:
            given = ", ".join(sorted(values))
            raise InputError(f"{self._path(job + '.j2')}: {error} (given: {given})") from error

    def _load(self, job: str, variables: tuple[str, ...]) -> jinja2.Template:
        path = self._path(f"{job}.j2")
        try:
            return compiled(self._sources[path.name], variables)
        except jinja2.TemplateSyntaxError as error:
            raise InputError(f"{path}:{error.lineno}: {error.message}") from error
