"""What a study is made of, as values: models, searches, what is measured, rows. Equal values are one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from drpo.config_judging import NONE

Settings = tuple[tuple[str, Any], ...]
RewardKind = Literal["dynamic", "static"]


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model. name: as in the settings; label: as in the table; demo_seed: the world of a simulated
    one, in which then all its roles and its judge are played."""

    name: str
    label: str
    demo_seed: int


@dataclass(frozen=True, slots=True)
class ExamplesSearch:
    """Examples improved by `optimize-examples` with rewards of one kind."""

    reward: RewardKind
    seed: int


@dataclass(frozen=True, slots=True)
class Search:
    """A search for a system prompt. settings: what it has otherwise than the study's own; examples: what its
    shots are taken from, where a search has to make them first."""

    model: BaseModel
    seed: int
    settings: Settings = ()
    examples: ExamplesSearch | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One evaluation: `model` answers by the alignment that `search` found, or by the baseline of this name.

    basic_prompt: the plain system prompt stands in the place of the found one. shots: K; None: as searched.
    rewriter: what rewrites the queries, by its name in the settings, with the settings `rewriting`.
    """

    model: BaseModel
    search: Search | None = None
    baseline: str = NONE
    basic_prompt: bool = False
    shots: int | None = None
    rewriter: str = ""
    rewriting: Settings = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: its first columns, and an evaluation for each repeated search. against: the number
    of the row it is compared with; None: it is the one that others are compared with."""

    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    against: int | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """One table of the paper. head: the names of the rows' first columns; notes: sentences about it; sweep:
    whether the rows are values of one number, which is drawn as a line; counts_prompts: whether the table
    tells how many prompts the searches have tried; tells_wins: whether it tells how queries differ and how
    often they do better than in the row they are held against."""

    name: str
    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    sweep: bool = False
    counts_prompts: bool = False
    tells_wins: bool = False
