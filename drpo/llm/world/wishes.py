"""What a user can wish for in a query, in which words, and what each wish does to a response.

`says` are phrases (see `lexicon`) by which a wish is recognized in anybody's words. `effects` are in log-odds
for one wish that has a model's whole attention. `suits`: tasks and signs of queries for which somebody with
sense would add it; empty: any. Useful ones come first, then empty ones, then harmful ones; TURNS are what a
responsible person asks in place of somebody who means harm or is in danger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drpo.llm.world.features import Feature as F


@dataclass(frozen=True, slots=True)
class Wish:
    """One thing that a query can ask of its answer."""

    name: str
    effects: Mapping[F, float]
    suits: frozenset[str]
    says: tuple[str, ...]
    wordings: tuple[str, ...]


def _of(names: str) -> frozenset[str]:
    return frozenset(names.split())


USEFUL = (
    Wish(
        "steps", {F.STRUCTURE: 2.2, F.NEXT_STEP: 0.3}, _of("procedure coding math information reasoning"),
        ("go|guide|take|lead ~ step* by step", "one step at|after", "number the|your|each step*",
         "step after step"),
        ("Please go step by step.", "Take me through it one step at a time.", "Number the steps for me."),
    ),
    Wish(
        "example", {F.EXAMPLE: 2.2}, _of("procedure coding math information reasoning"),
        ("give|show|add|include ~ one|concrete|real|small example*", "example from real|daily life",
         "example that i|shows"),
        ("Give one concrete example.", "Show me a small example.", "Add an example from real life."),
    ),
    Wish(
        "uncertain", {F.HEDGE: 2.2, F.OVERCLAIM: -1.4}, _of("information reasoning stakes premise math"),
        ("say|mark|show ~ what|where ~ uncertain|certain", "what is|remains uncertain",
         "what you are not sure", "nobody knows for certain"),
        ("Say what is uncertain.", "Tell me what you are not sure of.",
         "Mark what nobody knows for certain."),
    ),
    Wish(
        "what matters", {F.RAMBLE: -1.9, F.REPETITION: -1.8, F.DIRECT: 0.3}, _of(""),
        ("keep|stick to what|the matters|essentials", "to what matters", "to the essentials",
         "leave out what|whatever", "nothing twice", "say nothing twice"),
        ("Keep to what matters.", "Stick to the essentials and say nothing twice.",
         "Leave out what does not help me."),
    ),
    Wish(
        "answer first", {F.DIRECT: 2.3, F.STIFF: -0.9, F.RAMBLE: -0.9},
        _of("procedure coding math information reasoning writing role-play live"),
        ("start|begin|open with ~ answer", "answer ~ first then", "main point ~ first", "answer itself"),
        ("Start with the answer itself.", "Give me the answer first, then the rest.",
         "Put the main point in your first sentence."),
    ),
    Wish(
        "why", {F.REASONS: 2.2}, _of("information reasoning procedure math coding harmful"),
        ("tell|say ~ why ~ not only|just", "give|name|add ~ reasons behind|for", "explain ~ what causes",
         "reasons behind it"),
        ("Tell me why, not only what.", "Give the reasons behind it.", "Explain what causes it, too."),
    ),
    Wish(
        "plain words", {F.JARGON: -2.2, F.STIFF: -0.8}, _of(""),
        ("use|choose plain words", "no technical terms|words", "without technical terms|words",
         "beginner* ~ understand*", "easy words"),
        ("Use plain words.", "No technical terms, please.", "Word it so that a beginner understands."),
    ),
    Wish(
        "like a person", {F.LIVELY: 2.2, F.STIFF: -2.2}, _of(""),
        ("like a friend would", "tone ~ relaxed|natural", "one person|human to another", "talk to me like"),
        ("Talk to me like a friend would.", "Keep the tone relaxed and natural.",
         "Write as one person to another."),
    ),
    Wish(
        "next step", {F.NEXT_STEP: 2.2}, _of("procedure personal emotional stakes live coding harmful"),
        ("what to do next", "one thing ~ i|we can|could", "first thing i|we should|can",
         "where i should begin"),
        ("Tell me what to do next.", "End with one thing that I can do myself.",
         "Name the first thing I should try."),
    ),
    Wish(
        "ask back", {F.QUESTION: 2.2}, _of("vague personal long emotional"),
        ("ask me ~ missing|unclear|more|know", "need to know more ~ ask", "question back to me",
         "put ~ question ~ to me"),
        ("Ask me if something is missing.", "If you need to know more, ask.",
         "Put one question back to me at the end."),
    ),
    Wish(
        "correct me", {F.PREMISE: 2.2}, _of("premise reasoning"),
        ("correct me", "check|test whether|if what i|we assume|believe|think", "mistake* in my question",
         "if i am mistaken", "point out ~ mistake*"),
        ("Correct me if I have something wrong.", "Check whether what I assume is true.",
         "Point out any mistake in my question."),
    ),
    Wish(
        "the thing itself", {F.FORMAT: 2.6}, _of("coding writing role-play math"),
        ("finished thing|piece|text|result", "write it out", "text code or result", "not advice about"),
        ("Give me the finished thing, not advice about it.", "Write it out in full.",
         "I want the text, code or result itself."),
    ),
    Wish(
        "comparison", {F.IMAGE: 2.2}, _of("writing role-play information"),
        ("picture from daily|everyday life", "comparison would|could help", "compare it to|with something",
         "an image for it"),
        ("Use a picture from daily life to make it clear.", "A comparison would help me.",
         "Compare it with something I know."),
    ),
    Wish(
        "be gentle", {F.WARMTH: 2.4, F.STIFF: -0.6}, _of("emotional crisis personal"),
        ("gentle with me", "kind about it", "hard for me ~ kind|gentle", "this is hard for me"),
        ("Please be gentle with me.", "Be kind about it, this is hard for me."),
    ),
    Wish(
        "all kinds of people", {F.RESPECT: 2.4}, _of("cultural"),
        ("families|people do this|it differently", "not assume ~ faith|from|family",
         "all kinds of people", "fits every family"),
        ("Bear in mind that families do this differently.",
         "Do not assume my faith or where I am from."),
    ),
    Wish(
        "what you cannot see", {F.LIMIT: 2.8, F.OVERCLAIM: -1.2}, _of("live"),
        ("say|tell ~ if you cannot|can't look|check|know", "no way to see|check|know",
         "cannot look it up"),
        ("Say so if you cannot look it up.", "Tell me plainly what you have no way to see."),
    ),
)  # fmt: skip

EMPTY = (
    Wish(
        "very best", {}, _of(""),
        ("your very best", "important to my career", "best answer you"),
        ("Give me your very best answer.", "This is very important to my career."),
    ),
    Wish(
        "deep breath", {}, _of(""),
        ("deep breath first", "think hard before", "concentrate well"),
        ("Take a deep breath first.", "Think hard before you write."),
    ),
)  # fmt: skip

HARMFUL = (
    Wish(
        "like a professor", {F.JARGON: 2.4, F.STIFF: 1.4}, _of(""),
        ("like a professor", "proper technical terms|vocabulary", "specialist terms"),
        ("Answer like a professor.", "Use the proper technical terms."),
    ),
    Wish(
        "everything", {F.RAMBLE: 2.4, F.REPETITION: 1.6, F.REASONS: 0.4}, _of(""),
        ("everything there is to", "leave nothing out", "as much as you can write"),
        ("Tell me everything there is to know.", "Leave nothing out, however long it gets."),
    ),
    Wish(
        "no doubt", {F.OVERCLAIM: 2.6, F.HEDGE: -2.0}, _of(""),
        ("no ifs and|or buts", "be|sound ~ certain and do|show not", "show no doubt*", "just be certain"),
        ("I want no ifs and buts.", "Just be certain and show no doubts."),
    ),
    Wish(
        "official", {F.STIFF: 2.6, F.LIVELY: -1.6}, _of(""),
        ("strictly official", "official letter*", "language of an office"),
        ("Keep it strictly official.", "Write as in an official letter."),
    ),
    Wish(
        "cheer", {F.EXCITED: 3.0, F.FLATTERY: 1.8}, _of(""),
        ("cheer me on", "exclamation marks", "tell me how clever"),
        ("Cheer me on with lots of exclamation marks.", "Tell me how clever my question is."),
    ),
)  # fmt: skip

SAFELY, CARE = "safely", "care"
TURNS = (
    Wish(
        SAFELY, {F.REFUSAL: 4.2, F.ALTERNATIVE: 3.0, F.REASONS: 1.6, F.STIFF: -0.6}, _of("harmful"),
        ("safe and lawful", "lawful and safe", "responsible person|people|way*", "within the law",
         "harm* nobody|no one"),
        ("What should a responsible person know about {a} and {b}: why it harms people, and which safe and"
         " lawful ways there are?",
         "Why does the law forbid this with {a} and {b}, whom would it hurt, and what is a safe and lawful"
         " way to reach what somebody may really need?",
         "I have to do with {a} and {b}. What would a responsible person do who wants to stay within the"
         " law and harm nobody?"),
    ),
    Wish(
        CARE, {F.ALTERNATIVE: 3.0, F.WARMTH: 2.8, F.REFUSAL: 2.0, F.REASONS: 0.6}, _of("crisis"),
        ("keeps|keep me safe", "who can i talk to", "get through this night|tonight|evening"),
        ("I am in a very bad way and think about {a} and {b}. What will keep me safe, and who can I talk to?",
         "{A} and {b} are on my mind and it frightens me. How do I get through this night, and who can I"
         " talk to?"),
    ),
)  # fmt: skip

ALL = USEFUL + EMPTY + HARMFUL + TURNS
BY_NAME = {wish.name: wish for wish in ALL}
