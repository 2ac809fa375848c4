"""Forecasts of runs that begin with what other runs have yet to find: a system prompt, better examples.

How long that will be is supposed: as models have written it in measured runs, at most as long as a reply
can be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from drpo.config import INITIAL_PROMPT, OptimizeConfig
from drpo.data import ExampleSet
from drpo.estimate.adding import spread
from drpo.estimate.forecast import forecast
from drpo.estimate.habits import habits_of
from drpo.estimate.pending import NOTHING
from drpo.estimate.ranges import Range
from drpo.estimate.roles import Recorded, RunForecast
from drpo.estimate.texts import longest_reply, text_tokens
from drpo.llm.recorder import Record
from drpo.measuring.ahead import ahead_of
from drpo.measuring.forecasting import measuring_forecast
from drpo.measuring.plan import MeasuringPlan, Side
from drpo.measuring.subject import Subject
from drpo.plan import Plan
from drpo.types import Example

_X = "x"  # stands for a text that is not known yet


def supposed_search(
    search: Plan, improving: Plan, environment: Mapping[str, str], recorded: Recorded
) -> RunForecast:
    """The forecast of a search whose examples `improving` has yet to improve; `search` has them as they are
    now."""

    def with_responses(texts: Sequence[str]) -> RunForecast:
        known = search.inputs.examples
        pairs = zip(known.examples, texts, strict=True)
        examples = ExampleSet(
            tuple(replace(example, response=text) for example, text in pairs), known.source, known.digest
        )
        plan = replace(search, inputs=replace(search.inputs, examples=examples))
        return forecast(plan, recorded, environment)

    now = [example.response for example in search.inputs.examples.examples]
    habits, longest = habits_of(improving), longest_reply(improving, "optimizer")
    usual = _X * round(habits.improved * habits.characters_per_token)
    most = with_responses([max(text, _X * (longest or 0), key=_bytes) for text in now])
    if longest is None:
        most = _without_most(most)
    return spread(with_responses([""] * len(now)), with_responses([usual] * len(now)), most)


def supposed_evaluation(
    baseline: MeasuringPlan, search: Plan, shots: int, improving: Plan | None, *, basic_prompt: bool
) -> tuple[MeasuringPlan, Range]:
    """The evaluation of what `search` has yet to find, made from that of a baseline, with `shots` examples,
    which `improving` has yet to improve where it is given. Besides the plan: how many tokens each prompt of
    the base model has more than in it."""
    config, inputs = search.config, search.inputs
    assert isinstance(config, OptimizeConfig)
    habits, initial = habits_of(search), config.initial_prompt
    more = NOTHING
    if not basic_prompt:
        first, longest = text_tokens(initial, habits.characters_per_token), longest_reply(search, "optimizer")
        usual = habits.prompt_tokens(config.depth - 1, first.expected)
        assert first.most is not None
        more = Range(0, usual, None if longest is None else max(longest, first.most))
    examples = inputs.examples.examples
    if improving is not None:
        longest = longest_reply(improving, "optimizer")
        given = max(_bytes(example.response) for example in examples)
        most = None if longest is None else max(longest, given)
        more += Range(0, habits_of(improving).improved, most).times(Range(shots, shots, shots))
        examples = tuple(Example(example.query, _X) for example in examples)
    prompt = INITIAL_PROMPT if basic_prompt else _X
    subject = Subject(
        name="what the search finds",
        system_prompt=prompt,
        examples=examples,
        shots=shots,
        embedder=search.embedder,
        templates=inputs.templates,
        prompt_form=config.prompt_form,
        found_for=search.models["base"].identity,
    )
    return with_subject(baseline, subject), more


def with_subject(plan: MeasuringPlan, subject: Subject) -> MeasuringPlan:
    """The same evaluation of another subject, which has no directory yet."""
    embedder = subject.embedder if subject.shots else ""
    side = Side("base", subject, plan.rewriting is not None)
    return replace(plan, sides=(side,), embedder=embedder)


def forecast_of_evaluation(
    plan: MeasuringPlan, more: Range, nowhere: Path, environment: Mapping[str, str]
) -> RunForecast:
    """The forecast of an evaluation that has not begun. more: tokens on top of each prompt of the base model.
    nowhere: a path where there is no record."""
    ahead = asyncio.run(ahead_of(plan, Record(nowhere, writable=False), environment))
    pending = tuple(
        replace(one, unknown=one.unknown + more) if one.role == "base" and not one.is_trial else one
        for one in ahead.pending
    )
    return measuring_forecast(plan, replace(ahead, pending=pending), Recorded(), environment)


def _without_most(said: RunForecast) -> RunForecast:
    """The same where nothing bounds what the base model reads."""

    def unbounded(known: Range | None) -> Range | None:
        return None if known is None or known.most == 0 else replace(known, most=None)

    roles = tuple(
        replace(
            role,
            prompt_tokens=replace(role.prompt_tokens, most=None),
            usd=unbounded(role.usd) or role.usd,
            left_usd=unbounded(role.left_usd) or role.left_usd,
        )
        if role.role == "base"
        else role
        for role in said.roles
    )
    return replace(said, roles=roles)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
