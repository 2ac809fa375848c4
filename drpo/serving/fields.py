"""What a request may hold: the facts that its reader and its published schema share."""

from __future__ import annotations

from typing import Any

ROLES = ("system", "developer", "user", "assistant")
"""Who may speak in a chat; the first two mean the same."""
PARTS = ("text", "refusal")
"""Types of the parts of a message. Each has its text in a field of the same name."""
MOST_MESSAGES = 2048
MOST_STOPS = 4
NUMBERS: dict[str, tuple[int, int]] = {"temperature": (0, 2), "top_p": (0, 1)}
"""Least and greatest of the fields that hold a number."""
WHOLE_NUMBERS: dict[str, tuple[int, int]] = {
    "max_tokens": (1, 2**31 - 1),
    "max_completion_tokens": (1, 2**31 - 1),
    "seed": (-(2**63), 2**63 - 1),
    "n": (1, 128),
}
"""The same of those that hold a whole number; 1.0 is one, as in a JSON schema."""
STREAM_OPTIONS = ("include_usage", "include_obfuscation")
"""The second has no effect: nothing is obfuscated here."""
IGNORED = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "parallel_tool_calls"),
    *("prompt_cache_key", "prompt_cache_retention"),
)
"""What OpenAI's clients send along and what changes no answer here."""
_SAMPLING = ("temperature", "top_p", "max_tokens", "stop", "seed", "n", "stream", "stream_options")
CHAT_FIELDS = ("model", "messages", "max_completion_tokens", *_SAMPLING)
TEXT_FIELDS = ("model", "prompt", *_SAMPLING)
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    **dict.fromkeys(("audio", "prediction", "reasoning_effort", "verbosity", "web_search_options"), ()),
    "modalities": (["text"],),
}
NEUTRAL_CHAT = {**_NEUTRAL, "logprobs": (False,)}
"""What this server cannot do, and the values that ask for nothing; null is always one of them."""
NEUTRAL_TEXT: dict[str, tuple[Any, ...]] = {
    "logprobs": (),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
    **{name: _NEUTRAL[name] for name in ("logit_bias", "presence_penalty", "frequency_penalty")},
}
NEUTRAL_MESSAGE: dict[str, tuple[Any, ...]] = {"tool_calls": ([],), "function_call": ()}
"""The same within a message, whose other fields are not looked at."""


def asks_for_nothing(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Whether a value is null or one of these, as JSON compares them: false is not 0."""
    return value is None or any(
        value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral
    )
