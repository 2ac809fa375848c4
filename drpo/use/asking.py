"""An alignment at a model, ready to be asked: whole answers or streams, one turn or several."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drpo.compose import Composer, PromptForm, Sampling
from drpo.live import Notice, Resources, lasting_model, live_stream
from drpo.llm.base import LLM, Completion, Request
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.llm.streams import Streams
from drpo.llm.wire import Piece
from drpo.measuring.answering import wanted_form
from drpo.respond import ContextFit, choose_form, fit_context
from drpo.retrieve import Retriever
from drpo.types import Example, Failed
from drpo.use.cutting import cut_stream
from drpo.use.plan import UsePlan
from drpo.wiring import EmbeddingLimits, build_retriever

Turns = Sequence[tuple[str, str]]
"""What was said before: (query, answer), the oldest first."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, and the indices of the examples that it was shown, nearest first."""

    text: str
    finish_reason: str
    shots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to the base model, and the indices of the examples in it."""

    request: Request
    shots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Using:
    """An alignment at its model. Everything is rendered by the composer of the search.

    retriever: None where the shots are the same for every query.
    """

    plan: UsePlan
    form: PromptForm
    composer: Composer
    sampling: Sampling
    retriever: Retriever | None
    fit: ContextFit | None
    llm: LLM
    streams: Streams

    async def shots_for(self, query: str) -> tuple[int, ...]:
        """The indices of the K examples shown with `query`, nearest first."""
        subject = self.plan.subject
        if self.retriever is None:
            return tuple(range(subject.shots))
        return tuple((await self.retriever.top_k([query], subject.shots))[0])

    async def asked(
        self,
        query: str,
        *,
        before: Turns = (),
        shots: Sequence[int] | None = None,
        system_prompt: str | None = None,
        sampling: Sampling | None = None,
    ) -> Asked | Failed:
        """The request for `query`; `Failed` where it does not fit the model's context without any shot.

        before: earlier turns, which follow the shots. shots: those chosen for the first turn; None: they are
        looked for.
        """
        subject, sampling = self.plan.subject, sampling or self.sampling
        indices = tuple(await self.shots_for(query) if shots is None else shots)
        shown = [subject.examples[index] for index in indices]
        turns = [Example(*turn) for turn in before]
        prompt = subject.system_prompt if system_prompt is None else system_prompt
        if self.fit is not None:
            # What was said before is no example: it stays, and the examples farthest from it go.
            kept = await self.fit.shots_that_fit(prompt, [*turns, *shown], query)
            if isinstance(kept, Failed):
                return kept
            if kept < len(turns):
                return Failed("what was said before does not fit the base model's context any more")
            indices, shown = indices[: kept - len(turns)], shown[: kept - len(turns)]
        request = self.composer.request(self.plan.choice.identity, sampling, prompt, [*shown, *turns], query)
        return Asked(request, indices)

    async def complete(self, asked: Asked) -> Answer:
        """The whole answer."""
        completion: Completion = await self.llm.complete(asked.request)
        choice = completion.choices[0]
        return Answer(self.composer.answer(choice.text), choice.finish_reason, asked.shots)

    def stream(self, asked: Asked) -> AsyncGenerator[Piece, None]:
        """The answer as it comes, cut where it ends."""
        waits = self.form == "text" and self.composer.cut
        return cut_stream(self.streams.stream(asked.request), self.composer.answer, waits=waits)


@contextlib.asynccontextmanager
async def using(
    plan: UsePlan, environment: Mapping[str, str], notice: Notice, stop: Stop | None = None
) -> AsyncIterator[Using]:
    """The alignment at its model for as long as the context is open; what is recorded of the model's form
    and context goes with it."""
    with tempfile.TemporaryDirectory(prefix="drpo-") as folder:
        record = Record(Path(folder) / "calls.jsonl")
        resources = Resources(
            record, stop or Stop(), environment, plan.config, folder=Path(folder), notice=notice
        )
        try:
            yield await open_using(plan, resources, lasting_model(plan.choice, resources))
        finally:
            await resources.close()


async def open_using(plan: UsePlan, resources: Resources, llm: LLM) -> Using:
    """The same with resources that are open. llm: the base model behind its wrappers."""
    config, subject, choice = plan.config, plan.subject, plan.choice
    form = await choose_form(choice, wanted_form(config, subject, choice), resources)
    composer = Composer(subject.templates, form, cut=subject.answer_end == "cut")
    sampling = Sampling(config.temperature, config.top_p, config.base_max_tokens)
    retriever = None
    if subject.shots and subject.embedder:
        limits = EmbeddingLimits(config.timeout_s, config.deadline_s, config.concurrency)
        retriever = build_retriever(
            subject.embedder,
            subject.examples,
            resources.connections,
            resources.environment,
            resources.stop,
            limits,
        )
    fit = await fit_context(choice, config.long_prompts, resources, composer, sampling)
    return Using(plan, form, composer, sampling, retriever, fit, llm, live_stream(choice, resources))
