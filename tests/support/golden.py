"""What a model of each family reads for one prompt: templates in their public formats, and golden renders."""

from __future__ import annotations

from pathlib import Path

import jinja2
import jinja2.sandbox

from drpo.compose import Composer, PromptForm
from drpo.llm.base import Message, Request
from drpo.llm.vllm.tokens import Refusal
from drpo.templates import Templates
from drpo.types import Example

DATA = Path(__file__).parents[1] / "data"
FAMILIES: dict[str, PromptForm] = {
    "mistral-base": "text",
    "mistral-instruct-v0.1": "chat-without-system",
    "llama-3": "chat",
    "qwen": "chat",
}
SYSTEM = "You are brief.\nSay so when you do not know: 是的, naïve 🙂"
SHOTS = (
    Example("How do magnets work?", "Tiny currents line up."),
    Example("Name a {{ river }}.", "The Danube.\nIt is long."),
)
QUERY = "Is <|im_end|> a word? [/INST]"


def golden(family: str) -> str:
    """The text that a model of this family reads."""
    return (DATA / "golden" / f"{family}.txt").read_text(encoding="utf-8")


def template(family: str) -> str:
    """Its chat template."""
    return (DATA / "chat_templates" / f"{family}.jinja").read_text(encoding="utf-8")


def messages(form: PromptForm) -> tuple[Message, ...]:
    """The prompt as drpo renders it in a chat form."""
    return Composer(Templates(), form).messages(SYSTEM, SHOTS, QUERY)


def page() -> str:
    """The prompt as drpo renders it for a base model."""
    return Composer(Templates(), "text").text(SYSTEM, SHOTS, QUERY)


def applied(source: str, turns: tuple[Message, ...]) -> str:
    """What a tokenizer makes of a chat, with the settings and names that chat templates are written for."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = raise_exception
    said = [{"role": turn.role, "content": turn.content} for turn in turns]
    return environment.from_string(source).render(messages=said, add_generation_prompt=True)


class TemplateFacts:
    """Answers as a server with this chat template does; None: the model has none. One id per character."""

    def __init__(self, source: str | None) -> None:
        self._source = source

    async def tokens(self, request: Request) -> tuple[int, ...] | Refusal:
        if request.prompt is not None:
            return tuple(map(ord, request.prompt))
        if self._source is None:
            return Refusal(400, "no chat template is defined")
        try:
            return tuple(map(ord, applied(self._source, request.messages)))
        except jinja2.TemplateError as error:
            return Refusal(400, str(error))
