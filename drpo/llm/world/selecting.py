"""The simulated selector: which aspects matter for a query."""

from __future__ import annotations

from collections.abc import Sequence

from drpo.llm.world.features import Feature as F
from drpo.llm.world.judging import rubric_of
from drpo.llm.world.queries import QueryReading
from drpo.llm.world.settings import Dice, World
from drpo.types import Aspect

FEWEST, MOST = 2, 5  # where a request does not say how many
KNOWN = tuple(
    Aspect(name, "")
    for name in (
        *(
            "Helpfulness",
            "Clarity",
            "Factuality",
            "Depth",
            "Engagement",
            "Conciseness",
            "Safety",
            "Compliance",
        ),
        *("Limitations", "Critical-Thinking", "Creativity", "Interactivity", "Empathy", "Sensitivity"),
    )
)

_INVENTS = 1 / 12  # share of queries for which an aspect is proposed that is not in the list
_WAVERING = 0.35  # how far chance moves the weight of an aspect

# Sign or task of the query -> how much more an aspect matters then.
_WEIGHTS: dict[str, dict[str, float]] = {
    "": {
        "Helpfulness": 1.2, "Clarity": 0.8, "Factuality": 0.6, "Depth": 0.5, "Engagement": 0.5,
        "Conciseness": 0.2,
    },
    "information": {"Factuality": 0.7, "Depth": 0.6, "Clarity": 0.2},
    "reasoning": {"Critical-Thinking": 0.9, "Depth": 0.7, "Factuality": 0.2},
    "procedure": {"Clarity": 0.5, "Helpfulness": 0.4, "Interactivity": 0.3},
    "coding": {"Factuality": 0.5, "Compliance": 0.9, "Conciseness": 0.5, "Clarity": 0.4},
    "math": {"Factuality": 0.7, "Clarity": 0.6, "Conciseness": 0.4},
    "writing": {"Creativity": 1.0, "Compliance": 1.0, "Engagement": 0.4, "Factuality": -0.4},
    "role-play": {"Creativity": 1.1, "Engagement": 0.9, "Compliance": 0.7, "Factuality": -0.6, "Depth": -0.3},
    "harmful": {"Safety": 2.6, "Sensitivity": 0.4, "Empathy": 0.5, "Compliance": -0.5, "Depth": -0.5,
    "Clarity": -0.4,
                "Creativity": -1.0, "Factuality": -0.4},
    "crisis": {"Safety": 2.4, "Empathy": 2.4, "Sensitivity": 0.5, "Depth": -0.6, "Conciseness": -0.5},
    "live": {"Limitations": 2.2, "Factuality": 0.4, "Depth": -0.5, "Creativity": -0.5},
    "emotional": {"Empathy": 1.6, "Sensitivity": 0.3},
    "premise": {"Critical-Thinking": 1.1},
    "cultural": {"Sensitivity": 1.2},
    "stakes": {"Factuality": 0.5, "Safety": 0.3, "Limitations": 0.3},
    "brief": {"Conciseness": 0.9},
    "vague": {"Interactivity": 0.3, "Conciseness": 0.3},
    "personal": {"Empathy": 0.4, "Interactivity": 0.4},
    "long": {"Depth": 0.4, "Interactivity": 0.3},
    "borderline": {"Safety": 0.6},
}  # fmt: skip

_INVENTIONS: tuple[tuple[str, Aspect], ...] = (
    (
        "procedure",
        Aspect(
            "Practicality",
            "Its advice is feasible with what the user has, in everyday life and step by step.",
        ),
    ),
    (
        "coding",
        Aspect(
            "Correctness", "The code runs as requested, and what could break it is explained with an example."
        ),
    ),
    (
        "emotional",
        Aspect(
            "Encouragement", "It leaves the user with support and a practical step that feels within reach."
        ),
    ),
    (
        "cultural",
        Aspect("Cultural-Awareness", "It respects customs and backgrounds other than the most common one."),
    ),
    (
        "stakes",
        Aspect("Carefulness", "It names risks and uncertain points before the user acts on the advice."),
    ),
    (
        "role-play",
        Aspect("Voice", "It keeps to the role and speaks in a lively tone with images of its own."),
    ),
    (
        "reasoning",
        Aspect("Balance", "It looks fairly at both sides and questions the assumptions behind each."),
    ),
    (
        "information",
        Aspect("Age-Appropriateness", "Its tone and examples would suit a child or a teenager as well."),
    ),
)

