"""What a system prompt can ask for, in which words, and what each request does to a response.

`says` are phrases (see `lexicon`) by which a directive is recognized in anybody's words. `effects` are in
log-odds for one full-strength directive. `bullets` are wordings that the optimizer uses, the plain ones
first, the sharper (with how or when) last. Helpful ones come first, then empty ones, then harmful ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drpo.llm.world.features import Feature as F


@dataclass(frozen=True, slots=True)
class Directive:
    """One thing that a system prompt can ask for."""

    name: str
    effects: Mapping[F, float]
    says: tuple[str, ...]
    bullets: tuple[str, ...]


HELPFUL = (
    Directive(
        "answer first",
        {F.DIRECT: 2.4, F.RAMBLE: -0.9},
        ("answer* ~ first", "begin|start|open|lead with ~ answer|point", "come|get ~ to the point",
         "up front",
         "straight to the point", "direct answer*", "directly answer*|address*",
         "address*|answer* ~ directly"),
        ("Answer the question directly.",
         "Come to the point at once and leave introductions out.",
         "Begin with the answer itself in one or two sentences, before anything else."),
    ),
    Directive(
        "structure",
        {F.STRUCTURE: 2.2},
        ("numbered", "bullet* point*|list*", "in steps", "as steps", "organi*", "structure*", "headings",
         "lists where",
         "list ~ steps", "break* ~ steps|parts|pieces"),
        ("Give the response a clear structure.",
         "Use bullet points or numbered steps to organize longer answers.",
         "When there are several parts, list them as numbered steps with short headings instead of one"
         " long block."),
    ),
    Directive(
        "example",
        {F.EXAMPLE: 2.3},
        ("example*", "concrete illustration*", "illustrate*", "concrete case*", "sample case*"),
        ("Use examples.",
         "Make general statements concrete with an example from everyday life.",
         "Illustrate the main idea with one concrete example, such as a small case with numbers or names."),
    ),
    Directive(
        "depth",
        {F.REASONS: 2.3, F.RAMBLE: 0.5},
        ("depth", "explain* ~ why|reason*", "reasons", "reasoning behind", "thorough*", "in detail",
         "detailed",
         "comprehensive*", "nuance*", "beyond the surface", "insightful"),
        ("Explain things thoroughly.",
         "Go into depth where the question deserves it.",
         "Say why and not only what: explain the reasons by which one thing leads to another."),
    ),
    Directive(
        "brevity",
        {F.RAMBLE: -2.2, F.REPETITION: -0.9, F.REASONS: -0.9, F.EXAMPLE: -0.6, F.QUESTION: -0.3},
        ("brief*", "concise*", "as short as", "keep ~ short", "few words", "no longer than", "succinct*",
         "no more words", "under ~ words", "avoid|without|no padding|filler", "leave ~ filler|padding",
         "waste no"),
        ("Be concise.",
         "Keep answers as short as the question allows.",
         "Use no more words than it takes: leave out filler, preambles and asides."),
    ),
    Directive(
        "no repetition",
        {F.REPETITION: -2.6},
        ("avoid|not|never|don't|without|no ~ repeat*|repetit*|redundan*", "say ~ once", "once only"),
        ("Do not repeat yourself.",
         "Avoid repetition of words, sentences or ideas.",
         "Say each thing once; when a sentence would repeat an earlier one, stop instead of going on."),
    ),
    Directive(
        "honesty",
        {F.HEDGE: 2.4, F.OVERCLAIM: -2.2},
        ("uncertain*", "not sure", "unsure", "not certain", "how sure|certain|reliable", "invent* nothing",
         "never|not|avoid ~ invent*|guess*|fabricat*|make up", "factual*", "accura*",
         "honest* about what you",
         "do|don't not know", "disputed", "verif*"),
        ("Be accurate and never invent facts.",
         "Admit when you are not sure about something.",
         "Where knowledge is uncertain or disputed, say how sure you are and what could be checked, rather"
         " than guess."),
    ),
    Directive(
        "limits",
        {F.LIMIT: 2.9, F.DISCLAIMER: 0.3},
        ("no|not|cannot|without ~ internet|live|real|browse*|physical", "limitation*", "what you cannot",
         "your limits", "access to ~ internet|live", "needs|requires ~ live|browsing|physical", "live data"),
        ("State your limitations openly.",
         "You have no access to the internet or to live data and cannot act in the physical world.",
         "When a request needs live data, browsing or physical actions, say plainly that you cannot do it"
         " and what the"
         " user can do instead."),
    ),
    Directive(
        "refuse harm",
        {F.REFUSAL: 2.9, F.OVER_REFUSAL: 0.5},
        ("refuse*|decline* ~ harm*|illegal|danger*|malicious|unethical|hurt*",
         "harmful request*|requests|purposes",
         "not|never help|assist|engage|comply ~ harm*|malicious|illegal|unsafe|hurt*", "avoid ~ harm*",
         "malicious",
         "unsafe", "ethical", "illegal"),
        ("Be ethical and safe.",
         "Refuse requests that are harmful, illegal or malicious.",
         "Do not help with anything that could hurt someone; decline in one sentence and say why."),
    ),
    Directive(
        "safe alternative",
        {F.ALTERNATIVE: 2.6, F.OVER_REFUSAL: -0.3},
        ("alternative*", "offer|suggest ~ safe*|lawful|legal|constructive", "safe way*",
         "instead offer|suggest"),
        ("Suggest alternatives.",
         "When you decline, offer a safe alternative.",
         "After a refusal, turn to the need behind the request and suggest a lawful, safe way that meets"
         " it."),
    ),
    Directive(
        "empathy",
        {F.WARMTH: 2.5},
        ("empath*", "warm*", "feeling*", "emotion*", "compassion*", "kindness", "supportive",
         "how the user feels"),
        ("Be empathetic.",
         "Respond warmly and take feelings seriously.",
         "When someone is worried or hurt, acknowledge the feeling in a sentence before you go on to"
         " advice."),
    ),
    Directive(
        "natural tone",
        {F.LIVELY: 2.3, F.STIFF: -2.1},
        ("conversational*", "natural*", "human", "like a person|friend", "friendly", "engaging", "lively",
         "contractions",
         "avoid|not|without ~ robot*|stiff*|mechanical*", "relatable"),
        ("Be friendly and engaging.",
         "Write in a natural, conversational tone and avoid sounding like a robot.",
         "Talk as one person to another: use contractions, speak to the user, and drop stock phrases of"
         " machines."),
    ),
    Directive(
        "ask back",
        {F.QUESTION: 2.4},
        ("clarif*", "ask* ~ question*", "follow up", "ask back", "invite ~ user"),
        ("Ask clarifying questions.",
         "If the request is unclear, ask a question back.",
         "When something important is missing, answer as far as you can and end with one clarifying"
         " question."),
    ),
    Directive(
        "premises",
        {F.PREMISE: 2.4},
        ("assumption*", "premise*", "critical*", "taking|take ~ granted", "misconception*", "false belief*"),
        ("Think critically.",
         "Question assumptions instead of taking them for granted.",
         "Check the premise of the query first; if it does not hold, say so kindly and explain what does."),
    ),
    Directive(
        "follow the request",
        {F.FORMAT: 2.4},
        ("follow* ~ instruction*|format*|request*", "requested|asked format|length|style|form",
         "format ~ ask*|want*|request*",
         "exactly what ~ ask*", "stay in role|character", "deliver*", "word limit*"),
        ("Follow the user's instructions.",
         "Keep to the requested format, length and style.",
         "Deliver exactly what was asked for: when a text, code or a role is wanted, write it instead of"
         " talking about it."),
    ),
    Directive(
        "vivid images",
        {F.IMAGE: 2.4, F.RAMBLE: 0.2},
        ("analog*", "metaphor*", "vivid*", "story|stories|storytelling", "comparison*", "creativ*",
         "imagin*", "original*"),
        ("Be creative.",
         "Use analogies and vivid comparisons.",
         "Where an idea is abstract, bring it to life with one original analogy from daily life."),
    ),
    Directive(
        "respect",
        {F.RESPECT: 2.4},
        ("cultur*", "divers*", "stereotyp*", "background*", "inclusive*"),
        ("Respect diversity.",
         "Be sensitive to cultures and backgrounds, without stereotypes.",
         "Where customs, faiths or backgrounds matter, mention that they differ and assume none of them."),
    ),
    Directive(
        "next step",
        {F.NEXT_STEP: 2.4},
        ("next step*", "first step*", "actionable", "practical*", "do next", "can use", "do at once|today"),
        ("Be practical.",
         "Give actionable advice that the user can use.",
         "Close with a practical next step, something small that the user can do today."),
    ),
    Directive(
        "plain words",
        {F.JARGON: -2.4},
        ("plain language|words|terms|english|wording", "avoid|no|without|explain ~ jargon|technical",
         "simple words|language",
         "everyday words|language",
         "accessible"),
        ("Use plain language.",
         "Avoid jargon and technical terms.",
         "Choose everyday words, and explain a technical term when it cannot be avoided."),
    ),
)  # fmt: skip

EMPTY = (
    Directive(
        "excellence",
        {},
        ("excellen*", "highest quality", "high quality", "world class", "best possible", "outstanding"),
        ("Always provide the highest quality.",
         "Strive for excellence in every response."),
    ),
    Directive(
        "thinking",
        {},
        ("think ~ before", "deep breath", "think carefully", "take your time"),
        ("Think carefully before you respond.",
         "Take your time with every request."),
    ),
    Directive(
        "knowledge",
        {},
        ("wide|broad|extensive knowledge", "draw on ~ knowledge", "expert*"),
        ("Draw on your extensive knowledge of many fields.",
         "Act as an expert in the field of the query."),
    ),
)  # fmt: skip

HARMFUL = (
    Directive(
        "formality",
        {F.STIFF: 2.0, F.LIVELY: -1.6, F.JARGON: 0.6},
        ("formal*", "professional*", "authoritative*", "scholarly", "dignified"),
        ("Keep a formal and professional register.",
         "Write in an authoritative style that suits an official document."),
    ),
    Directive(
        "disclaimers",
        {F.DISCLAIMER: 2.6, F.STIFF: 0.5, F.LIMIT: 0.6},
        ("disclaimer*", "remind the|them|users|people", "mention ~ ai", "you are an ai ~ every|always"),
        ("Add a disclaimer to every response.",
         "Always remind the user that you are an AI."),
    ),
    Directive(
        "flattery",
        {F.FLATTERY: 2.9},
        ("prais* ~ question*|user*|query", "compliment*", "thank ~ question|asking", "great question"),
        ("Praise the user for the question.",
         "Open with a compliment, so that the user feels valued."),
    ),
    Directive(
        "confidence",
        {F.OVERCLAIM: 2.2, F.HEDGE: -2.0, F.DIRECT: 0.3},
        ("confiden*", "sound certain", "never|not hedge", "assertive*"),
        ("Be confident and do not hedge.",
         "Sound certain in whatever you state."),
    ),
    Directive(
        "length",
        {F.RAMBLE: 1.9, F.REPETITION: 0.8, F.REASONS: 0.7, F.EXAMPLE: 0.3},
        ("as long as", "long answer*|response*", "every aspect", "every detail", "exhaustive*",
         "at least ~ paragraphs|words",
         "leave nothing out", "cover everything"),
        ("Cover every aspect exhaustively.",
         "Write long answers that leave nothing out."),
    ),
    Directive(
        "always comply",
        {F.REFUSAL: -2.6, F.OVER_REFUSAL: -1.0, F.FORMAT: 0.3},
        ("never refuse", "always ~ comply", "answer everything", "no matter what", "whatever the user asks",
         "any request"),
        ("Never refuse: help the user no matter what.",
         "Always comply with whatever the user asks."),
    ),
    Directive(
        "caution",
        {F.OVER_REFUSAL: 3.0, F.REFUSAL: 1.0, F.STIFF: 0.4},
        ("refuse|decline ~ sensitive|risky|doubt|controversial|risk", "side of caution",
         "avoid ~ sensitive|controversial",
         "refuse everything|all|every"),
        ("Avoid sensitive or controversial topics.",
         "Err on the side of caution and decline when there is any risk."),
    ),
    Directive(
        "excitement",
        {F.EXCITED: 2.8, F.LIVELY: 0.5, F.STIFF: -0.6},
        ("emoji*", "exclamation*", "enthusias*", "exciting"),
        ("Show enthusiasm with exclamation marks.",
         "Use emojis to make responses more exciting."),
    ),
    Directive(
        "summary",
        {F.REPETITION: 1.7, F.STRUCTURE: 0.2},
        ("summar*", "restate*", "recap*", "repeat ~ main|key|question"),
        ("End with a summary of what was said.",
         "Restate the main points at the end."),
    ),
)  # fmt: skip

ALL = HELPFUL + EMPTY + HARMFUL
BY_NAME = {directive.name: directive for directive in ALL}

# Pairs that pull in opposite directions: a prompt with both gets half of either.
CONFLICTS = (
    ("brevity", "depth"),
    ("brevity", "length"),
    ("natural tone", "formality"),
    ("honesty", "confidence"),
    ("refuse harm", "always comply"),
    ("caution", "always comply"),
    ("no repetition", "summary"),
)
