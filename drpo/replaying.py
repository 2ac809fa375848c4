"""The same run again, offline: from the replies in its record alone, and whether it came out identical."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.alignment import FILE_NAME, Alignment
from drpo.choices import ModelChoice
from drpo.config import CommonConfig, ExamplesConfig, OptimizeConfig
from drpo.errors import GateRefused, InputError, ReplayMissed
from drpo.events import Event, LevelDone, NodeMade, event_line
from drpo.example_searches import search_examples
from drpo.live import Resources
from drpo.llm.base import Request, Role
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.measured import COMMANDS
from drpo.plan import Inputs, Plan, input_digests, with_settings
from drpo.results import RESULT_NAME, examples_json, is_finished
from drpo.run_dir import read_inputs, read_run
from drpo.searches import search_prompt
from drpo.settings import resolve

PATHS = ("prompts", "runs_dir", "run_dir", "name", "examples", "seeds", "seeds_column", "out")
EVENTS_NAME = "events.jsonl"
_DONE = ("order", "demo_seed", "demo_noise")  # what is recorded, and in which order, cannot be undone
_AS_WRITTEN = ("initial_prompt", "protect")  # texts, in which a leading @ names no file any more


@dataclass(frozen=True, slots=True)
class MissingCall:
    """A call that the record does not answer. `about` says in words what it would ask."""

    role: Role
    model: str
    about: str
    request: Request


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay found.

    identical: events and result are the same to the byte (None where settings were changed or something is
    missing, and so nothing was to be identical). differing: the files that are not; unwritten: those that the
    run has not finished writing. missing: calls that the record does not answer, unknown: what else it does
    not hold; what would follow from them cannot be known. levels: how many were replayed.
    """

    run_dir: Path
    identical: bool | None
    differing: tuple[str, ...]
    unwritten: tuple[str, ...]
    missing: tuple[MissingCall, ...]
    unknown: str | None
    levels: int
    calls: int
    result: Alignment | None


async def replay_run(path: Path, overrides: Mapping[str, Any]) -> ReplayReport:
    """Replay the run in `path`, perhaps with other settings, without opening a socket or changing a file."""
    plan = read_plan(path, overrides)
    record = Record(path / "calls.jsonl", writable=False)
    events: list[Event] = []
    resources = Resources(record, Stop(), {}, plan.config, live=False)
    result: Alignment | None = None
    produced: dict[str, str] = {}
    missing: tuple[MissingCall, ...] = ()
    unknown: str | None = None
    try:
        own = _recorded_reward if _own_reward_was_used(plan) else None
        if isinstance(plan.config, OptimizeConfig):
            result = await search_prompt(plan, resources, own, events.extend)
            produced = {FILE_NAME: result.as_json()}
        else:
            improved = await search_examples(plan, resources, own, events.extend)
            produced = {RESULT_NAME: examples_json(plan, improved, record.calls_by_role())}
    except ReplayMissed as missed:
        missing = tuple(_described(request, plan, events) for request in record.missed.values())
        unknown = None if missing else str(missed)
    finally:
        await resources.close()
    produced[EVENTS_NAME] = "".join(map(event_line, events))
    complete = not missing and unknown is None
    differing, unwritten = _compare(path, produced, complete) if not overrides else ((), ())
    return ReplayReport(
        path,
        False if differing else None if overrides or not complete else True,
        differing,
        unwritten,
        missing,
        unknown,
        sum(isinstance(event, LevelDone) for event in events),
        len(record.asked),
        result,
    )


def read_plan(path: Path, overrides: Mapping[str, Any]) -> Plan:
    """The plan that a run was begun with, from its directory alone."""
    run = read_run(path)
    identity: dict[str, Any] = run["identity"]
    if identity["command"] in COMMANDS:
        raise InputError(
            f"{path}: is a measurement; its own command, given again, makes its figures from the record"
        )
    kind: type[CommonConfig] = OptimizeConfig if identity["command"] == "optimize" else ExamplesConfig
    for name in overrides:
        if name not in identity["settings"]:
            known = ", ".join(sorted(set(identity["settings"]) - set(_DONE)))
            raise InputError(f"--set {name}: expected a setting of this run's search, one of: {known}")
        if name in _DONE:
            raise InputError(f"--set {name}: the record was made under this one; begin another run with it")
    config = _config(kind, {**run["settings"], "preset": None}, overrides)
    choices: dict[Role, ModelChoice] = {
        role: ModelChoice(name, name.split("/")[0], name) for role, name in identity["models"].items()
    }
    inputs = read_inputs(path)
    _refuse_changed_inputs(path, identity["digests"], inputs)
    plan = Plan(config, choices, inputs, identity["embedder"], identity)
    values = config.model_dump(mode="json")
    return with_settings(plan, config, {name: values[name] for name in overrides}) if overrides else plan


