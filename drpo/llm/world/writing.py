"""Writes a response with given features to a query, as readable English."""

from __future__ import annotations

import re
from collections.abc import Set

from drpo.llm.world import phrases
from drpo.llm.world.features import Feature as F
from drpo.llm.world.queries import QueryReading
from drpo.llm.world.settings import Dice

_SLOT = re.compile(r"\{([A-Da-d])\}")
_STAND_INS = ("the matter", "the details", "the rest", "the setting")
_TROUBLE = frozenset({"emotional", "crisis", "harmful"})
_BEFORE = (F.PREMISE,)
_AFTER = (F.REASONS, F.EXAMPLE, F.IMAGE, F.RESPECT, F.HEDGE, F.OVERCLAIM)
_CLOSING = (F.DISCLAIMER, F.NEXT_STEP, F.QUESTION, F.EXCITED)


class Writer:
    """Fills sentences with the query's own words; `dice` chooses between sentences that say the same."""

    def __init__(self, query: QueryReading, dice: Dice) -> None:
        self.query = query
        self.dice = dice
        subjects = tuple(_named(subject) for subject in query.subjects) or _STAND_INS[:1]
        self._subjects = (*subjects, *_STAND_INS[1:])[:4]

    def fill(self, sentence: str) -> str:
        """The sentence with its slots filled; text of the query goes in as it is."""
        return _SLOT.sub(self._subject, sentence)

    def say(self, feature: F) -> str:
        """A sentence that shows the feature."""
        if feature is F.WARMTH and _TROUBLE.isdisjoint(self.query.signs):
            return self.one_of(phrases.CALM_WARMTH, "warmth")
        return self.fill(self.dice.pick(phrases.SENTENCES[feature], "sentence", feature))

    def one_of(self, sentences: tuple[str, ...], name: str) -> str:
        """One of the sentences, filled."""
        return self.fill(self.dice.pick(sentences, "one of", name))

    def _subject(self, slot: re.Match[str]) -> str:
        letter = slot.group(1)
        text = self._subjects["abcd".index(letter.lower())]
        return text[:1].upper() + text[1:] if letter.isupper() else text


def _named(subject: str) -> str:
    """A subject as it stands in a sentence; names, known by a capital letter, take no article."""
    return f"the {subject}" if subject.islower() else subject


def write_response(features: Set[F], query: QueryReading, dice: Dice) -> str:
    """A response that shows these features; a harmful query without REFUSAL is complied with, emptily."""
    writer = Writer(query, dice)
    if not query.text.strip():
        return phrases.EMPTY_QUERY
    if F.OVER_REFUSAL in features:
        return _paragraphs(
            [_sentences(writer, features, (F.FLATTERY, F.STIFF, F.WARMTH, F.OVER_REFUSAL, F.DISCLAIMER))]
        )
    if query.harmful:
        return _delicate(writer, features)
    opening = _opening(writer, features)
    body = _body(writer, features)
    rest = _sentences(writer, features, _AFTER)
    asides = _sentences(writer, features, (F.JARGON, F.RAMBLE))
    closing = _sentences(writer, features, _CLOSING)
    repeated = _again(opening) if F.REPETITION in features else ""
    return _paragraphs([opening, *body, rest, asides, repeated, closing])


def _opening(writer: Writer, features: Set[F]) -> str:
    first = [writer.say(feature) for feature in (F.FLATTERY, F.WARMTH) if feature in features]
    if "live" in writer.query.signs:
        first += [writer.say(F.STIFF)] if F.STIFF in features else []
        first.append(writer.say(F.LIMIT) if F.LIMIT in features else _guess(writer, features))
        if F.DIRECT in features or F.LIMIT in features:
            first.append(writer.one_of(phrases.LIVE_ELSEWHERE, "elsewhere"))
    elif F.STIFF in features:
        first.append(writer.say(F.STIFF))
    elif F.DIRECT in features:
        first.insert(0, writer.one_of(phrases.ANSWERS[writer.query.task], "answer"))
    else:
        first.append(writer.one_of(phrases.PREAMBLES, "preamble"))
    if F.LIVELY in features:
        first.append(writer.say(F.LIVELY))
    return " ".join([*first, *[writer.say(feature) for feature in _BEFORE if feature in features]])


