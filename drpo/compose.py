"""The only renderer: (system prompt, shots, query) -> what the base model reads.

Search, evaluation, serving and export all go through `Composer`, so that what was optimized is what is used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from drpo.llm.base import Message, Request
from drpo.templates import Templates
from drpo.types import Example

PromptForm = Literal["chat", "text", "chat-without-system"]
TEXT_STOP = ("\n# Query",)  # where a base model that goes on with the page begins the next question itself
RESPOND_TEMPLATES: dict[PromptForm, str] = {
    "chat": "respond_chat.j2",
    "text": "respond_text.j2",
    "chat-without-system": "respond_chat.j2",
}
# What a page has behind an answer: the next question, or another answer, headings of a line of their own. The
# first is a stop sequence too, but not every server obeys, and some give the sequence back.
_ANSWER_ENDS = re.compile(r"(?:^|\n)# (?:Query|Answer)[^\S\n]*(?:\n|$)")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model is asked to sample. Temperature 0 is greedy; None leaves a field to the endpoint."""

    temperature: float | None = 0.0
    top_p: float | None = None
    max_tokens: int | None = 2048


@dataclass(frozen=True, slots=True)
class Composer:
    """Renders in one form: "chat" as messages, "text" as a page that a base model continues.

    "chat-without-system" is for models that know no system role: the system prompt begins the first user
    message. cut: what a base model writes behind the end of its answer is no part of it.
    """

    templates: Templates
    form: PromptForm
    cut: bool = True

    def messages(self, system_prompt: str, shots: Sequence[Example], query: str) -> tuple[Message, ...]:
        """System message, then a user and an assistant message per shot, nearest first, then the query.

        Without a system role the first user message begins with the system prompt and a blank line.
        """

        opening = _opening(self.templates, system_prompt, tuple(shots))
        turns = (*opening, Message("user", _part(self.templates, "user", query)))
        if self.form == "chat-without-system":
            system, first, *others = turns
            return (Message("user", f"{system.content}\n\n{first.content}"), *others)
        return turns

    def answer(self, written: str) -> str:
        """The answer in a model's text: of a page, what stands before the next question or answer."""
        if self.form != "text" or not self.cut:
            return written
        return _ANSWER_ENDS.split(written, maxsplit=1)[0].rstrip()

    def text(self, system_prompt: str, shots: Sequence[Example], query: str) -> str:
        """The page for a base model; its answer begins where the page ends."""
        return self.templates.render("respond_text", system_prompt=system_prompt, shots=shots, query=query)

    def request(
        self, model: str, sampling: Sampling, system_prompt: str, shots: Sequence[Example], query: str
    ) -> Request:
        """The request to the base model named `model` (its identity)."""
        is_text = self.form == "text"
        return Request(
            model,
            messages=() if is_text else self.messages(system_prompt, shots, query),
            prompt=self.text(system_prompt, shots, query) if is_text else None,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop=TEXT_STOP if is_text else (),
            role="base",
        )


@lru_cache(maxsize=256)
def _opening(templates: Templates, system_prompt: str, shots: tuple[Example, ...]) -> tuple[Message, ...]:
    """The messages before the query, which are the same for all queries with these shots."""
    turns = [Message("system", _part(templates, "system", system_prompt))]
    for shot in shots:
        turns.append(Message("user", _part(templates, "user", shot.query)))
        turns.append(Message("assistant", _part(templates, "assistant", shot.response)))
    return tuple(turns)


def _part(templates: Templates, macro: str, text: str) -> str:
    """One part of a chat."""
    return templates.render_macro("respond_chat", macro, text)
