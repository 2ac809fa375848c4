"""`--dry-run` of `drpo generate`: what it would ask and take, without asking anybody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from drpo.commands.dry_run_facts import DryRun, check_embedder, dry_run_of
from drpo.compose import Composer, PromptForm, Sampling
from drpo.config_use import GenerateConfig
from drpo.errors import InputError, ReplayMissed
from drpo.estimate.counts import may_try_chat
from drpo.estimate.ranges import Range
from drpo.estimate.roles import Batch, Recorded, RoleForecast, embedder_forecast, with_recorded
from drpo.estimate.texts import longest_reply, request_tokens, shots_by_length, thinks
from drpo.live import Resources
from drpo.llm.adapt import Adapt
from drpo.llm.base import LLM, Message, Request, request_key
from drpo.llm.limits import Stop
from drpo.llm.metered import most_tokens
from drpo.llm.recorder import Record, Recorder
from drpo.measured import ANSWERS_NAME
from drpo.measuring.ahead import Ahead, Pending, response_habits
from drpo.measuring.answering import made_for_another, wanted_form
from drpo.measuring.forecasting import MeasuringForecast
from drpo.problems import Responder, Response
from drpo.respond import ContextFit, choose_form, fit_context
from drpo.tariffs import EMBEDDER_ROLE, RoleTariff, tariffs_of
from drpo.types import Example, Failed
from drpo.use.generating import refuse_folder
from drpo.use.plan import UsePlan
from drpo.wiring import open_model, shots_of

Shots = tuple[tuple[int, ...], ...]


def look_ahead_generate(
    plan: UsePlan, environment: Mapping[str, str], flags: Mapping[str, Any], file: Path | None
) -> DryRun:
    """What the command would do with this plan. Nothing is sent, started or written.

    What the run directory holds is taken off: the queries are gone through over its record, so what is left
    is known by the request. Raises as `drpo.commands.dry_run.look_ahead`.
    """
    assert isinstance(plan.config, GenerateConfig)
    refuse_folder(plan.config.out)
    if plan.rewriting is not None:
        raise InputError(
            "--rewriter: what it makes of the queries decides what is asked, which a dry run cannot know; "
            "leave --rewriter or --dry-run out"
        )

    def foresee(path: Path, recorded: Recorded) -> tuple[MeasuringForecast, list[str]]:
        if plan.embedder:
            check_embedder(plan.embedder, plan.subject.examples, environment)
        record = Record(path / "calls.jsonl", writable=False)
        ahead = asyncio.run(_Looking(plan, record, environment).ahead())
        return _forecast(plan, ahead, recorded, environment), list(_notes(plan))

    told = dry_run_of(plan, environment, flags, file, foresee)
    has_all = told.state == "resume" and told.forecast.left.most == 0
    return replace(told, state="finished") if has_all and (told.path / ANSWERS_NAME).exists() else told


def _notes(plan: UsePlan) -> list[str]:
    assert isinstance(plan.config, GenerateConfig)
    subject = plan.subject
    notes = [f"alignment: {subject.name}, {subject.shots} examples shown with a query"]
    notes += [f"queries: {note}" for note in plan.inputs.notes]
    if (moved := made_for_another(plan.subject, plan.choice)) is not None:
        notes.append(moved)
    out = plan.config.out
    if out is not None and out.exists():
        notes.append(
            f"--out {out}: there is such a file and nothing is written over: unless it holds these very "
            "answers, the command ends with exit code 2 once it has them"
        )
    return notes


def _forecast(
    plan: UsePlan, ahead: Ahead, recorded: Recorded, environment: Mapping[str, str]
) -> MeasuringForecast:
    tariffs, habits = tariffs_of(plan, environment), response_habits(plan.choice, _wanted(plan))
    roles = [_base_forecast(plan, ahead.pending, recorded, tariffs["base"])]
    if EMBEDDER_ROLE in tariffs:
        characters = habits.characters_per_token
        roles.append(embedder_forecast(ahead.embedded, characters, tariffs[EMBEDDER_ROLE]))
    return MeasuringForecast(
        roles=tuple(roles),
        thinking=("base",) if thinks(plan, "base") else (),
        first_calls=min(1, len(ahead.pending)),
        recorded=recorded,
        items=len(plan.items),
        about=habits.about,
        rewards=0,
    )


def _base_forecast(
    plan: UsePlan, asked: Sequence[Pending], recorded: Recorded, tariff: RoleTariff
) -> RoleForecast:
    habits = response_habits(plan.choice, _wanted(plan))
    batches, held = [], []
    for one in asked:
        prompt = request_tokens(one.request, habits)
        least = request_tokens(one.shortest or one.request, habits).least
        most = request_tokens(one.longest or one.request, habits).most
        batches.append(Batch(one.calls, Range(least, prompt.expected, most), one.reply))
        usage = most_tokens(one.shortest or one.request)
        held.append(None if usage is None else tariff.usd(usage))
    known = [usd for usd in held if usd is not None]
    return with_recorded("base", tariff, batches, recorded, min(known, default=None))


def _wanted(plan: UsePlan) -> PromptForm | Literal["auto"]:
    return wanted_form(plan.config, plan.subject, plan.choice)


class _Looking:
    """One look ahead: the requests of the command over its record, with no model behind it. pending: by the
    key of the request, since equal ones are asked once."""

    def __init__(self, plan: UsePlan, record: Record, environment: Mapping[str, str]) -> None:
        self._plan, self._record = plan, record
        self._resources = Resources(record, Stop(), environment, plan.config, live=False)
        self._pending: dict[str, Pending] = {}
        self._embedded: tuple[tuple[str, ...], ...] = ()

    async def ahead(self) -> Ahead:
        """What is still to come; what only a server knows is supposed as the catalog has it."""
        form, llm = await self._form(), await self._model()
        composer = Composer(self._plan.subject.templates, form, cut=self._plan.subject.answer_end == "cut")
        usual, fewest, most = await self._responders(composer, llm)
        for index in range(len(self._plan.items)):
            found = await self._missed(usual, index)
            if not isinstance(found, Request):
                continue
            bounds = [await self._missed(other, index) if other else None for other in (fewest, most)]
            short, long = (bound if isinstance(bound, Request) else None for bound in bounds)
            pending = Pending("base", found, self._reply(form), shortest=short, longest=long)
            self._pending.setdefault(request_key(found), pending)
        return Ahead(tuple(self._pending.values()), self._embedded, len(self._plan.items))

    async def _missed(self, responder: Responder, index: int) -> Response | Failed | Request:
        """What came of a query by the record, or the request that the record does not answer."""
        prompt, query = self._plan.subject.system_prompt, self._plan.inputs.queries[index]
        self._record.missed.clear()
        for asking in (responder, replace(responder, fit=None)):  # how long a prompt is may be unknown
            with contextlib.suppress(ReplayMissed):
                return await asking.respond(prompt, query, index)
            if self._record.missed:
                break
        return next(iter(self._record.missed.values()))

    def _reply(self, form: PromptForm) -> Range:
        longest = longest_reply(self._plan, "base")
        usual = response_habits(self._plan.choice, form).response
        return Range(0, usual if longest is None else min(usual, longest), longest)

    async def _form(self) -> PromptForm:
        choice, wanted = self._plan.choice, _wanted(self._plan)
        with contextlib.suppress(ReplayMissed):
            return await choose_form(choice, wanted, self._resources)
        if may_try_chat(choice, wanted):
            hello = Request(choice.identity, messages=(Message("user", "Hello"),), max_tokens=1)
            self._pending[request_key(hello)] = Pending("base", hello, Range(0, 0, 1), Range(0, 0, 1))
        known = choice.entry.form if choice.entry is not None else "auto"
        return "chat" if known == "auto" else known

    async def _model(self) -> LLM:
        """The model over the record; a run that has not begun knows what it refuses by the catalog."""
        choice = self._plan.choice
        with contextlib.suppress(ReplayMissed):
            return await open_model(choice, self._resources)
        refused = sorted(choice.entry.refuses) if choice.entry else []
        recorder = Recorder(self._record, None, self._resources.stop)
        return Adapt(recorder, self._record, refused, self._plan.config.max_thinking_tokens)

    async def _responders(
        self, composer: Composer, llm: LLM
    ) -> tuple[Responder, Responder | None, Responder | None]:
        """As the queries are asked, and, where it is not known which shots will be shown, with those that
        make the shortest and the longest prompts."""
        plan, config, subject = self._plan, self._plan.config, self._plan.subject
        sampling = Sampling(config.temperature, config.top_p, config.base_max_tokens)
        fit: ContextFit | None = None
        is_known = True
        try:
            fit = await fit_context(plan.choice, config.long_prompts, self._resources, composer, sampling)
        except ReplayMissed:
            is_known = False

        def showing(examples: tuple[Example, ...], shots: Shots) -> Responder:
            return Responder(llm, plan.choice.identity, composer, sampling, examples, shots, fit)

        def always(examples: tuple[Example, ...]) -> Responder:
            return showing(examples, (tuple(range(len(examples))),) * len(plan.items))

        may_drop = (fit is not None or not is_known) and subject.shots > 0
        none = always(()) if may_drop else None
        if (shots := await self._shots()) is not None:
            return showing(subject.examples, shots), none, None
        fewest, usual, most = map(always, shots_by_length(subject.examples, subject.shots))
        if subject.embedder.startswith(("openai/", "vllm/")):
            queries = tuple(query.text for query in plan.inputs.queries)
            self._embedded = (queries, tuple(example.query for example in subject.examples))
        return usual, none or fewest, most

    async def _shots(self) -> Shots | None:
        """The shots of each query; None where only a model could find them."""
        subject = self._plan.subject
        if not subject.shots or not subject.embedder:
            return (tuple(range(subject.shots)),) * len(self._plan.items)
        with contextlib.suppress(ReplayMissed):
            return await shots_of(
                self._plan.inputs.examples,
                subject.embedder,
                self._resources,
                subject.shots,
                self._plan.inputs.queries,
            )
        return None
