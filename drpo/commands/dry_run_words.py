"""What differs between the dry runs of a search, a measurement and a study: what bounds mean, and limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from drpo.commands.dry_run_facts import DryRun
from drpo.commands.dry_run_numbers import whole
from drpo.config import ExamplesConfig
from drpo.estimate.adding import StudyForecast
from drpo.estimate.forecast import Forecast
from drpo.estimate.roles import Enough
from drpo.measuring.forecasting import MeasuringForecast

_FAILURES = "What is sent again after a failure comes on top of all of these."
_SEARCH_SUFFICES: Mapping[Enough, str] = {
    "enough": "enough for the most it can take, but for what is sent again after a failure",
    "may end early": "enough for what is expected; the run may end early, with the best so far",
    "will likely end early": "less than is expected; the run will likely end early, with the best so far",
    "will end early": "less than the least; the run will end early, with the best so far",
    "too little to begin": "cannot pay for the first level: no prompt would be rewritten and tried",
}
_SEARCH_LEGEND = (
    "At least: every reply is readable, prompts are kept and requests equal wherever that can be.",
    "At most: every level there can be, every reply repaired, one choice a request.",
    "Paper: DRPO, Appendix A.5, where each sample is a call; drpo asks for a prompt's samples in one.",
    _FAILURES,
)
_FINISHED = {
    "generate": "All answers are there",
    "rewrite": "All rewrites are there",
    "bpo-build": "All pairs are there",
}
_LATER = "without a result until a higher limit goes on (exit code 9)"
_MEASURING_SUFFICES: Mapping[Enough, str] = {
    "enough": "enough for the most it can take, but for what is sent again after a failure",
    "may end early": f"enough for what is expected; the command may end early, {_LATER}",
    "will likely end early": f"less than is expected; the command will likely end early, {_LATER}",
    "will end early": f"less than the least; the command will end early, {_LATER}",
    "too little to begin": f"cannot pay for one call of each role: the command will end early, {_LATER}",
}
_STUDY_SUFFICES: Mapping[Enough, str] = {
    **_MEASURING_SUFFICES,
    "too little to begin": f"cannot pay for a single run: the command will end early, {_LATER}",
}


@dataclass(frozen=True, slots=True)
class Words:
    """finished: the answer where nothing is to come. expected: on what that column rests. legend: what the
    others mean. suffices: what a limit means."""

    finished: str
    expected: str
    legend: tuple[str, ...]
    suffices: Mapping[Enough, str]


def words_of(told: DryRun) -> Words:
    """The words for this kind of run."""
    said = told.forecast
    if isinstance(said, MeasuringForecast):
        what = _FINISHED.get(_command(told), "This measurement has finished")
        return Words(
            f"{what}: nothing more would be sent.",
            _measured(told, said),
            (*_measuring_legend(told, said), _FAILURES),
            _MEASURING_SUFFICES,
        )
    if isinstance(said, StudyForecast):
        known = sum(part.name is not None for part in said.parts)
        return Words(
            "All runs of this study have finished: nothing more would be sent.",
            f"Expected: {len(said.parts):,} runs, each as its own --dry-run would say it.",
            tuple(_study_legend(len(said.parts) - known)),
            _STUDY_SUFFICES,
        )
    assert isinstance(said, Forecast)
    return Words(
        "This run has finished: nothing more would be sent.",
        _searched(told, said),
        _SEARCH_LEGEND,
        _SEARCH_SUFFICES,
    )


def _study_legend(unknown: int) -> Iterator[str]:
    if unknown:
        yield (
            f"{unknown:,} of the runs begin with what others have yet to find; how long that will be is "
            "supposed. At least: those of one kind turn out to be the same run, wherever that can be."
        )
    yield "At least: every reply is readable. At most: every level there can be, every reply repaired."
    yield _FAILURES


def _searched(told: DryRun, said: Forecast) -> str:
    least, expected, most = whole(said.levels)
    levels = f"{least} to {most} levels, about {expected} of them" if least != most else f"{least} levels"
    if isinstance(told.plan.config, ExamplesConfig):
        levels = f"{said.searches:,} searches of {levels}"
    return f"Expected: {levels}, as in {said.habits.about}."


def _measured(told: DryRun, said: MeasuringForecast) -> str:
    if _command(told) == "rewrite":
        return f"Expected: {said.items:,} queries, equal ones asked once, {_as_in(said)}."
    if _command(told) == "bpo-build":
        return f"Expected: {said.items:,} preferences, equal ones asked once, {_as_in(said)}."
    if _command(told) == "generate":
        return f"Expected: {said.items:,} queries, equal ones asked once, answered as in {said.about}."
    kind = "queries" if "base" in told.plan.models else "questions to the judge"
    if "judge" not in told.plan.models:
        return f"Expected: {said.items:,} {kind}."
    return f"Expected: {said.items:,} {kind}, with replies as in {said.about}."


def _as_in(said: MeasuringForecast) -> str:
    return said.about if said.about.startswith("rewrites") else f"with replies as in {said.about}"


def _command(told: DryRun) -> str:
    return str(told.plan.identity["command"])


def _rewriting_legend(told: DryRun) -> Iterator[str]:
    config = told.plan.config
    if _command(told) != "rewrite" or "base" in told.plan.models:
        yield "The words of a rewrite are not known yet: its query stands for it, its length is a range."
    if getattr(config, "samples", 1) > 1:
        yield (
            "At least: all rewrites of a query are one text. At most: each is another one with another "
            "answer, every reply is asked for again, and an endpoint gives one choice a request."
        )
    elif getattr(config, "rounds", 1) > 1:
        yield "At least: one round a query. At most: all of them, each asked for again as --repairs allows."
    elif _command(told) == "rewrite":
        yield "At least: every reply is readable. At most: each is asked for again, as --repairs allows."


def _measuring_legend(told: DryRun, said: MeasuringForecast) -> Iterator[str]:
    command, judged = _command(told), "judge" in told.plan.models
    if "rewriter" in told.plan.models:
        yield from _rewriting_legend(told)
    if command == "bpo-build":
        yield "At least: every reply is readable. At most: each is asked for again, as --repairs allows."
    if command == "compare":
        yield "At least: every reply is readable, and responses not known yet are equal, which is a tie."
        yield "At most: they differ, and every reply of the judge is asked for again, as --repairs allows."
    elif judged:
        yield "At least: every reply of the judge is readable."
        yield "At most: every one of them is asked for again, as --repairs allows."
    if command == "generate":
        yield "A query that does not fit the base model's context has no answer, and is not sent."
    if command != "audit-judge" and judged:
        yield "A query that does not fit the base model's context has no response, and nothing to be judged."
    if said.rewards:
        had = f", {said.recorded.rewards:,} of them had already" if said.recorded.rewards else ""
        yield f"Besides, a reward model is given {said.rewards:,} responses{had}. It has no price here."
