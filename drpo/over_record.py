"""A run gone through over its record with no model behind it: what is recorded answers, the rest is told."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from drpo.choices import ModelChoice
from drpo.compose import PromptForm
from drpo.errors import ReplayMissed
from drpo.estimate.counts import may_try_chat
from drpo.estimate.pending import PERHAPS, Noted, Pending
from drpo.live import Resources
from drpo.llm.adapt import Adapt
from drpo.llm.base import LLM, Message, Request, Role
from drpo.llm.recorder import Record, Recorder
from drpo.wiring import open_model

T = TypeVar("T")


class Missed(tuple[Request, ...]):
    """The requests that the record does not answer; none where something else is missing, which only a
    server or an embedding model knows."""

    __slots__ = ()


async def over(record: Record, asking: Awaitable[T]) -> T | Missed:
    """What came of it by the record, or what is missing."""
    record.missed.clear()
    try:
        return await asking
    except ReplayMissed:
        return Missed(record.missed.values())


async def as_sent(llm: LLM, record: Record, request: Request) -> Request:
    """The request as the model's wrappers would send it."""
    missed = await over(record, llm.complete(request))
    return missed[0] if isinstance(missed, Missed) and missed else request


async def model_over(choice: ModelChoice, resources: Resources) -> LLM:
    """The model over the record; a run that has not begun knows what it refuses by the catalog. resources:
    not live."""
    try:
        return await open_model(choice, resources)
    except ReplayMissed:
        refused = sorted(choice.entry.refuses) if choice.entry else []
        recorder = Recorder(resources.record, None, resources.stop)
        return Adapt(recorder, resources.record, refused, resources.config.max_thinking_tokens)


def form_by_catalog(choice: ModelChoice) -> PromptForm:
    """How a model is asked as far as the catalog knows; a chat where it does not."""
    known = choice.entry.form if choice.entry is not None else "auto"
    return "chat" if known == "auto" else known


def note_trial(role: Role, choice: ModelChoice, wanted: str, noted: Noted) -> None:
    """Note the chat that may be tried to learn how a model wants to be asked."""
    if may_try_chat(choice, wanted):
        hello = Request(choice.identity, messages=(Message("user", "Hello"),), max_tokens=1, role=role)
        noted.known(Pending(role, hello, PERHAPS, PERHAPS, is_trial=True))
