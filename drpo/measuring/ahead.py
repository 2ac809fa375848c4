"""What a measurement has yet to ask: the measurement itself, over its record, with no model behind it.

What is recorded answers. What is not is a request still to come; of a response that there is not yet only the
length is supposed, in the judge's request too. Nothing is sent, started or written.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace

from drpo.ask import Asker
from drpo.choices import ModelChoice
from drpo.compose import Composer, Sampling
from drpo.config_asking import AskingConfig
from drpo.data import ExampleSet
from drpo.errors import ReplayMissed
from drpo.estimate.counts import may_try_chat
from drpo.estimate.habits import DEMO, Habits, habits_of_base
from drpo.estimate.judge_habits import judge_habits_of
from drpo.estimate.ranges import Range, exactly, total
from drpo.estimate.texts import LEAST_REPLY, longest_reply, shots_by_length
from drpo.judging.audit import PreferQuestion, questions
from drpo.live import Resources
from drpo.llm.adapt import Adapt
from drpo.llm.base import LLM, Message, Request, Role, request_key
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record, Recorder
from drpo.measuring.answering import Answerer, open_side, wanted_form
from drpo.measuring.auditing import _ask
from drpo.measuring.evaluating import aspects_for
from drpo.measuring.judge import Judge
from drpo.measuring.plan import MeasuringPlan, Side
from drpo.measuring.progress import Counting
from drpo.plan import run_path
from drpo.problems import Responder, Response
from drpo.types import Example, Failed
from drpo.wiring import open_model, shots_of, structured_for

ONCE, NOTHING = exactly(1), Range()
LEAST_VERDICT = 1
"""Tokens of the shortest verdict that can be read."""
_UNKNOWN = ("x", "y")  # stand for responses that are not there yet


@dataclass(frozen=True, slots=True)
class Pending:
    """A request still to come, as it will be sent. calls: how often (0 to 1 where it may not be needed).

    In tokens: reply; unknown: of the responses in it that are not there yet. repairs: how often it may be
    asked again. shortest, longest: what bounds it where its shots are not known.
    """

    role: Role
    request: Request
    reply: Range
    calls: Range = ONCE
    unknown: Range = NOTHING
    repairs: int = 0
    shortest: Request | None = None
    longest: Request | None = None


@dataclass(frozen=True, slots=True)
class Ahead:
    """All that is still to come. embedded: texts for an embedding model, by group. responses: how many there
    are or will be."""

    pending: tuple[Pending, ...]
    embedded: tuple[tuple[str, ...], ...]
    responses: int


@dataclass(frozen=True, slots=True)
class _Side:
    """Who answers. fewest and most: with the shots that make the shortest and the longest prompts, where it
    is not known which will be shown."""

    role: Role
    answerer: Answerer
    fewest: Answerer | None = None
    most: Answerer | None = None


async def ahead_of(plan: MeasuringPlan, record: Record, environment: Mapping[str, str]) -> Ahead:
    """What the plan has yet to ask by its record, which is only read."""
    looking = _Looking(plan, record, environment)
    if plan.cases:
        await looking.audit()
    elif len(plan.sides) == 1:
        await looking.evaluate()
    else:
        await looking.compare()
    return Ahead(tuple(looking.pending.values()), tuple(looking.embedded), looking.responses)


class _Looking:
    """One look ahead. pending: by the key of the request, since equal ones are asked once."""

    def __init__(self, plan: MeasuringPlan, record: Record, environment: Mapping[str, str]) -> None:
        self._plan, self._record = plan, record
        self._resources = Resources(record, Stop(), environment, plan.config, live=False)
        self._habits = judge_habits_of(plan.models.get("judge"))
        self.pending: dict[str, Pending] = {}
        self.embedded: list[tuple[str, ...]] = []
        self.responses = 0

    async def evaluate(self) -> None:
        side, judge = await self._side(self._plan.sides[0]), await self._judge()
        for index, item in enumerate(self._plan.items):
            found = await self._response(side, index)
            if isinstance(found, Failed):
                continue
            self.responses += 1
            if judge is not None:
                aspects = aspects_for(item, judge)
                text = _UNKNOWN[0] if found is None else found.text
                unknown = self._written(side) if found is None else NOTHING
                await self._judged(judge.score(item.query, text, aspects), len(aspects), unknown)

    async def compare(self) -> None:
        sides, judge = [await self._side(side) for side in self._plan.sides], await self._judge()
        assert judge is not None
        for index, item in enumerate(self._plan.items):
            found = [await self._response(side, index) for side in sides]
            if any(isinstance(one, Failed) for one in found):
                continue
            texts = [
                one.text if isinstance(one, Response) else x for one, x in zip(found, _UNKNOWN, strict=True)
            ]
            missing = [self._written(side) for side, one in zip(sides, found, strict=True) if one is None]
            if texts[0] == texts[1] and not missing:
                continue
            calls = Range(0, 1 - self._habits.equal, 1) if missing else ONCE
            for first, second in (texts, texts[::-1]):
                await self._judged(judge.prefer(item.query, first, second), 0, total(missing), calls)

    async def audit(self) -> None:
        asked, judge = questions(self._plan.cases), await self._judge()
        assert judge is not None
        counting = Counting(self._plan, run_path(self._plan), len(asked))
        aspects = len(judge.templates.criteria.general)
        for question in asked:
            number = 0 if isinstance(question, PreferQuestion) else aspects
            await self._judged(_ask(question, judge, counting), number, NOTHING)

    # Asking over the record

    async def _missed(self, asking: Awaitable[object]) -> Request | object:
        """What came of it by the record, or the request that the record does not answer; None where something
        else is missing: a fact that only a server knows."""
        self._record.missed.clear()
        try:
            return await asking
        except ReplayMissed:
            return next(iter(self._record.missed.values()), None)

    async def _response(self, side: _Side, index: int) -> Response | Failed | None:
        """The response of this number; None where it is still to be asked for."""
        answerer = side.answerer
        found = await self._missed(answerer.answer(index))
        if found is None:
            answerer = replace(answerer, responder=replace(answerer.responder, fit=None))
            found = await self._missed(answerer.answer(index))
        if isinstance(found, (Response, Failed)):
            return found
        assert isinstance(found, Request)
        bounds = [
            await self._missed(other.answer(index)) if other is not None else None
            for other in (side.fewest, side.most)
        ]
        shortest, longest = (bound if isinstance(bound, Request) else None for bound in bounds)
        pending = Pending(side.role, found, self._written(side), shortest=shortest, longest=longest)
        self.pending.setdefault(request_key(found), pending)
        return None

    async def _judged(
        self, asking: Awaitable[object], aspects: int, unknown: Range, calls: Range = ONCE
    ) -> None:
        """Note what a judgement has yet to ask: its first request or, where that is recorded, its repair."""
        found = await self._missed(asking)
        if not isinstance(found, Request):
            return
        longest = longest_reply(self._plan, "judge")
        wanted = self._habits.score * aspects if aspects else self._habits.verdict
        cut = wanted if longest is None else min(wanted, longest)
        reply = Range(min(LEAST_REPLY if aspects else LEAST_VERDICT, cut), cut, longest)
        repairs = self._plan.config.repairs - (len(found.messages) - 1) // 2
        pending = Pending("judge", found, reply, calls, unknown, repairs)
        self.pending.setdefault(request_key(found), pending)

    def _written(self, side: _Side) -> Range:
        """The tokens of a response."""
        plan = self._plan
        longest = longest_reply(plan, side.role)
        usual = response_habits(plan.models[side.role], side.answerer.form).response
        return Range(0, usual if longest is None else min(usual, longest), longest)

    # Who is asked

    async def _model(self, choice: ModelChoice) -> LLM:
        """The model over the record; a run that has not begun knows what it refuses by the catalog."""
        try:
            return await open_model(choice, self._resources)
        except ReplayMissed:
            refused = sorted(choice.entry.refuses) if choice.entry else []
            thinking_tokens = self._plan.config.max_thinking_tokens
            recorder = Recorder(self._record, None, self._resources.stop)
            return Adapt(recorder, self._record, refused, thinking_tokens)

    async def _judge(self) -> Judge | None:
        plan, config = self._plan, self._plan.config
        choice = plan.models.get("judge")
        if choice is None:
            return None
        structured = structured_for(plan, "judge")
        asker = Asker(await self._model(choice), plan.inputs.templates, config.repairs, structured)
        sampling = Sampling(temperature=0.0, max_tokens=config.max_tokens)
        return Judge(asker, choice.identity, sampling, plan.judge_templates, config.random_seed)

    async def _side(self, side: Side) -> _Side:
        llm = await self._model(self._plan.models[side.role])
        try:
            return _Side(side.role, await open_side(self._plan, side, self._resources, llm))
        except ReplayMissed:
            return await self._supposed(side, llm)

    async def _supposed(self, side: Side, llm: LLM) -> _Side:
        """A side of which not all is recorded that only servers know: asked as the catalog has it, with the
        shots that are found without a server, or with any."""
        plan, config, subject = self._plan, self._plan.config, side.subject
        assert isinstance(config, AskingConfig)
        choice = plan.models[side.role]
        wanted = wanted_form(config, side.subject, choice)
        if may_try_chat(choice, wanted):
            hello = Request(choice.identity, messages=(Message("user", "Hello"),), max_tokens=1)
            tried = Pending(side.role, hello, Range(0, 0, 1), Range(0, 0, 1))
            self.pending.setdefault(request_key(hello), tried)
        known = choice.entry.form if choice.entry is not None else "auto"
        form = wanted if wanted != "auto" else known if known != "auto" else "chat"
        sampling = Sampling(temperature=0.0, max_tokens=config.base_max_tokens)
        queries = plan.inputs.queries
        composer = Composer(subject.templates, form, cut=subject.answer_end == "cut")
        responder = functools.partial(Responder, llm, choice.identity, composer, sampling)

        def showing(examples: tuple[Example, ...], shots: tuple[tuple[int, ...], ...]) -> Answerer:
            return Answerer(responder(examples, shots), subject.system_prompt, form, queries, None)

        def always(examples: tuple[Example, ...]) -> Answerer:
            return showing(examples, (tuple(range(len(examples))),) * len(queries))

        fewest, usual, most = shots_by_length(subject.examples, subject.shots)
        drops = config.long_prompts == "drop-shots" and choice.provider == "vllm" and subject.shots > 0
        none = always(()) if drops else None
        shots = await self._shots(side)
        if shots is not None:
            return _Side(side.role, showing(subject.examples, shots), none)
        if subject.embedder.startswith(("openai/", "vllm/")):
            groups = [tuple(query.text for query in queries), tuple(e.query for e in subject.examples)]
            self.embedded += groups
        return _Side(side.role, always(usual), none or always(fewest), always(most))

    async def _shots(self, side: Side) -> tuple[tuple[int, ...], ...] | None:
        """The shots of each query; None where only a model could find them."""
        subject, queries = side.subject, self._plan.inputs.queries
        if not subject.shots or not subject.embedder:
            return (tuple(range(subject.shots)),) * len(queries)
        examples = ExampleSet(subject.examples, subject.name, subject.digest)
        try:
            return await shots_of(examples, subject.embedder, self._resources, subject.shots, queries)
        except ReplayMissed:
            return None


def response_habits(base: ModelChoice, form: str) -> Habits:
    """What to expect of a base model's responses, and how its prompts are counted."""
    return DEMO if base.provider == "demo" else habits_of_base(base, form)
