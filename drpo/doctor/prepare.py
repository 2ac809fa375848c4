"""Settings, inputs and models as a run would take them: every problem named, and what is left without them.

A run ends at its first wrong setting. Here that one is set aside and the rest is looked at all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from drpo.choices import choose_models
from drpo.config import OptimizeConfig
from drpo.data import read_examples, read_queries, shipped_examples, shipped_seeds
from drpo.doctor.check import Check, of_error, ok, warning
from drpo.errors import InputError
from drpo.llm.base import LLM, SEARCH_ROLES, Completion, Request, Role
from drpo.plan import Plan, optimize_plan, run_path
from drpo.settings import resolve
from drpo.templates import Templates

T = TypeVar("T")
_MODEL_SETTINGS = ("model", "optimizer", "evaluator", "selector")
_MEND = "Correct it, then run the doctor again"
_HUB_NAME = re.compile(r"[\w-]+/[\w-]+")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings come from: flags (None: not given), variables and `.env`, a TOML file."""

    given: Mapping[str, Any]
    environment: Mapping[str, str]
    file: Path | None = None

    def items(self) -> Iterator[tuple[str, Sources]]:
        """(name of a setting, these sources without it) for each setting that came by flag or variable, and
        at last for the file as a whole."""
        flags = [name for name, value in self.given.items() if value is not None]
        variables = [name.removeprefix("DRPO_") for name in self.environment if name.startswith("DRPO_")]
        for name in dict.fromkeys((*flags, *(variable.lower() for variable in variables))):
            given = {other: value for other, value in self.given.items() if other != name}
            variable = f"DRPO_{name.upper()}"
            rest = {other: value for other, value in self.environment.items() if other != variable}
            yield name, replace(self, given=given, environment=rest)
        if self.file is not None:
            yield "config", replace(self, file=None)


@dataclass(frozen=True, slots=True)
class Prepared:
    """checks: what was found. plan: the run's, without what is wrong; None where nothing can be planned.

    roles: those whose models are to be looked at. whole: the plan is the very one that a run would have.
    """

    checks: tuple[Check, ...]
    environment: Mapping[str, str]
    config: OptimizeConfig | None = None
    plan: Plan | None = None
    roles: tuple[Role, ...] = ()
    whole: bool = False


class _Nobody:
    """Stands in for a model that was not named, or wrongly: nobody asks it."""

    name = "nobody"

    async def complete(self, request: Request) -> Completion:
        raise NotImplementedError


def prepare(sources: Sources, *, requests: bool = True) -> Prepared:
    """As far as settings, files and names go, everything that a run needs. requests: whether the hub may be
    asked for a dataset."""
    settings, sources, wrong = _peeled(sources, _resolved, spared=["model"])
    checks = [of_error("settings", error, _MEND) for error in wrong]
    if settings is None:
        return Prepared(tuple(checks), sources.environment)
    models, sources, wrong = _peeled(
        sources,
        lambda s: choose_models(_resolved(s)[0], s.environment, {}),
        spared=[*_MODEL_SETTINGS, "config"],
    )
    # Where no other setting helps, the last one is about a model, and comes again below.
    checks += [of_error("settings", error, _MEND) for error in (wrong if models else wrong[:-1])]
    config, is_named = _resolved(sources)
    checks += [] if checks else [ok("settings", _where_from(sources))]
    config, found = _inputs(config, requests)
    checks += found
    missing, found = _unusable(config, sources.environment, is_named)
    checks += found
    plan, found = _planned(config, sources.environment, missing)
    checks += found
    roles = () if plan is None else tuple(r for r in SEARCH_ROLES if plan.models[r].provider != "custom")
    whole = plan is not None and is_named and not any(check.status == "problem" for check in checks)
    whole = whole and not _is_unread(checks)
    return Prepared(tuple(checks), sources.environment, config, plan, roles, whole)


def _peeled(
    sources: Sources, attempt: Callable[[Sources], T], spared: Collection[str]
) -> tuple[T | None, Sources, list[InputError]]:
    """What `attempt` makes of the sources, of which each one that it refuses is taken away, but for those
    `spared`; None where that does not help."""
    wrong: list[InputError] = []
    while True:
        try:
            return attempt(sources), sources, wrong
        except InputError as error:
            wrong.append(error)
        said = str(wrong[-1])
        others = (rest for name, rest in sources.items() if name not in spared)
        rest = next((rest for rest in others if _says(attempt, rest) != said), None)
        if rest is None:
            return None, sources, wrong
        sources = rest


def _says(attempt: Callable[[Sources], object], sources: Sources) -> str:
    try:
        attempt(sources)
    except InputError as error:
        return str(error)
    return ""


def _resolved(sources: Sources) -> tuple[OptimizeConfig, bool]:
    """The settings, and whether a base model is named: without one the others can be looked at."""
    try:
        return resolve(OptimizeConfig, sources.given, sources.environment, sources.file), True
    except InputError as error:
        if not str(error).startswith("--model is missing"):
            raise
    given = {**sources.given, "model": "demo"}
    return resolve(OptimizeConfig, given, sources.environment, sources.file), False


