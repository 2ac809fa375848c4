"""How clearly a query is put: what it wishes for, what makes it hard to understand, and what is left of it.

A base model that cannot be changed answers the better the clearer it is asked. What counts here are signs:
wishes in the user's own voice, words that say nothing, and words that were typed in haste. A query without
such a sign is read to the letter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from drpo.llm.world.features import Feature as F
from drpo.llm.world.lexicon import Lexicon, words_of
from drpo.llm.world.wishes import ALL, BY_NAME, TURNS

Defect = Literal["vague", "badly-put"]
DEFECTS: tuple[Defect, ...] = ("vague", "badly-put")

_LONGEST_READ = 4000  # characters, as of any query
_ATTENTION = 3  # wishes that have a model's whole attention
_SPREAD = 1.35  # above 1: one wish more than that costs the others more than it brings
_OPPOSITE = -0.6  # strength of a wish that is turned around
_STRAY_WORDS = 2  # words that a sentence may have besides a wish and be no more than that wish
_FIRST_DEFECT, _MORE_DEFECT = 0.75, 0.125  # severity of one sign of a defect, and what each further one adds

_WISHES: Lexicon[str] = Lexicon({wish.name: wish.says for wish in ALL})
_TURNS = frozenset(turn.name for turn in TURNS)
_WISH_WORDS = frozenset(
    word for wish in ALL if wish.name not in _TURNS for text in wish.wordings for word in words_of(text)
) | frozenset(words_of("a an and also any are be can could for in is it me my of or so that the this to you"))
_BETWEEN = re.compile(r"(?<=[.!?])[ \t]+|\n\s*")

# What each defect does to a response, in log-odds at full severity: the model guesses, and guesses badly.
_HARM: Mapping[Defect, Mapping[F, float]] = {
    "vague": {
        F.DIRECT: -1.6, F.EXAMPLE: -1.2, F.REASONS: -1.2, F.FORMAT: -1.8, F.NEXT_STEP: -0.8, F.PREMISE: -0.6,
        F.RAMBLE: 1.6, F.REPETITION: 0.8, F.OVERCLAIM: 0.6,
    },
    "badly-put": {
        F.DIRECT: -1.2, F.STRUCTURE: -1.2, F.REASONS: -0.8, F.FORMAT: -1.4, F.HEDGE: -0.8, F.LIVELY: -0.6,
        F.WARMTH: -0.6, F.STIFF: 1.2, F.REPETITION: 1.2, F.RAMBLE: 0.8,
    },
}  # fmt: skip


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


# Words that say nothing -> what a clear query has in their place. Blanks are bounded, since a text may hold
# nothing else.
_EMPTY_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (_pattern(r"\b(?:some |the |all the )?(?:stuff|something or other|this and that) (?:about|on|with)\b"),
     "the main points about"),
    (_pattern(r",?\s{1,3}etc\.?,? (?:whatever|and so on|blah)\b"), ""),
    (_pattern(r",?\s{1,3}(?:and|or|n|with)\s{1,3}(?:all (?:the|that|this|of that) )?"
              r"(?:stuff|whatnot|whatever|blah|junk like that|things like that|some such thing)\b"), ""),
    (_pattern(r",?\s{1,3}(?:you know what i mean|if you get me|or something along those lines)\b"), ""),
    (_pattern(r",?\s{1,3}blah blah\b"), ""),
    (_pattern(r"\bsome ?thing or other\b"), "one thing"),
    (_pattern(r"\s{1,3}(?:thingies|thingy|thingie|thingamajig|whatsit|doodah)\b"), ""),
    (_pattern(r"\s{1,3}(?:somehow or other|that sort of stuff)\b"), ""),
)  # fmt: skip
# Words typed in haste -> what was meant, if anything.
_HASTE: Mapping[str, str] = {
    "i dunno": "", "u tell me": "", "ur a": "you're a", "ur an": "you're an", "ur so": "you're so",
    "u": "you", "ur": "your", "wanna": "want to", "gonna": "going to", "gimme": "give me",
    "lemme": "let me", "gotta": "must", "cuz": "because", "coz": "because", "bcs": "because",
    "ppl": "people", "tho": "though", "abt": "about", "hav": "have", "cud": "could", "shud": "should",
    "wud": "would", "dunno": "do not know", "smth": "something", "wat": "what",
    "plz": "", "idk": "", "kinda": "", "sorta": "", "tbh": "", "omg": "", "urgh": "",
}  # fmt: skip
_EITHER = "|".join(sorted(_HASTE, key=len, reverse=True))  # "u tell me" before "u"
_HASTY = _pattern(rf"(?<![\w'’`/.-])(?:{_EITHER})(?![\w'’`/-]|\.\w|\s*[=+*])")
# No sign of haste by themselves, but cleared up with the rest.
_ALSO: Mapping[str, str] = {
    "pls": "", "thx": "", "lol": "", "i": "I", "im": "I'm", "ive": "I've", "dont": "don't",
    "doesnt": "doesn't", "cant": "can't", "isnt": "isn't", "whats": "what's", "wont": "won't",
    "didnt": "didn't", "thats": "that's", "theres": "there's", "theyre": "they're", "wen": "when",
    "n": "and", "hrs": "hours", "yrs": "years",
}  # fmt: skip
_BARE = re.compile(rf"(?<![\w'’])(?:{'|'.join(_ALSO)})(?![\w'’])")
_ASKING = _pattern(
    r"(?:please )?(?:who|what|when|where|why|which|how|is|are|am|do|does|did|can|could|should|would|will)\b"
)


@dataclass(frozen=True, slots=True)
class Clarity:
    """How a query is put.

    core: what it is about: its text without wishes that stand by themselves, and with its defects mended; the
    text itself, to the letter, where there are none. wishes: their names, in the order of the table.
    defects: kind -> signs of it. shifts: log-odds that all this gives to a feature.
    """

    core: str
    wishes: tuple[str, ...] = ()
    defects: tuple[tuple[Defect, int], ...] = ()
    shifts: tuple[tuple[F, float], ...] = ()


def read_clarity(text: str) -> Clarity:
    """The clarity of any text, also of an empty or a hostile one."""
    text = text[:_LONGEST_READ]
    defects = defects_in(text)
    if not defects and not _WISHES.labels(text):
        return Clarity(text)
    rest, strengths = _apart(text)
    names = tuple(wish.name for wish in ALL if wish.name in strengths)
    return Clarity(mended(rest), names, defects, _shifts(strengths, defects))


def defects_in(text: str) -> tuple[tuple[Defect, int], ...]:
    """The kinds of defects and how many signs there are of each; what follows a blank line is material."""
    head = text[:_LONGEST_READ].partition("\n\n")[0]
    vague = 0
    for pattern, instead in _EMPTY_WORDS:
        head, count = pattern.subn(instead, head)
        vague += count
    found: tuple[tuple[Defect, int], ...] = (("vague", vague), ("badly-put", len(_HASTY.findall(head))))
    return tuple((kind, count) for kind, count in found if count)


def mended(text: str) -> str:
    """The query in clean words, which has no defect any more; one without defects comes back as it is."""
    if not defects_in(text):
        return text
    head, blank, material = text.partition("\n\n")
    for pattern, instead in _EMPTY_WORDS:
        head = pattern.sub(instead, head)
    head = _HASTY.sub(lambda match: _HASTE[match.group().lower()], head)
    head = _BARE.sub(lambda match: _ALSO[match.group()], head)
    head = re.sub(r"([!?])[!?]+", r"\1", re.sub(r"[ \t]+", " ", head))
    head = re.sub(r" ([,.;:!?])", r"\1", re.sub(r"([,;:])(?: ?[,;:])+", r"\1", head)).strip(" ,;")
    if head.lower().startswith("the main points"):
        head = f"explain {head}"
    if head and head[-1].isalnum():
        last = _BETWEEN.split(head)[-1]
        head += ":" if material else "?" if _ASKING.match(last) else "."
    head = re.sub(r"(?:^|[.!?]\s+)[a-z]", lambda match: match.group().upper(), head)
    return head + blank + material


def _apart(text: str) -> tuple[str, dict[str, float]]:
    """The text without sentences that are nothing but wishes, and wish -> strength before attention."""
    strengths: dict[str, float] = {}
    kept, at = "", 0
    for cut in [*_BETWEEN.finditer(text), None]:
        sentence = text[at : cut.start() if cut else len(text)]
        between = cut.group() if cut else ""
        words = words_of(sentence)
        hits = _WISHES.hits(words)
        for hit in hits:
            strengths[hit.label] = strengths.get(hit.label, 0.0) or (_OPPOSITE if hit.negated else 1.0)
        alone = len([word for word in words if word not in _WISH_WORDS]) <= _STRAY_WORDS
        if not hits or not alone:
            kept += sentence + between
        at = cut.end() if cut else at
    return kept.rstrip() if kept.strip() else text, strengths


def _shifts(
    strengths: Mapping[str, float], defects: tuple[tuple[Defect, int], ...]
) -> tuple[tuple[F, float], ...]:
    shifts: dict[F, float] = {}
    wanted = sum(name not in _TURNS for name in strengths)
    attention = 1.0 if wanted <= _ATTENTION else (_ATTENTION / wanted) ** _SPREAD
    for name, strength in strengths.items():
        for feature, effect in BY_NAME[name].effects.items():
            held = strength if name in _TURNS else strength * attention
            shifts[feature] = shifts.get(feature, 0.0) + effect * held
    for kind, count in defects:
        severity = min(1.0, _FIRST_DEFECT + _MORE_DEFECT * (count - 1))
        for feature, effect in _HARM[kind].items():
            shifts[feature] = shifts.get(feature, 0.0) + effect * severity
    return tuple((feature, shifts[feature]) for feature in F if feature in shifts)
