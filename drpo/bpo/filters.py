"""Which built pairs are kept (BPO, section 3.1 and its published code): not what is too short, too long,
marked, or mixed with the context. Pure."""

from __future__ import annotations

import re
from typing import Literal

from drpo.rewriting.checks import TIMES_LONGER, TIMES_SHORTER, why_kept, word_count

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
COPIED_WORDS = 12
"""So many words in a row of the preferred response, which the instruction has not, give its content away."""
LEAST_LEFT = 0.2
_MARKS = re.compile(
    r"</?(?:instruction|context|good-response|bad-response|protected)-[0-9a-f]{8}>"
    r"|optimized_instruction|\"analysis\"\s*:|\[/?INST\]|<<?/?SYS>?>|<\|[a-z_]+\|>"
    r"|(?:^|\n)\s*(?:#+\s*)?(?:preferred|good|bad|other)\s+response\b\s*:?",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")


def without_context(text: str, context: str) -> str:
    """`text` less a context that was written behind or before it as a whole, which it stands without."""
    context = context.strip()
    if context and context in text:
        rest = text.replace(context, "").strip()
        rest = re.sub(r"(?:\n|^)\s*(?:context|input)\s*:?\s*$", "", rest, flags=re.IGNORECASE).strip()
        return rest or text
    return text


def why_left_out(
    instruction: str, optimized: str, good: str, context: str = "", protected: tuple[str, ...] = ()
) -> Filter | None:
    """Why the pair is left out; None where it is kept, as every unchanged instruction is."""
    if not optimized.strip():
        return "empty"
    if optimized.strip() == instruction.strip():
        return None
    before, after = word_count(instruction), word_count(optimized)
    if after * TIMES_SHORTER < before:
        return "shorter"
    if after > TIMES_LONGER * max(before, 1):
        return "longer"
    if _MARKS.search(optimized) and not _MARKS.search(instruction):
        return "marked"
    if context.strip() and _shares_passage(optimized, context, instruction):
        return "with-context"
    if any(part not in optimized for part in protected if part in instruction):
        return "lost-protected"
    if why_kept(instruction, optimized, share=1.0) == "answered":
        return "answered"
    if why_kept(instruction, optimized, floor=LEAST_LEFT) == "lost":
        return "lost"
    return "copied" if _shares_passage(optimized, good, instruction) else None


def _shares_passage(text: str, source: str, allowed: str) -> bool:
    """Whether `text` has a passage of `source` that stands not in `allowed` anyway."""
    wanted = _passages(source) - _passages(allowed)
    return bool(wanted & _passages(text))


def _passages(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return {tuple(words[n : n + COPIED_WORDS]) for n in range(len(words) - COPIED_WORDS + 1)}
