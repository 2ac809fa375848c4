"""Queries and examples from files, checked on the way in; and where the shipped ones lie."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, assert_never

from drpo.errors import InputError
from drpo.jsonl import plain_lines, write_atomically
from drpo.resources import resource_folder
from drpo.text_files import Entries, Entry, counted, read_entries, read_json_entries, refusal, shown
from drpo.types import Example, Query

QUERY_FIELDS = ("query", "instruction", "prompt", "question", "text")
EXAMPLE_QUERY_FIELDS = ("query", "instruction")
EXAMPLE_RESPONSE_FIELDS = ("response", "output")
LABELS = ("style", "topic", "task", "category")
_COLUMN_FLAG = "--seeds-column NAME"
_FILE_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".md", ".parquet", ".gz", ".zip", ".xlsx")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


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
    path = Path(source)
    if not path.exists() and _is_hub_name(str(source)):
        found, name = _hub_entries(str(source), column)
    else:
        found, name = read_entries(path), str(source)
    if found.columns is not None:
        _field(name, "line 1", found.columns, (column,) if column else QUERY_FIELDS, _COLUMN_FLAG)
    queries: dict[str, Query] = {}
    repeated: list[str] = []
    for entry in found.entries:
        query = _query(name, entry, column)
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
        _refuse_half_pairs(path, f"example {number}", "response", example.query + example.response)
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


def _query(source: str, entry: Entry, column: str | None) -> Query:
    if isinstance(entry.value, str):
        return Query(_text(source, entry.place, "query", entry.value).strip())
    record = _record(source, entry)
    name = _field(source, entry.place, record, (column,) if column else QUERY_FIELDS, _COLUMN_FLAG)
    labels = {label: record[label].strip() for label in LABELS if isinstance(record.get(label), str)}
    return Query(_text(source, entry.place, name, record[name]).strip(), **labels)


def _example(path: Path, entry: Entry) -> Example:
    record = _record(str(path), entry)
    asked = _field(path, entry.place, record, EXAMPLE_QUERY_FIELDS)
    answered = _field(path, entry.place, record, EXAMPLE_RESPONSE_FIELDS)
    kind = record.get("kind")
    return Example(
        _text(path, entry.place, asked, record[asked]).strip(),
        _text(path, entry.place, answered, record[answered]),
        kind.strip() if isinstance(kind, str) else "",
    )


def _record(source: str | Path, entry: Entry) -> Mapping[str, Any]:
    if isinstance(entry.value, dict):
        return entry.value
    remedy = 'Write {"query": "..."} with further fields as needed'
    raise refusal(source, entry.place, "a JSON object", shown(entry.value), remedy)


def _field(
    source: str | Path, place: str, record: Iterable[str], names: Sequence[str], flag: str = ""
) -> str:
    there = list(record)
    name = next((name for name in names if name in there), None)
    if name is not None:
        return name
    expected = f"the field {' or '.join(repr(n) for n in names)}"
    came = f"the fields {', '.join(map(repr, there))}" if there else "no field at all"
    remedy = f"Name the right one with {flag}" if flag else "Rename the one that is meant"
    raise refusal(source, place, expected, came, remedy)


def _text(source: str | Path, place: str, field: str, value: object) -> str:
    if not isinstance(value, str):
        remedy = "Put it in quotes if it is meant as text"
        raise refusal(source, place, f"text in {field!r}", f"{shown(value)} ({type(value).__name__})", remedy)
    if not value.strip():
        raise refusal(source, place, f"text in {field!r}", shown(value), "Fill it in, or remove the entry")
    _refuse_half_pairs(source, place, field, value)
    return value


def _refuse_half_pairs(source: str | Path, place: str, field: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        came = f"half of a UTF-16 pair, {text[error.start]!r}, which cannot be sent or stored"
        raise refusal(source, place, f"Unicode text in {field!r}", came, "Remove it") from error


def _digest(texts: object) -> str:
    return hashlib.sha256(json.dumps(texts).encode("ascii")).hexdigest()[:16]


def _is_hub_name(source: str) -> bool:
    """OWNER/NAME; with a file's ending, or in a folder that is there, it is rather a missing file."""
    path = Path(source)
    return bool(_HUB_NAME.fullmatch(source)) and path.suffix not in _FILE_ENDINGS and not path.parent.is_dir()


def _hub_entries(name: str, column: str | None) -> tuple[Entries, str]:
    """The rows of a Hugging Face dataset, of its split `train` or else its first; and its full name.

    Rows without text are skipped and counted: nobody can mend them there.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{name}: no such file; to read it as a Hugging Face dataset, pip install 'drpo[datasets]'"
        ) from error
    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # `datasets` promises no common base
        reason = shown(" ".join(str(error).split()))
        raise InputError(
            f"{name}: no such file, and as a Hugging Face dataset it cannot be loaded: {reason}. Check the "
            "name and the network, or save the queries as JSON lines and name that file"
        ) from error
    split = "train" if "train" in splits else next(iter(splits))
    rows, full_name = splits[split], f"{name} (split {split})"
    columns = list(rows.column_names)
    field = _field(full_name, "", columns, (column,) if column else QUERY_FIELDS, _COLUMN_FLAG)
    labels = [label for label in LABELS if label in columns and label != field]
    entries: list[Entry] = []
    skipped = 0
    for number, (text, *values) in enumerate(
        zip(rows[field], *(rows[label] for label in labels), strict=True), 1
    ):
        if isinstance(text, str) and text.strip():
            entries.append(Entry(f"row {number}", {field: text, **dict(zip(labels, values, strict=True))}))
        elif text is None or isinstance(text, str):
            skipped += 1
        else:
            entries.append(Entry(f"row {number}", {field: text}))
    return Entries(
        tuple(entries), (f"{counted(skipped, 'empty row')} skipped",) if skipped else ()
    ), full_name
