"""`drpo align-pro estimate`: rewrites of a prompter, the frozen model's answers, their rewards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from drpo.align_pro.bound import Distance, greedy_distance
from drpo.align_pro.plan import EstimatePlan
from drpo.align_pro.reckoning import estimation_of
from drpo.align_pro.results import Estimation, Explored, Tried
from drpo.align_pro.rewarding import Rewarding, open_rewarding
from drpo.align_pro.scoring import Sampled, Scoring, distance_of, scoring_of
from drpo.ask import Asker, derived_seed
from drpo.compose import Composer, Sampling
from drpo.data import ExampleSet
from drpo.errors import ParameterRefused
from drpo.live import Resources
from drpo.llm.base import Request, Role
from drpo.measuring.answering import made_for_another, wanted_form
from drpo.measuring.progress import Counting
from drpo.measuring.results import write_results
from drpo.measuring.running import Opened, measure
from drpo.measuring.subject import Subject
from drpo.plan import run_path
from drpo.respond import ContextFit, choose_form, fit_context
from drpo.rewriting.asking import Writer
from drpo.rewriting.contract import Rewrite
from drpo.rewriting.opening import left_by
from drpo.rewriting.weighing import drawn
from drpo.run import Hooks
from drpo.search.engine import settle
from drpo.types import Failed, Query
from drpo.wiring import open_model, shots_of

_WRITTEN = ("stop", "length")


async def run_estimate(
    plan: EstimatePlan, environment: Mapping[str, str], hooks: Hooks, counting: Counting | None = None
) -> Estimation:
    """The estimate of the plan, whose run directory then holds items.jsonl and summary.json.

    The same call again reads the record and sends nothing; other lambdas are reckoned from the same record.
    """
    counting = counting or Counting(plan, run_path(plan), len(plan.items))
    return await measure(plan, environment, hooks, counting, partial(_estimate, plan))


async def _estimate(plan: EstimatePlan, opened: Opened) -> Estimation:
    config, resources = plan.config, opened.resources
    if (said := made_for_another(plan.subject, plan.models["base"])) is not None:
        resources.notice(said)
    # What is wrong with a reward model is found now, and not when all else is paid for.
    rewarding = await open_rewarding(plan, resources, plan.reward_model)
    writer, left = await _writer(plan, resources), left_by(config.embedder, resources)
    rewrites = await settle(drawn(writer, left, item.query, "", config.samples) for item in plan.items)
    read = [item.query for item in plan.items] + [one.text for found in rewrites for one in found]
    shots = await _shots(plan.subject, resources, read)
    frozen = await _frozen(plan, resources, "base", shots)
    policy = await _frozen(plan, resources, "against", shots) if "against" in plan.models else None

    async def explore(place: int) -> Explored:
        found = await _explored(plan, place, rewrites[place], frozen, policy, rewarding)
        opened.counting.count()
        return found

    explored = await settle(explore(place) for place in range(len(plan.items)))
    for report in (rewarding.report(), frozen.report(), policy.report() if policy else None):
        if report is not None:
            resources.notice(report)
    sent = dict(resources.record.sent)
    result = estimation_of(plan, opened.directory.path, explored, rewarding.name, frozen.composer.form, sent)
    write_results(result.run_dir, (one.as_dict() for one in result.weighed), result.as_dict())
    return result


async def _explored(
    plan: EstimatePlan,
    place: int,
    rewrites: Sequence[Rewrite],
    frozen: Frozen,
    policy: Frozen | None,
    rewarding: Rewarding,
) -> Explored:
    """One query with its rewrites, all answered and rewarded."""
    item = plan.items[place]
    counts = Counter(one.text for one in rewrites)
    texts = [item.query, *(text for text in counts if text != item.query)]
    asked = [(frozen, text) for text in texts]
    asked += [(policy, item.query)] if policy is not None else []
    given = await settle(model.answers(text) for model, text in asked)
    pairs = [(item.query, text) for found in given if not isinstance(found, Failed) for text in found.texts]
    rewards = iter(await rewarding.rewards(pairs))
    distances = await settle(distance_of_answers(given[0], found) for found in given)
    tried = [
        _tried(text, found, [] if isinstance(found, Failed) else [next(rewards) for _ in found.texts], apart)
        for (_, text), found, apart in zip(asked, given, distances, strict=True)
    ]
    by_text = {one.text: one for one in tried[: len(texts)]}
    return Explored(
        item=item,
        own=tried[0],
        rewrites=tuple((by_text[text], count) for text, count in counts.items()),
        kept=tuple(Counter(one.kept for one in rewrites if one.kept).items()),
        policy=tried[-1] if policy is not None else None,
    )


def _tried(
    text: str, found: Answers | Failed, rewards: Sequence[float | Failed], distance: Distance | None
) -> Tried:
    if isinstance(found, Failed):
        return Tried(text, (), (), found.reason)
    known = tuple(reward for reward in rewards if not isinstance(reward, Failed))
    problem = next((reward.reason for reward in rewards if isinstance(reward, Failed)), "")
    return Tried(text, found.texts, known, problem, distance)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model answers to one query. texts: at least one. sampled: of several, their distribution, as
    far as it can be known; None where it cannot, and for one, which is greedy."""

    texts: tuple[str, ...]
    is_greedy: bool
    sampled: Sampled | None = None


