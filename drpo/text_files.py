"""Files that people write (JSON lines, JSON, CSV, plain text) as entries, each knowing where it stands.

What can be read without guessing is read and, where something was left out, noted; everything else is
refused with one line: file, place, what was expected, what came, what to do.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

from drpo.errors import InputError

_SHOWN = 60  # characters of a wrong value in a message: enough to find it, short enough for one line


@dataclass(frozen=True, slots=True)
class Entry:
    """One value of a file (a string, a mapping, or whatever else stood there) and its place, "line 7"."""

    place: str
    value: object


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of one file, notes on what was left out on the way, and a table's header (else None)."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    columns: tuple[str, ...] | None = None


def refusal(source: str | Path, place: str, expected: str, came: str, remedy: str) -> InputError:
    """The error of one unusable place in a file, on one line; `place` may be empty for the whole file."""
    where = f"{source}, {place}" if place else str(source)
    return InputError(f"{where}: expected {expected}, came {came}. {remedy}")


def shown(value: object) -> str:
    """`value` as it is told in a message: its repr, on one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def counted(number: int, thing: str) -> str:
    """ "1 blank line", "2 blank lines"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def read_text(path: Path) -> tuple[str, tuple[str, ...]]:
    """The text of a UTF-8 file without a byte order mark, line ends untouched; and the notes on it."""
    try:
        if path.is_dir():
            raise refusal(path, "", "a file", "a folder", "Name one file in it")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected a file, there is none. Check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read: {reason}. Check the path and its permissions") from error
    _refuse_other_encodings(path, data)
    notes = []
    if data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
        notes.append("byte order mark removed")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refusal(
            path,
            f"line {_line(data, error.start)}",
            "text in UTF-8",
            f"the byte 0x{data[error.start]:02x}",
            f"Convert it, for instance: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}",
        ) from error
    if crlf := text.count("\r\n"):
        notes.append(f"{counted(crlf, 'CRLF line end')} read as such")
    return text, tuple(notes)


def read_entries(path: Path) -> Entries:
    """The entries of a file by its ending: .jsonl, .json, .csv, and one string a line for any other."""
    text, notes = read_text(path)
    readers = {".jsonl": _json_lines, ".json": _json_list, ".csv": _csv_rows}
    found = readers.get(path.suffix.lower(), _plain_lines)(path, text)
    return replace(found, notes=notes + found.notes)


def read_json_entries(path: Path) -> Entries:
    """The entries of a .json list, or of JSON lines whatever the ending."""
    text, notes = read_text(path)
    found = (_json_list if path.suffix.lower() == ".json" else _json_lines)(path, text)
    return replace(found, notes=notes + found.notes)


def _refuse_other_encodings(path: Path, data: bytes) -> None:
    marks = {
        "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
        "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    }
    encoding = next((name for name, mark in marks.items() if data.startswith(mark)), "")
    zero = data.find(0)
    if not encoding and zero < 0:
        return
    if not encoding:
        encoding = _unmarked_encoding(data)
    convert = f"Convert it: iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}"
    if encoding:
        raise refusal(path, "line 1", "text in UTF-8", f"text in {encoding}", convert)
    raise refusal(
        path,
        f"line {_line(data, zero)}",
        "text in UTF-8",
        f"a NUL byte (byte {zero}), so the file is binary",
        "Give a text file: JSON lines, JSON, CSV, or one entry a line",
    )


def _unmarked_encoding(data: bytes) -> str:
    """UTF-16 or UTF-32 without a mark, told by the zeros that every Latin letter then carries; or empty."""
    head = data[: 4000 - 4000 % 4]
    for step, name in ((4, "UTF-32"), (2, "UTF-16")):
        for letter, little in ((0, "LE"), (step - 1, "BE")):
            lanes = [head[lane::step] for lane in range(step)]
            zeros = [lane.count(0) / max(len(lane), 1) for lane in lanes]
            letters = zeros.pop(letter)
            # 0.6: most, not all, since a text also holds letters outside Latin-1
            if letters < 0.1 and min(zeros) > 0.6:
                return name + little
    return ""


def _line(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def _lines(text: str) -> list[str]:
    # Only at line feeds: splitlines() would also cut a query at a U+2028 or a form feed inside it.
    if "\n" not in text and "\r" in text:
        return text.split("\r")
    return text.split("\n")


def _numbered(text: str) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """(place, stripped line) of every line that is not blank; the note on the blank ones."""
    lines = [(f"line {number}", line.strip()) for number, line in enumerate(_lines(text), 1)]
    kept = [(place, line) for place, line in lines if line]
    trailing = 1 if lines and not lines[-1][1] else 0  # what follows the last line end is no line
    blank = len(lines) - len(kept) - trailing
    return kept, (f"{counted(blank, 'blank line')} skipped",) if blank else ()


def _plain_lines(path: Path, text: str) -> Entries:
    kept, notes = _numbered(text)
    return Entries(tuple(Entry(place, line) for place, line in kept), notes)


def _json_lines(path: Path, text: str) -> Entries:
    kept, notes = _numbered(text)
    return Entries(tuple(Entry(place, _json(path, place, line)) for place, line in kept), notes)


def _json_list(path: Path, text: str) -> Entries:
    value = _json(path, "", text) if text.strip() else []
    if not isinstance(value, list):
        remedy = "Put the entries between [ and ], or name the file .jsonl if it holds one entry a line"
        raise refusal(path, "line 1", "a JSON list", shown(value), remedy)
    return Entries(tuple(Entry(f"item {number}", item) for number, item in enumerate(value, 1)), ())


def _json(path: Path, place: str, text: str) -> object:
    wanted = "one JSON object or JSON string" if place else "a JSON list"
    remedy = (
        "Write one entry a line, or name the file .json if it is one list"
        if place
        else "Name the file .jsonl if it holds one entry a line"
    )
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as error:
        came = (
            f"what is no JSON at column {error.colno} ({error.msg}): {shown(_line_around(text, error.pos))}"
        )
        raise refusal(path, place or f"line {error.lineno}", wanted, came, remedy) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nested as deep
        raise refusal(
            path, place or "line 1", wanted, f"JSON beyond reading ({error})", "Simplify it"
        ) from error
    return value


def _line_around(text: str, position: int) -> str:
    start = text.rfind("\n", 0, position) + 1
    return text[max(start, position - 20) :].split("\n", 1)[0]


def _csv_rows(path: Path, text: str) -> Entries:
    # newline="" leaves line ends to the csv module: inside quotes they belong to the text.
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    entries: list[Entry] = []
    blank, start = 0, 1
    try:
        for row in rows:
            place, start = f"line {start}", rows.line_num + 1
            if not row:
                blank += 1
            elif not header:
                header = [name.strip() for name in row]
            elif len(row) > len(header):
                came = f"{counted(len(row), 'cell')}: {shown(row[-1])} is one too many"
                remedy = 'Put cells that hold a comma in quotes: "first, second"'
                raise refusal(
                    path, place, f"at most {counted(len(header), 'cell')} as in the header", came, remedy
                )
            else:
                entries.append(Entry(place, dict(zip(header, row, strict=False))))
    except csv.Error as error:
        remedy = 'Put cells in double quotes and double the quotes inside: "she said ""no"""'
        raise refusal(
            path, f"line {max(rows.line_num, 1)}", "CSV", f"a row that is none ({error})", remedy
        ) from error
    notes = (f"{counted(blank, 'blank line')} skipped",) if blank else ()
    return Entries(tuple(entries), notes, tuple(header))
