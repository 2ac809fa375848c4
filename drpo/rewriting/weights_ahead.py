"""What the weighing of rewrites has yet to ask, over the record of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from drpo.align_pro.rewarding import dynamic_reward, open_rewarding
from drpo.estimate.habits import Habits, response_habits
from drpo.estimate.pending import ONCE, Noted, Pending
from drpo.estimate.ranges import Range
from drpo.estimate.texts import LEAST_REPLY, longest_reply
from drpo.live import Resources
from drpo.llm.base import LLM, Request, Role
from drpo.llm.recorder import Record
from drpo.over_record import Missed, model_over, over
from drpo.parse import LONGEST_NAME
from drpo.plan import RunPlan
from drpo.problems import Response
from drpo.reward import FEWEST_ASPECTS, MOST_ASPECTS, EvaluatorReward, StaticAspects
from drpo.types import Aspect, Evaluation, Failed, Query, Selection

_X = "x"  # stands for a text that is not known yet
Answers = Mapping[str, Response | Failed | None]
"""Rewrite -> the base model's answer to it; None: not there yet."""
Rewards = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class WeightsAhead:
    """What weighs rewrites, asked over the record: a selector and an evaluator, or a reward model."""

    plan: RunPlan
    models: Mapping[Role, LLM]
    reward_model: str
    resources: Resources
    noted: Noted

    @property
    def is_known(self) -> bool:
        """Whether the record can tell which weights it holds: a reward model that runs here says its name
        only once it is loaded."""
        return not self.reward_model or self.reward_model.startswith("vllm/")

    async def suppose(self, query: str, rewrites: Range, distinct: float) -> None:
        """Note what weighs so many answers that are not there yet. distinct: share of them that differ."""
        if self.reward_model:
            self.noted.weighed += max(1.0, rewrites.expected * distinct)
            return
        selection = await self._selection(query)
        if not isinstance(selection, Failed):
            expected = max(1.0, rewrites.expected * distinct)
            await self._unseen(query, selection, Range(rewrites.least, expected, rewrites.most))

    async def of(self, query: str, answers: Answers, distinct: float) -> Rewards | None:
        """The reward of each rewrite, or None where something is missing, which is noted."""
        texts = {one.text for one in answers.values() if isinstance(one, Response)}
        missing = sum(one is None for one in answers.values())
        if self.reward_model:
            self.noted.weighed += len(texts) + missing
            return await self._by_model(query, answers) if self.is_known else None
        selection = await self._selection(query)
        if isinstance(selection, Failed):
            return None if missing else dict.fromkeys(answers)
        if missing:
            least = 0 if texts else 1
            calls = Range(least, max(least, missing * distinct), missing)
            await self._unseen(query, selection, calls)
        values: dict[str, float | None] = {}
        is_whole = not missing and isinstance(selection, Selection)
        for text in sorted(texts):
            found = await self._evaluation(query, text, selection)
            is_whole = is_whole and found is not None
            values[text] = found.reward if isinstance(found, Evaluation) else None
        if not is_whole:
            return None
        return {
            rewrite: values[one.text] if isinstance(one, Response) else None
            for rewrite, one in answers.items()
        }

    async def _by_model(self, query: str, answers: Answers) -> Rewards | None:
        """By the record of a served reward model, which is not asked."""
        if None in answers.values():
            return None
        rewards: Rewards = {}
        for rewrite, one in answers.items():
            if not isinstance(one, Response):
                rewards[rewrite] = None
                continue
            rewarding = await open_rewarding(self.plan, self.resources, self.reward_model)
            found = await over(self.resources.record, rewarding.rewards([(query, one.text)]))
            if isinstance(found, Missed):
                return None
            rewards[rewrite] = None if isinstance(found[0], Failed) else found[0]
        return rewards

    async def _selection(self, query: str) -> Selection | Failed | None:
        """The aspects of the query; None where they have yet to be chosen, which is noted."""
        found = await over(self.resources.record, self._reward().selector.choose(Query(query)))
        if not isinstance(found, Missed):
            return found
        self.noted.known(self._pending("selector", found[0], self._habits("selector").selection))
        return None

    async def _evaluation(
        self, query: str, answer: str, selection: Selection | None
    ) -> Evaluation | Failed | None:
        """The evaluation of an answer; None where it is still to come, which is noted."""
        if selection is None:
            await self._on_any_aspects(("evaluation", query, answer), query, answer, Range(), ONCE)
            return None
        reward = replace(self._reward(), selector=StaticAspects(selection))
        found = await over(self.resources.record, reward.evaluate(Query(query), answer, ""))
        if not isinstance(found, Missed):
            return found
        usual = self._habits("evaluator").evaluation * len(selection.aspects)
        self.noted.known(self._pending("evaluator", found[0], usual))
        return None

    async def _unseen(self, query: str, selection: Selection | None, calls: Range) -> None:
        """Note the evaluations of answers that are not there yet."""
        longest, usual = longest_reply(self.plan, "base"), self._habits("base").response
        answer = Range(0, usual if longest is None else min(usual, longest), longest)
        if selection is None:
            await self._on_any_aspects(("evaluations", query), query, _X, answer, calls)
            return
        request = await self._asked(query, _X, selection)
        one = self._pending(
            "evaluator", request, self._habits("evaluator").evaluation * len(selection.aspects)
        )
        self.noted.supposed(("evaluations", query), replace(one, calls=calls, unknown=answer))

    async def _on_any_aspects(
        self, key: tuple[str, ...], query: str, answer: str, unknown: Range, calls: Range
    ) -> None:
        """Note evaluations on aspects that have yet to be chosen: some of the book, or proposed ones, which
        stand in the prompt twice, once as the shape of the reply."""
        habits, longest = self._habits("evaluator"), longest_reply(self.plan, "selector")
        ordered = sorted(
            self.plan.inputs.templates.book.aspects, key=lambda one: len(one.definition.encode())
        )
        number = min(len(ordered), round(habits.aspects))
        first = (len(ordered) - number) // 2
        proposed = None if longest is None else 2.0 * longest + MOST_ASPECTS * LONGEST_NAME

        async def on(aspects: Sequence[Aspect]) -> Request:
            return await self._asked(query, answer, Selection(tuple(aspects), _X))

        one = self._pending(
            "evaluator", await on(ordered[first : first + number]), habits.evaluation * habits.aspects
        )
        pending = replace(
            one,
            calls=calls,
            unknown=unknown + Range(0, habits.reason, proposed),
            shortest=await on(ordered[:FEWEST_ASPECTS]),
            longest=await on(ordered[-MOST_ASPECTS:]),
        )
        self.noted.supposed(key, pending)

    async def _asked(self, query: str, answer: str, selection: Selection) -> Request:
        """The request as it would be sent, whatever the run's record holds."""
        empty = Record(Path(os.devnull), writable=False)
        llm = await model_over(self.plan.models["evaluator"], replace(self.resources, record=empty))
        reward = dynamic_reward(self.plan, {"selector": llm, "evaluator": llm})
        assert isinstance(reward, EvaluatorReward)
        asking = replace(reward, selector=StaticAspects(selection)).evaluate(Query(query), answer, "")
        found = await over(empty, asking)
        assert isinstance(found, Missed)
        return found[0]

    def _reward(self) -> EvaluatorReward:
        """A new one each time: it remembers what it could not ask."""
        reward = dynamic_reward(self.plan, self.models)
        assert isinstance(reward, EvaluatorReward)
        return reward

    def _pending(self, role: Role, request: Request, usual: float) -> Pending:
        longest = longest_reply(self.plan, role)
        cut = usual if longest is None else min(usual, longest)
        repairs = self.plan.config.repairs - (len(request.messages) - 1) // 2
        return Pending(role, request, Range(min(LEAST_REPLY, cut), cut, longest), repairs=repairs)

    def _habits(self, role: Role) -> Habits:
        return response_habits(self.plan.models[role], "auto")


async def open_weights_ahead(
    plan: RunPlan, reward_model: str, resources: Resources, noted: Noted
) -> WeightsAhead:
    """What weighs the rewrites of a plan, ready to be asked over the record. Nothing is loaded or started."""
    roles: tuple[Role, ...] = () if reward_model else ("selector", "evaluator")
    models = {role: await model_over(plan.models[role], resources) for role in roles}
    return WeightsAhead(plan, models, reward_model, resources, noted)
