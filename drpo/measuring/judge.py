"""The judge: asks for scores or a preference, reads the reply, asks once more where it cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from drpo.ask import Asker, derived_seed
from drpo.compose import Sampling
from drpo.judging.questions import JudgeTemplates, read_scores, scores_schema, verdict_schema
from drpo.judging.verdicts import Verdict, read_verdict
from drpo.live import Resources
from drpo.llm.base import Message, Request
from drpo.measuring.plan import MeasuringPlan
from drpo.types import Aspect, AspectScore, Failed
from drpo.wiring import open_model, structured_for

REPEAT_TEMPERATURE = 1.0


@dataclass(frozen=True, slots=True)
class Judge:
    """A model that judges, asked greedily: one request per response, or per order of a pair.

    model: its identity. A question with a `repeat` above 0 is sampled, at `REPEAT_TEMPERATURE` and with a
    seed of its own: greedy replies to one question would tell nothing about each other.
    """

    asker: Asker
    model: str
    sampling: Sampling
    templates: JudgeTemplates
    random_seed: int = 0

    async def score(
        self, query: str, response: str, aspects: Sequence[Aspect], repeat: int = 0
    ) -> tuple[AspectScore, ...] | Failed:
        """A score 1 to 5, or None (N/A), on each aspect."""
        text = self.templates.score(query, response, aspects)
        return await self.asker.ask(
            self._request(text, repeat), lambda reply: read_scores(reply, aspects), scores_schema(aspects)
        )

    async def prefer(self, query: str, response_a: str, response_b: str, repeat: int = 0) -> Verdict | Failed:
        """Which of two responses is better, shown in this order."""
        text = self.templates.prefer(query, response_a, response_b)
        return await self.asker.ask(self._request(text, repeat), read_verdict, verdict_schema())

    def _request(self, text: str, repeat: int) -> Request:
        request = Request(
            self.model,
            messages=(Message("user", text),),
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            max_tokens=self.sampling.max_tokens,
            role="judge",
        )
        if not repeat:
            return request
        seed = derived_seed(self.random_seed, f"repeat {repeat}: {text}")
        return replace(request, temperature=REPEAT_TEMPERATURE, seed=seed)


async def open_judge(plan: MeasuringPlan, resources: Resources) -> Judge:
    """The judge of the plan, behind its wrappers."""
    config, choice = plan.config, plan.models["judge"]
    llm = await open_model(choice, resources)
    asker = Asker(llm, plan.inputs.templates, config.repairs, structured_for(plan, "judge"))
    sampling = Sampling(temperature=0.0, max_tokens=config.max_tokens)
    return Judge(asker, choice.identity, sampling, plan.judge_templates, config.random_seed)