def _config(
    kind: type[CommonConfig], settings: Mapping[str, Any], overrides: Mapping[str, Any]
) -> CommonConfig:
    """The recorded settings with others in their place; None stands for a setting's absence."""
    kept = {name: value for name, value in settings.items() if name not in PATHS and name not in overrides}
    texts = {name: kept.pop(name) for name in _AS_WRITTEN if name in kept}
    try:
        config = resolve(kind, {**kept, **overrides}, {})
        return kind.model_validate({**config.model_dump(), **texts})
    except InputError as error:
        name = next((name for name in overrides if f"--{name.replace('_', '-')} " in str(error)), None)
        if name is None:
            raise
        _, _, problem = str(error).partition("): ")
        raise InputError(f"--set {name}={overrides[name]}: {problem or error}") from None
    except ValueError as error:
        raise InputError(f"--set: these settings do not go together: {error}") from None


_INPUT_FILES = {
    "seeds": "queries.jsonl",
    "kept": "kept.jsonl",
    "safety": "safety.jsonl",
    "examples": "examples.jsonl",
}


def _refuse_changed_inputs(path: Path, digests: Mapping[str, str], inputs: Inputs) -> None:
    now = input_digests(inputs)
    changed = [name for name, digest in digests.items() if now.get(name) != digest]
    if changed:
        file = _INPUT_FILES.get(changed[0], changed[0])
        raise GateRefused(
            f"{path / 'inputs' / file}: is not what the run was begun with; restore it from a copy, "
            "or begin anew"
        )


def _own_reward_was_used(plan: Plan) -> bool:
    return "evaluator" in plan.models and plan.models["evaluator"].provider == "reward"


async def _recorded_reward(query: str, response: str) -> Any:
    raise AssertionError("the own reward of a run is read from its facts")


def _compare(
    path: Path, produced: Mapping[str, str], complete: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Files that differ from what was produced, and files that are not there, or not to their end, yet.

    complete: the search was replayed to its end; else the file of events may go on behind what was produced.
    """
    differing: list[str] = []
    unwritten: list[str] = []
    finished = is_finished(path)
    for name, text in sorted(produced.items()):
        file, data = path / name, text.encode("utf-8", "backslashreplace")
        there = file.read_bytes() if file.exists() else b""
        if there == data or (not complete and there.startswith(data)):
            continue
        unfinished = not file.exists() or (name == EVENTS_NAME and not finished and data.startswith(there))
        (unwritten if unfinished else differing).append(name)
    return tuple(differing), tuple(unwritten)


def _described(request: Request, plan: Plan, events: Sequence[Event]) -> MissingCall:
    """The request in words: for which query, and where a system prompt plays a part, how that begins."""
    text = request.prompt or "\n".join(message.content for message in request.messages)
    inputs = plan.inputs
    queries = [query.text for query in (*inputs.queries, *inputs.kept, *inputs.safety)]
    if isinstance(plan.config, ExamplesConfig) and request.role != "base":  # which is shown some of them
        queries += [example.query for example in inputs.examples.examples]
    query = _excerpt(max((q for q in queries if q in text), key=len, default="")) or "a query"
    prompts = [event.state.get("system_prompt", "") for event in events if isinstance(event, NodeMade)]
    if request.role == "base":
        first = request.messages[0].content if request.messages else text
        about = f"the answer to {query} under the system prompt {_excerpt(first)}"
    elif request.role == "optimizer" and prompts and any(prompts):
        prompt = max((p for p in prompts if p in text), key=len, default="")
        about = f"better prompts than {_excerpt(prompt)}, after its answer to {query}"
    else:
        about = {
            "optimizer": f"a better response to {query}",
            "evaluator": f"the evaluation of a response to {query}",
            "selector": f"the aspects that matter for {query}",
        }[request.role]
    if request.role != "base" and any(message.role == "assistant" for message in request.messages):
        about += ", asked again after an unreadable reply"
    return MissingCall(request.role, request.model, about, request)


def _excerpt(text: str) -> str:
    words = " ".join(text.split())
    return words and f'"{words if len(words) <= 60 else words[:57] + "..."}"'
