"""What counts as a score, and whether mended text really says the score that was read from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from drpo.reply_json import Unreadable, shortened
from drpo.types import HIGHEST_SCORE, LOWEST_SCORE

_NOT_APPLICABLE = frozenset({"n/a", "na", "not applicable"})
_WHOLE_SCORES = {str(score): score for score in range(LOWEST_SCORE, HIGHEST_SCORE + 1)}
_QUOTES = "\"'“”‘’"
# A score as written: up to the end of its line, a comma, a closing bracket or the next key. The bound keeps a
# long run of spaces from being looked through again at each of them.
_WRITTEN = re.compile(rf"([^,}}\]\n]{{0,80}}?)(?=\s*+(?:[,}}\]\n]|$|[{_QUOTES}][\w -]++[{_QUOTES}]\s*+:))")

Score: TypeAlias = int | None
"""1 to 5, higher is better; None for "N/A"."""


def read_score(value: Any) -> Score | Unreadable:
    """1 to 5, or None for "N/A". Half points, fractions and words are not rounded: they are unreadable."""
    if isinstance(value, str):
        word = value.strip()
        if word in _WHOLE_SCORES:
            return _WHOLE_SCORES[word]
        if word.casefold() in _NOT_APPLICABLE:
            return None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        for score in _WHOLE_SCORES.values():
            if value == score:
                return score
    return Unreadable(f"has the score {shortened(value)}; a whole number from 1 to 5 was expected")


def stand_in_text(text: str, key: str, scores: Sequence[float | None]) -> bool:
    """True if the last `scores` written after `key` in a mended reply are these, with nothing beside them.

    Needed because json_repair reads `4 stars`, `4 out of 10`, `<4`, `04` and `4%` as the number 4, silently.
    """
    if not scores:
        return True
    name = re.escape(key)
    keys = re.finditer(
        rf"(?:[{_QUOTES}]\s*+{name}\s*+[{_QUOTES}]|[{{,]\s*+{name})\s*+:\s*+", text, re.IGNORECASE
    )
    # Only the last ones: earlier objects of the same reply may be drafts.
    last = list(keys)[-len(scores) :]
    return len(last) == len(scores) and all(
        _is_written(text, key.end(), score) for key, score in zip(last, scores, strict=True)
    )


def _is_written(text: str, start: int, score: float | None) -> bool:
    written = _WRITTEN.match(text, start)
    if written is None:
        return False
    word = written.group(1)
    if word[:1] in _QUOTES:
        word = word[1:].rstrip()
        word = word[:-1] if word[-1:] in _QUOTES else word
    elif re.fullmatch(r"[1-5]\.0+", word):
        word = word[0]
    return read_score(word) == score
