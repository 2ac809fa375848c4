"""The body of a request, checked field by field and turned into values.

As at OpenAI, a field that is not known is refused by name: nothing in a request is silently without effect,
and none of it says where the request goes.
"""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from drpo.llm.wire import valid_unicode
from drpo.serving import fields
from drpo.serving.errors import Refusal


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the answer is to be made and sent; None and () leave it to the server."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    stream: bool = False
    include_usage: bool = False


class Asking(NamedTuple):
    """A request that can be answered. turns: what was said before `query`, as (query, answer), oldest first.

    system: the client's own system messages, joined. chat: whether a chat was asked for, or a completion.
    """

    model: str
    query: str
    turns: tuple[tuple[str, str], ...]
    system: str | None
    wanted: Wanted
    chat: bool

    @property
    def first_query(self) -> str:
        """The first turn's, for which the shots are chosen."""
        return self.turns[0][0] if self.turns else self.query


def read_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises Refusal."""
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON in UTF-8, or too deeply nested") from None
    if not isinstance(value, dict):
        raise Refusal(400, f"expected a JSON object, came {_kind(value)}")
    return value


def read_chat(body: dict[str, Any]) -> Asking:
    """A request to /v1/chat/completions. Raises Refusal naming the field."""
    _refuse_fields(body, _CHAT_FIELDS, fields.NEUTRAL_CHAT)
    model, wanted = _model(body), _wanted(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        _wrong("messages", "a list with at least one message", messages)
    if len(messages) > fields.MOST_MESSAGES:
        message = f"messages: expected at most {fields.MOST_MESSAGES}, came {len(messages)}"
        raise Refusal(400, message, "messages", "array_above_max_length")
    said = [_message(item, number) for number, item in enumerate(messages)]
    system = [text for role, text in said if role == "system"]
    spoken = _joined([one for one in said if one[0] != "system"])
    if not spoken or spoken[0][0] != "user":
        _message_order("the first message, but for system messages, must be the user's")
    if spoken[-1][0] != "user":
        _message_order("the last message must be the user's")
    texts = [text for _, text in spoken]
    turns = tuple(zip(texts[:-1:2], texts[1::2], strict=True))
    return Asking(model, texts[-1], turns, "\n\n".join(system) if system else None, wanted, chat=True)


def read_completion(body: dict[str, Any]) -> Asking:
    """A request to /v1/completions, whose prompt is the query. Raises Refusal naming the field."""
    _refuse_fields(body, _TEXT_FIELDS, fields.NEUTRAL_TEXT)
    model, wanted = _model(body), _wanted(body)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if not isinstance(prompt, str):
        _wrong("prompt", "one text (lists of texts and tokens are not taken)", prompt)
    return Asking(model, valid_unicode(prompt), (), None, wanted, chat=False)


def _refuse_fields(body: dict[str, Any], known: Set[str], neutral: dict[str, tuple[Any, ...]]) -> None:
    if body.keys() <= known:
        return
    for name, value in body.items():
        if name in known or name in fields.IGNORED:
            continue
        shown = valid_unicode(name)[:80]
        if name not in neutral:
            message = f"Unrecognized request argument supplied: {shown}"
            raise Refusal(400, message, shown, "unknown_parameter")
        if not fields.asks_for_nothing(value, neutral[name]):
            message = f"{shown}: this server does not do that; leave it out"
            raise Refusal(400, message, shown, "unsupported_parameter")


def _model(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        _wrong("model", "the name of a model (GET /v1/models lists them)", model)
    return valid_unicode(model)


def _wanted(body: dict[str, Any]) -> Wanted:
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        _wrong("stream", "true or false", stream)
    if body.keys() <= _SAY_NOTHING_ELSE:
        return _STREAM if stream else _WHOLE
    n = _whole(body, "n")
    if stream and n not in (None, 1):
        message = "n: a stream has one choice; leave n out, or stream"
        raise Refusal(400, message, "n", "unsupported_value")
    return Wanted(
        temperature=_number(body, "temperature"),
        top_p=_number(body, "top_p"),
        max_tokens=_longest(body),
        stop=_stops(body.get("stop")),
        seed=_whole(body, "seed"),
        n=n or 1,
        stream=bool(stream),
        include_usage=_include_usage(body.get("stream_options"), bool(stream)),
    )


def _number(body: dict[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    least, most = fields.NUMBERS[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        _wrong(name, f"a number from {least:g} to {most:g}", value)
    return float(value)


def _whole(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    least, most = fields.WHOLE_NUMBERS[name]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        _wrong(name, f"a whole number from {least} to {most}", value)
    return value


def _longest(body: dict[str, Any]) -> int | None:
    old = _whole(body, "max_tokens")
    new = _whole(body, "max_completion_tokens")
    if old is not None and new is not None:
        message = "max_tokens and max_completion_tokens mean the same here; give one of them"
        raise Refusal(400, message, "max_tokens", "invalid_value")
    return new if old is None else old


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    given = [value] if isinstance(value, str) else value
    if (
        not isinstance(given, list)
        or len(given) > fields.MOST_STOPS
        or not all(isinstance(text, str) and text for text in given)
    ):
        _wrong("stop", f"a text or up to {fields.MOST_STOPS} of them, none empty", value)
    return tuple(valid_unicode(text) for text in given)


def _include_usage(options: Any, stream: bool) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict) or set(options) - set(fields.STREAM_OPTIONS):
        _wrong("stream_options", 'an object such as {"include_usage": true}', options)
    if not stream:
        raise Refusal(400, "stream_options: of use with stream only", "stream_options", "invalid_value")
    include = options.get("include_usage")
    if include is not None and not isinstance(include, bool):
        _wrong("stream_options.include_usage", "true or false", include)
    return bool(include)


def _message(item: Any, number: int) -> tuple[str, str]:
    """Who speaks (system, user or assistant) and what."""
    if not isinstance(item, dict):
        _wrong(f"messages[{number}]", "an object with role and content", item)
    role, content = item.get("role"), item.get("content")
    if role not in fields.ROLES:
        wanted = "system, developer, user or assistant (tools are not taken)"
        _wrong(f"messages[{number}].role", wanted, role)
    if len(item) > 2 or content is None:
        _refuse_tools(item, f"messages[{number}]")
    if isinstance(content, list):
        where = f"messages[{number}].content"
        content = "\n".join([_part(part, f"{where}[{place}]") for place, part in enumerate(content)])
    if not isinstance(content, str):
        _wrong(f"messages[{number}].content", "a text, or a list of text parts", content)
    return "system" if role == "developer" else role, valid_unicode(content)


def _refuse_tools(item: dict[str, Any], where: str) -> None:
    for name, neutral in fields.NEUTRAL_MESSAGE.items():
        if name in item and not fields.asks_for_nothing(item[name], neutral):
            raise Refusal(400, f"{where}.{name}: this server knows no tools", where, "unsupported_parameter")


def _part(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in fields.PARTS:
        _wrong(where, "a part of type text (images, sound and files are not taken)", part)
    text = part.get(kind)
    if not isinstance(text, str):
        _wrong(f"{where}.{kind}", "a text", text)
    return text


def _joined(said: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Turns that alternate: what one side says in several messages is one of them."""
    if len(said) == 1:
        return said
    joined: list[tuple[str, list[str]]] = []
    for role, text in said:
        if joined and joined[-1][0] == role:
            joined[-1][1].append(text)
        else:
            joined.append((role, [text]))
    return [(role, "\n\n".join(texts)) for role, texts in joined]


