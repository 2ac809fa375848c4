"""What goes over the wire to an OpenAI-compatible server, and what comes back: bodies, choices, usage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import encode_basestring_ascii as json_text  # what json.dumps makes of a text
from operator import attrgetter
from typing import Any

from drpo.llm.base import Choice, Request, Usage

_SETTINGS = (
    *("temperature", "top_p", "max_tokens", "max_completion_tokens"),
    *("stop", "seed", "n", "reply_schema"),
)
"""Fields of a request that are sent, but for what is said."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a streamed reply. finish_reason: with the last text; usage: where the server tells it."""

    text: str
    finish_reason: str | None = None
    usage: Usage | None = None


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


def encoded(request: Request, model_name: str) -> bytes:
    """`body_of` as JSON, all ASCII. What stands in many requests, as shots do, is written once."""
    if request.prompt is not None:
        return json.dumps(body_of(request, model_name)).encode("ascii")
    head = _head(model_name, *_settings_of(request))
    said = [
        (_message if len(m.content) <= _LONGEST_KEPT else _message.__wrapped__)(m.role, m.content)
        for m in request.messages
    ]
    return f'{head}, "messages": [{", ".join(said)}]}}'.encode("ascii")


_settings_of = attrgetter(*_SETTINGS)


@lru_cache(maxsize=256, typed=True)  # or true would stand where 1 was asked for
def _head(model_name: str, *settings: Any) -> str:
    """What all requests of a kind have in common, as the beginning of an object."""
    body = body_of(Request("", prompt="", **dict(zip(_SETTINGS, settings, strict=True))), model_name)
    del body["prompt"]
    return json.dumps(body)[:-1]


_LONGEST_KEPT = 8192  # characters of a message whose JSON is remembered


@lru_cache(maxsize=1024)
def _message(role: str, content: str) -> str:
    # Texts by themselves are quick: for an object, json makes an encoder.
    return f'{{"role": {json_text(role)}, "content": {json_text(content)}}}'


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
    if not isinstance(value, dict):
        return Usage()
    cached = _count(value.get("prompt_tokens_details"), "cached_tokens")
    return Usage(_count(value, "prompt_tokens") or 0, _count(value, "completion_tokens") or 0, cached)


def _count(facts: object, name: str) -> int | None:
    number = facts.get(name) if isinstance(facts, dict) else None
    return number if isinstance(number, int) and number >= 0 else None


def piece_of(event: dict[str, Any], *, chat: bool) -> Piece:
    """What one event of a stream adds to the reply."""
    told = event.get("usage")
    usage = usage_of(told) if isinstance(told, dict) else None
    choices = event.get("choices")
    item = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(item, dict):
        return Piece("", None, usage)
    if not chat:
        text = item.get("text")
    elif isinstance(delta := item.get("delta"), dict):
        text = delta.get("content") or delta.get("refusal")
    else:
        text = None
    if not isinstance(text, str):
        text = ""
    elif not text.isascii():
        text = valid_unicode(text)
    reason = item.get("finish_reason")
    return Piece(text, reason if isinstance(reason, str) and reason else None, usage)
