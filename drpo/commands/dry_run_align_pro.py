"""`--dry-run` of `drpo align-pro estimate`: what it would ask and take, without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drpo.align_pro.plan import EstimatePlan
from drpo.align_pro.scoring import most_scores
from drpo.commands.dry_run_facts import DryRun, check_embedder, dry_run_of
from drpo.compose import Composer, PromptForm, Sampling
from drpo.estimate.habits import response_habits
from drpo.estimate.ranges import Range, exactly, total
from drpo.estimate.roles import Batch, Recorded, RoleForecast, embedder_forecast, with_recorded
from drpo.estimate.texts import (
    longest_reply,
    prompt_tokens,
    request_tokens,
    shots_by_length,
    text_tokens,
    thinks,
)
from drpo.llm.base import ROLES, Role
from drpo.measuring.answering import made_for_another, wanted_form
from drpo.measuring.forecasting import MeasuringForecast
from drpo.tariffs import EMBEDDER_ROLE, tariffs_of


def look_ahead_estimate(
    plan: EstimatePlan, environment: Mapping[str, str], flags: Mapping[str, Any], file: Path | None
) -> DryRun:
    """What the command would do with this plan. Nothing is sent, started or written. Raises as
    `drpo.commands.dry_run.look_ahead`."""

    def foresee(path: Path, recorded: Recorded) -> tuple[MeasuringForecast, list[str]]:
        if plan.embedder:
            check_embedder(plan.embedder, plan.subject.examples, environment)
        return _forecast(plan, recorded, environment), _notes(plan)

    return dry_run_of(plan, environment, flags, file, foresee)


def _notes(plan: EstimatePlan) -> list[str]:
    notes = [f"data: {note}" for note in plan.inputs.notes]
    moved = made_for_another(plan.subject, plan.models["base"])
    notes += [] if moved is None else [moved]
    if scores := most_scores(plan):
        notes.append(f"the bound takes up to {scores:,} log-probabilities of answers, of no call's count")
    return notes


def _forecast(plan: EstimatePlan, recorded: Recorded, environment: Mapping[str, str]) -> MeasuringForecast:
    tariffs = tariffs_of(plan, environment)
    sizing = _Sizing(plan)
    roles: list[RoleForecast] = []
    for role in ROLES:
        if role in plan.models:
            calls, prompt, reply = sizing.of(role)
            left = Range() if recorded.finished else calls.less(recorded.calls.get(role, 0))
            roles.append(with_recorded(role, tariffs[role], [Batch(left, prompt, reply)], recorded))
    if EMBEDDER_ROLE in tariffs:
        groups = () if recorded.finished else sizing.embedded()
        characters = sizing.habits.characters_per_token
        roles.append(embedder_forecast(groups, characters, tariffs[EMBEDDER_ROLE]))
    rewards = sizing.answers.times(exactly(len(plan.items))).expected if plan.reward_model else 0
    return MeasuringForecast(
        roles=tuple(roles),
        thinking=tuple(role for role in plan.models if thinks(plan, role)),
        first_calls=min(len(plan.models), len(plan.items)),
        recorded=recorded,
        items=len(plan.items),
        about=sizing.habits.about,
        rewards=0 if recorded.finished else round(rewards),
    )


class _Sizing:
    """Calls of each role, and the tokens of one. How many of the rewrites differ is not known before they
    are drawn: at least none, and all of them are expected to."""

    def __init__(self, plan: EstimatePlan) -> None:
        self._plan, config, subject = plan, plan.config, plan.subject
        wanted = wanted_form(config, subject, plan.models["base"])
        self.habits = response_habits(plan.models["base"], wanted)
        self._form: PromptForm = "chat" if wanted == "auto" else wanted
        self.answers = Range(1, 1 + config.samples, 1 + config.samples).times(exactly(config.answers))
        characters = self.habits.characters_per_token
        self._query = _mean([text_tokens(item.query, characters) for item in plan.items])
        self._rewritten = Range(1, self._query.expected * 2, self._longest("rewriter"))

    def of(self, role: Role) -> tuple[Range, Range, Range]:
        """(calls of the run, prompt and reply of one call)."""
        count, config, habits = exactly(len(self._plan.items)), self._plan.config, self.habits
        response = self._cut(role, habits.response)
        if role == "rewriter":
            texts = [self._prompter_text(item.query) for item in self._plan.items]
            prompt = _mean([prompt_tokens([text], 1, habits) for text in texts])
            reply = self._rewritten.times(exactly(config.samples))
            return count.times(Range(1, 1, config.samples)), prompt, reply
        if role in ("base", "against"):
            kinds = exactly(1) if role == "against" else Range(1, 1 + config.samples, 1 + config.samples)
            calls = kinds.times(Range(1, 1, config.answers))
            return count.times(calls), self._prompt(role), response.times(exactly(config.answers))
        answer = self._cut("base", habits.response)
        book = self._plan.inputs.templates.book.aspects
        listed = text_tokens("".join(f"{a.name} {a.definition}" for a in book), 4.3)
        if role == "selector":
            prompt = listed + self._query + Range(50, 300, 2000)
            return count.times(Range(1, 1 + habits.unreadable, 2)), prompt, self._cut(role, habits.selection)
        written = self._cut(role, habits.evaluation * habits.aspects)
        prompt = self._query + answer + Range(50, 500, 4000)
        repairs = Range(1, 1 + habits.repairs(config.repairs), 1 + config.repairs)
        policy = exactly(config.answers if "against" in self._plan.models else 0)
        return count.times(self.answers + policy).times(repairs), prompt, written

    def embedded(self) -> tuple[tuple[str, ...], ...]:
        """Texts for an embedding model: queries (each of about the length of its rewrites) and examples."""
        subject = self._plan.subject
        if not subject.shots or not subject.embedder.startswith(("openai/", "vllm/")):
            return ()
        texts = tuple(item.query for item in self._plan.items) * (1 + self._plan.config.samples)
        return texts, tuple(example.query for example in subject.examples)

    def _prompter_text(self, query: str) -> str:
        prompter = self._plan.prompter
        return (
            prompter.templates.apply(query)
            if prompter.format == "apply"
            else prompter.templates.prompter(query)
        )

    def _prompt(self, role: Role) -> Range:
        """A query, mostly a rewritten one, with its shots."""
        subject = self._plan.subject
        composer = Composer(subject.templates, self._form)
        few, usual, many = (
            request_tokens(composer.request("", Sampling(), subject.system_prompt, shots, ""), self.habits)
            for shots in shots_by_length(subject.examples, subject.shots)
        )
        longest = self._rewritten.most if role == "base" else self._query.most
        most = None if many.most is None or longest is None else many.most + longest
        return Range(few.least, usual.expected + self._rewritten.expected, most)

    def _cut(self, role: Role, expected: float) -> Range:
        longest = self._longest(role)
        return Range(0, expected if longest is None else min(expected, longest), longest)

    def _longest(self, role: Role) -> float | None:
        return longest_reply(self._plan, role)


def _mean(ranges: Sequence[Range]) -> Range:
    """The average; the most of any."""
    summed, count = total(ranges), max(1, len(ranges))
    most = max((one.most for one in ranges if one.most is not None), default=0.0)
    return Range(summed.least / count, summed.expected / count, most)