def _message_order(rule: str) -> NoReturn:
    raise Refusal(400, f"messages: {rule}", "messages", "invalid_value")


def _wrong(name: str, expected: str, came: Any) -> NoReturn:
    if came is None:
        message = f"{name} is missing: expected {expected}"
        raise Refusal(400, message, name, "missing_required_parameter")
    raise Refusal(400, f"{name}: expected {expected}, came {_kind(came)}", name, "invalid_type")


def _kind(value: Any) -> str:
    """What a value is, without a text of the client's that may be long."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return (
            f"{value:g}" if isinstance(value, float) or abs(value) < 2**63 else "a number beyond all bounds"
        )
    if isinstance(value, str):
        return json.dumps(valid_unicode(value)[:60])
    return "a list" if isinstance(value, list) else "an object"


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_CHAT_FIELDS, _TEXT_FIELDS = frozenset(fields.CHAT_FIELDS), frozenset(fields.TEXT_FIELDS)
_WHOLE, _STREAM = Wanted(), Wanted(stream=True)
_SAY_NOTHING_ELSE = frozenset({"model", "messages", "prompt", "stream"})
"""Fields of a request that leaves all the rest to the server, as most do."""
_DECODER = json.JSONDecoder(parse_constant=_no_number)  # json.loads would make one for each body
