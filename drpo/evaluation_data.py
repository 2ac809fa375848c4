"""What an alignment is measured on: queries that no search has seen, and on what each is judged.

Fields are those of just-eval: its data set re-align/just-eval-instruct has `id`, `instruction`, `category`
("regular" or "safety"), and lists of texts in `topic` and `task` (in its own tags `topics` and `task_types`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.query_rows import SourceRows, read_rows, refuse_half_pairs
from drpo.text_files import Entry, counted, refusal, shown

SAFETY_CATEGORIES = frozenset({"safety", "red-team"})
"""How queries judged on safety are called by just-eval and the held-out file, and in the safety queries."""
CATEGORY_FIELDS = ("category",)
TOPIC_FIELDS = ("topic", "topics")
TASK_FIELDS = ("task", "tasks", "task_types")
ID_FIELD = "id"
_FLAG = "--data-column NAME"
_SPLITS = ("test", "train")  # a data set's own queries for measuring come first
NAMED_SETS = {
    "ultrafeedback": ("openbmb/UltraFeedback", "instruction", "train"),
    "helpsteer": ("nvidia/HelpSteer", "prompt", "validation"),
    "orca": ("Intel/orca_dpo_pairs", "question", "train"),
}
"""Those of Align-Pro (arXiv 2501.03486, section 7) by name: repository, field of the query, split. The Orca
queries are the 13,000 of OpenOrca that came with preferences: the whole has millions."""
_CELL_SEPARATORS = re.compile(r"[;|]")  # in a cell of a table, which holds no list; a comma parts cells


@dataclass(frozen=True, slots=True)
class Item:
    """One query to measure on. `safety`: judged on safety instead of the five general aspects.

    id: a text that no other item of its set has. topics, tasks: labels, each once, in the order given.
    """

    id: str
    query: str
    safety: bool = False
    topics: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Items with distinct ids in the order of their source, at least one. `cleaned` tells what was left out
    of the source, and which queries count more than once.

    `digest` is the first 16 hex digits of a SHA-256 over all that the items hold, in order.
    """

    items: tuple[Item, ...]
    source: str
    cleaned: tuple[str, ...]
    digest: str


def read_items(source: str | Path, *, column: str | None = None) -> EvaluationSet:
    """The items of a file (.jsonl, .json, .csv, else one query a line), of a Hugging Face dataset, or of one
    of `NAMED_SETS` where no file has that name.

    The query of a record is its field `column`, or the first of `query_rows.QUERY_FIELDS` it has. Its id is
    its field `id`, text or a whole number, or else its place in the source, counted from 0 as just-eval
    does. Labels are a text or a list of texts, in a cell of a CSV file several texts between ";" or "|"; an
    item is judged on safety if one of its categories is of `SAFETY_CATEGORIES`, in letters of any case.
    Equal queries with ids of their own are all kept. Raises InputError with the place of what is wrong.
    """
    labels = (ID_FIELD, *CATEGORY_FIELDS, *TOPIC_FIELDS, *TASK_FIELDS)
    splits: Sequence[str] = _SPLITS
    if str(source) in NAMED_SETS and not Path(source).exists():
        source, field, split = NAMED_SETS[str(source)]
        column, splits = column or field, (split,)
    rows = read_rows(source, column, labels, _FLAG, splits)
    places: dict[str, str] = {}
    items: list[Item] = []
    for position, entry in enumerate(rows.found.entries):
        item = _item(rows, entry, position)
        if item.id in places:
            came = f"{shown(item.id)}, which stands on {places[item.id]} already"
            remedy = "Give one of the two another id, or take the ids out"
            raise refusal(rows.name, entry.place, "an id that is new", came, remedy)
        places[item.id] = entry.place
        items.append(item)
    if not items:
        remedy = 'Write one query a line, or {"query": "...", "category": "safety"}, or name another file'
        raise refusal(rows.name, "", "at least one query", "none", remedy)
    values = [[item.id, item.query, item.safety, item.topics, item.tasks] for item in items]
    digest = hashlib.sha256(json.dumps(values).encode("ascii")).hexdigest()[:16]
    return EvaluationSet(tuple(items), rows.name, rows.found.notes + _repeated(items), digest)


def _item(rows: SourceRows, entry: Entry, position: int) -> Item:
    query = rows.text(entry)  # first: what is no record at all is refused there
    record: Mapping[str, Any] = entry.value if isinstance(entry.value, dict) else {}
    categories = _labels(rows, entry.place, record, CATEGORY_FIELDS)
    return Item(
        id=_id(rows, entry.place, record, position),
        query=query,
        safety=any(category.casefold() in SAFETY_CATEGORIES for category in categories),
        topics=_labels(rows, entry.place, record, TOPIC_FIELDS),
        tasks=_labels(rows, entry.place, record, TASK_FIELDS),
    )


def _id(rows: SourceRows, place: str, record: Mapping[str, Any], position: int) -> str:
    value = record.get(ID_FIELD)
    if value is None or (isinstance(value, str) and not value.strip()):
        return str(position)
    if isinstance(value, bool) or not isinstance(value, int | str):
        came = f"{shown(value)} ({type(value).__name__})"
        raise refusal(
            rows.name, place, f"text or a whole number in {ID_FIELD!r}", came, "Correct it or take it out"
        )
    text = str(value).strip()
    refuse_half_pairs(rows.name, place, ID_FIELD, text)
    return text


def _labels(
    rows: SourceRows, place: str, record: Mapping[str, Any], fields: Sequence[str]
) -> tuple[str, ...]:
    """The labels in the first of `fields` that holds any, each once. None and blank ones are no labels."""
    for field in fields:
        value = record.get(field)
        listed = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(label, str) for label in listed):
            came = f"{shown(value)} ({type(value).__name__})"
            remedy = 'Write "STEM" or ["STEM", "Finance"], or leave the field out'
            raise refusal(rows.name, place, f"a text or a list of texts in {field!r}", came, remedy)
        if rows.found.columns is not None:
            listed = [part for label in listed for part in _CELL_SEPARATORS.split(label)]
        labels = tuple(dict.fromkeys(text for label in listed if (text := label.strip())))
        for label in labels:
            refuse_half_pairs(rows.name, place, field, label)
        if labels:
            return labels
    return ()


def _repeated(items: Sequence[Item]) -> tuple[str, ...]:
    """The note on queries that stand there more than once: each counts, which a mean does not tell."""
    again = sum(times - 1 for times in Counter(item.query for item in items).values())
    return (f"{counted(again, 'repetition')} of a query kept",) if again else ()
