"""What changed between two texts, word by word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Literal

Change = Literal["same", "removed", "added"]
_MARKS = "\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u0e4f\u1ab0-\u1aff\u20d0-\u20ff"
"""Accents and vowel signs that stand by themselves, and the scripts that are full of them."""
_PICTURES = "\u3040-\u30ff\u3400-\u9fff"
"""Scripts in which words are not set apart: each character is compared by itself."""
_WORD = rf"(?:[^\W_{_PICTURES}]|[{_MARKS}])+"
_TOKENS = re.compile(rf"(\Z|(?:{_WORD}(?:['’]{_WORD})*|[^\s]|(?=\s)))(\s*)")
_MOST_WORDS = 20_000
"""Words of both texts together up to which they are compared word by word, above it line by line."""
_DEEPEST, _MOST_CELLS = 40, 40_000
"""Bounds on the work: how often stretches are parted again, and how large a table of two stretches may be."""
_LONGEST_FOLDED, _FARTHEST = 4, 100

Token = tuple[str, str]
"""A word or a sign, and the blanks behind it."""
Hunk = tuple[str, str]
"""A stretch before and after."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of text that both have, or only the earlier one (removed), or only the later one (added)."""

    change: Change
    text: str


def word_diff(before: str, after: str) -> tuple[Part, ...]:
    """The parts in reading order: those that are not added make up `before`, those not removed `after`.

    No part is empty, and no two neighbours are of one kind; what is removed stands before what was put in its
    place. Little words between two changes are part of them, since a phrase is easier to read than its
    words one by one. The time grows with the length of the texts, whatever they are; very long ones are
    compared line by line.
    """
    old: Sequence[Token] = _words(before)
    new: Sequence[Token] = _words(after)
    if len(old) + len(new) > _MOST_WORDS:
        old = [(line, "") for line in before.splitlines(keepends=True)]
        new = [(line, "") for line in after.splitlines(keepends=True)]
    parts: list[Part] = []
    for earlier, later in _slid(_folded(_hunks(old, new))):
        if earlier == later:
            parts.append(Part("same", earlier))
        else:
            parts += [Part("removed", earlier)] if earlier else []
            parts += [Part("added", later)] if later else []
    return tuple(parts)


@lru_cache(maxsize=16)  # one prompt is compared with each of those that were made of it
def _words(text: str) -> tuple[Token, ...]:
    """Joined they are the text again; a text that begins with blanks has an empty word before them."""
    return tuple((word, blanks) for word, blanks in _TOKENS.findall(text) if word or blanks)


def _hunks(old: Sequence[Token], new: Sequence[Token]) -> list[Hunk]:
    """Both texts from beginning to end as stretches that are equal or not, equal and unequal ones in turn."""
    pieces: list[Hunk] = []
    a = c = same = 0  # told are old[:a] and new[:c]; the last `same` of these are equal, not yet in pieces
    for i, j in [*_matches([word for word, _ in old], [word for word, _ in new]), (len(old), len(new))]:
        if i > a or j > c:
            equal = _text(old[a - same : a])
            pieces += [(equal, equal), (_text(old[a:i]), _text(new[c:j]))]
            same = 0
        a, c = i + 1, j + 1
        if i < len(old) and old[i] == new[j]:
            same += 1
        elif i < len(old):  # the same word with other blanks behind it
            equal = _text(old[i - same : i]) + old[i][0]
            pieces += [(equal, equal), (old[i][1], new[j][1])]
            same = 0
    equal = _text(old[len(old) - same :])
    return _grouped(_grouped([*pieces, (equal, equal)]))  # again: unequal stretches may be equal as one


def _grouped(hunks: Iterable[Hunk]) -> list[Hunk]:
    """Neighbours that are equal as one, and so those that are not; empty ones left out."""
    told = [hunk for hunk in hunks if any(hunk)]
    return [
        ("".join(earlier), "".join(later))
        for _, group in groupby(told, key=lambda hunk: hunk[0] == hunk[1])
        for earlier, later in [zip(*group, strict=True)]
    ]


def _text(tokens: Iterable[Token]) -> str:
    return "".join(word + blanks for word, blanks in tokens)


def _folded(hunks: Sequence[Hunk]) -> list[Hunk]:
    """The same without equal stretches that are only blanks or a little word between two changes that are
    longer. What two changes begin or end with in common is taken out of them where it is blanks."""
    folded: list[Hunk] = []
    for at, (earlier, later) in enumerate(hunks):
        follows_change = bool(folded) and folded[-1][0] != folded[-1][1]
        if earlier == later:
            between = follows_change and at + 1 < len(hunks)
            if between and _is_little(earlier, folded[-1], hunks[at + 1]):
                folded[-1] = (folded[-1][0] + earlier, folded[-1][1] + later)
                continue
        elif follows_change:
            earlier, later = folded[-1][0] + earlier, folded[-1][1] + later
            folded.pop()
        folded.append((earlier, later))
    return _grouped(
        part
        for earlier, later in folded
        for part in (_without_common_blanks(earlier, later) if earlier != later else [(earlier, later)])
    )


