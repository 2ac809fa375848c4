"""Asks a model without the parameters that it refuses, once that is known."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from drpo.errors import ParameterRefused
from drpo.llm.base import LLM, Completion, Request
from drpo.llm.recorder import Record

_UNSET: dict[str, Any] = {
    **dict.fromkeys(("temperature", "top_p", "max_tokens", "seed", "reply_schema")),
    "max_completion_tokens": None,
    "stop": (),
}


class Adapt:
    """Wraps a `Recorder`. What a model refuses is known from the catalog, the record, or its own words.

    A refused `n` cannot be left out without changing the question: `ParameterRefused("n")` is passed on, and
    `drpo.ask.Asker.sample` asks for each choice by itself. A request that is recorded in one of the forms it
    can have been sent in is answered so: how much of what the model refuses was known when it was sent, and
    which of several concurrent requests noticed it, must not matter on resume.

    thinking_tokens: a model that takes no max_tokens is given max_completion_tokens instead, so many more
    (None: no limit at all).
    """

    def __init__(
        self, inner: LLM, record: Record, refused: Collection[str] = (), thinking_tokens: int | None = None
    ) -> None:
        self._inner, self._record = inner, record
        self._refused = frozenset(refused)
        self._thinking_tokens = thinking_tokens

    async def complete(self, request: Request) -> Completion:
        """The reply of the model to `request` or to what is left of it."""
        while True:
            form = self._form(request)
            try:
                return await self._inner.complete(form)
            except ParameterRefused as refused:
                if refused.parameter not in _UNSET:
                    raise
                request = self._without(form, [refused.parameter])

    def _form(self, request: Request) -> Request:
        noticed = self._record.refused_by_model.get(request.model, [])
        refused = self._refused.union(noticed)
        least = self._without(request, refused)
        one_choice = "n" in refused and request.n > 1
        if least == request and not one_choice:
            return request
        # The fullest recorded form: as it is, without what the catalog knows, without what was noticed first
        # too, then second, and so on.
        forms = [
            request,
            *(self._without(request, self._refused.union(noticed[:n])) for n in range(len(noticed) + 1)),
        ]
        for form in dict.fromkeys(forms):
            if self._record.holds(form):
                return form
        if one_choice:
            raise ParameterRefused("n", f"{request.model} gives one choice a request")
        return least

    def _without(self, request: Request, refused: Collection[str]) -> Request:
        return without(request, refused, self._thinking_tokens)


def without(request: Request, refused: Collection[str], thinking_tokens: int | None) -> Request:
    """What is left of `request`. thinking_tokens: see `Adapt`."""
    unset = {
        name: _UNSET[name] for name in refused if name in _UNSET and getattr(request, name) != _UNSET[name]
    }
    if "seed" in unset:
        unset["sample"] = request.seed  # or samples of one question would be one question, asked once
    thinking = None if "max_completion_tokens" in refused else thinking_tokens
    if "max_tokens" in unset and thinking is not None and request.max_tokens is not None:
        unset["max_completion_tokens"] = request.max_tokens + thinking
    return replace(request, **unset) if unset else request
