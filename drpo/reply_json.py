"""Text of a model's reply -> the JSON value it holds, with what is known about its end.

Four readings, each tried only when the one before found nothing (the order is the one that recovered most
of 3,146 real broken replies; the third is ours and takes over what can be read exactly):

1. `json.loads(strict=False)` of the whole text: the usual case, and the only one that must be quick.
2. The same on each object inside prose, fences and thinking text, which is left out.
3. A grammar for what people mean by JSON: either quote, trailing commas, tuples, Python's literals.
4. `json_repair`, whose errors are silent. Whoever uses its result must look at `Found.complete`.

The last value wins. Nothing here raises on any text, and the time is linear in its length but for
`json_repair`, which gets a bounded piece of work.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import json_repair

from drpo.reply_literals import Repeating, joined, number, read_literal

# json_repair looks ahead from every mark, so it is quadratic: '{' + '".' * 3000 takes 3 s, 200,000 characters
# of the same hours; nested openings are worse. Real replies to mend have under 20,000 characters, a few
# hundred marks and a brace per aspect: the bounds let those through, and the worst that
# fuzzing found below them took 5 s. A bound on the length alone would not help.
MOST_MENDED_CHARACTERS = 200_000
MOST_MENDED_BRACES = 60
MOST_MENDED_WORK = 6_000_000
_MARKS = "{}[]()\"'`,:#/\\“”‘’"

_TAGS = "think|thinking|thought|thoughts|reasoning|reflection|scratchpad"
_TAG = re.compile(rf"<(/?)(?:{_TAGS})>", re.IGNORECASE)
_TAG_OR_BRACKET = re.compile(rf"<(/?)(?:{_TAGS})>|[{{\[(]", re.IGNORECASE)
# What begins an object or a list of objects, not a brace in prose: a quote, a bare key, a comment, '}'.
CONTAINER = re.compile(r"""\{\s*+(?:["'“”‘’`}#]|//|/\*|[A-Za-z_][\w -]{0,60}+:)|[\[(]\s*+\{""")
_PLAIN = re.compile(r'[^"\\{\[(]*+')
_STRING_START = re.compile(r"""[\[{(\s]*+(["'])""")
_DOUBLE_QUOTED = re.compile(r'"(?:[^"\\]++|\\.)*+("?)|[{}\[\]()]', re.DOTALL)
_EITHER_QUOTED = re.compile(r""""(?:[^"\\]++|\\.)*+("?)|'(?:[^'\\]++|\\.)*+('?)|[{}\[\]()]""", re.DOTALL)
_IN_STRING = 1_000_000


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What was wrong with a reply: one plain sentence, for the model in a repair turn and for the user."""

    problem: str


@dataclass(frozen=True, slots=True)
class Found:
    """A value in a reply: an object, or a list that holds objects only.

    `end` says what is known about the end of the text: "exact" when a grammar read the value up to its
    closing bracket; "unclosed" when a grammar read it and only its last closing brace is missing; "closed"
    when `json_repair` had a hand in it but every bracket and string is closed in the text; else "cut".
    """

    value: Any
    text: str
    end: Literal["exact", "closed", "unclosed", "cut"]

    @property
    def complete(self) -> bool:
        """True unless the text may have been cut off."""
        return self.end in ("exact", "closed")


def find_json(text: str) -> Found | Unreadable:
    """The last object, or list of objects, in `text`. NaN, Infinity and 1e400 come back as text."""
    try:
        value = _DECODER.decode(text.strip())
        if _holds_objects(value):
            return Found(value, text, "exact")
    except RecursionError:
        return Unreadable("the reply is nested too deeply to be the JSON object that was asked for")
    except ValueError:
        pass  # the usual reasons are tried next
    try:
        return _search(text)
    except RecursionError:
        return Unreadable("the reply is nested too deeply to be the JSON object that was asked for")


def shortened(value: object, most: int = 80) -> str:
    """`value` for a problem sentence: quoted, on one line, at most about `most` characters, valid UTF-8."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, str):
        text = " ".join(value[: 4 * most].split())
        whole = len(text) <= most and len(value) <= 4 * most
        quoted = json.dumps(text if whole else text[:most] + "…", ensure_ascii=False)
        return quoted.encode("utf-8", "replace").decode("utf-8")
    return json.dumps(value) if isinstance(value, bool | int | float | None) else "something else"


def _search(text: str) -> Found | Unreadable:
    """Readings 2 to 4: walks over the text once; the first object that no grammar reads ends the walk."""
    found: Found | None = None
    position = 0
    while mark := _TAG_OR_BRACKET.search(text, position):
        position = mark.end()
        if mark.group(1) == "":  # thinking: on to its end, or nothing more is said
            closing = next((m for m in _TAG.finditer(text, position) if m.group(1)), None)
            if closing is None:
                break
            position = closing.end()
        elif mark.group(1) == "/":  # its opening was in the prompt: all so far was thinking
            found = None
        elif CONTAINER.match(text, mark.start()):
            read = _read_at(text, mark.start())
            if read is not None:
                value, position = read
                found = Found(value, text, "exact") if _holds_objects(value) else found
            elif (answer := _answer_after(text, position)) is not None:
                found, position = None, answer
            else:
                return _unclosed(text[mark.start() :]) or _mend(text[mark.start() :])
    if found is not None:
        return found
    if not text.strip():
        return Unreadable("the reply is empty; the JSON object that was asked for was expected")
    return Unreadable(f"the reply holds no JSON object; it begins with {shortened(text)}")


def _answer_after(text: str, position: int) -> int | None:
    """Where an object begins after a closing tag that ends thinking with a broken draft in it.

    The tag may also be a word in a string of a broken object. So nothing but plain prose may stand between
    the tag and the object, and a grammar must read that object whole.
    """
    tag = _TAG.search(text, position)
    if tag is None or not tag.group(1):
        return None
    answer = _PLAIN.match(text, tag.end())
    if answer is None or not CONTAINER.match(text, answer.end()) or _read_at(text, answer.end()) is None:
        return None
    return answer.end()


def _read_at(text: str, start: int) -> tuple[Any, int] | None:
    try:
        return _DECODER.raw_decode(text, start)
    except ValueError:
        return read_literal(text, start)


def _unclosed(text: str) -> Found | None:
    """The object that `text` is, but for its last brace: a frequent slip that needs no guessing."""
    text = text.rstrip("` \t\r\n")
    if not text.endswith("}"):
        return None  # something inside of the object is open too: the text was cut off
    read = _read_at(text + "}", 0)
    whole = read is not None and read[1] > len(text) and _holds_objects(read[0])
    return Found(read[0], text, "unclosed") if read is not None and whole else None


def _mend(text: str) -> Found | Unreadable:
    """Reading 4. The front may be cut off here, the end never: a cut reply has its last words there."""
    text, torn = without_thinking(text)
    tangled = text.count("{") > MOST_MENDED_BRACES or len(text) > MOST_MENDED_CHARACTERS
    if tangled or len(text) * sum(map(text.count, _MARKS)) > MOST_MENDED_WORK:
        return Unreadable("the reply's JSON is broken, and too long or too tangled to be mended")
    try:
        mended = json_repair.repair_json(text, return_objects=True, skip_json_loads=True)
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001 - fuzzing it met ValueError and AssertionError; a reply must not end a run
        mended = ""
    value = _cleaned(_last_objects(mended, text))
    if not _holds_objects(value):
        return Unreadable(f"the reply's JSON cannot be read; it begins with {shortened(text)}")
    return Found(value, text, "cut" if torn or _left_open(text) else "closed")


def _last_objects(mended: Any, text: str) -> Any:
    """The last dict that json_repair found; the whole list where the text itself is a list of objects."""
    if isinstance(mended, list):
        if text.startswith(("[", "(")) and _holds_objects(mended):
            return mended
        return next((item for item in reversed(mended) if _holds_objects(item)), None)
    return mended


def without_thinking(text: str) -> tuple[str, bool]:
    """The text less its thinking parts; True where one began or ended inside an open object.

    There the tag may be a word of the text (a system prompt that speaks of <think>), so nothing that was
    read around it can be trusted to be whole.
    """
    kept: list[str] = []
    start, thinking, torn = 0, False, False
    for tag in _TAG.finditer(text):
        if tag.group(1):
            if not thinking:
                torn = torn or _left_open(text[start : tag.start()]) > 0
                kept.clear()
            start, thinking = tag.end(), False
        elif not thinking:
            piece = text[start : tag.start()]
            torn = torn or _left_open(piece) > 0
            kept.append(piece)
            thinking = True
    return "".join(kept) if thinking else "".join(kept) + text[start:], torn


def _left_open(text: str) -> int:
    """How many brackets are open at the end of `text`; very many when the end lies inside a string.

    Exact where the text escapes the quotes in its strings; with bare quotes inside strings it is exact when
    they come in pairs, and mostly counts too many otherwise. Quotes outside of objects are prose.
    """
    depth, position, token = 0, 0, _DOUBLE_QUOTED
    while True:
        if depth == 0:
            opening = CONTAINER.search(text, position)
            if opening is None:
                return 0
            depth, position = 1, opening.start() + 1
            quote = _STRING_START.match(text, opening.start())
            token = _EITHER_QUOTED if quote and quote.group(1) == "'" else _DOUBLE_QUOTED
        mark = token.search(text, position)
        if mark is None:
            return depth
        position = mark.end()
        if mark.group()[0] in "\"'":
            if not any(mark.groups()):
                return _IN_STRING
        else:
            depth += 1 if mark.group() in "{[(" else -1


def _holds_objects(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict) and item for item in value)
    return isinstance(value, dict) and bool(value)


def _cleaned(value: Any) -> Any:
    """What json_repair returns, with numbers that are none as text and its split surrogate pairs joined."""
    if isinstance(value, dict):
        return {joined(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return joined(value) if isinstance(value, str) else value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    return value if len(value) == len(pairs) else Repeating(pairs)


# Numbers that are none for JSON stay text: as text no score accepts them, and the problem can quote them.
_DECODER = json.JSONDecoder(
    strict=False, object_pairs_hook=_object, parse_float=number, parse_int=number, parse_constant=str
)
