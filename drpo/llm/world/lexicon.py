"""Finds phrases in text, many at once: how every simulated model reads."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

L = TypeVar("L")

_WORD = re.compile(r"[a-z0-9']+")
_GAP = "~"
_GAP_WORDS = 4  # a gap in a phrase spans at most so many words: about one clause
_STEM_KEY = 3  # the shortest beginning that a phrase may start with
NEGATORS = frozenset(
    {"not", "never", "don't", "avoid", "without", "no", "stop", "cannot", "can't", "won't", "nor"}
)
_NEGATION_REACH = 3  # words before a phrase in which a negator turns it around


@dataclass(frozen=True, slots=True)
class Hit(Generic[L]):
    """A phrase found at word `start`; `negated` when a negator stands shortly before it."""

    label: L
    start: int
    negated: bool


def words_of(text: str) -> list[str]:
    """The lower-case words of a text, in order."""
    return _WORD.findall(text.lower().replace("’", "'"))


class Lexicon(Generic[L]):
    """Labels by phrase. In a phrase `word*` is a beginning, `a|b` either, `~` a gap of up to four words."""

    def __init__(self, phrases: Mapping[L, Iterable[str]]) -> None:
        # Three indexes, by how much of a phrase's beginning is fixed: nearly all words are in none of them.
        self._pairs: dict[tuple[str, str], list[tuple[tuple[str, ...], L]]] = {}
        self._words: dict[str, list[tuple[tuple[str, ...], L]]] = {}
        self._stems: dict[str, list[tuple[tuple[str, ...], L]]] = {}
        for label, texts in phrases.items():
            for text in texts:
                for parts in itertools.product(*(part.split("|") for part in text.split())):
                    self._add(parts, label)

    def _add(self, parts: tuple[str, ...], label: L) -> None:
        first = parts[0]
        if first.endswith("*"):
            self._stems.setdefault(first[:_STEM_KEY], []).append((parts, label))
        elif len(parts) > 1 and parts[1] != _GAP and not parts[1].endswith("*"):
            self._pairs.setdefault((first, parts[1]), []).append((parts, label))
        else:
            self._words.setdefault(first, []).append((parts, label))

    def hits(self, words: Sequence[str]) -> list[Hit[L]]:
        """Every place where a phrase begins, in the order of the words."""
        found: list[Hit[L]] = []
        single, stems, pairs = self._words, self._stems, self._pairs
        for at, word in enumerate(words):
            after = words[at + 1] if at + 1 < len(words) else ""
            listed = [single[word]] if word in single else []
            if (word, after) in pairs:
                listed.append(pairs[word, after])
            if word[:_STEM_KEY] in stems:
                listed.append(stems[word[:_STEM_KEY]])
            for phrases in listed:
                for parts, label in phrases:
                    if _fits(parts, words, at):
                        found.append(Hit(label, at, word not in NEGATORS and _negated(words, at)))
        return found

    def labels(self, text: str) -> set[L]:
        """The labels of every phrase in the text, turned around or not."""
        return {hit.label for hit in self.hits(words_of(text))}


def _fits(parts: tuple[str, ...], words: Sequence[str], at: int) -> bool:
    if len(parts) == 1:
        return parts[0] == words[at] or (parts[0][-1] == "*" and words[at].startswith(parts[0][:-1]))
    reach = 1
    for part in parts:
        if part == _GAP:
            reach = _GAP_WORDS + 1
            continue
        for place in range(at, min(at + reach, len(words))):
            word = words[place]
            if word.startswith(part[:-1]) if part.endswith("*") else word == part:
                at = place + 1
                break
        else:
            return False
        reach = 1
    return True


def _negated(words: Sequence[str], at: int) -> bool:
    for place in range(max(0, at - _NEGATION_REACH), at):
        if words[place] in NEGATORS and words[place + 1] not in ("only", "just"):
            return True
    return False
