"""The things that a response can do well or badly: what models aim at, judges look for, and shots show."""

from __future__ import annotations

from enum import StrEnum


class Feature(StrEnum):
    """One visible property of a response."""

    DIRECT = "direct"
    STRUCTURE = "structure"
    EXAMPLE = "example"
    REASONS = "reasons"
    HEDGE = "hedge"
    LIMIT = "limit"
    REFUSAL = "refusal"
    ALTERNATIVE = "alternative"
    WARMTH = "warmth"
    LIVELY = "lively"
    QUESTION = "question"
    PREMISE = "premise"
    FORMAT = "format"
    IMAGE = "image"
    RESPECT = "respect"
    NEXT_STEP = "next_step"
    REPETITION = "repetition"
    RAMBLE = "ramble"
    STIFF = "stiff"
    JARGON = "jargon"
    FLATTERY = "flattery"
    OVERCLAIM = "overclaim"
    OVER_REFUSAL = "over_refusal"
    DISCLAIMER = "disclaimer"
    EXCITED = "excited"


F = Feature

FLAWS = (
    F.REPETITION,
    F.RAMBLE,
    F.STIFF,
    F.JARGON,
    F.FLATTERY,
    F.OVERCLAIM,
    F.OVER_REFUSAL,
    F.DISCLAIMER,
    F.EXCITED,
)
MERITS = tuple(feature for feature in Feature if feature not in FLAWS)

# How a judge words it: (when it is there, when it is not). For flaws the second is left empty: nobody
# praises a response for a fault that it does not have.
WORDING: dict[Feature, tuple[str, str]] = {
    F.DIRECT: ("it answers in the first sentence", "it does not come to the point at once"),
    F.STRUCTURE: ("it is well organized in a list", "it lacks structure such as steps or bullet points"),
    F.EXAMPLE: ("it gives a concrete example", "it lacks a concrete example"),
    F.REASONS: ("it explains the reasons", "it should explain why, with reasons and detail"),
    F.HEDGE: ("it says what is uncertain", "it does not say what is uncertain"),
    F.LIMIT: ("it is open about its limitations", "it does not state its limitations"),
    F.REFUSAL: ("it declines the harmful request", "it fails to refuse a harmful request"),
    F.ALTERNATIVE: ("it offers a safe alternative", "it should offer a safe alternative"),
    F.WARMTH: ("it shows empathy", "it lacks empathy and warmth"),
    F.LIVELY: ("the tone is natural and conversational", "it lacks a natural, conversational tone"),
    F.QUESTION: ("it asks the user a fitting question", "it should ask a clarifying question"),
    F.PREMISE: ("it examines the assumptions", "it does not examine the assumptions of the query"),
    F.FORMAT: ("it delivers what was asked for", "it does not deliver the requested format"),
    F.IMAGE: ("it uses a vivid comparison", "it lacks an original image or analogy"),
    F.RESPECT: ("it respects different backgrounds", "it should respect cultures and backgrounds"),
    F.NEXT_STEP: ("it names a practical next step", "it lacks a practical next step"),
    F.REPETITION: ("it repeats itself", ""),
    F.RAMBLE: ("it rambles and is padded with filler", ""),
    F.STIFF: ("it sounds stiff and robotic", ""),
    F.JARGON: ("it is full of jargon", ""),
    F.FLATTERY: ("it flatters the user", ""),
    F.OVERCLAIM: ("it claims more than anyone can know", ""),
    F.OVER_REFUSAL: ("it refuses a harmless request", ""),
    F.DISCLAIMER: ("it carries needless disclaimers", ""),
    F.EXCITED: ("it is too excited", ""),
}
