"""The guards of rewriters one by one: what each of them lets through, and what it does not."""

from __future__ import annotations

import asyncio
import math

import pytest

from drpo.llm.base import Choice, Completion, Usage
from drpo.rewriting import remembering as memory
from drpo.rewriting.bpo import BpoRewriter
from drpo.rewriting.checks import cleaned, why_kept, word_count, words_left
from drpo.rewriting.contract import Rewrite
from drpo.rewriting.remembering import Remembering
from drpo.rewriting.weighing import Prompter, WeighedPrompter
from tests.test_rewriting import BETTER, QUERY, improved, writer

# What stands for a query


@pytest.mark.parametrize(
    "text",
    [
        "I'm so sorry, I can't tell you how tomatoes grow on a balcony.",
        "Sorry, but I do not know how to grow tomatoes on a balcony.",
        "I cannot help you grow tomatoes on a balcony.",
        "I won’t answer how to grow tomatoes on a balcony.",
        "As a large language model I never grew tomatoes on a balcony.",
        "Certainly! To grow tomatoes on a balcony take a pot.",
        "Of course: you grow tomatoes on a balcony in a pot.",
        "Here’s how to grow tomatoes on a balcony: in a pot.",
        "The short answer: you grow tomatoes on a balcony in a pot.",
        "**Answer:** grow tomatoes on a balcony in a pot, please.",
    ],
)
def test_each_way_to_begin_an_answer_is_told(text: str) -> None:
    assert why_kept(QUERY, text) == "answered"


@pytest.mark.parametrize(
    "text",
    [
        "I am sure that tomatoes grow on a balcony; how do I begin?",
        "Answer in one sentence: how do I grow tomatoes on a balcony?",
        "I cannot find out how to grow tomatoes on a balcony. How does it go?",
        "Here in the north, how do I grow tomatoes on a balcony?",
        "As an amateur, how do I grow tomatoes on a balcony?",
    ],
)
def test_a_query_that_only_resembles_an_answer_stands(text: str) -> None:
    assert why_kept(QUERY, text) == ""


def test_short_queries_may_grow_more_than_long_ones_and_no_more_than_said() -> None:
    words = "tomatoes " * 15
    assert why_kept("tomatoes", "tomatoes " * 90) == "" and why_kept("tomatoes", "tomatoes " * 91) == "longer"
    assert why_kept(words, "tomatoes " * 90) == "" and why_kept(words, "tomatoes " * 91) == "longer"
    twenty = "tomatoes " * 20
    assert why_kept(twenty, "tomatoes " * 120) == "" and why_kept(twenty, "tomatoes " * 121) == "longer"
    assert why_kept(twenty, "tomatoes " * 10) == "" and why_kept(twenty, "tomatoes " * 9) == "lost"


def test_a_share_at_the_floor_stands_and_one_below_is_lost() -> None:
    assert why_kept(QUERY, BETTER, share=0.5) == "" and why_kept(QUERY, BETTER, share=0.49) == "lost"
    assert why_kept(QUERY, BETTER, share=0.3, floor=0.3) == ""


def test_a_query_stands_for_itself_whatever_an_embedder_says() -> None:
    assert why_kept(QUERY, f" {QUERY}\n", share=0.1) == "" == why_kept(f" {QUERY}", QUERY, share=0.1)


def test_telling_words_are_long_ones_and_numbers_and_forms_of_a_word_are_one() -> None:
    assert words_left("why is the sky so blue", "blue is the sky, so why then?") == 1.0
    assert words_left("what is in it", "the garden") == 0.0
    assert words_left("a 42 or b", "b and a without the number") == 0.0
    assert words_left("growing tomatoes", "grow a tomato") == pytest.approx(0.5)
    assert words_left("gardening", "GARDENS") == 1.0
    assert words_left("a b", "c d") == 0.0 and words_left("a b", "b a") == 1.0
    assert words_left("?!", "anything") == 1.0


def test_words_of_scripts_without_blanks_are_counted_by_two_characters() -> None:
    assert words_left("a番茄", "b番茄") == 1.0 == words_left("番茄a", "番茄b")
    assert word_count("番茄 tomato 阳") == 3 and word_count("ขอบคุณ") == 3 and word_count("토마토") == 2


@pytest.mark.parametrize(
    ("reply", "query", "text"),
    [
        ("Better: how?", QUERY, "how?"),
        ("The optimised instruction: how?", QUERY, "how?"),
        ("Better: a or b?", "Better: x or y?", "Better: a or b?"),
        ("  Better: a or b?  ", "Better: x or y?", "Better: a or b?"),
        ("«how?»", QUERY, "how?"),
        ('"how?"', 'say "x"', "how?"),
        ('" how? "', QUERY, "how?"),
        ('how?"', QUERY, 'how?"'),
        ('"how?', QUERY, '"how?'),
        ('""', QUERY, '""'),
        ('"yes" or "no"', QUERY, '"yes" or "no"'),
        ("“yes” or no”", QUERY, "“yes” or no”"),
        ("“yes or “no”", QUERY, "“yes or “no”"),
        ('"how?"', '"x" is what?', "how?"),
        ("'how?'", QUERY, "how?"),
        ('"how?"', '"why?"', '"how?"'),
        ('"', QUERY, '"'),
        ('  "how"  ', QUERY, "how"),
        ("Why is a better question: this one or that?", QUERY, "Why is a better question: this one or that?"),
    ],
)
def test_only_what_stands_around_a_query_is_taken_off(reply: str, query: str, text: str) -> None:
    assert cleaned(reply, query) == text


# What is written by instruction


