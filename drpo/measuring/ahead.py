"""What a measurement has yet to ask: the measurement itself, over its record, with no model behind it.

What is recorded answers. What is not is a request still to come; of a rewrite or a response that there is not
yet only the length is supposed, in the judge's request too. Nothing is sent, started or written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

from drpo.ask import Asker
from drpo.compose import Sampling
from drpo.config_asking import AskingConfig
from drpo.estimate.judge_habits import judge_habits_of
from drpo.estimate.pending import NOTHING, ONCE, PERHAPS, Ahead, Noted, Pending
from drpo.estimate.ranges import Range, total
from drpo.estimate.rewriting_habits import rewriting_habits_of
from drpo.estimate.texts import LEAST_REPLY, longest_reply
from drpo.judging.audit import PreferQuestion, questions
from drpo.live import Resources
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.measuring.auditing import _ask
from drpo.measuring.base_ahead import BaseAhead, open_base_ahead
from drpo.measuring.evaluating import aspects_for
from drpo.measuring.judge import Judge
from drpo.measuring.plan import MeasuringPlan, Side
from drpo.measuring.progress import Counting
from drpo.over_record import Missed, model_over, over
from drpo.plan import run_path
from drpo.problems import Response
from drpo.rewriting.ahead import Foreseen, open_rewriter_ahead
from drpo.types import Failed
from drpo.wiring import structured_for

LEAST_VERDICT = 1
"""Tokens of the shortest verdict that can be read."""
_LIKELY = Range(0, 1, 1)
_UNKNOWN = ("x", "y")  # stand for responses that are not there yet


@dataclass(frozen=True, slots=True)
class _Side:
    """Who answers. foreseen: what becomes of each query, empty where none is rewritten."""

    base: BaseAhead
    foreseen: tuple[Foreseen, ...]


async def ahead_of(plan: MeasuringPlan, record: Record, environment: Mapping[str, str]) -> Ahead:
    """What the plan has yet to ask by its record, which is only read."""
    looking = _Looking(plan, record, environment)
    if plan.cases:
        await looking.audit()
    elif len(plan.sides) == 1:
        await looking.evaluate()
    else:
        await looking.compare()
    return looking.noted.ahead(looking.responses)


class _Looking:
    """One look ahead."""

    def __init__(self, plan: MeasuringPlan, record: Record, environment: Mapping[str, str]) -> None:
        self._plan, self._record = plan, record
        self._resources = Resources(record, Stop(), environment, plan.config, live=False)
        self._habits = judge_habits_of(plan.models.get("judge"))
        self.noted = Noted()
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
                unknown = side.base.written if found is None else NOTHING
                calls = ONCE if not side.foreseen or side.foreseen[index].is_certain else _LIKELY
                await self._judged(judge.score(item.query, text, aspects), len(aspects), unknown, calls)

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
            missing = [side.base.written for side, one in zip(sides, found, strict=True) if one is None]
            if texts[0] == texts[1] and not missing:
                continue
            calls = Range(0, self._differ(sides[0], index), 1) if missing else ONCE
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

    async def _response(self, side: _Side, index: int) -> Response | Failed | None:
        """The response of this number; None where it is still to be asked for."""
        query, base = self._plan.inputs.queries[index].text, side.base
        if side.foreseen:
            one = side.foreseen[index]
            if one.rewrite is None:
                if one.is_answered:  # unless none of the rewrites can be rewarded
                    await base.answer(query, PERHAPS)
                else:
                    same, calls = self._is_same_prompt, ONCE
                    if same:  # where the query is kept, the other side asks for it
                        calls = Range(0, self._changed, 1)
                    await base.suppose(("rewritten", query), query, one.size, calls, may_equal=same)
                return None
            query = one.rewrite.text
        found = await base.answer(query)
        if isinstance(found, Response) and found.finish_reason == "context_length":
            return Failed("the prompt with its shots is longer than the base model's context")
        return found

    async def _judged(
        self, asking: Awaitable[object], aspects: int, unknown: Range, calls: Range = ONCE
    ) -> None:
        """Note what a judgement has yet to ask: its first request or, where that is recorded, its repair."""
        found = await over(self._record, asking)
        if not isinstance(found, Missed) or not found:
            return
        longest = longest_reply(self._plan, "judge")
        wanted = self._habits.score * aspects if aspects else self._habits.verdict
        cut = wanted if longest is None else min(wanted, longest)
        reply = Range(min(LEAST_REPLY if aspects else LEAST_VERDICT, cut), cut, longest)
        repairs = self._plan.config.repairs - (len(found[0].messages) - 1) // 2
        self.noted.known(Pending("judge", found[0], reply, calls, unknown, repairs))

    def _differ(self, side: _Side, index: int) -> float:
        """How often two responses that are not both known differ."""
        differ = 1 - self._habits.equal
        if not side.foreseen or not self._is_same_prompt or side.foreseen[index].rewrite is not None:
            return differ
        return differ * self._changed

    @property
    def _changed(self) -> float:
        """The share of queries that a rewriter changes."""
        rewriting = self._plan.rewriting
        return 1.0 if rewriting is None else 1 - rewriting_habits_of(rewriting.choice).kept

    @property
    def _is_same_prompt(self) -> bool:
        """Whether both sides ask one model by one system prompt, so that what is not rewritten is one
        request."""
        sides = self._plan.sides
        return (
            len(sides) == 2
            and sides[0].role == sides[1].role
            and sides[0].subject.system_prompt == sides[1].subject.system_prompt
        )

    # Who is asked

    async def _judge(self) -> Judge | None:
        plan, config = self._plan, self._plan.config
        choice = plan.models.get("judge")
        if choice is None:
            return None
        llm = await model_over(choice, self._resources)
        asker = Asker(llm, plan.inputs.templates, config.repairs, structured_for(plan, "judge"))
        sampling = Sampling(temperature=0.0, max_tokens=config.max_tokens)
        return Judge(asker, choice.identity, sampling, plan.judge_templates, config.random_seed)

    async def _side(self, side: Side) -> _Side:
        plan, config, noted = self._plan, self._plan.config, self.noted
        assert isinstance(config, AskingConfig)
        sampling = Sampling(temperature=0.0, max_tokens=config.base_max_tokens)
        base = await open_base_ahead(plan, side.role, side.subject, sampling, self._resources, noted)
        queries = [query.text for query in plan.inputs.queries]
        if not side.is_rewritten:
            await base.look_up(queries)
            return _Side(base, ())
        assert plan.rewriting is not None
        rewriter = await open_rewriter_ahead(plan, plan.rewriting, self._resources, noted)
        return _Side(base, await rewriter.all(queries, base, may_equal=self._is_same_prompt))
