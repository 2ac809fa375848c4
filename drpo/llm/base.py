"""The door to every model: one request, one completion, one method; and the key that identifies a request."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

ChatRole = Literal["system", "user", "assistant"]
Role = Literal["base", "optimizer", "evaluator", "selector", "against", "judge", "rewriter"]
"""Who is asked. against: the base model of the other side of a comparison, where it is another one. rewriter:
who puts a user's query in other words before the base model reads it."""
ROLES: tuple[Role, ...] = ("base", "optimizer", "evaluator", "selector", "against", "judge", "rewriter")
SEARCH_ROLES: tuple[Role, ...] = ROLES[:4]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: ChatRole
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One call to a model: chat messages, or a prompt to continue (`prompt` not None, messages empty).

    None for a sampling field means: not sent, the endpoint's own default. `n` choices are wanted. `sample` is
    never sent: it tells samples of one question apart at a model that takes no `seed`. `reply_schema` is the
    JSON schema of the reply as text, in one spelling; None: free text.
    `max_completion_tokens` is what reasoning models take instead of `max_tokens`; it counts their thinking.
    `role`, `priority` (lower goes first when slots are short) and `again` (it was sent before, and failed)
    steer drpo only and are not part of the request's identity; `tests/test_request_key.py` holds every field
    to one of the two sides.
    """

    model: str
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    sample: int | None = None
    n: int = 1
    reply_schema: str | None = None
    role: Role = "base"
    priority: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One reply text. `finish_reason`: stop, length, content_filter, context_length or the server's own."""

    text: str
    finish_reason: str = "stop"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call; `cached` of the prompt's came from the server's prefix cache (None: not told).

    A sum counts what was told: some servers are silent about a call that found nothing in their cache.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None

    def __add__(self, other: Usage) -> Usage:
        told = [usage.cached_tokens for usage in (self, other) if usage.cached_tokens is not None]
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            sum(told) if told else None,
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back: at least one choice, at most `Request.n` (some endpoints ignore n).

    turned_away: an HTTP error in truth, so nobody charges for it; known when it comes, and not recorded.
    """

    choices: tuple[Choice, ...]
    usage: Usage = field(default_factory=Usage)
    served_model: str = ""
    turned_away: bool = field(default=False, compare=False)


@runtime_checkable
class LLM(Protocol):
    """Anything that answers requests. Raises a `DrpoError` where the boundary is broken, not for bad text."""

    async def complete(self, request: Request) -> Completion: ...


def identity(request: Request) -> dict[str, Any]:
    """The fields that change the reply, and nothing else, as plain JSON values; unset ones are left out."""
    facts: dict[str, Any] = {"model": request.model}
    if request.prompt is None:
        facts["messages"] = [[m.role, m.content] for m in request.messages]
    else:
        facts["prompt"] = request.prompt
    optional = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
        "max_completion_tokens": request.max_completion_tokens,
        "seed": request.seed,
        "sample": request.sample,
    }
    facts.update({name: value for name, value in optional.items() if value is not None})
    for name in ("temperature", "top_p"):
        if name in facts:
            facts[name] = float(facts[name])  # 0 and 0.0 are one question, but two texts
    if request.stop:
        facts["stop"] = list(request.stop)
    if request.n != 1:
        facts["n"] = request.n
    if request.reply_schema is not None:  # as a digest: it stands beside every recorded reply
        facts["reply_schema"] = hashlib.sha256(request.reply_schema.encode()).hexdigest()[:16]
    return facts


def request_key(request: Request) -> str:
    """64 hex digits that are equal exactly when two requests ask the same question in the same way."""
    text = json.dumps(identity(request), ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
