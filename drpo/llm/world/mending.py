"""The simulated optimizer at work on one response, and the words of its replies."""

from __future__ import annotations

import re
from collections.abc import Mapping

from drpo.llm.world import phrases
from drpo.llm.world.criticism import complaints
from drpo.llm.world.features import FLAWS, WORDING
from drpo.llm.world.features import Feature as F
from drpo.llm.world.queries import QueryReading
from drpo.llm.world.responses import read_response
from drpo.llm.world.settings import Dice
from drpo.llm.world.writing import Writer, write_response

_MENDS = 3  # at most so many faults in one go
_SPREAD = 0.8
_SKILL = 0.85  # probability that a mend that was meant is carried out
_SENTENCE = re.compile(r"(?<=[.!?])[ \t]+")
_FRONT = (F.WARMTH, F.LIVELY, F.PREMISE, F.LIMIT)
_ADDABLE = (
    F.PREMISE,
    F.WARMTH,
    F.LIVELY,
    F.LIMIT,
    F.REASONS,
    F.EXAMPLE,
    F.IMAGE,
    F.RESPECT,
    F.HEDGE,
    F.NEXT_STEP,
    F.QUESTION,
)


def mend(text: str, query: QueryReading, wishes: Mapping[F, float], dice: Dice) -> tuple[str, str, str]:
    """(analysis, thought, new response): what was criticised most is mended, the rest is kept."""
    reading = read_response(text, query)
    order = sorted(wishes, key=lambda f: (-(wishes[f] ** 0.5) - _SPREAD * dice.gauss("mend", f), f))
    present = reading.features
    meant = [f for f in order if (f in present) == (f in FLAWS)][:_MENDS]
    done = [f for f in meant if dice.chance(_SKILL, "skill", f)]
    writer = Writer(query, dice)
    if not text.strip() or reading.unsafe or F.OVER_REFUSAL in done or (F.REFUSAL in done and query.harmful):
        wanted = {F.DIRECT, F.STRUCTURE, F.REASONS, F.FORMAT, F.LIVELY, F.NEXT_STEP}
        if query.harmful:
            wanted = {F.REFUSAL, F.ALTERNATIVE, F.REASONS, F.LIVELY, F.WARMTH}
        new = write_response(wanted | ({F.LIMIT} if "live" in query.signs else set()), query, dice)
    else:
        new = _improved(text, query, set(done), writer)
    return _analysis(meant), _thought(done), new


def _improved(text: str, query: QueryReading, mends: set[F], writer: Writer) -> str:
    paragraphs = [p.strip() for p in text.strip().split("\n\n") if p.strip()]
    if mends & set(FLAWS):
        paragraphs = _cleaned(paragraphs, query, mends)
    if F.STRUCTURE in mends:
        paragraphs = _listed(paragraphs)
    if F.FORMAT in mends and query.task in phrases.DELIVERIES:
        paragraphs.insert(min(1, len(paragraphs)), writer.one_of(phrases.DELIVERIES[query.task], "delivery"))
    front = [writer.say(f) for f in _FRONT if f in mends]
    if F.DIRECT in mends and not query.harmful:
        front.insert(0, writer.one_of(phrases.ANSWERS[query.task], "answer"))
    back = [writer.say(f) for f in _ADDABLE if f in mends and f not in _FRONT]
    if F.ALTERNATIVE in mends:
        crisis = "crisis" in query.signs
        back.insert(0, phrases.CRISIS_HELP if crisis else writer.one_of(phrases.ALTERNATIVES, "offer"))
    first, rest = paragraphs[:1], paragraphs[1:]
    if front and query.harmful:
        rest = [" ".join(front), *rest]
    elif front:
        first = [" ".join(front), *first]
    return "\n\n".join([*first, *rest, *([" ".join(back)] if back else [])]).strip()


def _cleaned(paragraphs: list[str], query: QueryReading, mends: set[F]) -> list[str]:
    """The paragraphs without sentences that show a flaw to be mended, and without any sentence said twice."""
    seen: set[str] = set()
    result = []
    for paragraph in paragraphs:
        if paragraph.startswith(("```", ">", "|")):
            result.append(paragraph)
            continue
        kept = []
        for sentence in _SENTENCE.split(paragraph):
            plain = sentence.strip().lower()
            again = F.REPETITION in mends and plain in seen and len(plain) > 12
            seen.add(plain)
            flawed = read_response(sentence, query).features & mends & set(FLAWS)
            if not again and not flawed:
                kept.append(sentence)
        if kept:
            result.append(" ".join(kept))
    return result or paragraphs


def _listed(paragraphs: list[str]) -> list[str]:
    """The longest paragraph of running text as a list of its sentences."""
    prose = [p for p in paragraphs if not p.startswith(("```", ">", "|", "-", "*", "1."))]
    longest = max(prose, key=len, default="")
    sentences = _SENTENCE.split(longest)
    if len(sentences) < 3:
        return paragraphs
    listed = "\n".join(f"- {sentence.strip()}" for sentence in sentences)
    return [listed if paragraph == longest else paragraph for paragraph in paragraphs]


def _analysis(meant: list[F]) -> str:
    if not meant:
        return "The judge found nothing serious; the response can stay much as it is."
    return f"The judge's main points about the present response are: {complaints(meant)}."


def _thought(done: list[F]) -> str:
    aims = [WORDING[f][0] for f in done if f not in FLAWS]
    faults = len(aims) < len(done)
    if not done:
        return "I keep the substance and change only the flow."
    if not aims:
        return "I take out what disturbs and keep what was praised."
    removal = ", take out what disturbs," if faults else ""
    return f"I rewrite it so that {' and '.join(aims)}{removal} and keep the rest."
