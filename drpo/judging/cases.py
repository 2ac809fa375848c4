"""The cases that show whether a judge can be trusted, from a file, checked on the way in; where ours lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from drpo.resources import resource_folder
from drpo.text_files import Entry, read_json_entries, refusal, shown

Kind: TypeAlias = Literal["pair", "padding", "trivial", "begging", "forging", "closing", "empty", "off-topic"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ATTACKS: tuple[Kind, ...] = ("begging", "forging", "closing")
"""Kinds whose text is the bad answer and an addition that works on the judge."""
WORTHLESS: tuple[Kind, ...] = ("trivial", "empty", "off-topic")
"""Kinds whose text is an answer of its own that is worth nothing."""

_FILL = "Fill it in, or remove the case"


@dataclass(frozen=True, slots=True)
class Case:
    """One query with a sound answer and a plainly worse one; `text` is the answer that is put to the test.

    id: kind and number among the cases of that kind in their file, "begging-3". text: "" in "pair" and
    "padding", which have none; nothing but white space, or empty, in "empty"; in `ATTACKS` it holds `bad` to
    the letter, so that the rest of it is all that differs.
    """

    id: str
    kind: Kind
    query: str
    good: str
    bad: str
    text: str = ""


def shipped_judge_cases() -> Path:
    """The 80 cases of all kinds."""
    return resource_folder("seeds") / "judge_cases.jsonl"


def read_cases(path: str | Path) -> tuple[Case, ...]:
    """The cases of a .json list or of JSON lines, in file order, at least one; answers kept to the letter.

    Fields: query, good, bad, kind, and text where the kind has one; others are not looked at. Not every kind
    need occur. Raises InputError with the place of what is wrong; a case that comes twice is wrong too, as it
    would be counted as two.
    """
    path = Path(path)
    numbers: Counter[Kind] = Counter()
    places: dict[tuple[str, ...], str] = {}
    cases: list[Case] = []
    for entry in read_json_entries(path).entries:
        kind, query, good, bad, text = _checked(path, entry)
        numbers[kind] += 1
        case = Case(f"{kind}-{numbers[kind]}", kind, query, good, bad, text)
        fields = (kind, query, good, bad, text)
        if fields in places:
            came = f"the one that stands on {places[fields]} already"
            raise refusal(path, entry.place, "a case that is new", came, "Remove one of the two")
        places[fields] = entry.place
        cases.append(case)
    if not cases:
        remedy = 'Write a line {"query": "...", "good": "...", "bad": "...", "kind": "pair"}'
        raise refusal(path, "", "at least one case", "none", remedy)
    return tuple(cases)


def _checked(path: Path, entry: Entry) -> tuple[Kind, str, str, str, str]:
    record = entry.value
    if not isinstance(record, dict):
        remedy = 'Write {"query": "...", "good": "...", "bad": "...", "kind": "pair"}'
        raise refusal(path, entry.place, "a JSON object", shown(record), remedy)
    kind = _kind(path, entry.place, record)
    query = _text(path, entry.place, record, "query").strip()
    good, bad = (_text(path, entry.place, record, field) for field in ("good", "bad"))
    if good.strip() == bad.strip():
        remedy = "Give a plainly worse answer in 'bad'"
        raise refusal(path, entry.place, "two answers that differ", "the same in 'good' and 'bad'", remedy)
    return kind, query, good, bad, _tested(path, entry.place, record, kind, good, bad)


def _tested(path: Path, place: str, record: Mapping[str, Any], kind: Kind, good: str, bad: str) -> str:
    """The field `text`, with what its kind demands of it."""
    if kind not in (*ATTACKS, *WORTHLESS):
        if record.get("text") is not None:
            remedy = "Remove the text, or name the kind that is meant"
            raise refusal(path, place, f"no 'text' in a case of kind {kind!r}", shown(record["text"]), remedy)
        return ""
    text = _text(path, place, record, "text", blank=kind == "empty")
    if kind == "empty" and text.strip():
        remedy = "Name the kind 'trivial' if hardly a word is meant"
        raise refusal(path, place, "nothing but white space in 'text'", shown(text), remedy)
    if kind in ATTACKS and (bad not in text or text.strip() == bad.strip()):
        came = shown(text) if bad not in text else "no more than that"
        remedy = "Copy 'bad' into it to the letter, so that what is added is all that differs"
        raise refusal(path, place, "a 'text' that holds 'bad' and an addition", came, remedy)
    if text.strip() == good.strip():
        remedy = "Put the answer that a sound judge does not fall for into 'text'"
        raise refusal(path, place, "a 'text' other than 'good'", shown(text), remedy)
    return text


def _kind(path: Path, place: str, record: Mapping[str, Any]) -> Kind:
    given = record.get("kind")
    for kind in KINDS:
        if given == kind:
            return kind
    came = shown(given) if "kind" in record else _fields(record)
    raise refusal(path, place, f"in 'kind' one of {', '.join(KINDS)}", came, "Name one of them")


def _text(path: Path, place: str, record: Mapping[str, Any], field: str, *, blank: bool = False) -> str:
    if field not in record:
        remedy = "Add it, or rename the one that is meant"
        raise refusal(path, place, f"the field {field!r}", _fields(record), remedy)
    value = record[field]
    if not isinstance(value, str):
        came = f"{shown(value)} ({type(value).__name__})"
        raise refusal(path, place, f"text in {field!r}", came, "Put it in quotes if it is meant as text")
    if not blank and not value.strip():
        raise refusal(path, place, f"text in {field!r}", shown(value), _FILL)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        came = f"half of a UTF-16 pair, {value[error.start]!r}, which cannot be sent or stored"
        raise refusal(path, place, f"Unicode text in {field!r}", came, "Remove it") from error
    return value


def _fields(record: Mapping[str, Any]) -> str:
    return f"the fields {', '.join(map(repr, record))}" if record else "no field at all"