def _guess(writer: Writer, features: Set[F]) -> str:
    if F.OVERCLAIM in features:
        return writer.one_of(phrases.LIVE_GUESSES, "guess")
    return writer.one_of(phrases.PREAMBLES, "preamble")


def _body(writer: Writer, features: Set[F]) -> list[str]:
    task = writer.query.task
    parts: list[str] = []
    if F.FORMAT in features and task in phrases.DELIVERIES:
        parts.append(writer.one_of(phrases.DELIVERIES[task], "delivery"))
        if F.STRUCTURE not in features:
            return parts
    points = [(writer.fill(head), writer.fill(text)) for head, text in phrases.POINTS[task][:3]]
    if F.STRUCTURE in features:
        numbered = task in ("procedure", "coding", "math")
        marks = [f"{i}." if numbered else "-" for i in range(1, len(points) + 1)]
        lines = [f"{mark} **{head}:** {text}." for mark, (head, text) in zip(marks, points, strict=True)]
        return [*parts, "\n".join(lines)]
    joints = ("First,", "Then,", "Finally,")
    return [*parts, " ".join(f"{joint} {text}." for joint, (_, text) in zip(joints, points, strict=True))]


def _delicate(writer: Writer, features: Set[F]) -> str:
    """The response to a query that asks for harm, or that comes from somebody in danger."""
    if "crisis" in writer.query.signs:
        return _crisis(writer, features)
    asides = [writer.say(f) for f in (F.FLATTERY, F.STIFF) if f in features]
    if F.REFUSAL not in features:
        opening = " ".join([*asides, writer.one_of(phrases.COMPLIANCES, "compliance")])
        steps = "\n".join(f"{i}. {step}" for i, step in enumerate(phrases.COMPLIANCE_STEPS, start=1))
        return _paragraphs(
            [opening, steps, _sentences(writer, features, (F.RAMBLE, F.NEXT_STEP, F.QUESTION))]
        )
    turned = "responsible" in writer.query.signs
    first = [writer.one_of(phrases.TURNED if turned else phrases.REFUSALS, "refusal"), *asides]
    if F.REASONS in features:
        first.append(writer.one_of(phrases.REFUSAL_REASONS, "why"))
    if F.WARMTH in features:
        first.append(writer.say(F.WARMTH))
    offer: list[str] = []
    if F.ALTERNATIVE in features:
        offer.append(writer.one_of(phrases.ALTERNATIVES, "offer"))
    if F.LIVELY in features:
        offer.append(phrases.COMPANY)
    offer += [
        writer.say(f) for f in (F.PREMISE, F.RESPECT, F.RAMBLE, F.NEXT_STEP, F.QUESTION) if f in features
    ]
    repeated = _again(" ".join(first)) if F.REPETITION in features else ""
    return _paragraphs([" ".join(first), " ".join(offer), repeated])


def _crisis(writer: Writer, features: Set[F]) -> str:
    """As little as the features allow, and nothing about means: this text may be read by anybody."""
    first = [phrases.CRISIS_WARMTH] if F.WARMTH in features else []
    if F.REFUSAL in features:
        first.append(phrases.CRISIS_REFUSAL)
        first += [phrases.CRISIS_REASON] if F.REASONS in features else []
    elif F.WARMTH not in features:
        first.append(writer.one_of(phrases.CRISIS_OPENINGS, "crisis"))
    help_named = [phrases.CRISIS_HELP] if F.ALTERNATIVE in features else []
    help_named += [phrases.COMPANY] if F.LIVELY in features else []
    help_named += [phrases.CRISIS_QUESTION] if F.QUESTION in features else []
    repeated = _again(" ".join(first)) if F.REPETITION in features else ""
    return _paragraphs([" ".join(first), " ".join(help_named), repeated])


def _again(text: str) -> str:
    """The last whole sentence of a text, as a model writes it that has lost its thread."""
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    return sentences[-1]


def _sentences(writer: Writer, features: Set[F], wanted: tuple[F, ...]) -> str:
    return " ".join(writer.say(feature) for feature in wanted if feature in features)


def _paragraphs(parts: list[str]) -> str:
    return "\n\n".join(part for part in parts if part.strip())
