"""The responses that are judged: a base model asked as the alignment says, by the one renderer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from drpo.choices import ModelChoice
from drpo.compose import Composer, PromptForm, Sampling
from drpo.config_asking import AnswererConfig, AskingConfig
from drpo.data import ExampleSet
from drpo.live import Resources
from drpo.llm.base import LLM
from drpo.measuring.plan import MeasuringPlan, Side, self_preference
from drpo.measuring.subject import Subject
from drpo.problems import Responder, Response
from drpo.respond import ContextFit, choose_form, fit_context
from drpo.rewriting.contract import Rewrite
from drpo.rewriting.opening import Answers, open_rewriter
from drpo.search.engine import settle
from drpo.types import Failed, Query
from drpo.wiring import open_model, shots_of


@dataclass(frozen=True, slots=True)
class Answerer:
    """One side of a measurement. form: how its base model is asked. queries: as it reads them; rewrites: how
    they came about, empty where it reads the users' own words."""

    responder: Responder
    system_prompt: str
    form: PromptForm
    queries: tuple[Query, ...]
    fit: ContextFit | None
    rewrites: tuple[Rewrite, ...] = ()

    def rewrite(self, index: int) -> Rewrite | None:
        """What became of the query of this number; None where nothing is rewritten."""
        return self.rewrites[index] if self.rewrites else None

    async def answer(self, index: int) -> Response | Failed:
        """The greedy response to the query of this number; `Failed` where there is none to judge."""
        answered = await self.responder.respond(self.system_prompt, self.queries[index], index)
        if isinstance(answered, Response) and answered.finish_reason == "context_length":
            return Failed("the prompt with its shots is longer than the base model's context")
        return answered


async def open_side(plan: MeasuringPlan, side: Side, resources: Resources, llm: LLM) -> Answerer:
    """The side, ready to answer. `llm`: its base model behind its wrappers."""
    config, subject, choice = plan.config, side.subject, plan.models[side.role]
    assert isinstance(config, AskingConfig)
    form = await choose_form(choice, wanted_form(config, subject, choice), resources)
    composer = Composer(subject.templates, form, cut=subject.answer_end == "cut")
    sampling = Sampling(temperature=0.0, max_tokens=config.base_max_tokens)
    fit = await fit_context(choice, config.long_prompts, resources, composer, sampling)

    async def responder_for(queries: tuple[Query, ...]) -> Responder:
        shots: tuple[tuple[int, ...], ...] = (tuple(range(subject.shots)),) * len(queries)
        if subject.shots and subject.embedder:
            examples = ExampleSet(subject.examples, subject.name, subject.digest)
            shots = await shots_of(examples, subject.embedder, resources, subject.shots, queries)
        return Responder(llm, choice.identity, composer, sampling, subject.examples, shots, fit)

    async def answer(text: str) -> str | Failed:
        asked = Query(text)
        found = await (await responder_for((asked,))).respond(subject.system_prompt, asked, 0)
        return found if isinstance(found, Failed) else found.text

    rewrites = await _rewrites(plan, resources, answer) if side.is_rewritten else ()
    queries = tuple(Query(one.text) for one in rewrites) or plan.inputs.queries
    responder = await responder_for(queries)
    return Answerer(responder, subject.system_prompt, form, queries, fit, rewrites)


async def _rewrites(plan: MeasuringPlan, resources: Resources, answers: Answers) -> tuple[Rewrite, ...]:
    """What the base model reads in place of each query of the plan."""
    rewriting = plan.rewriting
    assert rewriting is not None
    llm = await open_model(rewriting.choice, resources)
    rewriter = await open_rewriter(plan, rewriting, resources, llm, answers)
    found = await settle(rewriter.rewrite(query.text) for query in plan.inputs.queries)
    return tuple(rewrites[0] for rewrites in found)


def wanted_form(
    config: AnswererConfig, subject: Subject, choice: ModelChoice
) -> PromptForm | Literal["auto"]:
    """As the settings say; else as it was searched, where the model is the one of the search."""
    if config.prompt_form != "auto" or subject.found_for != choice.identity:
        return config.prompt_form
    return subject.prompt_form


def fit_report(answerer: Answerer) -> str | None:
    """How often the context was too short, in words; None if it never was."""
    return None if answerer.fit is None else answerer.fit.report()


def made_for_another(subject: Subject, choice: ModelChoice) -> str | None:
    """A notice where an alignment was found for another model than the one that is asked."""
    if subject.found_for in (None, choice.identity):
        return None
    return f"{subject.name} was found for {subject.found_for}, {choice.identity} is asked"


def notices_of(plan: MeasuringPlan) -> list[str]:
    """What a user wants to know of a measurement before it begins."""
    moved = (made_for_another(side.subject, plan.models[side.role]) for side in plan.sides)
    return [said for said in (self_preference(plan), *moved) if said is not None]
