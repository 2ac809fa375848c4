"""Reply of a pairwise judge -> A, B or a tie, or what was wrong with it. Never an exception, never a guess.

A verdict is said in a JSON object, {"verdict": "A"}, or by a mark, [[A]], [[B]] or [[C]] (a tie). Whatever
says one outside of the thinking part must say the same. A mark in the strings of a JSON object or in a
quotation was somebody else's, most likely the judged response's own: it gives no verdict. In running text a
quoted mark that differs from the verdict still makes the reply unreadable, since where a quotation begins
cannot be told for certain; in the strings of a well-formed object it can, so there it is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from drpo.reply_json import CONTAINER, Found, Unreadable, find_json, shortened, without_thinking
from drpo.reply_literals import Repeating, read_literal

__all__ = ["MOST_MARKS", "Preferred", "Unreadable", "Verdict", "read_verdict"]

Preferred: TypeAlias = Literal["A", "B", "tie"]

_WORDS: dict[str, Preferred] = {"a": "A", "b": "B", "c": "tie", "tie": "tie"}
_MARK = re.compile(r"\[\[\s*+([^\[\]\n]{0,40}?)\s*+\]\]")
# The beginning of a mark where the reply ends, or one that lost its last bracket.
_CUT_MARK = re.compile(r"\[\[\s*+\w{0,10}\s*+\]?\s*+\Z|\[\s*+\Z|\[\[\s*+(?:a|b|c|tie)\s*+\](?!\])", re.I)
_STATEMENT = re.compile(r"[\"'“‘]\s*+verdict\s*+[\"'”’]\s*+:\s*+([^,}\n]{0,80})", re.I)
_QUOTES = "\"'“”‘’`"
_OPENING = "“‘«"
_CLOSING = "”’»"
MOST_MARKS = 100  # a reply with more is a loop of the model, and looking around each takes time
_WANTED = '"A", "B" or "tie" was expected'


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which of two responses a judge prefers, and the reason it gave in its JSON (else empty)."""

    preferred: Preferred
    reason: str = ""


def read_verdict(text: str) -> Verdict | Unreadable:
    """The one verdict that everything in the reply agrees on.

    Read: {"verdict": "A" | "B" | "C" | "tie"}, also as "[[A]]", in either quotes, with trailing commas, in
    fences and prose; and marks in prose, several if they are equal. Unreadable: no verdict, different ones,
    a mark of another kind ([[8]]), a cut one ([[A), an object that is cut off.
    """
    said, torn = without_thinking(text)
    if torn and any(mark in said for mark in '{}"'):
        return _read_torn(text)
    values, prose, rest = _split(said)
    stated = [word for value in values for word in _stated(value)]
    if rest:
        found = find_json(rest)
        mended = _mended(found, rest)
        if isinstance(mended, Unreadable):
            return mended
        stated += mended
        values += [found.value] if isinstance(found, Found) else []
    if _CUT_MARK.search(prose):
        return Unreadable("the reply has a verdict mark that is cut off or lacks a bracket")
    marks = list(_MARK.finditer(prose))
    if len(marks) > MOST_MARKS:
        return Unreadable(f"the reply has {len(marks)} verdict marks; one was expected")
    if not stated and all(_is_quoted(prose, mark) for mark in marks):
        quoted = f"the only verdict mark stands in a quotation; {_WANTED}" if marks else ""
        return Unreadable(quoted or f"the reply gives no verdict; {_WANTED}")
    told = [*stated, *(mark.group(1) for mark in marks), *(m.group(1) for m in _MARK.finditer(rest))]
    return _agreed(told, values)


def _read_torn(text: str) -> Verdict | Unreadable:
    """A reply in which a thinking tag stands within an object: it may be a word of the judge's reason."""
    found = find_json(text)
    if isinstance(found, Unreadable) or found.end != "exact":
        return Unreadable("the reply's JSON has a thinking tag within it, and cannot be read for certain")
    stated = list(_stated(found.value))
    if not stated:
        return Unreadable(f"the reply gives no verdict; {_WANTED}")
    return _agreed([*stated, *(mark.group(1) for mark in _MARK.finditer(text))], [found.value])


