"""Training text of demo-lm for all four roles, rendered by drpo's own templates, as it will be asked.

A sample is a list of (text, weight): what the model is to write weighs 1, what it reads less.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeAlias

from benchmarks.demo_lm import world
from benchmarks.demo_lm.directives import ASPECTS, DIRECTIVES, FEATURES, INTROS, NEUTRAL
from benchmarks.demo_lm.world import FITTING, Asked, draw_parts, draw_question, draw_word, found_in
from drpo.compose import Composer
from drpo.templates import Templates
from drpo.types import Example

Sample: TypeAlias = list[tuple[str, float]]
FOLDER = Path(__file__).resolve().parents[2] / "demo-lm"
READ, WRITTEN = 0.1, 1.0
MADE_UP = 0.3  # share of questions about made-up entities
END, PAD = "<|end|>", "<|pad|>"
TURNS = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
SPECIAL_TOKENS = (PAD, END, *TURNS.values())
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEMPLATES = Templates(FOLDER / "prompts")
_CHAT, _TEXT = Composer(TEMPLATES, "chat"), Composer(TEMPLATES, "text")
_PLACES = (
    "Library",
    "Bank",
    "Club",
    "Shop",
    "School",
    "Street",
    "Office",
    "Hotel",
    "Market",
    "Museum",
    "Works",
)
_PROBLEMS = (
    "the reply's JSON object is cut off before its end; it was cut off at the limit of tokens",
    "the reply holds no JSON object",
    'the reply has no "new_system_prompt"; the whole new text was expected there',
)
# Aspect -> what a judge says where it is missing, and where it is there.
RATIONALES: dict[str, tuple[str, str]] = {
    "Courtesy": ("No thanks and no kind word.", "It is polite."),
    "Structure": ("No bullets.", "It has bullets."),
    "Limitations": ("No word on its limits.", "It names its limits."),
    "Safety": ("It helps with harm.", "It is safe."),
    "Interactivity": ("No question back.", "It asks back."),
    "Depth": ("No reason or example.", "It has reason and example."),
}


def chat(turns: Sequence[tuple[str, str]]) -> str:
    """The turns as the chat template writes them, and the beginning of the assistant's next one."""
    return "".join(f"{TURNS[role]}{text}{END}" for role, text in turns) + TURNS["assistant"]


def _name(rng: random.Random) -> str:
    return f"{draw_word(rng).capitalize()} {rng.choice(_PLACES)}"


def draw_system_prompt(rng: random.Random, features: Collection[str]) -> str:
    """An introduction, then one directive per feature in any order, at times with neutral sentences."""
    sentences = [rng.choice(DIRECTIVES[feature]) for feature in features]
    sentences += [rng.choice(NEUTRAL) for _ in range(rng.choice((0, 0, 0, 0, 1, 2)))]
    if features and rng.random() < 0.15:
        sentences.append(rng.choice(DIRECTIVES[rng.choice(sorted(features))]))
    rng.shuffle(sentences)
    between = rng.choice((" ", " ", " ", "\n", "\n- "))
    return between.join([rng.choice(INTROS), *sentences]).replace("{name}", _name(rng))


def draw_features(rng: random.Random) -> list[str]:
    """None of them, all of them, or any number between."""
    count = rng.choice((0, 0, 1, 1, 2, 3, 4, 5, 6, 6))
    return rng.sample(FEATURES, count)


def _shots(rng: random.Random, wanted: Collection[str]) -> tuple[list[Example], set[str]]:
    """Shots that all have the same features, where a question lets them, and the features they show."""
    count = rng.choice((0, 0, 1, 1, 2, 2, 3))
    choice = rng.random()
    features = set() if choice < 0.45 else set(wanted) if choice < 0.6 else set(draw_features(rng))
    shots: list[Example] = []
    shown: set[str] = set()
    for number in range(count):
        kind = "harmful" if number == 0 and "refusal" in features and rng.random() < 0.6 else None
        question = draw_question(rng, kind, MADE_UP)
        answer = draw_parts(question, rng).write(features)
        shots.append(Example(question.text, answer))
        shown |= {feature for feature, there in found_in(answer, question.harmful).items() if there}
    rng.shuffle(shots)
    return shots, shown


def base_sample(rng: random.Random) -> Sample:
    """The base model: chat in three of four, else a page that may go on with the next question."""
    wanted = draw_features(rng)
    shots, shown = _shots(rng, wanted)
    question = draw_question(rng, made_up=MADE_UP)
    system = draw_system_prompt(rng, wanted)
    answer = draw_parts(question, rng).write({*wanted, *shown})
    if rng.random() < 0.75:
        messages = _CHAT.messages(system, shots, question.text)
        return [(chat([(m.role, m.content) for m in messages]), READ), (answer + END, WRITTEN)]
    page = _TEXT.text(system, shots, question.text)
    end = f"\n\n# Query\n{draw_question(rng, made_up=MADE_UP).text}\n" if rng.random() < 0.5 else END
    return [(page, READ), (answer + end, WRITTEN)]


def reply(question: str, answer: str) -> Sample:
    """A question to a helper role and its reply."""
    return [(chat([("user", question)]), READ), (answer + END, WRITTEN)]


def known_aspects(names: Collection[str]) -> list[dict[str, str]]:
    """The aspects of these names in the order of the names, as templates read them."""
    defined = {aspect.name: aspect.definition for aspect in TEMPLATES.book.aspects}
    return [{"name": name, "definition": defined[name]} for name in names]


def fitting_aspects(question: Asked) -> list[str]:
    return [ASPECTS[feature] for feature in question.fitting]


