"""Answers in OpenAI's shape: whole ones, and the events of a stream. All bytes are ASCII."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii as json_text  # what json.dumps makes of a text
from typing import Any, NamedTuple

from drpo.llm.base import Choice, Usage

DONE = b"data: [DONE]\n\n"
_REASONS = frozenset({"stop", "length", "content_filter"})


class Envelope(NamedTuple):
    """What all parts of one answer have in common. model: the name under which it was asked for."""

    model: str
    chat: bool
    id: str
    created: int

    @classmethod
    def new(cls, model: str, *, chat: bool) -> Envelope:
        """An envelope with an id of its own."""
        prefix = "chatcmpl" if chat else "cmpl"
        return cls(model, chat, f"{prefix}-{random.getrandbits(96):024x}", int(time.time()))

    def whole(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        """The body of an answer that is not streamed."""
        kind = "chat.completion" if self.chat else "text_completion"
        found = ", ".join([self._choice(number, choice) for number, choice in enumerate(choices)])
        return f'{self._head(kind)}, "choices": [{found}], "usage": {usage_json(usage)}}}'.encode("ascii")

    def _choice(self, number: int, choice: Choice) -> str:
        text = json_text(choice.text)
        said = (
            f'"message": {{"role": "assistant", "content": {text}, "refusal": null}}'
            if self.chat
            else f'"text": {text}'
        )
        reason = finish_reason(choice.finish_reason)
        return f'{{"index": {number}, {said}, "logprobs": null, "finish_reason": "{reason}"}}'

    def _head(self, kind: str) -> str:
        """How all parts begin. Texts are made JSON one by one, which for an object would take an encoder."""
        name = json_text(self.model)
        return f'{{"id": "{self.id}", "object": "{kind}", "created": {self.created}, "model": {name}'


class Events:
    """The events of one streamed answer; what they have in common is written once.

    tells_usage: each event has the field, null but in the last one.
    """

    def __init__(self, envelope: Envelope, *, tells_usage: bool) -> None:
        self._chat = envelope.chat
        kind = "chat.completion.chunk" if envelope.chat else "text_completion"
        head = envelope._head(kind)
        delta = '"delta": {"content": ' if envelope.chat else '"text": '
        self._head = f'data: {head}, "choices": '
        self._before = f'{self._head}[{{"index": 0, {delta}'
        self._tail = ', "usage": null}\n\n' if tells_usage else "}\n\n"
        self._after = (
            ("}" if envelope.chat else "") + ', "logprobs": null, "finish_reason": null}]' + self._tail
        )

    def first(self) -> bytes:
        """Who speaks; nothing in a completion."""
        if not self._chat:
            return b""
        delta = {"role": "assistant", "content": "", "refusal": None}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return f"{self._head}[{json.dumps(choice)}]{self._tail}".encode("ascii")

    def text(self, text: str) -> bytes:
        """Some more text."""
        return f"{self._before}{json_text(text)}{self._after}".encode("ascii")

    def last(self, reason: str) -> bytes:
        """Why it ended."""
        empty: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        choice = {"index": 0, **empty, "logprobs": None, "finish_reason": finish_reason(reason)}
        return f"{self._head}[{json.dumps(choice)}]{self._tail}".encode("ascii")

    def usage(self, usage: Usage) -> bytes:
        """What it took."""
        return f'{self._head}[], "usage": {usage_json(usage)}}}\n\n'.encode("ascii")


def failure_event(error: Mapping[str, Any]) -> bytes:
    """The event of a stream that cannot go on; no [DONE] follows."""
    return b"data: " + json.dumps(error).encode("ascii") + b"\n\n"


def usage_json(usage: Usage) -> str:
    """Tokens in OpenAI's shape."""
    asked, answered, cached = usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens
    details = "" if cached is None else f', "prompt_tokens_details": {{"cached_tokens": {cached}}}'
    counts = f'"prompt_tokens": {asked}, "completion_tokens": {answered}, "total_tokens": {asked + answered}'
    return f"{{{counts}{details}}}"


def finish_reason(reason: str) -> str:
    """One of OpenAI's reasons: a client's types admit no others."""
    return reason if reason in _REASONS else "stop"


def models_json(names: Sequence[str], created: int) -> bytes:
    """The list of models."""
    return json.dumps({"object": "list", "data": [_model(name, created) for name in names]}).encode("ascii")


def model_json(name: str, created: int) -> bytes:
    """One model."""
    return json.dumps(_model(name, created)).encode("ascii")


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "drpo"}
