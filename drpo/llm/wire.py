"""What goes over the wire to an OpenAI-compatible server, and what comes back: bodies, choices, usage."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from drpo.llm.base import Choice, Request, Usage


def body_of(request: Request, model_name: str) -> dict[str, object]:
    """The JSON body of a request; `model_name` is what the server calls the model."""
    body: dict[str, object] = {"model": model_name}
    if request.prompt is None:
        body["messages"] = [{"role": m.role, "content": m.content} for m in request.messages]
    else:
        body["prompt"] = request.prompt
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.max_completion_tokens is not None:
        body["max_completion_tokens"] = request.max_completion_tokens
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if request.n != 1:
        body["n"] = request.n
    if request.reply_schema is not None:
        schema = {"name": "reply", "schema": _schema(request.reply_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


@lru_cache(maxsize=64)
def _schema(text: str) -> Any:
    return json.loads(text)


def choice_of(item: object, *, chat: bool) -> Choice | None:
    """One choice of a reply; None where it has no text."""
    if not isinstance(item, dict):
        return None
    text = item.get("text")
    if chat:
        if not isinstance(message := item.get("message"), dict):
            return None
        text = message.get("content")
        if text is None:
            text = message.get("refusal")
        if isinstance(text, list):  # parts, as some reasoning models send: thinking and text
            text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict))
    if text is None and ("message" if chat else "text") in item:
        text = ""
    if not isinstance(text, str):
        return None
    reason = item.get("finish_reason")
    return Choice(valid_unicode(text), reason if isinstance(reason, str) and reason else "stop")


def valid_unicode(text: str) -> str:
    """`text`, half surrogate pairs (an emoji cut in two by a token limit) replaced: no file can hold them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def usage_of(value: object) -> Usage:
    """The tokens that a reply tells, 0 where it tells none."""

    def count(facts: object, name: str) -> int | None:
        number = facts.get(name) if isinstance(facts, dict) else None
        return number if isinstance(number, int) and number >= 0 else None

    details = value.get("prompt_tokens_details") if isinstance(value, dict) else None
    cached = count(details, "cached_tokens")
    return Usage(count(value, "prompt_tokens") or 0, count(value, "completion_tokens") or 0, cached)
