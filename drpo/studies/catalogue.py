"""The studies: which table of the paper (DRPO, arXiv 2411.08733) each of them makes, and from what."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from drpo.config import OptimizeConfig, flag
from drpo.config_judging import URIAL
from drpo.config_study import StudyConfig, names_of
from drpo.errors import InputError
from drpo.studies.cells import BaseModel, Cell, ExamplesSearch, RewardKind, Row, Search, Study
from drpo.studies.cells import Settings as Settings
from drpo.studies.rewriters import NAME as REWRITERS
from drpo.studies.rewriters import rewriters_study

MOST_SHOTS = 5
"""K of the paper's Figure 4 goes from 0 to this."""
REPEATS, REPEATS_ON_DEMO, WORLDS_ON_DEMO = 1, 3, 3
YES, NO = "yes", "no"
_WORLD = re.compile(r"demo@(\d{1,9})")
_SEVERAL = ("results", "transfer", "parts")
_VARIED = {"search": "search", "reward": "reward"}


def study_named(name: str, config: StudyConfig) -> Study:
    """The study as values. Raises InputError for a setting that the study itself varies, and for models where
    it takes one."""
    if (varied := _VARIED.get(name)) and getattr(config, varied) != OptimizeConfig.model_fields[
        varied
    ].default:
        raise InputError(f"{flag(varied)}: this is what `drpo study {name}` compares; leave it out")
    return STUDIES[name](config)


def repeats_of(config: StudyConfig) -> int:
    """How many searches there are per row."""
    return config.repeats or (REPEATS_ON_DEMO if config.model == "demo" else REPEATS)


def models_of(config: StudyConfig) -> tuple[BaseModel, ...]:
    """The base models that the settings name. Raises InputError for a world that is none."""
    return tuple(_model(name, config) for name in names_of(config.models or config.model))


def _model(name: str, config: StudyConfig) -> BaseModel:
    if name == "demo" or (world := _WORLD.fullmatch(name)) is None:
        if name.startswith("demo@"):
            raise InputError(f"--models {name}: expected demo@SEED with a whole number, such as demo@1")
        is_demo = name == "demo" and config.models is not None
        return BaseModel(name, f"demo@{config.demo_seed}" if is_demo else name, config.demo_seed)
    return BaseModel("demo", name, int(world[1]))


def _only(name: str, config: StudyConfig) -> BaseModel:
    if config.models is not None and len(names_of(config.models)) > 1:
        raise InputError(
            f"--models: `drpo study {name}` is of one model; name it by --model ({', '.join(_SEVERAL)} take "
            "several)"
        )
    return models_of(config)[0]


def _searches(config: StudyConfig, model: BaseModel, settings: Settings = ()) -> tuple[Search, ...]:
    first = config.random_seed
    return tuple(Search(model, first + number, settings) for number in range(repeats_of(config)))


def _found(searches: tuple[Search, ...], **changed: Any) -> tuple[Cell, ...]:
    return tuple(Cell(search.model, search, **changed) for search in searches)


def _results(config: StudyConfig) -> Study:
    rows: list[Row] = []
    for model in models_of(config):
        drpo = len(rows) + 2
        rows += [
            Row((model.label, "base", "0"), (Cell(model),), drpo),
            Row((model.label, "urial", "3"), (Cell(model, baseline=URIAL),), drpo),
            Row((model.label, "DRPO", str(config.shots)), _found(_searches(config, model))),
        ]
    notes = (
        "base: the plain prompt without shots. urial: a fixed prompt and three fixed shots, written for this "
        "project after URIAL's idea. DRPO: the prompt that the search found, with K retrieved shots.",
    )
    return Study(
        "results", "DRPO against its baselines (Table 1)", ("model", "method", "K"), tuple(rows), notes
    )


def _transfer(config: StudyConfig) -> Study:
    models = models_of(config)
    if config.models is None and config.model == "demo":
        worlds = range(config.demo_seed, config.demo_seed + WORLDS_ON_DEMO)
        models = tuple(BaseModel("demo", f"demo@{world}", world) for world in worlds)
    if len(models) < 2:
        raise InputError(
            "--models: transfer needs two base models or more, parted by commas, such as "
            "--models mistral-7b,llama-2-7b"
        )
    rows: list[Row] = []
    for place, model in enumerate(models):
        own = len(rows) + place
        for source in models:
            cells = tuple(Cell(model, search) for search in _searches(config, source))
            rows.append(Row((model.label, source.label), cells, None if source == model else own))
        basic = Cell(model, _searches(config, model)[0], basic_prompt=True)
        rows.append(Row((model.label, "basic prompt"), (basic,), own))
    notes: tuple[str, ...] = (
        "Each row: the model answers by the prompt that was found for the other one, with the same retrieved "
        "shots. basic prompt: the plain prompt with these shots.",
    )
    if any(model.name == "demo" for model in models):
        notes += (
            "demo@N is the simulated model of world N. Worlds differ in what their base model is weak at. "
            "Their judges read by the same rules; only the judge's errors are drawn anew in each.",
        )
    return Study(
        "transfer", "Prompts found for one model, used with another (Table 2)", ("model", "prompt of"),
        tuple(rows), notes,
    )  # fmt: skip


