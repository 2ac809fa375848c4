"""One typed question: read, repaired, else `Failed`; and several choices that wait for no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from drpo.ask import Asker, derived_seed
from drpo.errors import ParameterRefused, ProviderDown
from drpo.llm.base import Choice, Completion, Message, Request, request_key
from drpo.parse import Unreadable
from drpo.templates import Templates
from drpo.testing import ScriptedLLM
from drpo.types import Failed

TEMPLATES = Templates()
QUESTION = Request("m", messages=(Message("user", "a number?"),), temperature=0.0, seed=5, role="evaluator")


def number(text: str) -> int | Unreadable:
    return int(text) if text.isdigit() else Unreadable(f"{text!r} is no number")


def cut(text: str, reason: str) -> Completion:
    return Completion((Choice(text, reason),))


async def test_a_readable_reply_is_one_request() -> None:
    model = ScriptedLLM(["4"])
    assert await Asker(model, TEMPLATES).ask(QUESTION, number) == 4
    assert model.requests == [QUESTION]


async def test_the_repair_turn_to_the_letter() -> None:
    model = ScriptedLLM(["four", "4"])
    assert await Asker(model, TEMPLATES).ask(QUESTION, number) == 4
    first, second = model.requests
    assert second.messages == (
        *first.messages,
        Message("assistant", "four"),
        Message(
            "user",
            "Your reply could not be used: 'four' is no number\n"
            "\n"
            "Please answer the same question again. Reply with the one JSON object that was asked for, "
            "complete, in exactly the shape described above, with nothing before or after it.",
        ),
    )
    assert (second.seed, second.temperature, second.role, second.n) == (5, 0.0, "evaluator", 1)


async def test_a_schema_goes_with_the_question_and_its_repair_where_replies_are_structured() -> None:
    for structured, expected in ((True, "{}"), (False, None)):
        model = ScriptedLLM(["four", "4"])
        asker = Asker(model, TEMPLATES, structured=structured)
        assert await asker.ask(QUESTION, number, "{}") == 4
        assert [request.reply_schema for request in model.requests] == [expected] * 2


async def test_a_schema_goes_with_every_choice() -> None:
    model = ScriptedLLM([["1", "x"], "2", "3"])
    samples = Asker(model, TEMPLATES, structured=True).sample(three(), number, "{}")
    assert list(await asyncio.gather(*(sample.value() for sample in samples))) == [1, 2, 3]
    assert [request.reply_schema for request in model.requests] == ["{}"] * 3


async def test_a_second_repair_sees_the_whole_conversation() -> None:
    model = ScriptedLLM(["four", "five", "6"])
    assert await Asker(model, TEMPLATES, repairs=2).ask(QUESTION, number) == 6
    roles = [message.role for message in model.requests[2].messages]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    assert model.requests[2].messages[3].content == "five"


@pytest.mark.parametrize(("repairs", "replies"), [(0, ["x"]), (1, ["w", "x"]), (2, ["v", "w", "x"])])
async def test_what_stays_unreadable_has_failed_with_its_reason_and_text(
    repairs: int, replies: list[str]
) -> None:
    model = ScriptedLLM(replies)
    result = await Asker(model, TEMPLATES, repairs=repairs).ask(QUESTION, number)
    assert result == Failed("'x' is no number", "x")
    assert len(model.requests) == repairs + 1


async def test_a_reply_cut_off_by_length_is_told_so() -> None:
    model = ScriptedLLM([cut("fo", "length"), cut("fou", "length")])
    result = await Asker(model, TEMPLATES).ask(QUESTION, number)
    assert result == Failed("'fou' is no number; it was cut off at the limit of tokens", "fou")
    assert "it was cut off at the limit of tokens" in model.requests[1].messages[-1].content


async def test_a_reply_that_reads_well_counts_even_where_it_was_cut() -> None:
    assert await Asker(ScriptedLLM([cut("4", "length")]), TEMPLATES).ask(QUESTION, number) == 4


@pytest.mark.parametrize(
    ("reason", "said"),
    [("content_filter", "content filter held the reply back"), ("context_length", "longer than the model's")],
)
async def test_no_reply_at_all_has_failed_without_a_repair(reason: str, said: str) -> None:
    model = ScriptedLLM([cut("", reason)])
    result = await Asker(model, TEMPLATES).ask(QUESTION, number)
    assert isinstance(result, Failed)
    assert said in result.reason
    assert len(model.requests) == 1


async def test_a_repair_that_no_longer_fits_has_failed() -> None:
    model = ScriptedLLM(["x", cut("", "context_length")])
    result = await Asker(model, TEMPLATES).ask(QUESTION, number)
    assert result == Failed("the request is longer than the model's context")


async def test_a_broken_boundary_is_no_reply() -> None:
    model = ScriptedLLM([ProviderDown("gone")])
    with pytest.raises(ProviderDown, match="gone"):
        await Asker(model, TEMPLATES).ask(QUESTION, number)


def three() -> Request:
    return Request("m", messages=(Message("user", "a number?"),), temperature=0.2, seed=5, n=3)


async def values(model: ScriptedLLM, request: Request, repairs: int = 1) -> list[int | Failed]:
    samples = Asker(model, TEMPLATES, repairs).sample(request, number)
    return list(await asyncio.gather(*(sample.value() for sample in samples)))


async def test_several_choices_are_one_request() -> None:
    model = ScriptedLLM([["1", "2", "3"]])
    assert await values(model, three()) == [1, 2, 3]
    assert model.requests == [three()]


async def test_nothing_is_asked_before_a_choice_is_wanted() -> None:
    model = ScriptedLLM([["1", "2", "3"]])
    samples = Asker(model, TEMPLATES).sample(three(), number)
    await asyncio.sleep(0)
    assert (len(samples), model.requests) == (3, [])


async def test_missing_choices_are_asked_for_one_by_one() -> None:
    model = ScriptedLLM([["1"], "2", "3"])
    assert await values(model, three()) == [1, 2, 3]
    assert [request.n for request in model.requests] == [3, 1, 1]
    assert len({request_key(request) for request in model.requests}) == 3
    assert len({request.seed for request in model.requests}) == 3


def refusing(parameter: str) -> Callable[[Request], str]:
    def script(request: Request) -> str:
        if request.n > 1:
            raise ParameterRefused(parameter, "one at a time")
        return str(request.seed)

    return script


async def test_a_refused_n_becomes_requests_with_seeds_of_their_own() -> None:
    model = ScriptedLLM(refusing("n"))
    found = await values(model, three())
    assert found == [derived_seed(5, f"choice {index}") for index in range(3)]
    assert len(set(found)) == 3
    assert [request.n for request in model.requests] == [3, 1, 1, 1]
    again = ScriptedLLM(refusing("n"))
    assert await values(again, three()) == found


async def test_another_refusal_is_not_hidden() -> None:
    with pytest.raises(ParameterRefused):
        await values(ScriptedLLM(refusing("temperature")), three())


async def test_one_choice_is_the_request_itself() -> None:
    request = Request("m", messages=(Message("user", "?"),), temperature=0.0)
    model = ScriptedLLM(["1"])
    assert await values(model, request) == [1]
    assert model.requests == [request]


async def test_each_choice_is_repaired_by_itself_even_where_they_read_the_same() -> None:
    model = ScriptedLLM([["x", "2", "x"], "1", "3"])
    assert await values(model, three()) == [1, 2, 3]
    first, second = model.requests[1:]
    assert (first.n, first.messages) == (1, second.messages)
    assert first.seed != second.seed
    assert first.messages[1] == Message("assistant", "x")


class Gated:
    """Answers when its future is set; `waiting` by number of messages and seed."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Request, asyncio.Future[list[str]]]] = []

    async def complete(self, request: Request) -> Completion:
        future: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self.waiting.append((request, future))
        return Completion(tuple(Choice(text) for text in await future))


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_readable_choice_does_not_wait_for_the_repair_of_another() -> None:
    model = Gated()
    tasks = [asyncio.create_task(s.value()) for s in Asker(model, TEMPLATES).sample(three(), number)]
    await turns()
    assert len(model.waiting) == 1
    model.waiting[0][1].set_result(["x", "2", "y"])
    await turns()
    assert [task.done() for task in tasks] == [False, True, False]
    assert tasks[1].result() == 2
    assert len(model.waiting) == 3
    model.waiting[2][1].set_result(["3"])
    await turns()
    assert [task.done() for task in tasks] == [False, True, True]
    model.waiting[1][1].set_result(["1"])
    assert [await task for task in tasks] == [1, 2, 3]


