"""What is served under which name: an alignment at its model, and the examples that it has found before."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import urlsplit

from drpo.compose import Sampling
from drpo.llm.base import Choice, Completion, Usage
from drpo.serving.errors import Refusal, too_long
from drpo.serving.metrics import Metrics
from drpo.serving.requests import Asking
from drpo.types import Failed
from drpo.use.asking import Asked, Using

REMEMBERED = 4096
"""Queries whose examples are remembered, per alignment."""
_LONG = 200
ClientSystem = Literal["append", "ignore", "refuse"]


@dataclass(slots=True)
class Served:
    """An alignment under its name. longest: tokens of an answer at most, whatever a client asks for. waits:
    whether finding the request to the model takes answers of other servers."""

    name: str
    using: Using
    client_system: ClientSystem
    longest: int
    metrics: Metrics
    waits: bool = field(init=False)
    _usual: Sampling = field(init=False)
    _known: OrderedDict[str, tuple[int, ...]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        own, words = self.using.sampling, self.using.plan.subject.embedder == "lexical"
        finds_at_once = words or self.using.retriever is None
        self.waits = self.using.fit is not None or self.using.rewriter is not None or not finds_at_once
        self._usual = Sampling(own.temperature, own.top_p, self.longest)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where its model stands, in the spellings that no client may learn."""
        parts = [urlsplit(url) for url in self.using.plan.choice.urls]
        return tuple(name for part in parts for name in (part.netloc, part.hostname or ""))

    async def asked(self, asking: Asking) -> Asked:
        """The request to the model. Raises Refusal where the conversation cannot be asked."""
        prompt = self._system_prompt(asking.system)
        using = self.using
        rewrite = None if using.rewriter is None else await using.rewrite(asking.query, asking.turns)
        shots = await self.shots_for(asking.first_query if rewrite is None else rewrite.text)
        wanted, usual = asking.wanted, self._usual
        sampling = usual
        if not wanted.temperature is wanted.top_p is wanted.max_tokens is None:
            sampling = Sampling(
                usual.temperature if wanted.temperature is None else wanted.temperature,
                usual.top_p if wanted.top_p is None else wanted.top_p,
                min(wanted.max_tokens or self.longest, self.longest),
            )
        found = await using.asked(
            asking.query, before=asking.turns, shots=shots, system_prompt=prompt, sampling=sampling
        )
        if isinstance(found, Failed):
            raise too_long(found.reason)
        if wanted.seed is None and wanted.n == 1 and not wanted.stop:
            return found
        stop = (*found.request.stop, *(text for text in wanted.stop if text not in found.request.stop))
        return replace(found, request=replace(found.request, stop=stop, seed=wanted.seed, n=wanted.n))

    async def shots_for(self, query: str) -> tuple[int, ...]:
        """The indices of the examples shown with `query`; what was found before is not looked for again."""
        if self.using.retriever is None:
            return await self.using.shots_for(query)
        key = query if len(query) <= _LONG else hashlib.sha256(query.encode()).hexdigest() + "#"
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return known
        began_s = time.perf_counter()
        found = self._known[key] = await self.using.shots_for(query)
        self.metrics.found_shots(self.name, time.perf_counter() - began_s)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found

    async def complete(self, asked: Asked) -> tuple[tuple[Choice, ...], Usage]:
        """The choices, each cut where the answer ends. Raises Refusal where the context is exceeded."""
        completion: Completion = await self.using.llm.complete(asked.request)
        for choice in completion.choices:
            refuse_if_too_long(choice.finish_reason)
        choices, composer = completion.choices, self.using.composer
        if composer.form == "text":
            choices = tuple(replace(choice, text=composer.answer(choice.text)) for choice in choices)
        return choices, completion.usage

    def _system_prompt(self, said: str | None) -> str | None:
        """The system prompt where a client's own message changes it."""
        if said is None or self.client_system == "ignore":
            return None
        if self.client_system == "refuse":
            message = "messages: this server has the system message; leave yours out"
            raise Refusal(400, message, "messages", "invalid_value")
        return f"{self.using.plan.subject.system_prompt}\n\n{said}" if said.strip() else None


def refuse_if_too_long(reason: str | None) -> None:
    """Raise the Refusal that stands for an answer which the model could not begin."""
    if reason == "context_length":
        raise too_long("the conversation is longer than the model's context")


def served_by_name(models: Mapping[str, Served], name: str) -> Served:
    """The model that a client names. Raises Refusal."""
    found = models.get(name)
    if found is None:
        known = ", ".join(models)
        message = f"The model {name[:80]!a} does not exist; this server has: {known}"
        raise Refusal(404, message, "model", "model_not_found")
    return found