def _parts(config: StudyConfig) -> Study:
    rows: list[Row] = []
    for model in models_of(config):
        searches, both = _searches(config, model), len(rows)
        rows += [
            Row((model.label, YES, YES), _found(searches)),
            Row((model.label, NO, YES), _found(searches[:1], basic_prompt=True), both),
            Row((model.label, YES, NO), _found(searches, shots=0), both),
            Row((model.label, NO, NO), (Cell(model),), both),
        ]
    head = ("model", "found prompt", f"shots (K = {config.shots})")
    notes = ("Where the found prompt is left out, the plain one stands in its place.",)
    return Study("parts", "Without the found prompt, without the shots (Table 3)", head, tuple(rows), notes)


def _search(config: StudyConfig) -> Study:
    model, width, samples, depth = _only("search", config), config.width, config.samples, config.depth
    if depth < 3:
        raise InputError(f"--depth {depth}: to compare searches at equal calls it must be at least 3")
    never: Settings = (("keep_above", 5.0), ("max_extra_depth", 0))
    prompts = width * samples * (depth - 1)
    arms: tuple[tuple[str, Settings], ...] = (
        (f"beam, W = {width}, M = {samples}", never),
        (f"greedy, M = {width * samples}", (*never, ("search", "greedy"), ("samples", width * samples))),
        (f"Monte Carlo, {prompts} prompts", (*never, ("search", "monte-carlo"), ("depth", depth - 1))),
        (f"greedy, M = {samples} (fewer calls)", (*never, ("search", "greedy"))),
        (f"beam, keeps above {config.keep_above:g}", ()),
    )
    rows = tuple(
        Row((label,), _found(_searches(config, model, settings)), None if place == 0 else 0)
        for place, (label, settings) in enumerate(arms)
    )
    notes = (
        "The first three may try about as many prompts as each other: none keeps a prompt unchanged, greedy "
        f"search draws {width * samples} proposals a level where beam search draws {width} times {samples}, "
        f"Monte Carlo draws {prompts} from the start. One request to the optimizer asks for several "
        "proposals, so what is equal are the calls of the base model and of the evaluator; the table has "
        "those of all roles.",
        "The fourth is greedy search as in the paper, which costs less. The last one is the search that "
        "`drpo optimize` makes.",
    )
    return Study("search", "Searches at equal calls (Table 4)", ("search",), rows, notes, counts_prompts=True)


def _reward(config: StudyConfig) -> Study:
    model = _only("reward", config)
    kinds: tuple[tuple[RewardKind, RewardKind], ...] = (
        ("dynamic", "dynamic"), ("static", "dynamic"), ("dynamic", "static"), ("static", "static"),
    )  # fmt: skip
    rows = []
    for place, (prompt, shown) in enumerate(kinds):
        searches = tuple(
            Search(model, search.seed, (("reward", prompt),), ExamplesSearch(shown, search.seed))
            for search in _searches(config, model)
        )
        rows.append(Row((prompt, shown), _found(searches), None if place == 0 else 0))
    notes = (
        "dynamic: aspects chosen for each query; static: always the six aspects of the evaluation. The "
        f"examples of the shots are improved first, {config.examples_depth} times each, with rewards of "
        "either kind, from the project's plain ones (or from --examples). The paper has the first three "
        "rows.",
    )
    head = ("rewards, prompt", "rewards, examples")
    return Study("reward", "Dynamic and static rewards (Table 5)", head, tuple(rows), notes)


def _shots(config: StudyConfig) -> Study:
    searches = _searches(config, _only("shots", config))
    own = config.shots if config.shots <= MOST_SHOTS else None
    rows = tuple(
        Row((str(count),), _found(searches, shots=count), None if count == own else own)
        for count in range(MOST_SHOTS + 1)
    )
    notes = (
        f"One search per repeat, with K = {config.shots}; what it found is evaluated with the K nearest "
        "examples of each query.",
    )
    return Study("shots", "Number of shots (Figure 4)", ("K",), rows, notes, sweep=True)


def _rewriters(config: StudyConfig) -> Study:
    model = _only(REWRITERS, config)
    return rewriters_study(config, model, _searches(config, model))


STUDIES: Mapping[str, Callable[[StudyConfig], Study]] = {
    "results": _results,
    "transfer": _transfer,
    "parts": _parts,
    "search": _search,
    "reward": _reward,
    "shots": _shots,
    REWRITERS: _rewriters,
}
"""By their names, those of the paper in its order."""
PAPERS = tuple(name for name in STUDIES if name != REWRITERS)
"""Those of DRPO's paper, which share their searches: what `drpo study all` makes."""
