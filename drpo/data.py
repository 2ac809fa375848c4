"""Queries and examples from files, checked on the way in; and where the shipped ones lie."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, assert_never

from drpo.errors import InputError
from drpo.jsonl import plain_lines, write_atomically
from drpo.query_rows import (
    SourceRows,
    field_of,
    read_rows,
    record_of,
    refuse_half_pairs,
    text_of,
)
from drpo.resources import resource_folder
from drpo.text_files import Entry, counted, read_json_entries, refusal, shown
from drpo.types import Example, Query

EXAMPLE_QUERY_FIELDS = ("query", "instruction")
EXAMPLE_RESPONSE_FIELDS = ("response", "output")
LABELS = ("style", "topic", "task", "category")
_SEEDS_FLAG = "--seeds-column NAME"


@dataclass(frozen=True, slots=True)
class SeedQueries:
    """Distinct queries in the order of their source, at least one. `cleaned` says what was left out.

    `digest` is the first 16 hex digits of a SHA-256 over the query texts in order; labels are not in it.
    """

    queries: tuple[Query, ...]
    source: str
    digest: str
    cleaned: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """Examples with distinct queries in the order of their source, at least one.

    `digest` is the first 16 hex digits of a SHA-256 over queries and responses in order.
    """

    examples: tuple[Example, ...]
    source: str
    digest: str


def shipped_seeds() -> Path:
    """The 180 seed queries."""
    return resource_folder("seeds") / "seeds.jsonl"


def shipped_heldout() -> Path:
    """The 120 queries that no search sees."""
    return resource_folder("seeds") / "heldout.jsonl"


def shipped_safety() -> Path:
    """40 red-team queries and 40 harmless look-alikes, told apart by their category."""
    return resource_folder("seeds") / "safety.jsonl"


def shipped_rewriting() -> Path:
    """120 queries that are vague, badly put or unsafe, and some that are good as they are."""
    return resource_folder("seeds") / "rewriting.jsonl"


def shipped_rewriting_heldout() -> Path:
    """100 more of them, on other subjects, to measure rewriters on."""
    return resource_folder("seeds") / "rewriting_heldout.jsonl"


def shipped_examples() -> Path:
    """The 16 examples with improved responses."""
    return resource_folder("icl_examples") / "improved.jsonl"


def base_examples() -> Path:
    """The same 16 queries with plain responses, from which examples are improved."""
    return resource_folder("icl_examples") / "base.jsonl"


def read_queries(source: str | Path, *, column: str | None = None) -> SeedQueries:
    """The queries of a file (.jsonl, .json, .csv, else one a line) or of a Hugging Face dataset OWNER/NAME.

    The query of a record is its field `column`, or the first of `QUERY_FIELDS` it has; labels are taken where
    they are strings. Of equal texts the first stays. Raises InputError with the place of what is wrong.
    """
    rows = read_rows(source, column, LABELS, _SEEDS_FLAG)
    found, name = rows.found, rows.name
    queries: dict[str, Query] = {}
    repeated: list[str] = []
    for entry in found.entries:
        query = _query(rows, entry)
        if query.text in queries:
            repeated.append(entry.place)
        queries.setdefault(query.text, query)
    if not queries:
        raise refusal(name, "", "at least one query", "none", "Write one query a line, or name another file")
    dropped = (f"{counted(len(repeated), 'duplicate')} dropped (first: {repeated[0]})",) if repeated else ()
    return SeedQueries(tuple(queries.values()), name, _digest(list(queries)), found.notes + dropped)


def read_examples(path: str | Path) -> ExampleSet:
    """The examples of a .json list or of JSON lines: `query` (or `instruction`) and `response` (or `output`).

    A response is kept to the letter. Raises InputError with the place of what is wrong; a query that comes
    twice is wrong too, since only one of its responses could be meant.
    """
    path = Path(path)
    places: dict[str, str] = {}
    examples: list[Example] = []
    for entry in read_json_entries(path).entries:
        example = _example(path, entry)
        if example.query in places:
            came = f"{shown(example.query)}, which stands on {places[example.query]} already"
            raise refusal(path, entry.place, "a query that is new", came, "Remove one of the two")
        places[example.query] = entry.place
        examples.append(example)
    if not examples:
        raise refusal(
            path, "", "at least one example", "none", 'Write a line {"query": "...", "response": "..."}'
        )
    return ExampleSet(tuple(examples), str(path), _digest([[e.query, e.response] for e in examples]))


def write_examples(path: str | Path, examples: Iterable[Example], *, overwrite: bool = False) -> None:
    """`path` holds the examples as `read_examples` reads them (a list if it ends in .json), or what it held.

    Missing folders are made. Raises InputError if there is such a file and not `overwrite`, StorageError if
    the disk refuses.
    """
    path = Path(path)
    if path.is_dir():
        raise refusal(path, "", "a file to write", "a folder", "Name a file in it")
    if path.exists() and not overwrite:
        raise InputError(
            f"{path}: there is such a file and it was not written over. Name another, or allow to overwrite"
        )
    records: list[dict[str, Any]] = []
    for number, example in enumerate(examples, 1):
        refuse_half_pairs(path, f"example {number}", "response", example.query + example.response)
        kind = {"kind": example.kind} if example.kind else {}
        records.append({"query": example.query, "response": example.response, **kind})
    as_list = path.suffix.lower() == ".json"
    text = json.dumps(records, ensure_ascii=False, indent=1) + "\n" if as_list else plain_lines(records)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path.parent}: the folder cannot be made: {error.strerror}. Name another"
        ) from error
    write_atomically(path, text)


def order_queries(
    queries: Sequence[Query], order: Literal["given", "shuffled"], random_seed: int
) -> tuple[Query, ...]:
    """The queries as given, or shuffled in a way that only `random_seed` decides."""
    ordered = list(queries)
    match order:
        case "given":
            pass
        case "shuffled":
            random.Random(random_seed).shuffle(ordered)
        case _:
            assert_never(order)
    return tuple(ordered)


def _query(rows: SourceRows, entry: Entry) -> Query:
    record = entry.value if isinstance(entry.value, dict) else {}
    labels = {label: record[label].strip() for label in LABELS if isinstance(record.get(label), str)}
    return Query(rows.text(entry), **labels)


def _example(path: Path, entry: Entry) -> Example:
    record = record_of(str(path), entry)
    asked = field_of(path, entry.place, record, EXAMPLE_QUERY_FIELDS)
    answered = field_of(path, entry.place, record, EXAMPLE_RESPONSE_FIELDS)
    kind = record.get("kind")
    return Example(
        text_of(path, entry.place, asked, record[asked]).strip(),
        text_of(path, entry.place, answered, record[answered]),
        kind.strip() if isinstance(kind, str) else "",
    )


def _digest(texts: object) -> str:
    return hashlib.sha256(json.dumps(texts).encode("ascii")).hexdigest()[:16]