async def test_missing_choices_do_not_wait_for_each_other() -> None:
    model = Gated()
    tasks = [asyncio.create_task(s.value()) for s in Asker(model, TEMPLATES).sample(three(), number)]
    await turns()
    model.waiting[0][1].set_result(["1"])
    await turns()
    assert tasks[0].result() == 1
    assert len(model.waiting) == 3
    model.waiting[2][1].set_result(["3"])
    await turns()
    assert [task.done() for task in tasks] == [True, False, True]
    model.waiting[1][1].set_result(["2"])
    assert await tasks[1] == 2


async def test_one_who_no_longer_waits_does_not_take_the_reply_from_the_others() -> None:
    model = Gated()
    tasks = [asyncio.create_task(s.value()) for s in Asker(model, TEMPLATES).sample(three(), number)]
    await turns()
    tasks[0].cancel()
    await turns()
    model.waiting[0][1].set_result(["1", "2", "3"])
    assert await asyncio.gather(*tasks[1:]) == [2, 3]
    assert tasks[0].cancelled()


async def test_a_failure_of_the_one_request_reaches_every_choice() -> None:
    model = ScriptedLLM([ProviderDown("gone")])
    samples = Asker(model, TEMPLATES).sample(three(), number)
    results = await asyncio.gather(*(sample.value() for sample in samples), return_exceptions=True)
    assert [type(result) for result in results] == [ProviderDown] * 3
    assert len(model.requests) == 1


def test_a_seed_belongs_to_its_place() -> None:
    seeds = {derived_seed(seed, place) for seed in range(20) for place in ("r/0", "r/0.1/0", "r/0.2/0")}
    assert len(seeds) == 60
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derived_seed(0, "r/0") == 669011037  # recorded runs hang on it