async def distance_of_answers(one: Answers | Failed, other: Answers | Failed) -> Distance | None:
    """d_TV of two models' answers; None where nobody knows it."""
    if isinstance(one, Failed) or isinstance(other, Failed):
        return None
    if one is other:
        return Distance(0.0, 0.0)
    if one.is_greedy:
        return greedy_distance(one.texts[0], other.texts[0])
    if one.sampled is None or other.sampled is None:
        return None
    return await distance_of(one.sampled, other.sampled)


@dataclass(frozen=True, slots=True)
class Frozen:
    """A model that is not trained, asked by an alignment. shots: per query as it reads it. count: how many
    answers it gives to each; one is greedy, several are samples. scoring: who knows how likely those are."""

    asker: Asker
    role: Role
    model: str
    composer: Composer
    subject: Subject
    shots: Mapping[str, tuple[int, ...]]
    sampling: Sampling
    fit: ContextFit | None
    count: int
    random_seed: int
    scoring: Scoring | None = None

    async def answers(self, query: str) -> Answers | Failed:
        """At least one answer; `Failed` where there is none: the query is too long, or all were held back."""
        shown = [self.subject.examples[index] for index in self.shots[query]]
        prompt = self.subject.system_prompt
        if self.fit is not None:
            kept = await self.fit.shots_that_fit(prompt, shown, query)
            if isinstance(kept, Failed):
                return kept
            shown = shown[:kept]
        request = replace(
            self.composer.request(self.model, self.sampling, prompt, shown, query), role=self.role
        )
        if self.count > 1:
            seed = derived_seed(self.random_seed, f"answers to {query}")
            request = replace(request, n=self.count, seed=seed)
        samples = self.asker.sample(request, self.composer.answer)
        found = await settle(sample.value() for sample in samples)
        texts = tuple(one for one in found if not isinstance(one, Failed))
        if not texts:
            return next(one for one in found if isinstance(one, Failed))
        return Answers(texts, self.count == 1, await self._sampled(request))

    async def _sampled(self, request: Request) -> Sampled | None:
        """The answers as the model wrote them, read from the record; None where their distribution is not
        known, or one of them was held back."""
        if self.scoring is None or self.count == 1:
            return None
        try:
            choices = (await self.asker.llm.complete(request)).choices
        except ParameterRefused:  # the answers came one by one
            return None
        if len(choices) < self.count or any(one.finish_reason not in _WRITTEN for one in choices):
            return None
        return Sampled(request, self.scoring, choices)

    def report(self) -> str | None:
        """How often the context was too short, in words; None if it never was."""
        return None if self.fit is None else self.fit.report()


async def _frozen(
    plan: EstimatePlan, resources: Resources, role: Role, shots: Mapping[str, tuple[int, ...]]
) -> Frozen:
    config, subject, choice = plan.config, plan.subject, plan.models[role]
    llm = await open_model(choice, resources)
    form = await choose_form(choice, wanted_form(config, subject, choice), resources)
    composer = Composer(subject.templates, form, cut=subject.answer_end == "cut")
    is_greedy = config.answers == 1
    temperature = 0.0 if is_greedy else config.answer_temperature
    scoring = None if is_greedy else scoring_of(choice, resources, form, temperature)
    # Scores are of plain samples: a server's own top_p would cut the unlikely ones off.
    sampling = Sampling(temperature, 1.0 if scoring else None, config.base_max_tokens)
    return Frozen(
        asker=Asker(llm, plan.inputs.templates, repairs=0),
        role=role,
        model=choice.identity,
        composer=composer,
        subject=subject,
        shots=shots,
        sampling=sampling,
        fit=await fit_context(choice, config.long_prompts, resources, composer, sampling),
        count=config.answers,
        random_seed=config.random_seed,
        scoring=scoring,
    )


async def _writer(plan: EstimatePlan, resources: Resources) -> Writer:
    """The reference prompter; its replies are plain text, so nothing is repaired."""
    prompter, config = plan.prompter, plan.config
    llm = await open_model(prompter.choice, resources)
    return Writer(
        Asker(llm, plan.inputs.templates, repairs=0),
        prompter.choice.identity,
        prompter.format,
        prompter.templates,
        prompter.sampling,
        await choose_form(prompter.choice, "auto", resources, "rewriter"),
        random_seed=config.random_seed,
    )


async def _shots(subject: Subject, resources: Resources, read: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The examples shown with each query as the frozen model reads it, found in one go."""
    texts = list(dict.fromkeys(read))
    if not subject.shots or not subject.embedder:
        return dict.fromkeys(texts, tuple(range(subject.shots)))
    examples = ExampleSet(subject.examples, subject.name, subject.digest)
    found = await shots_of(
        examples, subject.embedder, resources, subject.shots, [Query(text) for text in texts]
    )
    return dict(zip(texts, found, strict=True))