def judged(question: Asked, answer: str, aspects: Collection[str]) -> dict[str, dict[str, str]]:
    """The right evaluation: aspect -> rationale and score."""
    there = {ASPECTS[feature]: found for feature, found in found_in(answer, question.harmful).items()}
    there["Safety"] = there["Safety"] or not question.harmful
    return {
        name: {"rationale": RATIONALES[name][there[name]], "score": "5" if there[name] else "1"}
        for name in aspects
    }


def _draw_aspects(rng: random.Random, question: Asked) -> list[str]:
    if rng.random() < 0.6:
        return fitting_aspects(question)
    if rng.random() < 0.25:
        return list(ASPECTS.values())
    return rng.sample(list(ASPECTS.values()), rng.randint(2, 5))


def judge_question(question: Asked, answer: str, aspects: Collection[str]) -> str:
    """What the evaluator is asked."""
    return TEMPLATES.render(
        "evaluate", query=question.text, response=answer, aspects=known_aspects(aspects), reasoning=""
    )


def judge_sample(rng: random.Random) -> Sample:
    question = draw_question(rng, made_up=MADE_UP)
    answer = draw_parts(question, rng).write(draw_features(rng))
    aspects = _draw_aspects(rng, question)
    text = json.dumps(judged(question, answer, aspects))
    return reply(judge_question(question, answer, aspects), text)


def selector_question(question: str) -> str:
    """What the selector is asked."""
    aspects = known_aspects(list(ASPECTS.values()))
    return TEMPLATES.render("choose_aspects", query=question, aspects=aspects, fewest=2, most=5)


def selector_sample(rng: random.Random) -> Sample:
    question = draw_question(rng, made_up=MADE_UP)
    selection = {"aspects_selection": {"selected_aspects": fitting_aspects(question)}}
    return reply(selector_question(question.text), json.dumps(selection))


def weak_aspects(evaluation: dict[str, dict[str, str]]) -> list[str]:
    return [name for name, entry in evaluation.items() if entry["score"] == "1"]


def _weak_case(rng: random.Random) -> tuple[Asked, set[str], dict[str, dict[str, str]], list[str]]:
    """A question, the features its answer has, the evaluation, and the weak aspects to mend (1 or 2)."""
    while True:
        question, features = draw_question(rng, made_up=MADE_UP), draw_features(rng)
        if len(features) == len(FEATURES):
            features = features[: rng.randint(2, 5)]
        answer = draw_parts(question, rng).write(features)
        evaluation = judged(question, answer, _draw_aspects(rng, question))
        weak = weak_aspects(evaluation)
        if weak:
            return (
                question,
                set(features),
                evaluation,
                rng.sample(weak, min(len(weak), rng.choice((1, 1, 1, 2)))),
            )


def optimizer_question(system: str, query: str, response: str, evaluation: dict[str, dict[str, str]]) -> str:
    """What the optimizer is asked for a better system prompt."""
    return TEMPLATES.render(
        "improve_system_prompt",
        system_prompt=system,
        query=query,
        response=response,
        evaluation=evaluation,
        history="",
        protected=(),
        most_bullets=8,
        most_new_bullets=2,
    )


def _analysis(rng: random.Random, mended: Sequence[str], rest: dict[str, str]) -> str:
    if rng.random() < 0.15:
        return json.dumps(rest)
    return json.dumps({"analysis": f"Weak: {', '.join(mended)}.", **rest})


def optimizer_sample(rng: random.Random) -> Sample:
    """The old system prompt, word for word, with a directive for each aspect that is mended."""
    question, features, evaluation, mended = _weak_case(rng)
    system = draw_system_prompt(rng, sorted(features))
    response = draw_parts(question, rng).write(features)
    by_aspect = {aspect: feature for feature, aspect in ASPECTS.items()}
    added = [rng.choice(DIRECTIVES[by_aspect[aspect]]) for aspect in mended]
    text = optimizer_question(system, question.text, response, evaluation)
    return reply(text, _analysis(rng, mended, {"new_system_prompt": " ".join([system, *added])}))


def rewrite_question(query: str, response: str, evaluation: dict[str, dict[str, str]]) -> str:
    """What the optimizer is asked for a better response."""
    return TEMPLATES.render(
        "improve_response", query=query, response=response, evaluation=evaluation, history=""
    )


def rewrite_sample(rng: random.Random) -> Sample:
    """The same response with the weak aspects mended."""
    question, features, evaluation, mended = _weak_case(rng)
    parts = draw_parts(question, rng)
    better = features | {feature for feature, aspect in ASPECTS.items() if aspect in mended}
    text = rewrite_question(question.text, parts.write(features), evaluation)
    return reply(text, _analysis(rng, mended, {"new_response": parts.write(better)}))


def repair_sample(rng: random.Random) -> Sample:
    """A role's question, a reply cut short, the request to reply once more, and the whole reply."""
    (asked, _), (answer, _) = rng.choice((judge_sample, selector_sample, optimizer_sample))(rng)
    whole = answer.removesuffix(END)
    cut = whole[: rng.randint(1, len(whole) - 1)]
    repair = TEMPLATES.render("repair", problem=rng.choice(_PROBLEMS))
    return [(f"{asked}{cut}{END}{chat([('user', repair)])}", READ), (answer, WRITTEN)]


KINDS: tuple[tuple[Callable[[random.Random], Sample], float], ...] = (
    (base_sample, 0.46),
    (judge_sample, 0.19),
    (optimizer_sample, 0.19),
    (selector_sample, 0.04),
    (rewrite_sample, 0.09),
    (repair_sample, 0.03),
)


def draw_sample(rng: random.Random) -> Sample:
    """A training sample of any role."""
    kinds, weights = zip(*KINDS, strict=True)
    make: Callable[[random.Random], Sample] = rng.choices(kinds, weights)[0]
    return make(rng)


assert set(FITTING) == {topic.kind for topic in world.TOPICS}
