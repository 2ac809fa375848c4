"""What holds for every reply, whatever a model writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from drpo.parse import Unreadable, read_evaluation, read_object, read_rewrite, read_selection
from drpo.types import Aspect, AspectScore, Evaluation, Selection

NAMES = ("Helpfulness", "Clarity", "Critical-Thinking", "Safety", "Depth of answer", "Überblick")
KNOWN = tuple(Aspect(name, f"About {name}.") for name in NAMES)
# Enough for every commit in a few seconds; raise it (4,000 takes two minutes) after a change to the readers.
EXAMPLES = 150
FIELD = "new_system_prompt"

# What rationales and prompts are made of, with everything that confuses readers of JSON well represented.
MARKS = st.sampled_from("{}[]()\\,:'\"“#\n\t é😀")
BREAKS = st.sampled_from(
    ["It's", '"quoted"', "{brace}", "\\n", '"}', "'}", '": 4', '"score": 5', "4/5", "//"]
)
TAGS = st.sampled_from(["<think>", "</think>", "```", "score", "good", ": ", " and "])
PIECES = MARKS | BREAKS | TAGS
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join)
SCORES = st.sampled_from([1, 2, 3, 4, 5, None])


@st.composite
def evaluations(draw: st.DrawFn) -> Evaluation:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    scores = [draw(SCORES) for _ in names]
    assume(any(score is not None for score in scores))
    return Evaluation(tuple(AspectScore(n, s, draw(TEXTS)) for n, s in zip(names, scores, strict=True)))


def asked(evaluation: Evaluation) -> list[Aspect]:
    return [aspect for score in evaluation.scores for aspect in KNOWN if aspect.name == score.aspect]


def _trailing_commas(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + "".join(f"{json.dumps(k)}: {_trailing_commas(v)}, " for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + "".join(f"{_trailing_commas(item)},\n" for item in value) + "]"
    return json.dumps(value)


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _raw_newlines(value: Any) -> str:
    parts = json.dumps(value, ensure_ascii=False).split("\\\\")
    return "\\\\".join(part.replace("\\n", "\n") for part in parts)


def _tuples(value: Any) -> str:
    return repr(tuple(value) if isinstance(value, list) else value)


WRITE: list[Callable[[Any], str]] = [json.dumps, repr, _trailing_commas, _indented, _raw_newlines, _tuples]
SPELLINGS: list[Callable[[str], str]] = [str, str.upper, lambda name: name.replace("-", " ")]
WRITERS = st.sampled_from(WRITE)
WRAPPINGS = st.sampled_from(
    [
        "%s",
        " \n%s\n ",
        "```json\n%s\n```",
        "Here's my answer {so to say} [1]:\n%s\nThat's it.",
        '<think>Hm, {"Clarity": {"score": 1}} is "it\n</think>\n\n%s',
        'a draft: {"Clarity": 1, "new_system_prompt": "no"} </thinking>%s',
        "JSON: %s",
        '{"note": "draft"}\n%s',
    ]
)


@st.composite
def written_evaluations(draw: st.DrawFn) -> tuple[str, Evaluation]:
    """A reply in one of the field's shapes, and what it says."""
    evaluation = draw(evaluations())
    entries: dict[str, Any] = {}
    for score in evaluation.scores:
        told = score.score
        words = ["N/A", "n/a"] if told is None else [told, str(told), f" {told} ", float(told)]
        pair = [("rationale", score.rationale), ("score", draw(st.sampled_from(words)))]
        spelled = draw(st.sampled_from(SPELLINGS))(score.aspect)
        assume(spelled.casefold().replace(" ", "-") == score.aspect.casefold().replace(" ", "-"))
        entries[spelled] = dict(draw(st.permutations(pair)))
    value: Any = entries
    key = draw(st.sampled_from(["", "aspect", "name"]))
    if key:
        value = [{key: name, **entry} for name, entry in entries.items()]
    if draw(st.booleans()) or (key and draw(st.booleans())):
        value = {draw(st.sampled_from(["evaluation", "scores"])): value}
    wrapping = draw(WRAPPINGS)
    if isinstance(value, list) and "draft" in wrapping:
        wrapping = "%s"
    return wrapping.replace("%s", draw(WRITERS)(value)), evaluation