def _split(said: str) -> tuple[list[Any], str, str]:
    """The objects that a grammar reads, the text around them, and the text from the first unread one on."""
    values: list[Any] = []
    pieces: list[str] = []
    position = 0
    while container := CONTAINER.search(said, position):
        read = read_literal(said, container.start())
        if read is None:
            return values, "\n".join([*pieces, said[position : container.start()]]), said[container.start() :]
        pieces.append(said[position : container.start()])
        values.append(read[0])
        position = read[1]
    return values, "\n".join([*pieces, said[position:]]), ""


def _mended(found: Found | Unreadable, rest: str) -> list[Any] | Unreadable:
    """The verdicts in an object that is not quite JSON; it must state its verdict itself, as the last thing.

    The statement is looked for in the text, because mending has silent errors: quotes that are not escaped
    turn a piece of the reason into a member of the object.
    """
    if isinstance(found, Unreadable):
        return found
    if found.end == "cut":
        return Unreadable("the reply's JSON object is cut off before its end")
    statements = list(_STATEMENT.finditer(rest))
    if not statements or rest[statements[-1].end() :].strip("}])`,;. \t\r\n" + _QUOTES):
        return Unreadable(f'the reply\'s JSON is broken, and does not end with its "verdict"; {_WANTED}')
    return [*_stated(found.value), *(statement.group(1) for statement in statements)]


def _stated(value: Any) -> Iterator[Any]:
    """Whatever stands under a key "verdict", wherever in `value`, repeated keys repeated."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            pairs = item.pairs if isinstance(item, Repeating) else list(item.items())
            yield from (inner for key, inner in pairs if _folded(key) == "verdict")
            waiting += [inner for key, inner in pairs if _folded(key) != "verdict"]
        elif isinstance(item, list):
            waiting += item


def _agreed(told: list[Any], values: list[Any]) -> Verdict | Unreadable:
    words: set[Preferred] = set()
    for item in told:
        word = _word(item)
        if word is None:
            return Unreadable(f"the verdict is {shortened(item)}; {_WANTED}")
        words.add(word)
    if len(words) > 1:
        return Unreadable(f"the reply gives different verdicts: {' and '.join(sorted(words))}")
    return Verdict(words.pop(), _reason(values))


def _word(value: Any) -> Preferred | None:
    if not isinstance(value, str):
        return None
    word = value.strip(_QUOTES + " \t\r\n")
    mark = _MARK.fullmatch(word)
    return _WORDS.get((mark.group(1) if mark else word).casefold())


def _reason(values: list[Any]) -> str:
    """The reason in the last object that has one, without half characters, which no file can hold."""
    for value in reversed(values):
        members = {_folded(key): item for key, item in value.items()} if isinstance(value, dict) else {}
        reason = members.get("reason", members.get("rationale"))
        if isinstance(reason, str):
            return reason.encode("utf-8", "replace").decode("utf-8")
    return ""


def _is_quoted(prose: str, mark: re.Match[str]) -> bool:
    """True if the nearest quote before the mark, in its paragraph, opens; a reply of a mark alone is bare."""
    if _MARK.fullmatch(prose.strip(_QUOTES + "*_. \t\r\n")):
        return False
    start = prose.rfind("\n\n", 0, mark.start()) + 1
    end = prose.find("\n\n", mark.end())
    before, after = prose[start : mark.start()], prose[mark.end() : end if end >= 0 else len(prose)]
    if before[before.rfind("\n") + 1 :].lstrip().startswith(">"):
        return True
    if max(map(before.rfind, _OPENING)) > max(map(before.rfind, _CLOSING)):
        return True
    return any(_opens(before, quote) for quote in '"`') or (
        _opens(before, "'") and bool(re.search(r"\S'(?!\w)|^'", after))
    )


def _opens(before: str, quote: str) -> bool:
    """True if the last `quote` stands as an opening one does: nothing of a word before it, no space after."""
    place = before.rfind(quote)
    if place < 0:
        return False
    previous, following = before[place - 1 : place], before[place + 1 : place + 2]
    return not (previous.isalnum() or previous in tuple(".,;:!?)]")) and not following.isspace()


def _folded(name: str) -> str:
    return name.strip().casefold()
