"""How many tokens a text has, as far as its length tells.

At least as many as the tersest reading of prose makes of it; at most as many as it has bytes, since no
tokenizer makes more. What a model wrote has at most the tokens that it could write: that another model's
tokenizer may count it otherwise is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence

from drpo.estimate.habits import Habits
from drpo.estimate.ranges import Range
from drpo.llm.base import Request, Role
from drpo.llm.metered import TOKENS_A_MESSAGE, TOKENS_A_REQUEST
from drpo.plan import RunPlan
from drpo.templates import Templates
from drpo.types import Example

CHARACTERS_PER_TOKEN_AT_MOST = 6.5
"""The most that o200k_base, cl100k_base and Mistral's tokenizer came to in any text of a search: 6.38."""
LEAST_REPLY = 8
"""Tokens of the shortest reply that can be read: one aspect with its score."""
LONGEST_PROBLEM = 400
"""Bytes of what a repair says was wrong, at most: excerpts of a reply are cut to 80 characters."""
_X = "x"  # stands for a text that is not known yet


def text_tokens(text: str, characters_per_token: float) -> Range:
    """The tokens of a text by itself."""
    least = len(text) / CHARACTERS_PER_TOKEN_AT_MOST
    return Range(least, len(text) / characters_per_token, len(text.encode("utf-8", "replace")))


def prompt_tokens(texts: Sequence[str], messages: int, habits: Habits) -> Range:
    """A prompt of these texts, with the marks of its messages and what a server may add."""
    marks = Range(0, habits.marks * messages, TOKENS_A_MESSAGE * messages + TOKENS_A_REQUEST)
    return text_tokens("".join(texts), habits.characters_per_token) + marks


def request_tokens(request: Request, habits: Habits) -> Range:
    """What a request has a model read; at most with the schema of its reply."""
    texts = [message.content for message in request.messages]
    texts += [] if request.prompt is None else [request.prompt]
    schema = len((request.reply_schema or "").encode("utf-8", "replace"))
    return prompt_tokens(texts, len(request.messages), habits) + Range(0, 0, schema)


def repair_tokens(templates: Templates, habits: Habits, reply: Range) -> Range:
    """What each unreadable reply, of that length, adds to the request that asks for it again."""
    asking = prompt_tokens([templates.render("repair", problem=_X)], 2, habits)
    return asking + Range(0, 20, LONGEST_PROBLEM) + reply


def longest_reply(plan: RunPlan, role: Role) -> int | None:
    """The most tokens of one choice; None for a model that takes no limit where --max-thinking-tokens sets
    none either."""
    config = plan.config
    limit: int = config.max_tokens
    if role in ("base", "against"):
        limit = getattr(config, "base_max_tokens", limit)
    if not thinks(plan, role):
        return limit
    return None if config.max_thinking_tokens is None else limit + config.max_thinking_tokens


def thinks(plan: RunPlan, role: Role) -> bool:
    """Whether the role's model is known to take no limit but one that counts its thinking."""
    entry = plan.models[role].entry
    return entry is not None and "max_tokens" in entry.refuses


def shots_by_length(examples: Sequence[Example], shots: int) -> tuple[tuple[Example, ...], ...]:
    """So many examples each: the shortest ones, those nearest to the mean length, and the longest ones."""

    def size(example: Example) -> int:
        return len((example.query + example.response).encode("utf-8", "replace"))

    ordered = sorted(examples, key=size)
    mean = sum(map(size, ordered)) / max(1, len(ordered))
    usual = sorted(ordered, key=lambda example: abs(size(example) - mean))
    return tuple(ordered[:shots]), tuple(usual[:shots]), tuple(ordered[len(ordered) - shots :])