@st.composite
def written_rewrites(draw: st.DrawFn) -> tuple[str, str]:
    rewrite = draw(TEXTS.filter(lambda text: bool(text.replace("\\n", "\n").strip())))
    fields = draw(st.permutations([("analysis", draw(TEXTS)), ("thought", "t"), (FIELD, rewrite)]))
    text = draw(WRAPPINGS).replace("%s", draw(WRITERS)(dict(fields)))
    return text, rewrite.replace("\\n", "\n")


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(written_evaluations().map(lambda w: w[0]) | written_rewrites().map(lambda w: w[0]))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        change = draw(st.sampled_from(["truncate", "insert", "delete", "quotes", "repeat"]))
        if change == "truncate":
            text = text[:at]
        elif change == "insert":
            text = text[:at] + draw(PIECES) + text[at:]
        elif change == "delete":
            text = text[:at] + text[at + draw(st.integers(1, 5)) :]
        elif change == "quotes":
            text = text.replace('"', "'")
        else:
            text = text[:at] + text
    return text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | TEXTS, inner, max_size=3)
    ),
    max_leaves=12,
)
SURROGATES = st.text(st.characters(), max_size=40)  # all code points, lone surrogates too
REPLIES = mutated() | JSON.map(json.dumps) | JSON.map(repr) | SURROGATES | TEXTS


@settings(max_examples=EXAMPLES, deadline=None)
@given(REPLIES, st.lists(st.sampled_from(KNOWN), min_size=1, max_size=3, unique=True))
def test_nothing_raises_and_what_is_accepted_is_valid(text: str, aspects: list[Aspect]) -> None:
    for read in (read_evaluation(text, aspects), read_evaluation(text, aspects, names="returned")):
        if isinstance(read, Evaluation):
            assert all(score.score in (None, 1, 2, 3, 4, 5) for score in read.scores)
            assert 1 <= read.reward <= 5
        else:
            assert read.problem.encode() and len(read.problem) < 600
    first = read_evaluation(text, aspects)
    if isinstance(first, Evaluation):
        assert [score.aspect for score in first.scores] == [aspect.name for aspect in aspects]
    selected = read_selection(text, KNOWN)
    assert isinstance(selected, Unreadable) or 2 <= len(selected.aspects) <= 5
    rewrite = read_rewrite(text, FIELD)
    assert isinstance(rewrite, Unreadable) or rewrite.encode().strip()
    assert isinstance(read_object(text), dict | Unreadable)


@settings(max_examples=EXAMPLES, deadline=None)
@given(written_evaluations())
def test_a_valid_evaluation_in_any_shape_is_read_back_exactly(written: tuple[str, Evaluation]) -> None:
    text, evaluation = written
    assert read_evaluation(text, asked(evaluation)) == evaluation
    returned = read_evaluation(text, (), names="returned")
    assert isinstance(returned, Evaluation)
    assert [s.score for s in returned.scores] == [s.score for s in evaluation.scores]


@settings(max_examples=EXAMPLES, deadline=None)
@given(written_evaluations(), st.data())
def test_a_cut_evaluation_is_the_whole_one_or_unreadable(
    written: tuple[str, Evaluation], data: st.DataObject
) -> None:
    text, evaluation = written
    cut = text[: data.draw(st.integers(0, len(text)))]
    assume("draft: " not in text[:10] or "</thinking>" in cut)  # cut in the draft it is another reply
    read = read_evaluation(cut, asked(evaluation))
    assert isinstance(read, Unreadable) or read == evaluation


@settings(max_examples=EXAMPLES, deadline=None)
@given(written_rewrites(), st.data())
def test_a_rewrite_is_read_whole_or_not_at_all(written: tuple[str, str], data: st.DataObject) -> None:
    text, rewrite = written
    assert read_rewrite(text, FIELD) == rewrite
    cut = text[: data.draw(st.integers(0, len(text)))]
    assume("draft: " not in text[:10] or "</thinking>" in cut)
    read = read_rewrite(cut, FIELD)
    assert isinstance(read, Unreadable) or read == rewrite


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.sampled_from(KNOWN), min_size=2, max_size=5, unique=True),
    TEXTS,
    WRITERS,
    WRAPPINGS,
    st.data(),
)
def test_a_selection_is_read_back_exactly_and_never_shortened(
    aspects: list[Aspect], reasoning: str, write: Any, wrapping: str, data: st.DataObject
) -> None:
    inner = {"reasoning": reasoning, "selected_aspects": [aspect.name for aspect in aspects]}
    text = wrapping.replace("%s", write({"query_analysis": {"a": reasoning}, "aspects_selection": inner}))
    whole = Selection(tuple(aspects), reasoning)
    assert read_selection(text, KNOWN) == whole
    read = read_selection(text[: data.draw(st.integers(0, len(text)))], KNOWN)
    assert isinstance(read, Unreadable) or read == whole