async def test_what_was_written_instead_is_noted_in_each_round() -> None:
    spoilt = "How do I bake bread in a cold oven?"
    (found,) = await BpoRewriter(writer([improved(spoilt)])).rewrite(QUERY)
    assert (found.kept, found.note) == ("lost", spoilt)
    (found,) = await BpoRewriter(writer([improved(BETTER), improved(spoilt)]), 2).rewrite(QUERY)
    assert (found.text, found.kept, found.note) == (BETTER, "", spoilt)


# What is drawn and weighed


async def test_one_draw_of_a_prompter_stands_or_gives_the_query_with_the_reason() -> None:
    for reply, kept in ((BETTER, ""), ("Sure, buy a pot.", "answered"), ("", "empty"), ("bread?", "lost")):
        (found,) = await Prompter(writer([reply], "prompter")).rewrite(QUERY)
        assert (found.kept, found.text) == (kept, QUERY if kept else BETTER)
        assert found.note == (reply if kept else "")


async def test_a_prompter_that_is_held_back_gives_the_query_and_says_so() -> None:
    held = Completion((Choice("", "content_filter"),), Usage(1, 0))
    (found,) = await Prompter(writer([held], "prompter")).rewrite(QUERY)
    assert (found.text, found.kept) == (QUERY, "failed") and "content filter" in found.note


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
async def test_a_reward_that_is_no_number_has_no_weight(reward: float) -> None:
    other = "what about tomatoes on a balcony please"

    async def rewards(query: str, text: str) -> float | None:
        return 1.0 if text == other else reward

    found = await WeighedPrompter(writer([[BETTER, other]], "prompter"), rewards, 2, 0.5).rewrite(QUERY)
    assert [(one.text, one.weight) for one in found] == [(other, 1.0)]


async def test_the_same_place_draws_the_same_and_another_place_anew() -> None:
    async def rewards(query: str, text: str) -> float | None:
        return 1.0

    async def first(place: str, seed: int) -> str:
        samples = [[f"{BETTER} {n}" for n in range(8)]]
        one = WeighedPrompter(writer(samples, "prompter"), rewards, 8, 0.5, random_seed=seed)
        return (await one.rewrite(QUERY, place))[0].text

    assert await first("a", 0) == await first("a", 0)
    assert len({await first(f"place {n}", 0) for n in range(12)}) > 3
    assert len({await first("a", seed) for seed in range(12)}) > 3


async def test_the_heaviest_is_picked_first_and_of_equal_ones_the_first_drawn() -> None:
    texts = [BETTER, f"{BETTER} Please.", f"{BETTER} Thanks."]

    async def rewards(query: str, text: str) -> float | None:
        return {texts[0]: 1.0, texts[1]: 2.0, texts[2]: 2.0}[text]

    found = await WeighedPrompter(writer([texts], "prompter"), rewards, 3, 0.5, "best").rewrite(QUERY)
    assert [one.text for one in found] == [texts[1], texts[2], texts[0]]


# What is remembered


class Slow:
    """Rewrites once it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = asyncio.Event()

    async def rewrite(self, query: str, place: str = "") -> tuple[Rewrite, ...]:
        self.asked.append(query)
        await self.go.wait()
        return (Rewrite(query, f"{query} please"),)


async def test_a_client_that_leaves_ends_nothing_for_another_that_waits_for_the_same() -> None:
    slow = Slow()
    remembering = Remembering(slow)
    leaving = asyncio.create_task(remembering.rewrite(QUERY))
    staying = asyncio.create_task(remembering.rewrite(QUERY))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaving.cancel()
    slow.go.set()
    assert (await staying).text == f"{QUERY} please" and slow.asked == [QUERY]
    assert leaving.cancelled() or leaving.cancelling()


async def test_what_was_cancelled_is_asked_for_again() -> None:
    class Cancelled(Slow):
        async def rewrite(self, query: str, place: str = "") -> tuple[Rewrite, ...]:
            if not self.asked:
                self.asked.append(query)
                raise asyncio.CancelledError
            return await super().rewrite(query, place)

    cancelled = Cancelled()
    cancelled.go.set()
    remembering = Remembering(cancelled)
    with pytest.raises(asyncio.CancelledError):
        await remembering.rewrite(QUERY)
    assert (await remembering.rewrite(QUERY)).is_changed


async def test_a_failure_that_comes_late_does_not_forget_what_came_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FirstFails(Slow):
        async def rewrite(self, query: str, place: str = "") -> tuple[Rewrite, ...]:
            is_first = not self.asked
            self.asked.append(query)
            if is_first:
                await self.go.wait()
                return (Rewrite(query, query, "failed"),)
            return (Rewrite(query, f"{query} please"),)

    monkeypatch.setattr(memory, "MOST", 1)
    failing = FirstFails()
    remembering = Remembering(failing)
    late = asyncio.create_task(remembering.rewrite("a"))
    await asyncio.sleep(0)
    await remembering.rewrite("b")
    assert (await remembering.rewrite("a")).is_changed
    failing.go.set()
    assert (await late).kept == "failed"
    assert (await remembering.rewrite("a")).is_changed and failing.asked == ["a", "b", "a"]


@pytest.mark.parametrize(("name", "most"), [("MOST", 2), ("MOST_CHARACTERS", 2)])
async def test_what_was_not_used_for_long_is_forgotten_by_number_and_by_size(
    monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    monkeypatch.setattr(memory, name, most)
    slow = Slow()
    slow.go.set()
    remembering = Remembering(slow)
    for query in ("a", "b", "a", "c", "a", "b"):
        assert (await remembering.rewrite(query)).query == query
    assert slow.asked == ["a", "b", "c", "b"]
    whole = await remembering.rewrite("longer than all that may be remembered")
    assert whole.text.endswith("please")
