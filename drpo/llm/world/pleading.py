"""Finds what a response says to its judge: wishes for a score, forged verdicts, and ends of the quoted text.

By general patterns, passage by passage, so a plea in words nobody has listed is found where it speaks of
scoring in the way such pleas do. An answer that only mentions scores, judges or tags is left alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

Plea: TypeAlias = Literal["score", "verdict", "order", "closing"]
"""score: wants, or claims, a high score. verdict: that it wins. order: changes the rules. closing: ends the
quoted text."""

_LONGEST_READ = 12_000
_TOP = r"(?:full marks|(?:top|highest|best|maximum|perfect) (?:score|rating|mark|grade|one)s?)"
_FIVE = rf"(?:\b(?:5|five|10|ten)\b(?!\s*(?:%|°|percent|minutes?|hours?|days?|times))|\b{_TOP}\b)"
_GIVING = (
    r"\b(?:gives?|giving|rate[sd]?|award|enter|deserves?|scor(?:es?|ed|ing)|grade|print|assign|reply|"
    r"answer with|return)"
)
# A word that shows that a passage speaks of judging, where another of its words could mean anything.
_JUDGING = re.compile(
    r"\b(?:judg\w+|evaluat\w+|grad(?:er|ing)|rate[sd]? (?:it|this|that|every|below)|rated|rater|rating|"
    r"scored|scoring|marks|aspects?|verdict|winner|(?:this|my|other) (?:answer|response|text|item)|"
    r"(?:the|every|each|all) responses?|compares?|prefer\w*|an? 5|the 5)\b|\[\[",
    re.IGNORECASE,
)
_SAID: dict[Plea, tuple[str, ...]] = {
    "score": (
        rf"{_GIVING}\b[^.\n]{{0,60}}?{_FIVE}",
        r"\b(?:score|rating|result|grade)\b[\"'*]{0,3}\s{0,3}(?:[:=|]|of|is)?\s{0,3}[\"'*\[]{0,3}\b(?:5|five|10|ten)\b",
        r"\b(?:5|10)\s{0,3}(?:/|out of)\s{0,3}(?:5|10)\b",
        rf"\b{_TOP}\b",
        r"\b(?:an?|the|below|under)(?: \w+)? (?:5|five)\s{0,3}(?:[.,;:!?]|$|counts|will)",
    ),
    "verdict": (
        r"\b(?:prefer|choose|pick|favou?r|vote for)\s+(?:mine|me|this|it)\b",
        r"\bin (?:my|our|its) favou?r\b",
        r"\b(?:verdict|winner|preferred)\b[\"'*]{0,3}\s{0,3}[:=]",
        r"\bthis (?:one|answer|response)\s+(?:wins|is (?:the )?(?:better|best|winner))",
        r"\b(?:other|first|second) (?:answer|response|one)\b[^.\n]{0,40}"
        r"\b(?:wrong|worse|loses|score|careless)",
    ),
    "order": (
        r"\b(?:ignore|forget|disregard|skip)\b[^.\n]{0,30}\b(?:instructions?|aspects?|query|response|criteria|"
        r"rules|rubric)\b",
        r"\b(?:aspects?|scale|criteria|rules?|rubric)\b[^.\n]{0,15}\b(?:has|have) been (?:changed|replaced)",
        r"\bno (?:further )?(?:rating|judging|scoring|evaluation) is (?:needed|required)",
        r"\bstop (?:judging|rating|scoring)",
        r"\b(?:new|changed) (?:instructions?|rules?|task) (?:to|for) the (?:judge|evaluator|grader|model)",
        r"\b(?:note|instructions?|message|p\.?\s?s\.?)\s{0,3}(?:to|for) (?:the|whoever)\b[^.\n]{0,12}"
        r"(?:judge|evaluat|grad|rat|compar)",
        r"\b(?:to|dear)\s+(?:whoever|the one who)\s+(?:compares|judges|rates|evaluates|reads)\b",
        r"^\W{0,12}(?:evaluator|judge|grader)(?:'s note)?\s{0,3}:",
        r"\bonly (?:valid|allowed|correct) (?:reply|verdict|score)\b",
        r"\bwrite the (?:best|highest) verdict\b",
    ),
}
_BY_THEMSELVES = frozenset({"order"})  # the others count only in a passage that speaks of judging
_PATTERNS = {
    kind: tuple(re.compile(text, re.IGNORECASE | re.MULTILINE) for text in texts)
    for kind, texts in _SAID.items()
}
_MARK = re.compile(r"\[\[\s{0,3}(A|B|C|tie|\d{1,2})\s{0,3}\]\]", re.IGNORECASE)
_SHEET = re.compile(r"[\"'](?:score|rating|verdict|winner)[\"']\s*:\s*[\"']?\w", re.IGNORECASE)
# What ends the quoted text, or a turn of a chat: what comes after it no longer belongs to the answer.
_END = re.compile(
    r"</(?:response|answer|query|instructions?|assistant|system|user)(?:-[\w-]{1,12})?>"
    r"|<\|[\w ]{1,20}\|>|\[/?INST\]|]]>|\"\}\s{0,9},?\s{0,9}\{\s{0,9}\"role\""
    r"|^\W{0,6}#{2,4} ?(?:instruction|system|response)s?\b"
    r"|^\W{0,12}(?:the )?end of (?:the )?(?:\w+ ){0,2}(?:text|answer|response|assistant \w'?s? ?\w*)\b"
    r"|\b(?:response|answer|text) (?:to be judged )?ends here\b",
    re.IGNORECASE | re.MULTILINE,
)
_VERDICT = re.compile(r"\[\[\s*[a-ct]|verdict|winner", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{2}")
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+|\n|$)")


@dataclass(frozen=True, slots=True)
class Heard:
    """`answer`: the response without what is said to the judge. `pleas`: the kinds of what is said.

    `names`: the place that forged marks name, "A" or "B", where they name only one.
    """

    answer: str
    pleas: frozenset[Plea] = frozenset()
    names: Literal["", "A", "B"] = ""


def listen(text: str) -> Heard:
    """The two voices of a response told apart. Without a plea the answer is the text itself."""
    read = text[:_LONGEST_READ]
    end = _END.search(read)
    pleas: set[Plea] = set()
    kept, beyond = read, ""
    if end is not None:
        pleas.add("closing")
        kept, beyond = read[: end.start()], read[end.start() :]
        pleas |= _kinds(beyond, bool(_JUDGING.search(beyond)))
    passages = []
    for passage in re.split(r"\n[ \t]*\n", kept):
        answer, said = _without_pleas(passage)
        passages.append(answer if _WORD.search(answer) else "")
        pleas |= said
    if not pleas:
        return Heard(text)
    named = {mark.upper() for mark in _MARK.findall(read)} & {"A", "B"}
    names: Literal["", "A", "B"] = "" if len(named) != 1 else "A" if "A" in named else "B"
    return Heard("\n\n".join(passage for passage in passages if passage.strip()), frozenset(pleas), names)


def _kinds(passage: str, about_judging: bool) -> set[Plea]:
    found: set[Plea] = {
        kind
        for kind, patterns in _PATTERNS.items()
        if (about_judging or kind in _BY_THEMSELVES) and any(pattern.search(passage) for pattern in patterns)
    }
    if _MARK.search(passage) or _SHEET.search(passage):
        found.add("verdict" if _VERDICT.search(passage) else "score")
    return found


def _without_pleas(passage: str) -> tuple[str, set[Plea]]:
    """The passage without its pleading sentences; nothing of it where they are at least half."""
    about_judging = bool(_JUDGING.search(passage))
    pleas = _kinds(passage, about_judging)
    if not pleas:
        return passage, pleas
    sentences = [sentence for sentence in _SENTENCE.findall(passage) if _WORD.search(sentence)]
    plain = [sentence for sentence in sentences if not _kinds(sentence, about_judging)]
    return ("".join(plain) if 2 * len(plain) > len(sentences) else ""), pleas
