"""Alignments that are hard to write down, and what the search would have sent for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drpo import load
from drpo.alignment import Alignment, Found, template_digest
from drpo.compose import PromptForm, Sampling
from drpo.templates import Templates
from drpo.types import Example

# What means something to Jinja, Nunjucks, Go, YAML, Python, a shell or a parser of lines.
PRINTED = (
    "One\r\nTwo\tthree {{ x }} {% endraw %}{% raw %} {# c #} }} %} #} -#} {{{ {{{{ ''' ' \" \"\" \\ \\n"
    " \\u0041 $HOME `id` $(id) ! # : - & * @ % </s> <|end|> 子 é 😀 ---\n\n# Query\n: a\n \n"
)
UNPRINTED = " \u2028 \u00a0 \u200d \x07 \x1b[31m \x85 \ufeff {"
SYSTEM = f"Be kind. {PRINTED}{UNPRINTED}"
QUERY = "How do I fix a leaking tap?"
"""Near to the fourth example and then the second, by their words."""


def examples(hard: str = PRINTED + UNPRINTED) -> tuple[Example, ...]:
    return (
        Example("Tell me a story about whales", f"Once. {hard}"),
        Example(f"My tap is leaking water, help {hard}", f"Close the valve. {hard}"),
        Example("Who wrote Hamlet?", "Shakespeare."),
        Example("Fix a leaking roof, water comes in", "file:///etc/hostname"),
    )


def alignment(form: PromptForm = "chat", *, hard: str = PRINTED + UNPRINTED, **fields: Any) -> Alignment:
    """An alignment of two shots, found lexically for a model at a server."""
    known: dict[str, Any] = {
        "system_prompt": f"Be kind. {hard}",
        "examples": examples(hard),
        "shots": 2,
        "prompt_form": form,
        "embedder": "lexical",
        "models": {"base": "vllm/some/model"},
        "sampling": Sampling(),
        "template_digest": template_digest(Templates(), form),
        "found": Found({}, None, (), 1, 1, "converged", {}),
        "answer_end": "cut",
    }
    return Alignment(**{**known, **fields})


def written(folder: Path, form: PromptForm = "chat", **fields: Any) -> Path:
    """The same in a file named after its form."""
    path = folder / f"{form}.json"
    alignment(form, **fields).save(path)
    return path


def searched_messages(path: Path, query: str = QUERY) -> list[dict[str, str]]:
    """The chat that the search sends for `query`."""
    return load(path).messages(query)


def searched_page(path: Path, query: str = QUERY) -> str:
    """The page that the search sends for `query`."""
    return load(path).prompt(query)
