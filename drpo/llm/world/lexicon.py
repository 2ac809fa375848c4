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
_PREFIX_KEY = 3
NEGATORS = frozenset("not never don't avoid without no stop cannot can't won't nor".split())
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
        self._exact: dict[str, list[tuple[tuple[str, ...], L]]] = {}
        self._prefix: dict[str, list[tuple[tuple[str, ...], L]]] = {}
        for label, texts in phrases.items():
            for text in texts:
                for parts in itertools.product(*(part.split("|") for part in text.split())):
                    self._add(parts, label)

    def _add(self, parts: tuple[str, ...], label: L) -> None:
        first = parts[0]
        if first.endswith("*"):
            self._prefix.setdefault(first[:_PREFIX_KEY], []).append((parts, label))
        else:
            self._exact.setdefault(first, []).append((parts, label))

    def hits(self, words: Sequence[str]) -> list[Hit[L]]:
        """Every place where a phrase begins, in the order of the words."""
        found: list[Hit[L]] = []
        exact, prefix = self._exact, self._prefix
        for at, word in enumerate(words):
            for parts, label in exact.get(word, ()):
                if len(parts) == 1 or _fits(parts, words, at):
                    found.append(Hit(label, at, word not in NEGATORS and _negated(words, at)))
            for parts, label in prefix.get(word[:_PREFIX_KEY], ()):
                if _fits(parts, words, at):
                    found.append(Hit(label, at, _negated(words, at)))
        return found

    def labels(self, text: str) -> set[L]:
        """The labels of every phrase in the text, turned around or not."""
        return {hit.label for hit in self.hits(words_of(text))}


def _fits(parts: tuple[str, ...], words: Sequence[str], at: int) -> bool:
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
