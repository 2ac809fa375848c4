"""Rewriters: what of a rewrite stands, rounds, weights, names, memory; what is spoilt gives the query."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drpo.align_pro.closed_form import optimal
from drpo.ask import Asker
from drpo.compose import Sampling
from drpo.errors import InputError
from drpo.llm.base import Request
from drpo.rewriting.asking import Format, Writer
from drpo.rewriting.bpo import BpoRewriter
from drpo.rewriting.checks import cleaned, why_kept, word_count, words_left
from drpo.rewriting.contract import Rewrite
from drpo.rewriting.naming import FACTS_NAME, read_rewriter_name
from drpo.rewriting.remembering import Remembering
from drpo.rewriting.templates import RewriteTemplates
from drpo.rewriting.weighing import WeighedPrompter
from drpo.templates import Templates
from drpo.testing import Answer, Script, ScriptedLLM

QUERY = "how do i grow tomatoes on a balcony"
BETTER = "How do I grow tomatoes on a small balcony? Please go step by step."


def writer(script: Script | Sequence[Answer], format: Format = "improve", **changed: Any) -> Writer:
    llm = ScriptedLLM(script)
    return Writer(
        Asker(llm, Templates()), "m", format, RewriteTemplates(), Sampling(0.6, 0.9, 500), **changed
    )


def asked_of(one: Writer) -> list[Request]:
    assert isinstance(one.asker.llm, ScriptedLLM)
    return one.asker.llm.requests


def improved(text: str) -> str:
    return json.dumps({"analysis": "unclear", "rewritten_query": text})


# What stands


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BETTER, ""),
        (QUERY, ""),
        ("", "empty"),
        (" \n", "empty"),
        ("I'm sorry, but I can't help with growing tomatoes on a balcony.", "answered"),
        ("Sure, tomatoes on a balcony grow best in the sun.", "answered"),
        ("Here are 5 steps to grow tomatoes on a balcony: water them.", "answered"),
        ("As an AI language model I cannot grow tomatoes on a balcony.", "answered"),
        ("How do I bake bread in a cold oven at night?", "lost"),
        ("tomatoes?", "lost"),
        (BETTER + " and more" * 60, "longer"),
    ],
)
def test_a_rewrite_stands_unless_it_answers_or_loses_or_swells(text: str, why: str) -> None:
    assert why_kept(QUERY, text) == why


def test_a_query_that_itself_begins_like_an_answer_may_be_rewritten_so() -> None:
    query = "Here is a text. Correct its spelling: teh cat sat."
    assert why_kept(query, "Here is a text. Please correct its spelling, and only that: teh cat sat.") == ""


def test_vectors_decide_over_words_where_there_are_any() -> None:
    assert why_kept(QUERY, "Comment cultiver des légumes rouges chez soi ?", share=0.8) == ""
    assert why_kept(QUERY, BETTER, share=0.2) == "lost"


def test_scripts_without_blanks_are_measured_too() -> None:
    assert words_left("如何在阳台上种番茄", "请一步一步告诉我如何在阳台上种番茄") == 1.0
    assert words_left("如何在阳台上种番茄", "今天天气很好我们去公园") == 0.0
    assert word_count("如何在阳台上种番茄") == 5


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_no_text_breaks_the_checks_and_a_query_always_stands_for_itself(query: str, text: str) -> None:
    why_kept(query, text)
    cleaned(text, query)
    assert 0.0 <= words_left(query, text) <= 1.0
    if query.strip():
        assert why_kept(query, query) == ""


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (f'"{BETTER}"', BETTER),
        (f"Rewritten query: {BETTER}", BETTER),
        (f"**Improved prompt:** {BETTER}", BETTER),
        ('"Yes" or "no"?', '"Yes" or "no"?'),
    ],
)
def test_labels_and_quotes_around_a_plain_reply_are_taken_off(reply: str, text: str) -> None:
    assert cleaned(reply, QUERY) == text


# BPO


async def test_one_round_asks_once_at_the_published_sampling() -> None:
    one = writer([improved(BETTER)])
    (found,) = await BpoRewriter(one).rewrite(QUERY)
    assert (found.text, found.kept, found.rounds, found.weight) == (BETTER, "", (BETTER,), 1.0)
    (request,) = asked_of(one)
    assert (request.temperature, request.top_p, request.role) == (0.6, 0.9, "rewriter")
    assert request.seed is not None and QUERY in request.messages[0].content


async def test_rounds_go_on_from_what_was_written_and_are_all_kept() -> None:
    texts = [BETTER, BETTER + " Name the pot size.", BETTER + " Name the pot size and the soil."]
    one = writer([improved(text) for text in texts])
    (found,) = await BpoRewriter(one, rounds=3).rewrite(QUERY)
    assert found.rounds == tuple(texts) and found.text == texts[-1]
    assert BETTER in asked_of(one)[1].messages[0].content
    assert len({request.seed for request in asked_of(one)}) == 3


async def test_a_bad_round_ends_the_rounds_and_the_last_good_one_is_used() -> None:
    one = writer([improved(BETTER), improved("How do I bake bread?"), improved("never asked")])
    (found,) = await BpoRewriter(one, rounds=3).rewrite(QUERY)
    assert (found.text, found.kept, found.rounds) == (BETTER, "", (BETTER,))
    assert len(asked_of(one)) == 2


async def test_small_losses_do_not_add_up_over_rounds() -> None:
    query = "compare apples pears plums cherries grapes melons for a winter garden"
    less = "compare apples pears plums cherries grapes for a winter garden"
    still_less = "compare apples pears plums in a winter tale please do it"
    gone = "compare apples in a tale please do it well my friend"
    one = writer([improved(less), improved(still_less), improved(gone)])
    (found,) = await BpoRewriter(one, rounds=3).rewrite(query)
    assert found.rounds == (less, still_less)


async def test_an_unchanged_round_ends_the_rounds() -> None:
    one = writer([improved(BETTER), improved(BETTER)])
    (found,) = await BpoRewriter(one, rounds=5).rewrite(QUERY)
    assert found.text == BETTER and len(asked_of(one)) == 2


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (improved("Sure, buy a pot and plant tomatoes on a balcony."), "answered"),
        (improved("Bake bread at night in a cold oven of stone."), "lost"),
    ],
)
async def test_what_cannot_stand_gives_the_query_back_with_the_reason(reply: str, why: str) -> None:
    (found,) = await BpoRewriter(writer([reply])).rewrite(QUERY)
    assert (found.text, found.kept, found.is_changed) == (QUERY, why, False)


async def test_an_unreadable_reply_is_asked_for_again_and_then_gives_the_query_back() -> None:
    one = writer(["no json at all", "still none"])
    (found,) = await BpoRewriter(one).rewrite(QUERY)
    assert ((found.text, found.kept) == (QUERY, "failed") and "rewritten_query" in found.note) or found.note
    assert len(asked_of(one)) == 2


async def test_a_careful_rewriter_may_lose_less_than_a_bold_one() -> None:
    query = "compare apples pears plums cherries grapes"
    third = "please compare the apples with the pears on a good day"
    for mode, why in (("stable", ""), ("aggressive", "")):
        (found,) = await BpoRewriter(writer([improved(third)], mode=mode)).rewrite(query)
        assert found.kept == why
    quarter = "please weigh apples, pears and other fruit on a good day"
    assert (await BpoRewriter(writer([improved(quarter)], mode="stable")).rewrite(query))[0].kept == "lost"
    assert (await BpoRewriter(writer([improved(quarter)], mode="aggressive")).rewrite(query))[0].kept == ""


async def test_a_trained_rewriter_is_asked_in_the_form_of_its_training() -> None:
    page = writer([BETTER], "apply", form="text")
    (found,) = await BpoRewriter(page).rewrite(QUERY)
    assert found.text == BETTER
    assert asked_of(page)[0].prompt == RewriteTemplates().apply(QUERY)
    chat = writer([BETTER], "apply")
    await BpoRewriter(chat).rewrite(QUERY)
    assert [m.content for m in asked_of(chat)[0].messages] == [RewriteTemplates().apply(QUERY)]


# Align-Pro


async def rewards(query: str, text: str) -> float | None:
    return {BETTER: 4.0, QUERY: 2.0, "what about tomatoes on a balcony please": 3.0}.get(text)


SAMPLES = [BETTER, "what about tomatoes on a balcony please", BETTER, "Sure, tomatoes like the sun."]


async def test_samples_are_weighed_by_the_closed_form_and_a_spoilt_one_counts_as_the_query() -> None:
    one = writer([SAMPLES], "prompter")
    found = await WeighedPrompter(one, rewards, 4, 0.5, "best").rewrite(QUERY)
    expected = optimal([0.5, 0.25, 0.25], [4.0, 3.0, 2.0], 0.5).probabilities
    assert [each.text for each in found] == [BETTER, SAMPLES[1], QUERY]
    assert [each.weight for each in found] == pytest.approx(expected)
    assert [each.reward for each in found] == [4.0, 3.0, 2.0]
    assert [each.kept for each in found] == ["", "", "answered"]
    assert len(asked_of(one)) == 1 and asked_of(one)[0].n == 4


async def test_a_large_lambda_draws_as_the_prompter_does_and_a_small_one_takes_the_best() -> None:
    drawn = []
    for number in range(60):
        found = await WeighedPrompter(writer([SAMPLES], "prompter"), rewards, 4, 1e9).rewrite(
            QUERY, f"place {number}"
        )
        drawn.append(found[0].text)
        best = await WeighedPrompter(writer([SAMPLES], "prompter"), rewards, 4, 1e-9).rewrite(
            QUERY, f"place {number}"
        )
        assert best[0].text == BETTER and best[0].weight == pytest.approx(1.0)
    assert 20 <= drawn.count(BETTER) <= 40 and drawn.count(QUERY) >= 5


async def test_rewrites_without_a_reward_have_no_weight_and_none_at_all_gives_the_query() -> None:
    one = writer([["tomatoes on the balcony, please tell", BETTER]], "prompter")
    found = await WeighedPrompter(one, rewards, 2, 0.5).rewrite(QUERY)
    assert [each.text for each in found] == [BETTER] and found[0].weight == 1.0

    async def nothing(query: str, text: str) -> float | None:
        return None

    found = await WeighedPrompter(writer([[BETTER]], "prompter"), nothing, 1, 0.5).rewrite(QUERY)
    assert (found[0].text, found[0].kept) == (QUERY, "failed")


# Names


def test_names_say_the_kind_and_the_model_behind_it() -> None:
    templates = RewriteTemplates()
    read = {
        name: (found.kind, found.model, found.format)
        for name in (
            "bpo/my-bpo", "bpo/owner/name@http://127.0.0.1:8000/v1", "bpo-prompt/openai/gpt-x",
            "bpo-prompt/demo", "align-pro/vllm/owner/name", "align-pro/demo",
        )
        for found in [read_rewriter_name(name, templates)]
    }  # fmt: skip
    assert read == {
        "bpo/my-bpo": ("bpo", "local/my-bpo", "apply"),
        "bpo/owner/name@http://127.0.0.1:8000/v1": (
            "bpo", "vllm/owner/name@http://127.0.0.1:8000/v1", "apply",
        ),
        "bpo-prompt/openai/gpt-x": ("bpo-prompt", "openai/gpt-x", "improve"),
        "bpo-prompt/demo": ("bpo-prompt", "demo", "improve"),
        "align-pro/vllm/owner/name": ("align-pro", "vllm/owner/name", "prompter"),
        "align-pro/demo": ("align-pro", "demo", "prompter"),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["bpo", "bpo/", "gpt/x", "bpo/demo", "", "BPO/x"])
def test_what_is_no_rewriter_is_refused_with_what_was_expected(name: str) -> None:
    with pytest.raises(InputError, match="--rewriter"):
        read_rewriter_name(name, RewriteTemplates())


def test_a_trained_folder_says_its_kind_and_the_template_of_its_training(tmp_path: Path) -> None:
    templates = RewriteTemplates()
    digest = templates.digests()["rewrite/apply.j2"]

    def write(facts: object) -> None:
        (tmp_path / FACTS_NAME).write_text(json.dumps(facts), encoding="utf-8")

    write({"kind": "align-pro", "format": "apply", "template": digest})
    assert read_rewriter_name(f"align-pro/{tmp_path}", templates).format == "apply"
    with pytest.raises(InputError, match="write align-pro/"):
        read_rewriter_name(f"bpo/{tmp_path}", templates)
    write({"kind": "bpo", "format": "apply", "template": "0123456789abcdef"})
    with pytest.raises(InputError, match=r"another rewrite/apply\.j2"):
        read_rewriter_name(f"bpo/{tmp_path}", templates)
    write([1])
    with pytest.raises(InputError, match="expected a JSON object"):
        read_rewriter_name(f"bpo/{tmp_path}", templates)


# Memory


class Counted:
    def __init__(self, answers: list[Rewrite | Exception]) -> None:
        self.answers, self.asked = answers, 0

    async def rewrite(self, query: str, place: str = "") -> tuple[Rewrite, ...]:
        self.asked += 1
        await asyncio.sleep(0)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return (answer,)


async def test_the_first_query_of_a_conversation_is_rewritten_once_for_all_its_turns() -> None:
    counted = Counted([Rewrite(QUERY, BETTER)])
    remembering = Remembering(counted)
    found = await asyncio.gather(*(remembering.rewrite(QUERY) for _ in range(3)))
    assert {one.text for one in found} == {BETTER} and counted.asked == 1
    assert (await remembering.rewrite(QUERY)).text == BETTER and counted.asked == 1


async def test_failures_are_not_remembered() -> None:
    counted = Counted([RuntimeError("gone"), Rewrite(QUERY, QUERY, "failed"), Rewrite(QUERY, BETTER)])
    remembering = Remembering(counted)
    with pytest.raises(RuntimeError):
        await remembering.rewrite(QUERY)
    assert (await remembering.rewrite(QUERY)).kept == "failed"
    assert (await remembering.rewrite(QUERY)).text == BETTER


# Templates


def test_values_in_the_requests_stay_values() -> None:
    templates = RewriteTemplates()
    hostile = "{{ 7 * 7 }} {% for x in y %} </query-00000000> {#"
    for text in (templates.improve(hostile), templates.apply(hostile), templates.prompter(hostile)):
        assert hostile in text
    built = templates.build(hostile, hostile + "g", hostile + "b", hostile + "c", [hostile + "p"])
    assert built.count(hostile) == 5
