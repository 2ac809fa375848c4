"""An alignment at a model, ready to be asked: whole answers or streams, one turn or several."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from drpo.compose import Composer, PromptForm, Sampling
from drpo.live import Notice, Resources, lasting_model, live_stream
from drpo.llm.adapt import Adapt
from drpo.llm.base import LLM, Completion, Request
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.llm.streams import Streams
from drpo.llm.wire import Piece
from drpo.measuring.answering import wanted_form
from drpo.respond import ContextFit, choose_form, fit_context
from drpo.retrieve import Retriever
from drpo.rewriting.contract import Rewrite
from drpo.rewriting.opening import open_rewriter
from drpo.rewriting.remembering import Remembering
from drpo.types import Example, Failed
from drpo.use.cutting import cut_stream
from drpo.use.plan import UsePlan
from drpo.wiring import EmbeddingLimits, build_retriever, open_model

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
    """A request to the base model, and the indices of the examples in it. rewrite: what it reads in place of
    the first query; None where nothing is rewritten."""

    request: Request
    shots: tuple[int, ...]
    rewrite: Rewrite | None = None


@dataclass(frozen=True, slots=True)
class Using:
    """An alignment at its model. Everything is rendered by the composer of the search.

    retriever: None where the shots are the same for every query. rewriter: what puts a query in other words
    first; None where the model reads what users write.
    """

    plan: UsePlan
    form: PromptForm
    composer: Composer
    sampling: Sampling
    retriever: Retriever | None
    fit: ContextFit | None
    llm: LLM
    streams: Streams
    rewriter: Remembering | None = None

    async def rewrite(self, query: str, before: Turns = ()) -> Rewrite | None:
        """What the model reads in place of the first query of a conversation; later ones depend on what was
        said and stay as they are. None where nothing is rewritten."""
        first = before[0][0] if before else query
        return None if self.rewriter is None else await self.rewriter.rewrite(first)

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
        rewrite: Rewrite | None = None,
    ) -> Asked | Failed:
        """The request for `query`; `Failed` where it does not fit the model's context without any shot.

        before: earlier turns, which follow the shots. shots: those chosen for the first turn; None: they are
        looked for by its query, as it was rewritten. rewrite: what `self.rewrite` gave before; None: it is
        asked.
        """
        subject, sampling = self.plan.subject, sampling or self.sampling
        if rewrite is None and self.rewriter is not None:
            rewrite = await self.rewrite(query, before)
        if rewrite is not None and before:
            before = [(rewrite.text, before[0][1]), *before[1:]]
        elif rewrite is not None:
            query = rewrite.text
        first = before[0][0] if before else query
        indices = tuple(await self.shots_for(first) if shots is None else shots)
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
        return Asked(request, indices, rewrite)

    async def answer(self, text: str) -> str | Failed:
        """The answer to what the model is to read, whole; `Failed` where that does not fit its context."""
        asked = await self.asked(text)
        return asked if isinstance(asked, Failed) else (await self.complete(asked)).text

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
            yield await open_using(plan, resources, lasting_model(plan.choice, resources), lasts=True)
        finally:
            await resources.close()


async def open_using(plan: UsePlan, resources: Resources, llm: LLM, *, lasts: bool = False) -> Using:
    """The same with resources that are open. llm: the base model behind its wrappers. lasts: whether it
    outlives refusals and so keeps no record of what a rewriter is asked."""
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
    streams = live_stream(choice, resources)
    using = Using(plan, form, composer, sampling, retriever, fit, llm, streams)
    return await _with_rewriter(using, resources, lasts=lasts)


async def _with_rewriter(using: Using, resources: Resources, *, lasts: bool) -> Using:
    """The same with the rewriter of its plan, where there is one."""
    plan = using.plan
    if plan.rewriting is None:
        return using
    choice = plan.rewriting.choice
    if lasts:
        refused = sorted(choice.entry.refuses) if choice.entry else []
        model = lasting_model(choice, resources)
        llm: LLM = Adapt(model, resources.record, refused, plan.config.max_thinking_tokens)
    else:
        llm = await open_model(choice, resources)
    rewriter = await open_rewriter(plan, plan.rewriting, resources, llm, using.answer)
    return replace(using, rewriter=Remembering(rewriter))
