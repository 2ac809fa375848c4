"""The study of rewriters: BPO and Align-Pro before the frozen model, alone and on top of DRPO."""

from __future__ import annotations

from drpo.config_judging import NONE
from drpo.config_study import StudyConfig
from drpo.data import shipped_rewriting_heldout
from drpo.studies.cells import BaseModel, Cell, Row, Search, Settings, Study

NAME = "rewriters"


def with_own_queries(config: StudyConfig) -> StudyConfig:
    """On demo the queries that want rewriting, where the settings name no others."""
    if config.data is not None or config.model != "demo":
        return config
    return config.model_copy(update={"data": str(shipped_rewriting_heldout())})


def source_of(source: str) -> str:
    """How the queries of this source are called: ours by a name that is the same on every machine."""
    ours = source == str(shipped_rewriting_heldout())
    return "the shipped held-out queries that want rewriting" if ours else source


def rewriters_study(config: StudyConfig, model: BaseModel, searches: tuple[Search, ...]) -> Study:
    """The rows: nothing, each rewriter alone, DRPO alone, and each rewriter on top of it. Each is held
    against the first."""
    writer = config.rewriting_model or config.optimizer or config.model or "demo"
    reward = ("rewriter_reward", f"dynamic/{config.evaluator or writer}")
    closed: Settings = (("samples", config.rewrites), ("lambda_", config.lambda_), reward)
    kinds: list[tuple[str, str, Settings]] = [("BPO by instruction", f"bpo-prompt/{writer}", ())]
    if config.bpo is not None:
        kinds.append(("BPO trained", f"bpo/{config.bpo}", ()))
    weighed = f"N = {config.rewrites}, lambda = {config.lambda_:g}"
    kinds.append((f"Align-Pro closed form, {weighed}", f"align-pro/{writer}", closed))
    if config.prompter is not None:
        kinds.append(("Align-Pro trained", f"align-pro/{config.prompter}", ()))
    rows = [Row((NONE, "-"), (Cell(model),))]
    rows += [Row((NONE, label), (Cell(model, rewriter=name, rewriting=s),), 0) for label, name, s in kinds]
    found = tuple(Cell(model, search) for search in searches)
    rows.append(Row(("DRPO", "-"), found, 0))
    for label, name, settings in kinds:
        cells = tuple(Cell(model, search, rewriter=name, rewriting=settings) for search in searches)
        rows.append(Row(("DRPO", label), cells, 0))
    return Study(
        NAME, "Rewriters alone and on top of DRPO", ("alignment", "rewriter"), tuple(rows), _notes(config),
        tells_wins=True,
    )  # fmt: skip


def _notes(config: StudyConfig) -> tuple[str, ...]:
    notes: tuple[str, ...] = (
        "The base model answers the rewritten query, shots are found for it, and the judge sees the user's "
        "own.",
        "BPO by instruction: a model told to improve the query. Align-Pro closed form: rewrites drawn from a "
        "reference prompter, one of them taken with the weight exp(R / lambda), R the dynamic reward of the "
        "base model's answer.",
        "variance: of the queries' scores. wins: the share of general queries that score higher than in the "
        "row marked \\*, equal ones as halves; of several searches the mean score of a query counts.",
    )
    missing = [flag for flag, value in (("--bpo", config.bpo), ("--prompter", config.prompter)) if not value]
    if missing:
        notes += (f"Trained rewriters have rows where they are named, by {' and '.join(missing)}.",)
    return notes
