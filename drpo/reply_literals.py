"""A reader for objects as models write them when it is not quite JSON: sound, linear, no guessing."""

from __future__ import annotations

import math
import re
from typing import Any

# A reply nests four levels; the bound keeps a hostile one away from the interpreter's own limit.
_DEEPEST = 40
_LONGEST_NUMBER = 40

_SPACE = re.compile(r"\s*+")
_STRING = re.compile(r""""((?:[^"\\]++|\\.)*+)"|'((?:[^'\\]++|\\.)*+)'""", re.DOTALL)
_NUMBER = re.compile(r"-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]++)?+(?=[\s,}\])])")
_WORD = re.compile(r"(?:true|false|null|True|False|None|NaN|Infinity|-Infinity)\b")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_HIGH_SURROGATE = re.compile("[\ud800-\udbff]")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": "\n"}
_CLOSING = {"[": "]", "(": ")", "{": "}"}


class Repeating(dict[str, Any]):
    """An object some of whose keys came more than once: as a dict the last one, `pairs` has them all."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


class _NotReadable(Exception):
    """Raised inside this module only; a reading that fails is a plain None outside."""


def read_literal(text: str, start: int) -> tuple[Any, int] | None:
    """The value that begins at `start` and the place after it; None where the grammar does not fit.

    JSON with either quote, trailing commas, tuples and the literals of Python. Every quote inside a string
    must be escaped and every bracket closed, so a value that comes back is the one that was written.
    """
    try:
        return _value(text, start, 0)
    except _NotReadable:
        return None


def unescaped(text: str) -> str:
    """The characters between two quotes with the escapes of JSON and Python applied; unknown ones stay."""
    if "\\" not in text:
        return text
    return joined(_ESCAPE.sub(_character, text))


def joined(text: str) -> str:
    """`text` with each pair of surrogates, from two \\u escapes, as its one character; a lone half stays."""
    if text.isascii() or not _HIGH_SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def number(text: str) -> int | float | str:
    """The number that `text` spells, or `text` itself where it is too large to be one."""
    if len(text) > _LONGEST_NUMBER and "." not in text:
        return text  # a score has one digit; int() of many thousand digits raises
    if text.lstrip("-").isdigit():
        return int(text)
    value = float(text)
    return value if math.isfinite(value) else text


def _value(text: str, start: int, depth: int) -> tuple[Any, int]:
    first = text[start : start + 1]
    if first in ("{", "[", "(") and depth < _DEEPEST:
        return _object(text, start, depth) if first == "{" else _list(text, start, depth)
    if match := _STRING.match(text, start):
        return unescaped(match.group(1) if match.group(1) is not None else match.group(2)), match.end()
    if match := _NUMBER.match(text, start):
        return number(match.group()), match.end()
    if match := _WORD.match(text, start):
        return _WORDS.get(match.group(), match.group()), match.end()
    raise _NotReadable


def _object(text: str, start: int, depth: int) -> tuple[dict[str, Any], int]:
    pairs: list[tuple[str, Any]] = []
    position = _skip(text, start + 1)
    while text[position : position + 1] != "}":
        key, position = _value(text, position, _DEEPEST)
        position = _skip(text, position)
        if not isinstance(key, str) or text[position : position + 1] != ":":
            raise _NotReadable
        value, position = _value(text, _skip(text, position + 1), depth + 1)
        pairs.append((key, value))
        position = _comma(text, position, "}")
    plain = dict(pairs)
    return (plain if len(plain) == len(pairs) else Repeating(pairs)), position + 1


def _list(text: str, start: int, depth: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    closing = _CLOSING[text[start]]
    position = _skip(text, start + 1)
    while text[position : position + 1] != closing:
        item, position = _value(text, position, depth + 1)
        items.append(item)
        position = _comma(text, position, closing)
    return items, position + 1


def _comma(text: str, position: int, closing: str) -> int:
    """The place of the next item, or of the closing bracket."""
    position = _skip(text, position)
    following = text[position : position + 1]
    if following == ",":
        return _skip(text, position + 1)
    if following != closing:
        raise _NotReadable
    return position


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _character(escape: re.Match[str]) -> str:
    code = escape.group(1)
    if len(code) > 1:
        point = int(code[1:], 16)
        return chr(point) if point <= 0x10FFFF else escape.group()
    if code in _ESCAPED:
        return _ESCAPED[code]
    return code if code in "\"'\\/" else escape.group()