def _where_from(sources: Sources) -> str:
    flags = sum(value is not None for value in sources.given.values())
    variables = sum(name.startswith("DRPO_") and not name.endswith("_KEY") for name in sources.environment)
    file = "no --config file" if sources.file is None else f"--config {sources.file}"
    return f"understood: {flags} by flag, {variables} by DRPO_* variable, {file}"


def _inputs(config: OptimizeConfig, requests: bool) -> tuple[OptimizeConfig, list[Check]]:
    """What each input has; the settings with the shipped ones in place of those that cannot be used."""
    checks: list[Check] = []
    unusable: dict[str, Any] = {}
    seeds = config.seeds or str(shipped_seeds())
    try:
        if not requests and not Path(seeds).exists() and _HUB_NAME.fullmatch(seeds):
            checks.append(_unread(seeds))
            unusable |= {"seeds": None, "seeds_column": None}
        else:
            checks += _seeds(config, seeds)
    except InputError as error:
        checks.append(of_error("seeds", error, _MEND))
        unusable |= {"seeds": None, "seeds_column": None}
    try:
        examples = read_examples(config.examples or shipped_examples())
        checks.append(ok("examples", f"{len(examples.examples)} of {examples.source}"))
    except InputError as error:
        checks.append(of_error("examples", error, _MEND))
        unusable["examples"] = None
    try:
        if config.prompts is not None:
            Templates(config.prompts)
        checks.append(ok("templates", "the shipped ones" if config.prompts is None else f"{config.prompts}"))
    except InputError as error:
        checks.append(of_error("templates", error, _MEND))
        unusable["prompts"] = None
    return (config.model_copy(update=unusable) if unusable else config), checks


def _seeds(config: OptimizeConfig, seeds: str) -> Iterator[Check]:
    found = read_queries(seeds, column=config.seeds_column)
    cleaned = f" ({'; '.join(found.cleaned)})" if found.cleaned else ""
    count = len(found.queries)
    yield ok("seeds", f"{count} queries of {found.source}{cleaned}")
    if count < config.depth:
        said = f"{count} queries for --depth {config.depth}: the search ends after level {count}"
        yield warning("seeds", said, "Give more queries, or a smaller --depth")


def _unread(seeds: str) -> Check:
    said = f"{seeds} is no file here; as a Hugging Face dataset it was not looked at, for nothing is sent"
    return warning("seeds", said, "Run the doctor without --offline to look at it")


def _is_unread(checks: Collection[Check]) -> bool:
    return any(check.remedy.startswith("Run the doctor without --offline") for check in checks)


def _unusable(
    config: OptimizeConfig, environment: Mapping[str, str], is_named: bool
) -> tuple[frozenset[Role], list[Check]]:
    """The roles whose model cannot be looked at, and why."""
    missing: frozenset[Role] = frozenset()
    checks: list[Check] = []
    if not is_named:
        missing = frozenset({"base"})
        said = "no base model is named (--model): what depends on it was not looked at"
        checks.append(warning("model base", said, "Name it: drpo doctor --model M"))
        if config.optimizer is None and not environment.get("OPENAI_API_KEY"):
            return frozenset(SEARCH_ROLES), checks
    while True:
        try:
            choose_models(config, environment, _nobodies(missing))
            return missing, checks
        except InputError as error:
            joint = of_error("models", error, _MEND)
        wrong = _wrong_by_themselves(config, environment, missing)
        found = [of_error(f"model {role}", error, _MEND) for role, error in wrong.items()]
        for check in found or [joint]:
            checks += [check] if check.said not in {other.said for other in checks} else []
        if not wrong:
            return frozenset(SEARCH_ROLES), checks
        missing |= wrong.keys()


def _wrong_by_themselves(
    config: OptimizeConfig, environment: Mapping[str, str], missing: Collection[Role]
) -> dict[Role, InputError]:
    """What is said of each role whose own model is the trouble. The base model's is looked at first:
    whether it is simulated decides the default of the others."""
    wrong: dict[Role, InputError] = {}
    for role in (role for role in SEARCH_ROLES if role not in missing):
        others = set(SEARCH_ROLES) - {role}
        if "base" not in missing and "base" not in wrong:
            others -= {"base"}
        try:
            choose_models(config, environment, _nobodies(others))
        except InputError as error:
            wrong[role] = error
    return wrong


def _nobodies(roles: Collection[Role]) -> dict[Role, LLM]:
    return {role: _Nobody() for role in roles}


def _planned(
    config: OptimizeConfig, environment: Mapping[str, str], missing: Collection[Role]
) -> tuple[Plan | None, list[Check]]:
    """The plan, with as many shots as there are where there are fewer than wanted, and in a folder of the
    runs where two are named."""
    checks: list[Check] = []
    while len(checks) < 3:
        try:
            plan = optimize_plan(config, environment, _nobodies(missing))
            run_path(plan)
            return plan, checks
        except InputError as error:
            checks.append(of_error("plan", error, _MEND))
        count = len(read_examples(config.examples or shipped_examples()).examples)
        if config.shots > count:
            config = config.model_copy(update={"shots": count})
        else:
            config = config.model_copy(update={"name": None})
    return None, checks