def _slid(hunks: Sequence[Hunk]) -> list[Hunk]:
    """The same, where what was only added (or only removed) could as well stand a little before or behind:
    it then begins and ends with a line, else with a word. So a new sentence has its own full stop."""
    slid = list(hunks)
    for at in range(1, len(slid) - 1):
        if all(slid[at]):
            continue
        head, text, tail = slid[at - 1][0], "".join(slid[at]), slid[at + 1][0]
        # What stays may be used up at the ends of the texts only: elsewhere two changes would meet.
        earlier, later = len(head) - (at > 1), len(tail) - (at < len(slid) - 2)
        shift = _best_shift(head, text, tail, min(earlier, _FARTHEST), min(later, _FARTHEST))
        whole = head[len(head) + min(shift, 0) :] + text + tail[: max(shift, 0)]
        if shift > 0:
            head, text, tail = head + whole[:shift], whole[shift:], tail[shift:]
        elif shift < 0:
            head, text, tail = head[:shift], whole[:shift], whole[shift:] + tail
        slid[at - 1], slid[at + 1] = (head, head), (tail, tail)
        slid[at] = (text, "") if slid[at][0] else ("", text)
    return [hunk for hunk in slid if any(hunk)]


def _best_shift(head: str, text: str, tail: str, earlier: int, later: int) -> int:
    """By how many characters `text`, which stands between the others, can begin later (below 0: earlier)
    without changing the whole, where its ends are best; the nearest of several places."""
    head, tail = head[-earlier - 1 :], tail[: later + 1]
    whole, begun, length = head + text + tail, len(head), len(text)
    least = most = begun
    while least > begun - earlier and whole[least - 1] == whole[least - 1 + length]:
        least -= 1
    while most < begun + later and whole[most] == whole[most + length]:
        most += 1
    places = []
    for at in range(least, most + 1):
        ends = (_good_break(whole, at), _good_break(whole, at + length))
        places.append((min(ends), sum(ends), -abs(at - begun), at - begun))
    return max(places)[3]


def _good_break(text: str, at: int) -> int:
    before, behind = text[at - 1 : at], text[at : at + 1]
    if not before or not behind or "\n" in (before, behind):
        return 2
    return 0 if before.isalnum() and behind.isalnum() else 1


def _is_little(same: str, before: Hunk, after: Hunk) -> bool:
    if "\n" in same:
        return False
    length = len(same.strip())
    return length <= _LONGEST_FOLDED and all(length < max(map(len, hunk)) for hunk in (before, after))


def _without_common_blanks(earlier: str, later: str) -> list[Hunk]:
    head = _common(earlier, later)
    earlier, later = earlier[len(head) :], later[len(head) :]
    tail = _common(earlier[::-1], later[::-1])[::-1]
    if tail:
        earlier, later = earlier[: -len(tail)], later[: -len(tail)]
    return [hunk for hunk in ((head, head), (earlier, later), (tail, tail)) if any(hunk)]


def _common(one: str, other: str) -> str:
    """The blanks with which both begin."""
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b or not a.isspace():
            break
        length += 1
    return one[:length]


def _matches(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Places of equal entries, both growing. Patience: entries that both have once are matched first, then
    what is between them in the same way; where there are none, as many as can be."""
    found: list[tuple[int, int]] = []
    waiting = [(0, len(old), 0, len(new), 0)]
    while waiting:
        a, b, c, d, depth = waiting.pop()
        while a < b and c < d and old[a] == new[c]:
            found.append((a, c))
            a, c = a + 1, c + 1
        while a < b and c < d and old[b - 1] == new[d - 1]:
            b, d = b - 1, d - 1
            found.append((b, d))
        if a == b or c == d:
            continue
        anchors = _unique_in_order(old, new, a, b, c, d) if depth < _DEEPEST else []
        if anchors:
            found += anchors
            places = [(a - 1, c - 1), *anchors, (b, d)]
            for (i, j), (k, m) in pairwise(places):
                waiting.append((i + 1, k, j + 1, m, depth + 1))
        elif (b - a) * (d - c) <= _MOST_CELLS:
            found += [(a + i, c + j) for i, j in _longest_common(old[a:b], new[c:d])]
    return sorted(found)


def _unique_in_order(
    old: Sequence[Hashable], new: Sequence[Hashable], a: int, b: int, c: int, d: int
) -> list[tuple[int, int]]:
    """Of the entries that both stretches have once, as many as stand in the same order in both."""
    counts, others = Counter(old[a:b]), Counter(new[c:d])
    places = {new[j]: j for j in range(c, d) if others[new[j]] == 1 == counts[new[j]]}
    pairs = [(i, places[old[i]]) for i in range(a, b) if old[i] in places]
    ends: list[int] = []  # the longest growing run, by patience sorting: the last pair of each length
    previous: list[int] = []
    for number, (_, j) in enumerate(pairs):
        low, high = 0, len(ends)
        while low < high:
            middle = (low + high) // 2
            if pairs[ends[middle]][1] < j:
                low = middle + 1
            else:
                high = middle
        previous.append(ends[low - 1] if low else -1)
        ends[low : low + 1] = [number]
    run: list[tuple[int, int]] = []
    at = ends[-1] if ends else -1
    while at >= 0:
        run.append(pairs[at])
        at = previous[at]
    return run[::-1]


def _longest_common(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[tuple[int, int]]:
    """A longest common subsequence of two short stretches, as places."""
    table = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i in range(len(old) - 1, -1, -1):
        row, below = table[i], table[i + 1]
        for j in range(len(new) - 1, -1, -1):
            row[j] = below[j + 1] + 1 if old[i] == new[j] else max(below[j], row[j + 1])
    found, i, j = [], 0, 0
    while i < len(old) and j < len(new):
        if old[i] == new[j]:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif table[i + 1][j] >= table[i][j + 1]:
            i += 1
        else:
            j += 1
    return found
