"""Queries wherever they stand: rows of a file or of a Hugging Face dataset, and the field that holds a query.

What every reader of queries shares; what else a row may hold, its readers know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.errors import InputError
from drpo.text_files import Entries, Entry, counted, read_entries, refusal, shown

QUERY_FIELDS = ("query", "instruction", "prompt", "question", "text", "input")
_FILE_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".md", ".parquet", ".gz", ".zip", ".xlsx")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class SourceRows:
    """The entries of a file or data set. `name` is how it is shown; `flag` is told where no field is the
    query's, since it names one."""

    found: Entries
    name: str
    column: str | None
    flag: str

    def text(self, entry: Entry) -> str:
        """The query of an entry, stripped: the text itself, or its field `column`, else the first of
        `QUERY_FIELDS` it has. InputError where there is no text."""
        if isinstance(entry.value, str):
            return text_of(self.name, entry.place, "query", entry.value).strip()
        record = record_of(self.name, entry)
        field = query_field(self.name, entry.place, record, self.column, self.flag)
        return text_of(self.name, entry.place, field, record[field]).strip()


def read_rows(
    source: str | Path,
    column: str | None,
    labels: Sequence[str],
    flag: str,
    splits: Sequence[str] = ("train",),
) -> SourceRows:
    """The rows of a file (.jsonl, .json, .csv, else one a line) or of a Hugging Face dataset OWNER/NAME.

    Of a dataset the first of `splits` it has is read, or else its first, and besides the query the `labels`;
    its rows without text are skipped and counted: nobody can mend them there. InputError where nothing can
    be read, or the header of a table has no field for the query.
    """
    path = Path(source)
    if not path.exists() and _is_hub_name(str(source)):
        found, name = _hub_entries(str(source), column, labels, flag, splits)
    else:
        found, name = read_entries(path), str(source)
    if found.columns is not None:
        query_field(name, "line 1", found.columns, column, flag)
    return SourceRows(found, name, column, flag)


def read_records(source: str | Path, splits: Sequence[str] = ("train",)) -> tuple[Entries, str]:
    """All records of a file (.jsonl, .json, .csv) or of a Hugging Face dataset, whatever their fields, and
    how the source is shown. InputError where nothing can be read."""
    path = Path(source)
    if path.exists() or not _is_hub_name(str(source)):
        return read_entries(path), str(source)
    rows, name = _hub_split(str(source), splits)
    return Entries(tuple(Entry(f"row {n}", dict(row)) for n, row in enumerate(rows, 1)), ()), name


def query_field(source: str | Path, place: str, record: Iterable[str], column: str | None, flag: str) -> str:
    """The field that holds the query: `column`, or the first of `QUERY_FIELDS`. InputError without one."""
    return field_of(source, place, record, (column,) if column else QUERY_FIELDS, flag)


def record_of(source: str | Path, entry: Entry) -> Mapping[str, Any]:
    """The JSON object that an entry is. InputError for anything else."""
    if isinstance(entry.value, dict):
        return entry.value
    remedy = 'Write {"query": "..."} with further fields as needed'
    raise refusal(source, entry.place, "a JSON object", shown(entry.value), remedy)


def field_of(
    source: str | Path, place: str, record: Iterable[str], names: Sequence[str], flag: str = ""
) -> str:
    """The first of `names` that a record has. InputError, with the `flag` that helps if any, without one."""
    there = list(record)
    name = next((name for name in names if name in there), None)
    if name is not None:
        return name
    expected = f"the field {' or '.join(repr(n) for n in names)}"
    came = f"the fields {', '.join(map(repr, there))}" if there else "no field at all"
    remedy = f"Name the right one with {flag}" if flag else "Rename the one that is meant"
    raise refusal(source, place, expected, came, remedy)


def text_of(source: str | Path, place: str, field: str, value: object) -> str:
    """`value` as it stands, a text with more than blanks in it. InputError for anything else."""
    if not isinstance(value, str):
        remedy = "Put it in quotes if it is meant as text"
        raise refusal(source, place, f"text in {field!r}", f"{shown(value)} ({type(value).__name__})", remedy)
    if not value.strip():
        raise refusal(source, place, f"text in {field!r}", shown(value), "Fill it in, or remove the entry")
    refuse_half_pairs(source, place, field, value)
    return value


def refuse_half_pairs(source: str | Path, place: str, field: str, text: str) -> None:
    """InputError for text that JSON can spell and no file or request can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        came = f"half of a UTF-16 pair, {text[error.start]!r}, which cannot be sent or stored"
        raise refusal(source, place, f"Unicode text in {field!r}", came, "Remove it") from error


def _is_hub_name(source: str) -> bool:
    """OWNER/NAME; with a file's ending, or in a folder that is there, it is rather a missing file."""
    path = Path(source)
    return bool(_HUB_NAME.fullmatch(source)) and path.suffix not in _FILE_ENDINGS and not path.parent.is_dir()


def _hub_split(name: str, wanted: Sequence[str]) -> tuple[Any, str]:
    """The first of the `wanted` splits of a dataset that it has, else its first; and how it is shown."""
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
    split = next((split for split in wanted if split in splits), next(iter(splits)))
    return splits[split], f"{name} (split {split})"


def _hub_entries(
    name: str, column: str | None, labels: Sequence[str], flag: str, wanted: Sequence[str]
) -> tuple[Entries, str]:
    rows, full_name = _hub_split(name, wanted)
    columns = list(rows.column_names)
    field = query_field(full_name, "", columns, column, flag)
    labels = [label for label in labels if label in columns and label != field]
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
    notes = (f"{counted(skipped, 'empty row')} skipped",) if skipped else ()
    return Entries(tuple(entries), notes), full_name
