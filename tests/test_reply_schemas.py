"""A reply that a server held to its schema is readable; the schema asks for no more than the reader needs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from drpo.parse import LONGEST_NAME, Unreadable, read_evaluation, read_rewrite, read_selection
from drpo.reply_schemas import evaluation_schema, rewrite_schema, selection_schema
from drpo.templates import Templates
from drpo.types import Aspect, AspectScore, Evaluation
from tests.test_parse_properties import KNOWN, TEXTS

FIELDS = st.sampled_from(["new_system_prompt", "new_response"])
BOOK = Templates().book.aspects
CHATTY = ('So-called "depth"', "back\\slash", "score", "Überblick 😀", "name", "{}")
ASPECTS = st.lists(
    st.sampled_from([*KNOWN, *(Aspect(name, "About it.", proposed=True) for name in CHATTY)]),
    min_size=1,
    max_size=5,
    unique=True,
)
EVALUATION = {"Depth": {"rationale": "Weak on depth.", "score": 2}}


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Whatever satisfies `schema` as a grammar-guided server reads it: no other keys, keys in their order."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([values(choice) for choice in schema["anyOf"]])
    if schema["type"] == "string":
        shortest, longest = schema.get("minLength", 0), schema.get("maxLength")
        return (
            st.text(min_size=shortest, max_size=longest) if {"minLength", "maxLength"} & {*schema} else TEXTS
        )
    if schema["type"] == "array":
        return st.lists(values(schema["items"]), min_size=schema["minItems"], max_size=schema["maxItems"])
    assert schema["type"] == "object"
    members = {name: values(inner) for name, inner in schema["properties"].items()}
    required = schema.get("required", [])
    left_out = st.sets(st.sampled_from([*(members.keys() - {*required}), ""]))
    return left_out.flatmap(
        lambda without: st.fixed_dictionaries({k: v for k, v in members.items() if k not in without})
    )


def admits(schema: dict[str, Any], value: Any) -> bool:
    """Whether `value` satisfies `schema`, as above."""
    if "enum" in schema:
        return value in schema["enum"]
    if "anyOf" in schema:
        return any(admits(choice, value) for choice in schema["anyOf"])
    if schema["type"] == "string":
        most = schema.get("maxLength", 10**9)
        return isinstance(value, str) and schema.get("minLength", 0) <= len(value) <= most
    if schema["type"] == "array":
        fits = isinstance(value, list) and schema["minItems"] <= len(value) <= schema["maxItems"]
        return fits and all(admits(schema["items"], item) for item in value)
    if not isinstance(value, dict) or not {*schema.get("required", [])} <= value.keys():
        return False
    ordered = [name for name in schema["properties"] if name in value]
    return list(value) == ordered and all(admits(schema["properties"][k], v) for k, v in value.items())


def folded(name: str) -> str:
    return "".join(character for character in name if character not in " \t\r\n-_").casefold()


def written(data: st.DataObject, schema: str) -> Any:
    return data.draw(values(json.loads(schema)))


@given(st.data(), ASPECTS)
def test_an_evaluation_that_satisfies_its_schema_is_readable(
    data: st.DataObject, asked: list[Aspect]
) -> None:
    value = written(data, evaluation_schema(asked))
    found = read_evaluation(json.dumps(value), asked)
    assert isinstance(found, Evaluation)
    for score in found.scores:
        given = value[score.aspect]
        assert (str(score.score), score.rationale) == (given["score"], given.get("rationale", ""))


@given(st.data())
def test_a_selection_that_satisfies_its_schema_is_readable_if_its_aspects_differ(data: st.DataObject) -> None:
    value = written(data, selection_schema(KNOWN))
    selected = value["aspects_selection"]["selected_aspects"]
    assume(all(isinstance(item, str) or item["definition"].strip() for item in selected))
    names = {folded(item if isinstance(item, str) else item["name"]) for item in selected}
    assume("" not in names)
    assert isinstance(read_selection(json.dumps(value), KNOWN), Unreadable) == (len(names) < 2)


@given(st.data(), FIELDS)
def test_a_new_text_that_satisfies_its_schema_is_readable_unless_blank(
    data: st.DataObject, field: str
) -> None:
    value = written(data, rewrite_schema(field))
    text = value[field].replace("\\n", "\n")
    found = read_rewrite(json.dumps(value), field)
    assert isinstance(found, Unreadable) if not text.strip() else found == text


def test_what_a_reader_needs_is_enough() -> None:
    """The reply to another template, which asks for no reasons."""
    depth, clarity = Aspect("Depth", "d"), Aspect("Clarity", "c")
    scored = {"Clarity": {"score": "4"}, "Depth": {"score": "1"}}
    assert admits(json.loads(evaluation_schema([clarity, depth])), scored)
    found = read_evaluation(json.dumps(scored), [clarity, depth])
    assert found == Evaluation((AspectScore("Clarity", 4, ""), AspectScore("Depth", 1, "")))
    selected = {"aspects_selection": {"selected_aspects": ["Depth", {"name": "Wit", "definition": "w"}]}}
    assert admits(json.loads(selection_schema([depth, clarity])), selected)
    assert not isinstance(read_selection(json.dumps(selected), [depth, clarity]), Unreadable)
    assert admits(json.loads(rewrite_schema("new_response")), {"new_response": "Better."})
    assert read_rewrite('{"new_response": "Better."}', "new_response") == "Better."


@pytest.mark.parametrize("missing", ["Depth", "Clarity"])
def test_every_asked_aspect_needs_its_score(missing: str) -> None:
    asked = [Aspect("Depth", "d"), Aspect("Clarity", "c")]
    scored = {aspect.name: {"rationale": "r", "score": "4"} for aspect in asked if aspect.name != missing}
    assert not admits(json.loads(evaluation_schema(asked)), scored)
    assert not admits(json.loads(evaluation_schema(asked)), {**scored, missing: {"rationale": "r"}})


@pytest.mark.parametrize("score", ["0", "6", "4.5", "N/A", "", 4])
def test_a_score_is_a_text_from_1_to_5(score: object) -> None:
    assert not admits(json.loads(evaluation_schema([Aspect("Depth", "d")])), {"Depth": {"score": score}})


def test_a_proposed_name_is_as_long_as_the_reader_takes_it() -> None:
    def reply(length: int) -> Any:
        proposed = {"name": "x" * length, "definition": "d"}
        return {"aspects_selection": {"selected_aspects": [proposed, BOOK[0].name]}}

    for length, taken in ((LONGEST_NAME, True), (LONGEST_NAME + 1, False), (0, False)):
        assert admits(json.loads(selection_schema(BOOK)), reply(length)) == taken
        assert isinstance(read_selection(json.dumps(reply(length)), BOOK), Unreadable) != taken


def test_a_book_without_aspects_leaves_proposals() -> None:
    proposed = [{"name": name, "definition": "d"} for name in ("Wit", "Warmth")]
    schema = json.loads(selection_schema([]))
    assert admits(schema, {"aspects_selection": {"selected_aspects": proposed}})
    assert not admits(schema, {"aspects_selection": {"selected_aspects": ["Wit", "Warmth"]}})


def test_any_number_of_aspects_has_no_upper_end() -> None:
    schema = json.loads(selection_schema(BOOK, 1, sys.maxsize))
    selected = schema["properties"]["aspects_selection"]["properties"]["selected_aspects"]
    assert (selected["minItems"], "maxItems" in selected) == (1, False)


def shapes() -> Iterator[tuple[str, str, Any]]:
    """Job, schema and the shape of a reply that its shipped template shows."""
    templates = Templates()
    texts: dict[str, Any] = {"query": "q", "response": "r", "reasoning": "", "history": "h"}
    known = {"aspects": BOOK, "fewest": 2, "most": 5}
    prompt = {"system_prompt": "s", "protected": (), "most_bullets": 8, "most_new_bullets": 2}
    of_job: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
        "evaluate": ({"aspects": BOOK}, ("query", "response", "reasoning"), evaluation_schema(BOOK)),
        "choose_aspects": (known, ("query",), selection_schema(BOOK)),
        "improve_system_prompt": (
            prompt,
            ("query", "response", "history"),
            rewrite_schema("new_system_prompt"),
        ),
        "improve_response": ({}, ("query", "response", "history"), rewrite_schema("new_response")),
    }
    for job, (filled, names, schema) in of_job.items():
        more = {"evaluation": EVALUATION} if job.startswith("improve") else {}
        page = templates.render(job, **{**filled, **more, **{name: texts[name] for name in names}})
        shown = page[page.index("{", page.index("of exactly this shape")) :]
        shown = shown.replace('"1 to 5"', '"3"').replace('"name of a known aspect"', '"Depth"')
        yield job, schema, json.JSONDecoder().raw_decode(shown)[0]


@pytest.mark.parametrize(("job", "schema", "shape"), [*shapes()], ids=[job for job, _, _ in shapes()])
def test_the_shape_that_a_shipped_template_shows_satisfies_the_schema(
    job: str, schema: str, shape: Any
) -> None:
    assert admits(json.loads(schema), shape)
    assert_uses_every_key(json.loads(schema), shape)


def assert_uses_every_key(schema: dict[str, Any], shape: Any) -> None:
    for name, inner in schema.get("properties", {}).items():
        assert name in shape
        assert_uses_every_key(inner, shape[name])


@pytest.mark.parametrize("field", ["new_system_prompt", "new_response"])
def test_nothing_is_said_about_a_new_text_that_would_cost_it_its_newlines(field: str) -> None:
    """xgrammar 0.2.8 admits no escapes in a string that has a length or a pattern."""
    assert json.loads(rewrite_schema(field))["properties"][field] == {"type": "string"}


def test_one_question_has_one_spelling_and_its_order_is_kept() -> None:
    asked = [Aspect("b", "d"), Aspect("a", "d")]
    text = evaluation_schema(asked)
    assert text == evaluation_schema(tuple(asked)) != evaluation_schema(asked[::-1])
    assert text.isascii() and " " not in text and list(json.loads(text)["properties"]) == ["b", "a"]
