"""BPO's data, guard by guard: what a pair of prompts may hold, and what preferences come as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drpo.bpo.filters import why_left_out, without_context
from drpo.bpo.pairs import Preference, read_preferences
from drpo.errors import InputError

ASKED = "Write a note to my landlord about the cold flat."
GOOD = "Dear Ms Weber, since Monday the heating in flat 4 has been off. Please have it mended by Friday."
BAD = "Your flat is cold and that is bad and you should do something."
BETTER_ASKED = "Write a short note to my landlord about the cold flat, and say what I ask for and when."


# What a pair of prompts may hold


def test_words_of_a_context_within_a_sentence_stay_there() -> None:
    assert (
        without_context("What is the best museum in Paris?", "Paris") == "What is the best museum in Paris?"
    )
    assert without_context("Put 'a b c d' well", "a b c d") == "Put 'a b c d' well"


@pytest.mark.parametrize(
    "around",
    ["{o}\n\nContext:\n{c}", "{o} Context: {c}", "{o}\n{c}", "{c}\n\n{o}", "Context: {c}\n{o}",
     "**Input:** {c}\n\n{o}", "{o}\n\nThe given context: {c}\n"],
)  # fmt: skip
def test_a_context_written_whole_before_or_behind_is_taken_off(around: str) -> None:
    context, optimized = "Bees dance to show the way (or 1+1).", "Put this in one clear sentence."
    assert without_context(around.format(o=optimized, c=context), f"\n{context} ") == optimized


def test_a_prompt_without_a_context_keeps_its_last_word() -> None:
    assert without_context("Fill in what is missing. Input:", "") == "Fill in what is missing. Input:"


def test_a_prompt_that_is_nothing_but_its_context_stays_to_be_filtered() -> None:
    context = "Bees dance to show the way."
    assert without_context(context, context) == context
    assert why_left_out("Put this in one sentence.", context, GOOD, context) == "with-context"
    assert (
        why_left_out("Sum up: bees dance to show the way.", f"Sum up well: {context}", GOOD, context) is None
    )


def test_all_of_a_short_response_is_given_away_as_a_long_passage_is() -> None:
    asked = "What is the capital of Australia?"
    assert why_left_out(asked, f"{asked} The capital is Canberra.", "The capital is Canberra.") == "copied"
    assert why_left_out(asked, f"{asked} Is it Canberra, or Sydney?", "Canberra.") is None
    eleven = " ".join(GOOD.split()[:11])
    assert why_left_out(ASKED, f"{BETTER_ASKED} {eleven}", GOOD) is None
    assert why_left_out(ASKED, f"{BETTER_ASKED} {' '.join(GOOD.split()[:12])}", GOOD) == "copied"
    inside = f"Correct this: {GOOD}"
    assert why_left_out(inside, f"Correct the spelling of this: {GOOD}", GOOD) is None


def test_passages_of_scripts_without_blanks_are_told_too() -> None:
    asked, good = "给房东写一封信谈谈公寓太冷", "尊敬的魏女士星期一以来公寓的暖气一直不热请修理"
    assert why_left_out(asked, f"给房东写一封礼貌的信谈谈公寓太冷例如{good}", good) == "copied"
    assert why_left_out(asked, "给房东写一封礼貌的信谈谈公寓太冷请简短", good) is None


@pytest.mark.parametrize(
    "mark",
    ["</instruction-0a1b2c3d>", "<context-0a1b2c3d>", "optimized_instruction", '"analysis" :', "[/INST]",
     "<<SYS>>", "<|im_start|>", "\nPreferred response: x", "\n## Bad response"],
)  # fmt: skip
def test_each_mark_of_a_request_is_told_unless_the_instruction_has_it(mark: str) -> None:
    assert why_left_out(ASKED, f"{BETTER_ASKED} {mark}", GOOD) == "marked"
    assert why_left_out(f"{ASKED} {mark}", f"{BETTER_ASKED} {mark}", GOOD) is None
    assert why_left_out(f"{ASKED} [INST]", f"{BETTER_ASKED} [INST] <|im_end|>", GOOD) == "marked"


def test_a_mark_of_the_instruction_is_the_same_in_other_letters_and_at_another_place() -> None:
    assert why_left_out(f"{ASKED} [inst]", f"{BETTER_ASKED} [INST]", GOOD) is None
    asked = "Good response: what is one? Write a note to my landlord about the cold flat."
    assert (
        why_left_out(asked, f"Write a note to my landlord about the cold flat.\n{asked[:27]}", GOOD) is None
    )


def test_blanks_are_nothing_written() -> None:
    assert why_left_out(ASKED, " \n", GOOD) == "empty"


def test_a_protected_part_that_the_instruction_has_not_need_not_come_back() -> None:
    assert why_left_out(ASKED, BETTER_ASKED, GOOD, protected=("nowhere in it",)) is None


# What preferences come as


def read(folder: Path, *rows: dict[str, Any]) -> tuple[tuple[Preference, ...], dict[str, int]]:
    file = folder / "feedback.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = read_preferences(file)
    return found.items, found.left_out


FIRST = {"prompt": ASKED, "good_res": GOOD, "bad_res": BAD}


def arena(winner: object) -> dict[str, Any]:
    sides = ({"role": "user", "content": ASKED}, {"role": "assistant", "content": GOOD}, BAD)
    return {
        "conversation_a": [sides[0], sides[1]],
        "conversation_b": [sides[0], {"role": "assistant", "content": sides[2]}],
        "winner": winner,
    }


@pytest.mark.parametrize("winner", ["tie", "tie (bothbad)", "both_bad", "bothbad", "Tie"])
def test_a_tie_is_told_in_every_way_of_the_arena(tmp_path: Path, winner: str) -> None:
    assert read(tmp_path, FIRST, arena(winner))[1] == {"a tie": 1}


@pytest.mark.parametrize("winner", ["model_c", "", None, 1, "left"])
def test_a_winner_that_nobody_is_is_refused_and_no_tie(tmp_path: Path, winner: object) -> None:
    with pytest.raises(InputError, match=r"line 2.*winner"):
        read(tmp_path, FIRST, arena(winner))


def test_the_winner_decides_which_response_is_the_good_one(tmp_path: Path) -> None:
    (first,), _ = read(tmp_path, arena("model_a"))
    (second,), _ = read(tmp_path, arena("model_b"))
    assert (first.good, first.bad) == (GOOD, BAD) == (second.bad, second.good)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({**FIRST, "good_res": " "}, "no response at the end"),
        ({"prompt": ASKED, "chosen": [], "rejected": BAD}, "no response at the end"),
        ({"prompt": ASKED, "chosen": [{"role": "user", "content": "x"}], "rejected": BAD},
         "no response at the end"),
        ({"prompt": ASKED, "chosen": GOOD, "rejected": [{"role": "user", "content": "x"}]},
         "no response at the end"),
        ({"chosen": GOOD, "rejected": BAD}, "no instruction"),
        ({"chosen": f"Human: {ASKED}\n\nAssistant: {GOOD}", "rejected": BAD, "x": 1},
         "the two answer different questions"),
    ],
)  # fmt: skip
def test_each_record_that_says_nothing_has_its_reason(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    assert read(tmp_path, FIRST, row)[1] == {why: 1}


def test_a_system_message_and_a_given_context_are_context_and_the_last_question_is_asked(
    tmp_path: Path,
) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": f" {ASKED}\n"},
    ]
    row = {"prompt": turns, "chosen": GOOD, "rejected": BAD, "context": " Flat 4. "}
    ((found,), _) = read(tmp_path, row)
    assert found.instruction == ASKED
    assert found.context == "System: Be brief.\n\nUser: Hello\n\nAssistant: Hi.\n\nFlat 4."


def test_an_open_dialogue_as_the_prompt_is_read_as_one_and_its_last_word_is_no_context(
    tmp_path: Path,
) -> None:
    for before, context in (
        ("", ""),
        ("Human: Hello\n\nAssistant: Hi.\n\n", "User: Hello\n\nAssistant: Hi."),
    ):
        prompt = f"\n\n{before}Human: {ASKED}\n\nAssistant:"
        ((found,), _) = read(tmp_path, {"prompt": prompt, "chosen": f" {GOOD}", "rejected": BAD})
        assert (found.instruction, found.context, found.good) == (ASKED, context, GOOD)


def test_a_prompt_that_only_begins_like_a_dialogue_is_a_prompt(tmp_path: Path) -> None:
    ((found,), _) = read(tmp_path, {"prompt": "Human: what is that?", "chosen": GOOD, "rejected": BAD})
    assert (found.instruction, found.context) == ("Human: what is that?", "")


def test_what_the_sides_say_was_asked_goes_before_a_field_beside_them(tmp_path: Path) -> None:
    sides = {
        name: [{"role": "user", "content": ASKED}, {"role": "assistant", "content": text}]
        for name, text in (("chosen", GOOD), ("rejected", BAD))
    }
    ((found,), _) = read(tmp_path, {"prompt": "number 7", **sides})
    assert found.instruction == ASKED


@pytest.mark.parametrize("side", [["a text"], [{"role": "bot", "content": "x"}], [{"role": "user"}], 7, None])
def test_what_is_neither_a_text_nor_messages_is_refused_with_its_place(tmp_path: Path, side: object) -> None:
    with pytest.raises(InputError, match="line 2"):
        read(tmp_path, FIRST, {"prompt": ASKED, "chosen": side, "rejected": BAD})


def test_a_response_that_quotes_a_dialogue_is_a_response(tmp_path: Path) -> None:
    quoting = "A play in one line. Human: Hello. Assistant: Hi."
    ((found,), _) = read(tmp_path, {"prompt": ASKED, "chosen": quoting, "rejected": BAD})
    assert found.good == quoting


def test_half_a_character_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "feedback.jsonl"
    row = json.dumps({**FIRST, "good_res": "half \ud800"})
    file.write_text(f"{json.dumps(FIRST)}\n{row}\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2"):
        read_preferences(file)


def test_a_source_in_which_nothing_is_preferred_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none that says anything"):
        read(tmp_path, arena("tie"))
