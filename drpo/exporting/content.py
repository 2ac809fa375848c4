"""What an export holds: the messages before the query and the text around it, as the composer renders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drpo.compose import RESPOND_TEMPLATES, Composer, PromptForm
from drpo.errors import InputError
from drpo.llm.base import Message
from drpo.types import Example

# What may stand at a place and must come out as it is: nothing, blanks at the ends, lines, marks, letters.
_PROBES = ("", "x", "  two\n\nlines\n ", "<b>{{ x }} {% y %}</b> 'a' \"b\" \\n", "Ünï # Query\n# Answer")


@dataclass(frozen=True, slots=True)
class Frame:
    """The fixed text before and after something that is only known later."""

    before: str = ""
    after: str = ""

    def around(self, text: str) -> str:
        """`text` in its place."""
        return self.before + text + self.after

    @property
    def is_empty(self) -> bool:
        """Whether the text stands by itself."""
        return not self.before and not self.after


@dataclass(frozen=True, slots=True)
class Content:
    """A system prompt and fixed shots, rendered, with a place for the query.

    turns: the messages before the one with the query; none in the form "text", whose page is all in `query`.
    query: around the query in the last message, or on the page. user, assistant: around what is said after
    the first answer, in a chat of several turns.
    """

    form: PromptForm
    turns: tuple[Message, ...]
    query: Frame
    user: Frame = Frame()
    assistant: Frame = Frame()

    def messages(self, query: str) -> tuple[Message, ...]:
        """The chat for `query`."""
        return (*self.turns, Message("user", self.query.around(query)))


def render_content(composer: Composer, system_prompt: str, shots: Sequence[Example]) -> Content:
    """The content with these shots, nearest first, whatever the query.

    Raises InputError where the template does more with a query than to put it in a place.
    """
    template = RESPOND_TEMPLATES[composer.form]
    if composer.form == "text":
        page = frame_of(lambda query: composer.text(system_prompt, shots, query), f"the query in {template}")
        return Content("text", (), page)

    def last(query: str) -> str:
        return composer.messages(system_prompt, shots, query)[-1].content

    def said(response: str) -> str:
        return composer.messages("", [Example("", ""), Example("", response)], "")[-2].content

    def asked(query: str) -> str:
        return composer.messages("", [Example("", "")], query)[-1].content

    return Content(
        composer.form,
        composer.messages(system_prompt, shots, "")[:-1],
        frame_of(last, f"the query in {template}"),
        frame_of(asked, f"the query in {template}"),
        frame_of(said, f"the response in {template}"),
    )


def render_own_system(composer: Composer, system_prompt: str, shots: Sequence[Example], query: str) -> Frame:
    """The first message with a place behind the system prompt, a blank line between them. Without a system
    role and without shots, that is the message with `query`. Raises InputError as `render_content`."""

    def first(own: str) -> str:
        return composer.messages(f"{system_prompt}\n\n{own}", shots, query)[0].content

    return frame_of(first, f"the system prompt in {RESPOND_TEMPLATES[composer.form]}")


def frame_of(render: Callable[[str], str], place: str) -> Frame:
    """The text that `render` puts around what it is given. Raises InputError where that depends on what it is
    given, or where it stands there more than once or changed."""
    marker = unused_marker(render(""))
    before, found, after = render(marker).partition(marker)
    frame = Frame(before, after)
    if not found or any(render(probe) != frame.around(probe) for probe in (*_PROBES, marker)):
        raise InputError(
            f"{place}: expected it to stand there once, as it is, since a file can only hold the text around "
            "it; this template does more with it. Use drpo serve, which renders each query"
        )
    return frame


def unused_marker(*texts: str) -> str:
    """A word in capital letters that none of the texts has."""
    number, marker = 1, "QUERY"
    while any(marker in text for text in texts):
        number += 1
        marker = f"QUERY_{number}"
    return marker
