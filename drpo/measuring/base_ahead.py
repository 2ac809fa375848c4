"""What a base model has yet to be asked by one subject, over the record of a run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

from drpo.compose import Composer, Sampling
from drpo.config_asking import AnswererConfig
from drpo.data import ExampleSet
from drpo.errors import ReplayMissed
from drpo.estimate.habits import response_habits
from drpo.estimate.pending import NOTHING, ONCE, Noted, Pending
from drpo.estimate.ranges import Range
from drpo.estimate.texts import longest_reply, shots_by_length
from drpo.live import Resources
from drpo.llm.base import Request, Role
from drpo.measuring.answering import wanted_form
from drpo.measuring.subject import Subject
from drpo.over_record import Missed, as_sent, form_by_catalog, model_over, note_trial, over
from drpo.plan import RunPlan
from drpo.problems import Responder, Response
from drpo.respond import ContextFit, choose_form, fit_context
from drpo.rewriting.ahead import RewriteSize
from drpo.types import Example, Failed, Query
from drpo.wiring import shots_of

_X = "x"  # stands for a query that is not known yet
_WORD = re.compile(r"\w+")
Shots = tuple[int, ...]


@dataclass(slots=True)
class BaseAhead:
    """One subject at its base model, asked over the record; what is missing is noted.

    responder: as the queries are asked. bounds: the examples that make the shortest and the longest prompts.
    may_drop: whether a prompt may lose its shots. found: the shots of queries, None where only a model could
    find them.
    """

    plan: RunPlan
    role: Role
    subject: Subject
    responder: Responder
    written: Range
    may_drop: bool
    bounds: tuple[tuple[Example, ...], tuple[Example, ...], tuple[Example, ...]]
    resources: Resources
    noted: Noted
    found: dict[str, Shots | None] = field(default_factory=dict)
    _worded: set[frozenset[str]] = field(default_factory=set)
    _embeds: bool = False

    async def look_up(self, texts: Sequence[str], *, free: bool = False) -> None:
        """Find the shots of these texts, in one go where that is possible. free: only where no embedding
        model is asked."""
        if free and self._is_remote:
            return
        wanted = [text for text in dict.fromkeys(texts) if text not in self.found]
        subject = self.subject
        if not subject.shots or not subject.embedder:
            self.found |= dict.fromkeys(wanted, tuple(range(subject.shots)))
            return
        examples = ExampleSet(subject.examples, subject.name, subject.digest)

        async def of(some: list[str]) -> tuple[Shots, ...]:
            queries = [Query(text) for text in some]
            return await shots_of(examples, subject.embedder, self.resources, subject.shots, queries)

        with contextlib.suppress(ReplayMissed):
            self.found |= dict(zip(wanted, await of(wanted), strict=True))
            return
        for text in wanted:
            self.found[text] = None
            with contextlib.suppress(ReplayMissed):
                (self.found[text],) = await of([text])
        unknown = tuple(text for text in wanted if self.found[text] is None)
        if unknown and self._is_remote:
            first = () if self._embeds else (tuple(example.query for example in subject.examples),)
            self.noted.embedded += [unknown, *first]
            self._embeds = True

    async def answer(self, text: str, calls: Range = ONCE) -> Response | Failed | None:
        """The response to `text` by the record; None where it is still to be asked for, which is noted."""
        await self.look_up([text])
        if (shots := self.found[text]) is None:
            # Some shots are found without a record of it: what was asked with them may be there.
            least = 0.0 if len(self.resources.record) else calls.least
            await self._note(("text", text), text, replace(calls, least=least))
            return None
        usual = replace(self.responder, shots=(shots,))
        asked = await over(self.resources.record, self._respond(usual, text))
        if isinstance(asked, Missed) and not asked:  # how long a prompt is may be unknown
            asked = await over(self.resources.record, self._respond(replace(usual, fit=None), text))
        if not isinstance(asked, Missed):
            return asked
        self._worded.add(_words(text))
        shortest = await self._request((), text) if self.may_drop else None
        self.noted.known(Pending(self.role, asked[0], self.written, calls, shortest=shortest))
        return None

    async def suppose(
        self, key: Hashable, query: str, size: RewriteSize, calls: Range = ONCE, *, may_equal: bool = False
    ) -> None:
        """Note a request for a rewrite of `query` that is not known yet. may_equal: whether another one that
        is noted may turn out to be the same."""
        await self.look_up([query])
        words = _words(query)
        if may_equal or words in self._worded:
            calls = replace(calls, least=0.0)
        self._worded.add(words)
        if self.found[query] is None and self._is_remote:
            self.noted.embedded += [(query,)] * (round(calls.most or 1) - 1)
            self.noted.embedded_unknown += Range(0, size.added, size.text.most).times(calls)
        await self._note(key, query, calls, size)

    @property
    def _is_remote(self) -> bool:
        return self.subject.embedder.startswith(("openai/", "vllm/"))

    async def _note(self, key: Hashable, query: str, calls: Range, size: RewriteSize | None = None) -> None:
        """A request of which the shots are not known, or, with the `size` of what it will be, the query."""
        subject = self.subject
        fewest, usual, most = self.bounds
        stands = query if size is None else _X
        known = self.found.get(query)
        shown = usual if known is None else tuple(subject.examples[index] for index in known)
        pending = Pending(
            self.role,
            await self._request(shown, query),
            self.written,
            calls,
            NOTHING if size is None else Range(0, size.added, size.text.most),
            shortest=await self._request(() if self.may_drop else fewest, stands),
            longest=await self._request(most, stands),
        )
        self.noted.supposed((self.role, subject.digest, key), pending)

    async def _respond(self, responder: Responder, text: str) -> Response | Failed:
        return await responder.respond(self.subject.system_prompt, Query(text), 0)

    async def _request(self, shown: tuple[Example, ...], text: str) -> Request:
        one = self.responder
        request = one.composer.request(one.model, one.sampling, self.subject.system_prompt, shown, text)
        return await as_sent(one.llm, self.resources.record, request)


async def open_base_ahead(
    plan: RunPlan, role: Role, subject: Subject, sampling: Sampling, resources: Resources, noted: Noted
) -> BaseAhead:
    """The subject, ready to be asked over the record. What only a server knows is supposed as the catalog has
    it; texts of examples that an embedding model is given are noted."""
    config, choice = plan.config, plan.models[role]
    assert isinstance(config, AnswererConfig)
    llm = await model_over(choice, resources)
    wanted = wanted_form(config, subject, choice)
    try:
        form = await choose_form(choice, wanted, resources)
    except ReplayMissed:
        note_trial(role, choice, wanted, noted)
        form = form_by_catalog(choice)
    composer = Composer(subject.templates, form, cut=subject.answer_end == "cut")
    fit: ContextFit | None = None
    is_known = True
    try:
        fit = await fit_context(choice, config.long_prompts, resources, composer, sampling)
    except ReplayMissed:
        is_known = False
    longest, usual = longest_reply(plan, role), response_habits(choice, form).response
    written = Range(0, usual if longest is None else min(usual, longest), longest)
    fixed = subject.examples[: subject.shots]
    bounds = shots_by_length(subject.examples, subject.shots) if subject.embedder else (fixed,) * 3
    return BaseAhead(
        plan=plan,
        role=role,
        subject=subject,
        responder=Responder(llm, choice.identity, composer, sampling, subject.examples, ((),), fit),
        written=written,
        may_drop=(fit is not None or not is_known) and subject.shots > 0,
        bounds=(bounds[0], bounds[1], bounds[2]),
        resources=resources,
        noted=noted,
    )


def _words(text: str) -> frozenset[str]:
    """Queries of the same words may be rewritten to the same text, which is one request."""
    return frozenset(_WORD.findall(text.casefold()))