_FORMS: dict[str, str] = {
    "procedure": "numbered steps", "coding": "code with a short explanation", "math": "a worked solution",
    "writing": "the text itself", "role-play": "lines in the voice of the role",
    "reasoning": "a weighed answer with reasons",
    "information": "a clear explanation",
}  # fmt: skip
_HARD: tuple[tuple[str, str], ...] = (
    ("crisis", "the user may be in danger and needs care before anything else"),
    ("harmful", "helping as asked could hurt somebody; declining must stay kind and useful"),
    ("live", "it needs live data or actions that an assistant does not have"),
    ("emotional", "the user's feelings need as much attention as the facts"),
    ("premise", "the query rests on something that may not hold"),
    ("stakes", "a confident mistake would be costly"),
    ("cultural", "customs differ and none should be assumed"),
    ("brief", "leaving out enough without leaving out what matters"),
)


def choose(
    world: World,
    query: QueryReading,
    known: Sequence[Aspect],
    fewest: int = FEWEST,
    most: int = MOST,
    sample: str = "",
) -> tuple[Aspect, ...]:
    """`fewest` to `most` of the known aspects, weightiest first; the last one sometimes invented."""
    dice = Dice.of(world.seed, "selector", query.text, sample)
    order = sorted(known, key=lambda aspect: (-_weight(aspect, query, dice), aspect.name))
    fewest = max(1, fewest)
    wanted = fewest + int(dice.uniform("how many") * (max(most, fewest) - fewest + 1))
    chosen = order[: min(max(wanted, min(3, most)), max(most, fewest))]
    names = {aspect.name for aspect in known}
    if dice.chance(_INVENTS, "invents") or len(chosen) < fewest:
        fitting = [a for sign, a in _INVENTIONS if sign == query.task or sign in query.signs] or [
            _INVENTIONS[0][1]
        ]
        others = [a for _, a in _INVENTIONS if a not in fitting]
        new = [
            Aspect(a.name, a.definition, proposed=True) for a in (*fitting, *others) if a.name not in names
        ]
        room = max(1, fewest - len(chosen))
        chosen = [*chosen[: max(0, most - room)], *new[:room]]
    return tuple(chosen)


def _weight(aspect: Aspect, query: QueryReading, dice: Dice) -> float:
    occasions = ["", query.task, *query.signs]
    weight = sum(_WEIGHTS.get(occasion, {}).get(aspect.name, 0.0) for occasion in sorted(occasions))
    if not any(aspect.name in table for table in _WEIGHTS.values()):
        weight = 0.5 + 0.1 * len(
            {F.LIMIT, F.WARMTH, F.RESPECT, F.FORMAT}.intersection(rubric_of(aspect).merits)
        )
    return weight + _WAVERING * dice.gauss("weight", aspect.name)


def explain(query: QueryReading, chosen: Sequence[Aspect]) -> dict[str, object]:
    """The reply in the template's shape."""
    about = query.subjects[0] if query.subjects else "nothing that could be named"
    hard = next((text for sign, text in _HARD if sign in query.signs), "being specific rather than general")
    vague = "much is left open in few words" if "vague" in query.signs else "no more than usual"
    intent = {"harmful": "help with something harmful", "crisis": "help in distress"}
    wants = next(
        (text for sign, text in intent.items() if sign in query.signs), f"{_FORMS[query.task]} they can use"
    )
    names = [aspect.name for aspect in chosen]
    listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
    return {
        "query_analysis": {
            "main_topic": about,
            "user_intent": wants,
            "ambiguities": "a premise to check" if "premise" in query.signs else vague,
            "response_format": "a short, kind answer" if query.harmful else _FORMS[query.task],
            "challenges": hard,
        },
        "aspects_selection": {
            "reasoning": f"The difficulty lies in this: {hard}. So {listed} matter most here.",
            "selected_aspects": [
                {"name": a.name, "definition": a.definition} if a.proposed else a.name for a in chosen
            ],
        },
    }
