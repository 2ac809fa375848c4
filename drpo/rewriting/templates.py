"""The requests to rewriters, as text: `prompts/rewrite/*.j2`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from drpo.templates import TemplateFolder

FOLDER = "rewrite"
VARIABLES: dict[str, tuple[str, ...]] = {
    "build": ("instruction", "context", "good_response", "bad_response", "protected"),
    "improve": ("query", "mode"),
    "apply": ("query",),
    "prompter": ("query",),
}
Mode = Literal["stable", "aggressive"]


class RewriteTemplates:
    """The four templates of `folder`/rewrite, read and checked as a `TemplateFolder` is.

    build: a preference pair to an optimized instruction (BPO). improve: a query by instruction alone. apply:
    what a trained model reads and was trained on. prompter: the reference prompter of Align-Pro.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._files = TemplateFolder(folder, FOLDER, VARIABLES)

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
        return self._files.render(
            "build",
            instruction=instruction,
            context=context,
            good_response=good_response,
            bad_response=bad_response,
            protected=tuple(protected),
        )

    def improve(self, query: str, mode: Mode = "stable") -> str:
        """The request to rewrite a query; the reply is JSON with "analysis" and "rewritten_query"."""
        return self._files.render("improve", query=query, mode=mode)

    def apply(self, query: str) -> str:
        """What a trained rewriter continues; its reply is the new query alone."""
        return self._files.render("apply", query=query).rstrip("\n")

    def prompter(self, query: str) -> str:
        """The request to the reference prompter; its reply is the new query alone."""
        return self._files.render("prompter", query=query)

    def digests(self) -> dict[str, str]:
        """ "rewrite/FILE" -> first 16 hex digits of the SHA-256 of its text, for the record of a run."""
        return self._files.digests()

    def source(self, name: str) -> str:
        """The text of a template file, without mark and carriage returns."""
        return self._files.source(name)
