"""JSON schemas of what the server takes and gives, as its OpenAPI document has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drpo.serving import fields

Schema = dict[str, Any]
_NULL: Schema = {"type": "null"}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NO_EFFECT = "Taken, and without effect."
_NOT_DONE = "Not done here: the values that ask for nothing are taken."


def request_schemas(models: Sequence[str], *, takes_system: bool) -> dict[str, Schema]:
    """The bodies of the two requests, by name. models: what is served; takes_system: whether a chat may have
    system messages.

    A body that is valid is not refused for its shape, and one that is not is refused: with 404 for a model
    that is not served, else with 400. What no schema can say is in the description of `messages`.
    """
    roles = [role for role in fields.ROLES if takes_system or role not in ("system", "developer")]
    messages = {
        "type": "array",
        "minItems": 1,
        "maxItems": fields.MOST_MESSAGES,
        "items": {"$ref": "#/components/schemas/Message"},
        "contains": {"type": "object", "properties": {"role": {"const": "user"}}, "required": ["role"]},
        "description": "The first message but for system messages, and the last one, must be the user's.",
    }
    prompt = {
        "description": "The query.",
        "anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 1}],
    }
    return {
        "ChatRequest": _request(models, fields.CHAT_FIELDS, fields.NEUTRAL_CHAT, "messages", messages),
        "CompletionRequest": _request(models, fields.TEXT_FIELDS, fields.NEUTRAL_TEXT, "prompt", prompt),
        "Message": _message(roles),
    }


def _request(
    models: Sequence[str], known: Sequence[str], neutral: Mapping[str, Any], asked: str, schema: Schema
) -> Schema:
    own = {"model": {"type": "string", "enum": list(models)}, asked: schema, **_sampling()}
    found: Schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["model", asked],
        "properties": {
            **{name: own[name] for name in known},
            **{name: {"description": _NO_EFFECT} for name in fields.IGNORED},
            **{name: _nothing(values) for name, values in neutral.items()},
        },
        "if": {"properties": {"stream": {"const": True}}, "required": ["stream"]},
        "then": {"properties": {"n": {"enum": [None, 1]}}},
        "else": {"properties": {"stream_options": _NULL}},
    }
    if "max_completion_tokens" in known:  # it means the same as max_tokens
        found["anyOf"] = [{"properties": {name: _NULL}} for name in ("max_tokens", "max_completion_tokens")]
    return found


def _sampling() -> dict[str, Schema]:
    """The fields that say how an answer is made and sent."""
    stop = {**_TEXT, "minLength": 1}
    options = {name: {"description": _NO_EFFECT} for name in fields.STREAM_OPTIONS}
    return {
        **{name: _bounded("number", *bounds) for name, bounds in fields.NUMBERS.items()},
        **{name: _bounded("integer", *bounds) for name, bounds in fields.WHOLE_NUMBERS.items()},
        "stop": {"anyOf": [_NULL, stop, {"type": "array", "items": stop, "maxItems": fields.MOST_STOPS}]},
        "stream": {"type": ["boolean", "null"]},
        "stream_options": {
            "type": ["object", "null"],
            "description": "With stream only.",
            "properties": {**options, "include_usage": {"type": ["boolean", "null"]}},
            "additionalProperties": False,
        },
    }


def _bounded(kind: str, least: int, most: int) -> Schema:
    return {"type": [kind, "null"], "minimum": least, "maximum": most}


def _nothing(values: Sequence[Any]) -> Schema:
    return {"description": _NOT_DONE, "enum": [None, *values]}


def _message(roles: Sequence[str]) -> Schema:
    parts = [_object({"type": {"const": name}, name: _TEXT}, more=True) for name in fields.PARTS]
    own: dict[str, Schema] = {
        "role": {"type": "string", "enum": list(roles)},
        "content": {"anyOf": [_TEXT, {"type": "array", "items": {"anyOf": parts}}]},
    }
    found = _object(own, more=True)
    found["properties"] |= {name: _nothing(values) for name, values in fields.NEUTRAL_MESSAGE.items()}
    return found


def answer_schemas() -> dict[str, Schema]:
    """The bodies of all answers and the events of a stream, by name."""
    message = _object({"role": {"const": "assistant"}, "content": _TEXT, "refusal": _NULL})
    delta = {**message, "required": []}
    parts = {"type": ["string", "null"]}
    return {
        "ChatCompletion": _envelope("chat.completion", {"message": message}),
        "ChatCompletionChunk": _envelope("chat.completion.chunk", {"delta": delta}, streamed=True),
        "Completion": _envelope("text_completion", {"text": _TEXT}),
        "CompletionChunk": _envelope("text_completion", {"text": _TEXT}, streamed=True),
        "ChatCompletionEvent": _event("ChatCompletionChunk"),
        "CompletionEvent": _event("CompletionChunk"),
        "Usage": _usage(),
        "Model": _object(
            {"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": {"const": "drpo"}}
        ),
        "Models": _object(
            {
                "object": {"const": "list"},
                "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
            }
        ),
        "Health": _object({"status": {"const": "ok"}}),
        "Error": _object(
            {"error": _object({"message": _TEXT, "type": _TEXT, "param": parts, "code": parts})}
        ),
    }


def _envelope(kind: str, said: Mapping[str, Schema], *, streamed: bool = False) -> Schema:
    """A whole answer, or an event of one: then with at most one choice, and its usage in the last event."""
    reasons: list[str | None] = ["stop", "length", "content_filter"]
    usage: Schema = {"$ref": "#/components/schemas/Usage"}
    choice = _object(
        {
            "index": _COUNT,
            **said,
            "logprobs": _NULL,
            "finish_reason": {"enum": [*reasons, None] if streamed else reasons},
        }
    )
    found = _object(
        {
            "id": _TEXT,
            "object": {"const": kind},
            "created": _COUNT,
            "model": _TEXT,
            "choices": {
                "type": "array",
                "items": choice,
                **({"maxItems": 1} if streamed else {"minItems": 1}),
            },
            "usage": {"anyOf": [usage, _NULL]} if streamed else usage,
        }
    )
    if streamed:
        found["required"].remove("usage")
    return found


def _event(chunk: str) -> Schema:
    """One server-sent event. OpenAPI 3.1 has no word for the items of a stream; what reads documents takes
    the schema of this type of answer for that of each event."""
    either: list[Schema] = [{"$ref": f"#/components/schemas/{name}"} for name in (chunk, "Error")]
    said = {"contentMediaType": "application/json", "contentSchema": {"anyOf": either}}
    data = {"type": "string", "if": {"const": "[DONE]"}, "then": {}, "else": said}
    return {
        "type": "object",
        "description": "Where it fails on the way, the last event is an error, else [DONE].",
        "properties": {"data": data},
        "required": ["data"],
    }


def _usage() -> Schema:
    found = _object(dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), _COUNT))
    found["properties"]["prompt_tokens_details"] = _object({"cached_tokens": _COUNT})
    return found


def _object(properties: Mapping[str, Schema], *, more: bool = False) -> Schema:
    """An object that has all of these fields. more: whether it may have others."""
    found = {"type": "object", "properties": dict(properties), "required": list(properties)}
    return found if more else {**found, "additionalProperties": False}
