"""Which built pairs are kept (BPO, section 3.1 and its published code): not what is too short, too long,
marked, or mixed with the context. Pure."""

from __future__ import annotations

import re
from typing import Literal

from drpo.rewriting.checks import TIMES_LONGER, TIMES_SHORTER, why_kept, word_count, words_of

Filter = Literal[
    "failed",
    "empty",
    "answered",
    "shorter",
    "longer",
    "marked",
    "with-context",
    "lost-protected",
    "lost",
    "copied",
]
"""Why a pair is left out. failed: no readable reply; shorter, longer: see `TIMES_SHORTER`, `TIMES_LONGER`, by
words; marked: marks of our request or of its parts leaked into it; with-context: the context was written
into it; lost-protected: a part that had to come back word for word did not; lost: nearly nothing of the
instruction is left; copied: it holds a long passage of the preferred response."""
REASONS: dict[Filter, str] = {
    "failed": "no readable reply",
    "empty": "nothing written",
    "answered": "an answer instead of an instruction",
    "shorter": f"more than {TIMES_SHORTER} times shorter",
    "longer": f"more than {TIMES_LONGER} times longer",
    "marked": "marks of the request leaked into it",
    "with-context": "the context written into it",
    "lost-protected": "a protected part lost",
    "lost": "nearly nothing of the instruction left",
    "copied": "a passage of the preferred response copied",
}
COPIED_WORDS, SHORTEST_COPIED = 12, 4
"""So many words in a row of the preferred response, which the instruction has not, give its content away; of
a shorter one all of it, from `SHORTEST_COPIED` words on. Of a script without blanks a character counts."""
LEAST_LEFT = 0.2
_MARKS = re.compile(
    r"</?(?:instruction|context|good-response|bad-response|protected)-[0-9a-f]{8}>"
    r"|optimized_instruction|\"analysis\"\s*:|\[/?INST\]|<<?/?SYS>?>|<\|[a-z_]+\|>"
    r"|(?:^|\n)\s*(?:#+\s*)?(?:preferred|good|bad|other)\s+response\b\s*:?",
    re.IGNORECASE,
)
_LABEL = r"(?:\*\*)?(?:the\s+)?(?:given\s+)?(?:context|input)(?:\*\*)?\s*:(?:\*\*)?"


def without_context(text: str, context: str) -> str:
    """`text` less a context that was written behind or before it as a whole, on lines of its own or behind a
    label. Words of the context within a sentence stay: without them there would be none."""
    text, context = text.strip(), context.strip()
    if not context or context not in text:
        return text
    whole = re.escape(context)
    before, behind = rf"\A(?:{_LABEL}\s*)?{whole}\s*\n", rf"(?:\s{_LABEL}|\n)\s*{whole}\Z"
    return re.sub(f"{before}|{behind}", "", text, flags=re.IGNORECASE).strip()


def why_left_out(
    instruction: str, optimized: str, good: str, context: str = "", protected: tuple[str, ...] = ()
) -> Filter | None:
    """Why the pair is left out; None where it is kept, as every unchanged instruction is. Several reasons
    give the first one, in the order of the checks below."""
    if not optimized.strip():
        return "empty"
    if optimized.strip() == instruction.strip():
        return None
    before, after = word_count(instruction), word_count(optimized)
    if after * TIMES_SHORTER < before:
        return "shorter"
    if after > TIMES_LONGER * max(before, 1):
        return "longer"
    if _marks(optimized) - _marks(instruction):
        return "marked"
    if _shares_passage(optimized, context, instruction):
        return "with-context"
    if any(part not in optimized for part in protected if part in instruction):
        return "lost-protected"
    if why_kept(instruction, optimized, share=1.0) == "answered":
        return "answered"
    if why_kept(instruction, optimized, floor=LEAST_LEFT) == "lost":
        return "lost"
    return "copied" if _shares_passage(optimized, good, instruction) else None


def _shares_passage(text: str, source: str, allowed: str) -> bool:
    """Whether `text` has a passage of `source`, or all of a short one, that is not in `allowed` anyway."""
    length = min(COPIED_WORDS, len(words_of(source)))
    if length < SHORTEST_COPIED:
        return False
    wanted = _passages(source, length) - _passages(allowed, length)
    return bool(wanted & _passages(text, length))


def _marks(text: str) -> set[str]:
    return {found.group().strip().casefold() for found in _MARKS.finditer(text)}


def _passages(text: str, length: int) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[n : n + length]) for n in range(len(words) - length + 1)}
