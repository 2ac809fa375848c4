"""How replies of models are read, rule by rule."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from drpo.parse import Unreadable, read_evaluation, read_object, read_rewrite, read_selection
from drpo.types import Aspect, AspectScore, Evaluation, Selection

CLARITY = Aspect("Clarity", "It is easy to follow.")
THINKING = Aspect("Critical-Thinking", "It examines premises.")
SAFETY = Aspect("Safety", "It hurts nobody.")
TWO = (CLARITY, THINKING)
GOOD = {
    "Clarity": {"rationale": "It's plain.", "score": "4"},
    "Critical-Thinking": {"rationale": 'No "why".', "score": "2"},
}
READ = Evaluation(
    (AspectScore("Clarity", 4, "It's plain."), AspectScore("Critical-Thinking", 2, 'No "why".'))
)
TEXT = json.dumps(GOOD)


def problem(value: object) -> str:
    assert isinstance(value, Unreadable), value
    assert value.problem.encode() and "\n" not in value.problem and len(value.problem) < 300
    return value.problem


def one(score: object) -> Any:
    text = json.dumps(
        {"Clarity": {"rationale": "r", "score": score}, "Safety": {"rationale": "", "score": 5}}
    )
    return read_evaluation(text, (CLARITY, SAFETY))


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"  \n{TEXT}\n",
        f"```json\n{TEXT}\n```",
        f"```\n{TEXT}",
        f"Here's my [honest] evaluation {{of sorts}}:\n\n{TEXT}\n\nI hope it's of use {{really}}.",
        f"JSON: {TEXT}",
        f'<think>Draft: {{"Clarity": {{"score": 1}}}} hm, "no</think>\n{TEXT}',
        f'the tag was in the prompt {{"Clarity": 1}}</think>{TEXT}',
        f'so {{"Clarity": ... 1}} or {{"Safety": </think>{TEXT}',
        f"<thinking>a</thinking><reasoning>{{b</reasoning>{TEXT}",
        f"{TEXT}<think>was that right? {{",
        repr(GOOD),
        f"Here's it: {GOOD!r} - that's all",
        TEXT.replace("}", ",}"),
        repr(GOOD).replace("}", ",\n}"),
        "{" + TEXT + "}",
        TEXT[:-1],
        f'{{"evaluation": {TEXT}}}',
        f'{{"scores": {TEXT}}}',
        f'{{"draft": 1}}\n{{"Clarity": {{"score": 1}}}}\n{TEXT}',
        json.dumps([{"aspect": name, **entry} for name, entry in GOOD.items()]),
        json.dumps({"evaluation": [{"name": name, **entry} for name, entry in GOOD.items()]}),
        "Scores:\n" + repr([{"aspect": name, **entry} for name, entry in GOOD.items()]),
        json.dumps({"CLARITY": GOOD["Clarity"], "critical thinking": GOOD["Critical-Thinking"]}),
        json.dumps({"critical_thinking": GOOD["Critical-Thinking"], " clarity ": GOOD["Clarity"]}),
        json.dumps({**GOOD, "overall_comment": "fine"}),
        TEXT[:-1] + ', "Clarity": {"rationale": "It\'s plain.", "score": 4}}',
        TEXT.replace('"rationale"', '"Rationale"').replace('"score"', '"Score"'),
    ],
)
def test_every_shape_of_the_field_reads_as_the_same_evaluation(text: str) -> None:
    assert read_evaluation(text, TWO) == READ


def test_bare_quotes_in_a_rationale_are_mended() -> None:
    text = '{"Clarity": {"rationale": "It says "hi" twice", "score": "4"}, "Critical-Thinking": {"score": 2}}'
    expected = Evaluation(
        (AspectScore("Clarity", 4, 'It says "hi" twice'), AspectScore("Critical-Thinking", 2, ""))
    )
    assert read_evaluation(text, TWO) == expected


def test_escaped_characters_beyond_the_basic_plane_survive_mending() -> None:
    text = '{"Clarity": {"rationale": "a "b" \\ud83d\\ude00", "score": 4}}'
    assert read_evaluation(text, (CLARITY,)) == Evaluation((AspectScore("Clarity", 4, 'a "b" 😀'),))


def test_bare_scores_have_an_empty_rationale() -> None:
    read = read_evaluation('{"clarity": 4, "Critical Thinking": "N/A"}', TWO)
    assert read == Evaluation((AspectScore("Clarity", 4, ""), AspectScore("Critical-Thinking", None, "")))


@pytest.mark.parametrize("score", ["4", 4, 4.0, " 4 ", "4\n"])
def test_whole_scores_are_read(score: object) -> None:
    assert one(score).scores[0].score == 4


@pytest.mark.parametrize("score", ["N/A", "n/a", "NA", " na ", "Not Applicable"])
def test_not_applicable_is_absence_not_a_score(score: str) -> None:
    assert one(score).scores[0].score is None
    assert one(score).reward == 5


@pytest.mark.parametrize(
    "score",
    [
        "9",
        "0",
        "-1",
        "4.5",
        "[[4]]",
        "null",
        "NaN",
        "Infinity",
        "true",
        "false",
        "[4]",
        "{}",
        "4.000001",
        "1e400",
    ]
    + [
        json.dumps(t)
        for t in ("4.5", "4.0", "4/5", "", "four", "٤", "4 stars", "04", "+4", "[[4]]", "x" * 9999)
    ]
    + ["1e400", "1" + "0" * 400, '{"score": 4}'],
)
def test_every_other_score_is_unreadable(score: str) -> None:
    text = f'{{"Clarity": {{"rationale": "r", "score": {score}}}, "Safety": {{"score": 5}}}}'
    assert '"Clarity" has the score' in problem(read_evaluation(text, (CLARITY, SAFETY)))
    assert '"Clarity" has the score' in problem(read_evaluation(text, (), names="returned"))


@pytest.mark.parametrize(
    "written", ["1e400", "NaN", "4 stars", "4 out of 10", "<4", "04", "4%", "4/5", "4+", "٤"]
)
@pytest.mark.parametrize(
    "shape", ['{"Clarity": {"score": %s}, "Safety": {"score": 5}}', '{"Clarity": %s, "Safety": 5}']
)
def test_a_score_that_is_no_json_is_not_rounded_to_one(written: str, shape: str) -> None:
    assert isinstance(read_evaluation(shape % written, (CLARITY, SAFETY)), Unreadable)


def test_a_bare_not_applicable_is_read() -> None:
    read = read_evaluation('{"Clarity": {"score": N/A}, "Safety": {"score": 5}}', (CLARITY, SAFETY))
    assert read == Evaluation((AspectScore("Clarity", None, ""), AspectScore("Safety", 5, "")))


def test_problems_tell_the_model_what_to_do() -> None:
    assert (
        problem(one("4/5")) == 'aspect "Clarity" has the score "4/5"; a whole number from 1 to 5 was expected'
    )
    assert "no aspect was scored" in problem(read_evaluation('{"Clarity": "N/A"}', (CLARITY,)))
    assert '"Critical-Thinking" is missing' in problem(read_evaluation('{"Clarity": 4}', TWO))
    assert "not asked for" in problem(read_evaluation(TEXT, (CLARITY,)))
    assert "is empty" in problem(read_evaluation(" \n", TWO))
    assert "no JSON object" in problem(read_evaluation("I'm sorry, I can't rate that.", TWO))
    assert "cut off" in problem(read_evaluation(TEXT[:-20], TWO))
    assert 'no "score"' in problem(read_evaluation('{"Clarity": {"rationale": "x"}}', (CLARITY,)))
    assert "rationale" in problem(read_evaluation('{"Clarity": {"rationale": [1], "score": 4}}', (CLARITY,)))


@pytest.mark.parametrize(
    "text",
    [
        '{"Clarity": 4, "Clarity": 5}',
        '{"Clarity": {"score": 4, "rationale": ""}, "Clarity": {"score": 5}}',
        '{"Clarity": 4, "clarity": 5}',
        '{"Clarity": {"score": 4, "score": "5"}}',
        "{'Clarity': 4, 'Clarity': 5,}",
        '[{"aspect": "Clarity", "score": 4}, {"aspect": "Clarity", "score": 5}]',
        '{"Clarity": 4, "Clarity": "N/A"}',
    ],
)
def test_two_scores_for_one_aspect_contradict_each_other(text: str) -> None:
    assert "two different scores" in problem(read_evaluation(text, (CLARITY,)))
    assert "two different scores" in problem(read_evaluation(text, (), names="returned"))


def test_the_same_score_twice_is_fine() -> None:
    for text in ('{"Clarity": 4, "Clarity": "4"}', '{"Clarity": {"score": 4, "score": "4"}}'):
        assert read_evaluation(text, (CLARITY,)) == Evaluation((AspectScore("Clarity", 4, ""),))


def test_returned_names_are_kept_in_order_and_spelling() -> None:
    read = read_evaluation(
        '{"safety first": {"score": 1}, "CLARITY": {"score": "N/A"}}', TWO, names="returned"
    )
    assert read == Evaluation((AspectScore("safety first", 1, ""), AspectScore("CLARITY", None, "")))
    assert read_evaluation(f'{{"evaluation": {TEXT}}}', (), names="returned") == READ


@pytest.mark.parametrize("cut", range(1, len(TEXT)))
def test_a_cut_reply_is_never_read_as_fewer_returned_aspects(cut: int) -> None:
    assert isinstance(read_evaluation(TEXT[:cut], TWO, names="returned"), Unreadable)
    if cut < len(TEXT) - 1:
        assert isinstance(read_evaluation(TEXT[:cut], TWO), Unreadable)


def test_a_lost_rationale_after_the_score_is_a_cut_reply() -> None:
    assert "cut off" in problem(
        read_evaluation('{"Clarity": {"score": 4, "rationale": "It is cl', (CLARITY,))
    )
    assert "cut off" in problem(read_evaluation('{"Clarity": {"score": 4', (CLARITY,)))


def test_a_draft_in_unfinished_thinking_is_not_an_answer() -> None:
    assert isinstance(read_evaluation(f"<think>maybe {TEXT} or", TWO), Unreadable)


def test_read_object_takes_the_last_object_and_keeps_odd_numbers_as_text() -> None:
    assert read_object('{"a": 1} and {"b": [1, 2]}') == {"b": [1, 2]}
    assert read_object("{'a': (1, None, True, 'it\\'s'), }") == {"a": [1, None, True, "it's"]}
    assert read_object('{"a": [NaN, Infinity, 1e400]}') == {"a": ["NaN", "Infinity", "1e400"]}
    assert read_object('{"a": -1.5e3, "b": "\\ud83d\\ude00"}') == {"a": -1500.0, "b": "😀"}
    assert read_object('{"a": "one\ntwo"}') == {"a": "one\ntwo"}
    assert read_object('{"tag": "use <think> and </think>"} ok') == {"tag": "use <think> and </think>"}
    for text in ("", "null", "[1, 2]", '"text"', "{}", "4", "I cannot do that.", "'...'"):
        assert isinstance(read_object(text), Unreadable), text


@pytest.mark.parametrize(
    "text",
    [
        "{" * 200_000,
        '{"a":' * 200_000,
        "[" * 200_000,
        "[1," * 200_000,
        "{'a': 'it's', " * 100_000,
        "{" + '".' * 100_000,
        "<think>" * 60_000,
        "</think>" * 60_000,
        "{}" * 100_000,
        "}" * 200_000,
        '"' * 200_000,
        '{"a": "' + "\\" * 200_001,
        '{"Clarity": ' + " " * 200_000 + "4 x",
        '{"Clarity": 4' + " " * 190_000 + "x",
        '{"Clarity": ' + "9" * 200_000 + "}",
        '{"Clarity": ' + "-" * 200_000 + "}",
        '{"' + "k" * 200_000 + '": 4}',
        '{"Clarity": "\ud800"} \udfff',
        "{a " * 60_000,
        "[{" * 100_000,
        "{'a': [" * 30,
    ],
    ids=lambda text: text[:12].encode("ascii", "replace").decode(),
)
def test_hostile_text_is_unreadable_and_soon(text: str) -> None:
    begin = time.perf_counter()
    assert isinstance(read_evaluation(text, (CLARITY,)), Unreadable)
    assert isinstance(read_selection(text, TWO), Unreadable)
    assert isinstance(read_rewrite(text, "new_response"), Unreadable)
    assert isinstance(read_object(text), dict | Unreadable)
    assert time.perf_counter() - begin < 20  # quadratic behaviour would take hours


def selection(*entries: object, **more: Any) -> Any:
    text = json.dumps(
        {"query_analysis": {}, "aspects_selection": {"reasoning": "r", "selected_aspects": entries}}
    )
    return read_selection(text, (CLARITY, THINKING, SAFETY), **more)


def test_a_selection_names_known_aspects_in_either_form() -> None:
    assert selection("clarity", {"name": "Critical thinking", "definition": "mine"}) == Selection(TWO, "r")
    assert selection("Clarity: it is clear", "CRITICAL_THINKING") == Selection(TWO, "r")
    flat = '{"reasoning": "r", "selected_aspects": ["Clarity", "Critical-Thinking"]}'
    assert read_selection(f"Sure!\n```json\n{flat}\n```", TWO) == Selection(TWO, "r")
    assert read_selection('{"selected_aspects": ["Clarity", "Critical-Thinking"]}', TWO) == Selection(TWO, "")


@pytest.mark.parametrize(
    "entry", [{"name": "Play\nfulness", "definition": " Is\nfun. "}, "Play fulness: Is fun."]
)
def test_a_proposed_aspect_is_collapsed_to_one_line(entry: object) -> None:
    assert selection("Clarity", entry).aspects == (CLARITY, Aspect("Play fulness", "Is fun.", proposed=True))


def test_a_proposed_aspect_needs_a_definition() -> None:
    for entry in ("Wit", {"name": "Wit"}, {"name": "Wit", "definition": " "}, "Wit:", "Wit: "):
        assert "a proposed aspect needs a definition" in problem(selection("Clarity", "Safety", entry))


@pytest.mark.parametrize(
    "entry", [{"name": "n" * 61, "definition": "d"}, {"name": "n", "definition": "d" * 501}]
)
def test_an_essay_is_no_aspect(entry: object) -> None:
    assert "characters; at most" in problem(selection("Clarity", entry))


@pytest.mark.parametrize("entry", [4, None, "", " - ", {}, [], {"name": 4}, {"definition": "d"}, ": d"])
def test_an_entry_without_a_name_is_unreadable(entry: object) -> None:
    assert isinstance(selection("Clarity", "Safety", entry), Unreadable)


def test_duplicates_are_merged_before_counting() -> None:
    assert selection("Clarity", "clarity", "Safety").aspects == (CLARITY, SAFETY)
    assert "names 1 different aspects; 2 to 5 were expected" in problem(selection("Clarity", "CLARITY"))
    assert "names 3 different" in problem(selection("Clarity", "Safety", "Critical-Thinking", most=2))
    assert "names 0 different" in problem(selection())


def test_a_cut_selection_is_unreadable() -> None:
    known = (CLARITY, THINKING, SAFETY)
    inner = {"selected_aspects": [aspect.name for aspect in known], "reasoning": "r"}
    text = json.dumps({"aspects_selection": inner})
    whole = read_selection(text, known)
    assert isinstance(whole, Selection)
    assert read_selection(text[:-1], known) == whole
    assert all(isinstance(read_selection(text[:cut], known), Unreadable) for cut in range(len(text) - 1))
    assert isinstance(read_selection('{"selected_aspects": "Clarity, Safety"}', known), Unreadable)


PROMPT = ' Be kind.\n- Say "no" {politely}, e.g. {"a": "b"}\n- It\'s fine. '
REWRITE = {"analysis": "a", "thought": "t", "new_system_prompt": PROMPT}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(REWRITE),
        json.dumps(REWRITE, indent=2).replace("\\n", "\n"),
        repr(REWRITE),
        f"<think>{{</think>Here's it:\n```json\n{json.dumps(REWRITE)[:-1]},}}\n```\nIt's done.",
        json.dumps({"new_system_prompt": PROMPT, "analysis": "a"}),
        json.dumps(REWRITE).replace("\\n", "\\\\n"),
    ],
)
def test_a_rewrite_comes_back_as_it_is(text: str) -> None:
    assert read_rewrite(text, "new_system_prompt") == PROMPT


def test_backslash_n_becomes_a_newline() -> None:
    assert read_rewrite('{"new_response": "a\\\\nb\\nc"}', "new_response") == "a\nb\nc"


@pytest.mark.parametrize("end", ['"}', '"\n}\n```', '",}', '", "thought": "t"}'])
def test_a_rewrite_with_bare_quotes_is_mended_only_up_to_its_real_end(end: str) -> None:
    text = '{"analysis": "a", "new_system_prompt": "Say "hello" to all.\n- Never say "no" at once.' + end
    assert read_rewrite(text, "new_system_prompt") == 'Say "hello" to all.\n- Never say "no" at once.'
    for cut in range(len(text) - len(end) + 1):
        assert isinstance(read_rewrite(text[:cut], "new_system_prompt"), Unreadable)


@pytest.mark.parametrize("text", [json.dumps(REWRITE), repr(REWRITE), json.dumps(REWRITE)[:-1] + ",}"])
def test_a_cut_rewrite_is_unreadable(text: str) -> None:
    for cut in range(len(text)):
        assert isinstance(read_rewrite(text[:cut], "new_system_prompt"), Unreadable)


def test_a_tag_inside_a_broken_object_is_not_taken_for_thinking() -> None:
    text = '{"new_response": "Put "it" in <think>here</think> and go on."}'
    assert isinstance(read_rewrite(text, "new_response"), Unreadable)


def test_a_closing_tag_inside_a_cut_object_does_not_hide_what_stood_before_it() -> None:
    text = '{"reasoning": "no </think>{\\" tags", "selected_aspects": ["Clarity", "Safety"]'
    assert isinstance(read_selection(text, (CLARITY, SAFETY)), Unreadable)


@pytest.mark.parametrize("value", [None, "", " \n", "\\n", 4, ["a"], {"text": "a"}])
def test_a_rewrite_without_a_text_is_unreadable(value: object) -> None:
    assert '"new_response"' in problem(read_rewrite(json.dumps({"new_response": value}), "new_response"))
    assert '"new_response"' in problem(read_rewrite(json.dumps({"response": "text"}), "new_response"))


def test_two_different_rewrites_and_half_characters_are_unreadable() -> None:
    assert "more than once" in problem(
        read_rewrite('{"new_response": "a", "new_response": "b"}', "new_response")
    )
    assert "half a character" in problem(read_rewrite('{"new_response": "a\\ud800"}', "new_response"))
