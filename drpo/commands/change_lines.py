"""The change of a prompt in a few lines of a terminal: what was removed and added, and a little around it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from rich.text import Text

from drpo.commands.terminal import safe

MARKS = {"removed": ("[-", "-]"), "added": ("{+", "+}")}
"""As `git diff --word-diff` writes them: they say without colour what the styles say with it."""
STYLES = {"removed": "red strike", "added": "bold green"}
_AROUND, _LEAST_AROUND = 0.6, 16
"""How much of what stayed is shown on either side, in lines; and in characters at least."""
_TIGHTER = (1.0, 0.5, 0.25)
"""What share of that, and of what was removed, where the whole change does not fit in otherwise."""
_LONGEST, _LEAST_KEPT = 1_000, 7
_FIRST_WIDE = "\u1100"
"""The first character that takes two columns, a Korean letter."""
_WIDE_FROM = 0x1F000
"""Where pictures begin. Terminals disagree about those that are made of several characters; counted singly
they are never wider than that."""


def cells(text: str) -> int:
    """How many columns `text` takes at most, whichever terminal shows it."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if character < _FIRST_WIDE:  # most of all text, and this is asked of every character drawn
        return 1
    wide = ord(character) >= _WIDE_FROM or unicodedata.east_asian_width(character) in "WF"
    return 2 if wide else 1


def one_line(text: str) -> str:
    """Text of others as one line without control characters; a line break becomes a sign for it.

    Of a very long one the middle is left out: this is done anew for each drawing.
    """
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    return re.sub(r"\s+", _blank, safe(text))


def cut(text: str, width: int) -> str:
    """The beginning of `text` that fits `width` columns, with a sign where something is left out."""
    if cells(text) <= width:
        return text
    return text[: _fitting(text, width - 1)].rstrip() + "…" if width > 0 else ""


def cut_before(text: str, width: int) -> str:
    """The same with the end of `text`, which tells more of a path; nothing where there is no room for it."""
    if cells(text) <= width:
        return text
    kept = _fitting(text[::-1], width - 1)
    return "…" + text[len(text) - kept :] if kept >= _LEAST_KEPT else ""


def _fitting(text: str, width: int) -> int:
    """How many of its first characters fit."""
    used = 0
    for at, character in enumerate(text):
        used += _cells(character)
        if used > width:
            return at
    return len(text)


def change_lines(change: Sequence[tuple[str, str]], width: int, limit: int) -> list[Text]:
    """At most `limit` lines of at most `width` columns around what changed; none where nothing did.

    change: (mark, text) in reading order, with the marks same, removed and added.
    """
    if limit < 1 or width < 2 or all(mark == "same" for mark, _ in change):
        return []
    told = [(mark, one_line(text)) for mark, text in change]
    lines: list[Text] = []
    for share in _TIGHTER:
        lines = _in_lines(_shortened(told, share, width), width, limit)
        if len(lines) <= limit:
            return lines
    last = lines[limit - 1]
    while cells(last.plain) > width - 2 or last.plain.endswith((" ", "…")):
        last = last[:-1]
    return [*lines[: limit - 1], last.append(" …")]


def _in_lines(parts: Iterable[tuple[str, str]], width: int, limit: int) -> list[Text]:
    """The parts with their marks in lines of at most `width` columns; not many more of them than `limit`."""
    whole = Text()
    for mark, text in parts:
        if len(whole) > (limit + 1) * width:
            break  # the rest is not shown
        before, after = MARKS.get(mark, ("", ""))
        whole.append(before + text + after, STYLES.get(mark, ""))
    return [_without_blanks(line) for line in whole.divide(_breaks(whole.plain, width))]


def _shortened(told: Sequence[tuple[str, str]], share: float, width: int) -> Iterator[tuple[str, str]]:
    """Each part with as much of it as is worth its place: little of what stayed, more of what is new.

    told: (mark, text), each text one line. share: of the usual length of what is not new.
    """
    around = max(_LEAST_AROUND, int(share * _AROUND * width))
    last = len(told) - 1
    for at, (mark, line) in enumerate(told):
        if mark != "same":
            yield mark, _middle_out(line, int(share * width) if mark == "removed" else 2 * width)
        elif at == 0:
            yield mark, "… " + _end(line, around) if len(line) > around + 2 else line
        elif at == last:
            yield mark, _beginning(line, around) + " …" if len(line) > around + 2 else line
        else:
            yield mark, _middle_out(line, 2 * around)


def _middle_out(line: str, most: int) -> str:
    if len(line) <= most + 3:
        return line
    half = most // 2
    return f"{_beginning(line, half)} … {_end(line, half)}"


def _beginning(line: str, most: int) -> str:
    """Whole words of it where there are any."""
    part = line[:most]
    return part.rpartition(" ")[0] or part


def _end(line: str, most: int) -> str:
    part = line[-most:]
    return part.partition(" ")[2] or part


def _blank(match: re.Match[str]) -> str:
    return " ⏎ " if "\n" in match[0] else " "


def _breaks(plain: str, width: int) -> list[int]:
    """Where lines of at most `width` columns begin, after a blank where there is one."""
    breaks: list[int] = []
    begun = after_blank = used = 0
    for at, character in enumerate(plain):
        taken = _cells(character)
        if used + taken > width and character != " ":
            begun = after_blank if after_blank > begun else at
            breaks.append(begun)
            used = cells(plain[begun:at])
        used += taken
        if character == " ":
            after_blank = at + 1
    return breaks


def _without_blanks(line: Text) -> Text:
    line.rstrip()
    return line
