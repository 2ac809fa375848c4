"""Whether what a rewriter wrote may stand in place of the user's query. Pure: no model is asked."""

from __future__ import annotations

import itertools
import re
from typing import Literal

from drpo.rewriting.contract import Why

TIMES_LONGER, TIMES_SHORTER = 6, 2
"""BPO leaves out pairs whose new prompt is more than six times longer or twice shorter in words."""
SHORT_WORDS = 15
"""A query of fewer words counts as one of so many when it is asked whether it has grown too long: a few words
say too little for a ratio."""
_ANSWERS = re.compile(
    r"""^\W*(?:
        (?:i['’]?m|i\ am)\ (?:so\ |very\ )?sorry\b
      | (?:sorry|apologies),?\ (?:but\ )?i\b
      | i\ (?:can['’]?t|cannot|won['’]?t|will\ not)\ (?:help|assist|do|provide|fulfil|comply|answer|rewrite)
      | as\ an?\ (?:ai|(?:large\ )?language\ model)\b
      | (?:sure|certainly|of\ course|absolutely)\s*[,.!:—-]
      | here(?:['’]s|\ is|\ are)\ (?:a|an|the|some|your|my|how|what|one|\d)
      | (?:the\ )?(?:short\ )?answer\b\s*(?:is\b|:)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_LABEL = re.compile(
    r"^\s*(?:\*\*)?(?:(?:the\ )?(?:new|better|improved|optimi[sz]ed|rewritten|revised)\s+"
    r"(?:query|prompt|instruction|question)|better|rewrite)(?:\*\*)?\s*:(?:\*\*)?\s*".replace(r"\ ", " "),
    re.IGNORECASE,
)
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("«", "»"))
_WORD = re.compile(r"\w+", re.UNICODE)
# Scripts that put no blanks between words: Thai, Lao, Burmese, Khmer; kana, Han, Hangul by syllables.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_STEM = 5


def cleaned(text: str, query: str) -> str:
    """A plain reply without a label in front of it and quotation marks around it that the query has not."""
    text = text.strip()
    if not _LABEL.match(query):
        text = _LABEL.sub("", text, count=1).strip()
    for opening, closing in _QUOTES:
        inner = text[1:-1]
        own = query.strip().startswith(opening) and query.strip().endswith(closing)
        if len(text) > 2 and text[0] == opening and text[-1] == closing and not own:
            if opening not in inner and closing not in inner:
                return inner.strip()
            break
    return text


def why_kept(query: str, text: str, share: float | None = None, floor: float = 0.5) -> Why:
    """Why `text` cannot stand for `query`; "" where it can, and where both are equal.

    share: how much of the query's meaning is left, 0 to 1, None: `words_left`; less than `floor` is lost.
    """
    if not text.strip():
        return "empty"
    if text.strip() == query.strip():
        return ""
    if _ANSWERS.match(text) and not _ANSWERS.match(query):
        return "answered"
    before, after = word_count(query), word_count(text)
    if after > TIMES_LONGER * max(before, SHORT_WORDS):
        return "longer"
    if after * TIMES_SHORTER < before:
        return "lost"
    left = words_left(query, text) if share is None else share
    return "lost" if left < floor else ""


def word_count(text: str) -> int:
    """How many words; in scripts without blanks each two characters count as one."""
    unspaced = len(_UNSPACED.findall(text))
    return len(_WORD.findall(_UNSPACED.sub(" ", text))) + -(-unspaced // 2)


def words_of(text: str) -> list[str]:
    """The words in their order, case folded; in scripts without blanks each character is one."""
    return _WORD.findall(_UNSPACED.sub(lambda found: f" {found.group()} ", text.casefold()))


def words_left(query: str, text: str) -> float:
    """The share, 0 to 1, of the query's telling words that are in `text`; 1 for a query without any.

    Words are compared by their first letters, so that forms of one word are one; in scripts without blanks
    pairs of characters are.
    """
    wanted = _telling(query)
    return len(wanted & _stems(text)) / len(wanted) if wanted else 1.0


def _telling(text: str) -> frozenset[str]:
    """The words that carry a query: longer ones where there are any, and what has digits."""
    stems = _stems(text)
    long = frozenset(s for s in stems if len(s) >= 4 or not s.isalpha() or _UNSPACED.search(s))
    return long or stems


def _stems(text: str) -> frozenset[str]:
    folded = text.casefold()
    pairs = {a + b for a, b in itertools.pairwise(folded) if _UNSPACED.match(a) and _UNSPACED.match(b)}
    words = {word[:_STEM] for word in _WORD.findall(_UNSPACED.sub(" ", folded))}
    return frozenset(pairs | words)


Strictness = Literal["stable", "aggressive"]
FLOORS: dict[Strictness, float] = {"stable": 0.5, "aggressive": 0.3}
"""How much must be left of a query, by words; vectors are held to the same numbers as cosines."""
