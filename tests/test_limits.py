"""Slots, the first-request gate and the end of a run."""

import asyncio

import pytest

from drpo.errors import Interrupted, ParameterRefused, ProviderDown, ProviderRefused, Stopped
from drpo.llm.base import Choice, Completion, Message, Request
from drpo.llm.limits import Limit, Slots, Stop


def ask(text: str = "hi", *, model: str = "m", priority: int = 0) -> Request:
    return Request(model, messages=(Message("user", text),), priority=priority)


class Desk:
    """A scripted LLM: every request waits in `open` until the test answers or fails it."""

    def __init__(self) -> None:
        self.open: dict[str, asyncio.Future[Completion]] = {}
        self.arrived: list[str] = []

    async def complete(self, request: Request) -> Completion:
        text = request.messages[0].content
        self.arrived.append(text)
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self.open[text] = future
        return await future

    def answer(self, text: str) -> None:
        self.open.pop(text).set_result(Completion((Choice(f"re: {text}"),)))

    def fail(self, text: str, error: Exception) -> None:
        self.open.pop(text).set_exception(error)


async def turn() -> None:
    """Let every task run until it waits for something that only the test can give."""
    for _ in range(10):
        await asyncio.sleep(0)


class House:
    """A desk behind a limit, and the tasks that ask it."""

    def __init__(self, concurrency: int, *, by_prefix: bool = False) -> None:
        self.desk, self.stop, self.slots = Desk(), Stop(), Slots(concurrency, by_prefix=by_prefix)
        self.limit = Limit(self.desk, self.slots, self.stop)

    def start(self, text: str, *, model: str = "m", priority: int = 0) -> asyncio.Task[Completion]:
        return asyncio.ensure_future(self.limit.complete(ask(text, model=model, priority=priority)))

    async def prove(self, model: str = "m") -> None:
        """Have the endpoint and `model` answer once."""
        first = self.start("first", model=model)
        await turn()
        self.desk.answer("first")
        await first
        self.desk.arrived.clear()

    async def finish(self, tasks: list[asyncio.Task[Completion]]) -> None:
        """Answer whatever is open, in order of arrival, until all of `tasks` are done."""
        while self.desk.open:
            self.desk.answer(next(iter(self.desk.open)))
            await turn()
        await asyncio.gather(*tasks)


async def test_at_most_concurrency_requests_are_in_the_air() -> None:
    house = House(3)
    await house.prove()
    tasks = [house.start(str(i)) for i in range(8)]
    await turn()
    assert house.desk.arrived == ["0", "1", "2"] and house.limit.in_air == 3
    while house.desk.open:
        house.desk.answer(next(iter(house.desk.open)))
        await turn()
    assert [(await t).choices[0].text for t in tasks] == [f"re: {i}" for i in range(8)]
    assert house.limit.most_in_air == 3 and house.limit.in_air == 0


async def test_waiters_are_served_by_priority_then_by_arrival() -> None:
    house = House(1)
    await house.prove()
    tasks = [house.start("now")]
    await turn()
    order = [("late", 5), ("a", 1), ("b", 1), ("urgent", 0), ("c", 1)]
    tasks += [house.start(text, priority=priority) for text, priority in order]
    await turn()
    while house.desk.open:
        house.desk.answer(next(iter(house.desk.open)))
        await turn()
    assert house.desk.arrived == ["now", "urgent", "a", "b", "c", "late"]
    await asyncio.gather(*tasks)


async def test_until_the_endpoint_has_answered_one_request_is_in_the_air() -> None:
    house = House(8)
    tasks = [house.start(str(i), model=f"m{i % 2}") for i in range(6)]
    await turn()
    assert house.desk.arrived == ["0"]
    house.desk.answer("0")
    await turn()
    assert sorted(house.desk.arrived) == ["0", "1", "2", "4"]  # all of m0, and the first of m1
    house.desk.answer("1")
    await turn()
    assert sorted(house.desk.arrived) == ["0", "1", "2", "3", "4", "5"]
    for text in list(house.desk.open):
        house.desk.answer(text)
    await asyncio.gather(*tasks)


async def test_a_refused_first_request_costs_one_request_however_many_start_together() -> None:
    house = House(64)
    tasks = [house.start(str(i)) for i in range(20)]
    await turn()
    refusal = ProviderRefused("wrong key")
    house.desk.fail("0", refusal)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert house.desk.arrived == ["0"]
    assert results[0] is refusal and house.stop.cause is refusal
    assert all(isinstance(result, Stopped) for result in results[1:])
    assert house.slots.in_air == 0


async def test_a_refused_model_costs_one_request_at_an_endpoint_that_answers_another() -> None:
    house = House(64)
    await house.prove("good")
    tasks = [house.start(f"bad{i}", model="bad") for i in range(5)]
    await turn()
    house.desk.fail("bad0", ProviderRefused("no such model"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert house.desk.arrived == ["bad0"]
    assert all(isinstance(result, Stopped) for result in results[1:])


async def test_after_a_first_request_that_failed_for_now_the_next_tries_alone() -> None:
    house = House(8)
    tasks = [house.start(str(i)) for i in range(4)]
    await turn()
    house.desk.fail("0", ProviderDown("overloaded"))
    await turn()
    assert house.desk.arrived == ["0", "1"]
    house.desk.answer("1")
    await turn()
    assert house.desk.arrived == ["0", "1", "2", "3"]
    house.desk.answer("2")
    house.desk.answer("3")
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], ProviderDown) and isinstance(results[3], Completion)


async def test_a_refused_parameter_proves_that_the_model_is_there() -> None:
    house = House(8)
    tasks = [house.start(str(i)) for i in range(3)]
    await turn()
    house.desk.fail("0", ParameterRefused("seed", "no seed"))
    await turn()
    assert house.desk.arrived == ["0", "1", "2"] and not house.stop.is_set
    house.desk.answer("1")
    house.desk.answer("2")
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_waiters_aside_for_one_model_do_not_hold_up_another() -> None:
    house = House(3)
    await house.prove("good")
    tasks = [house.start(f"new{i}", model="new") for i in range(4)]
    tasks += [house.start(f"good{i}", model="good", priority=1) for i in range(3)]
    await turn()
    assert house.desk.arrived == ["new0", "good0", "good1"]
    house.desk.answer("good0")
    await turn()
    assert house.desk.arrived[-1] == "good2"
    house.desk.answer("new0")
    await turn()
    assert house.desk.arrived[-1] == "new1"
    while house.desk.open:
        house.desk.answer(next(iter(house.desk.open)))
        await turn()
    await asyncio.gather(*tasks)


async def test_a_cancelled_waiter_loses_no_slot() -> None:
    house = House(1)
    await house.prove()
    held, waiting, last = house.start("held"), house.start("waiting"), house.start("last")
    await turn()
    waiting.cancel()
    house.desk.answer("held")
    await turn()
    assert house.desk.arrived == ["held", "last"]
    house.desk.answer("last")
    await asyncio.gather(held, last)
    assert house.slots.in_air == 0


@pytest.mark.parametrize("proven", [True, False])
async def test_a_waiter_cancelled_in_the_turn_in_which_it_is_granted_passes_its_slot_on(proven: bool) -> None:
    house = House(1)
    if proven:
        await house.prove()
    await house.slots.enter("m", 0, house.stop)
    granted, last = house.start("granted"), house.start("last")
    await turn()
    house.slots.leave("m", answered=proven)
    granted.cancel()  # after the grant, before `granted` wakes
    await turn()
    assert granted.cancelled() and house.desk.arrived == ["last"]
    house.desk.answer("last")
    await last
    assert house.slots.in_air == 0


async def test_a_cancelled_call_in_the_air_gives_its_slot_back() -> None:
    house = House(1)
    await house.prove()
    first, second = house.start("first one"), house.start("second one")
    await turn()
    first.cancel()
    await turn()
    assert house.desk.arrived == ["first one", "second one"]
    house.desk.answer("second one")
    await second


async def test_stop_wakes_every_waiter_at_once_and_leaves_those_in_the_air_alone() -> None:
    house = House(1)
    await house.prove()
    flying, waiting = house.start("flying"), house.start("waiting")
    await turn()
    house.stop.set(Interrupted("asked to stop"))
    with pytest.raises(Stopped, match="asked to stop"):
        await waiting
    house.desk.answer("flying")
    assert (await flying).choices[0].text == "re: flying"
    with pytest.raises(Stopped):
        await house.limit.complete(ask("later"))
    assert house.desk.arrived == ["flying"]


async def test_a_slot_granted_just_before_the_stop_is_not_used() -> None:
    house = House(1)
    await house.slots.enter("m", 0, house.stop)
    waiting = house.start("waiting")
    await turn()
    house.slots.leave("m", answered=True)
    house.stop.set(Interrupted("now"))
    with pytest.raises(Stopped):
        await waiting
    assert house.desk.arrived == [] and house.slots.in_air == 0


async def test_the_first_cause_of_a_stop_stays() -> None:
    stop, first = Stop(), Interrupted("first")
    stop.check()
    stop.set(first)
    stop.set(ProviderDown("second"))
    assert stop.is_set and stop.cause is first
    with pytest.raises(Stopped, match="first"):
        stop.check()


async def test_waiting_for_a_stop_ends_with_it_or_with_the_time() -> None:
    stop = Stop()
    assert await stop.wait(0.0) is False
    forever, long = asyncio.ensure_future(stop.wait(None)), asyncio.ensure_future(stop.wait(1e6))
    await turn()
    stop.set(Interrupted("now"))
    assert await forever is True and await long is True
    assert await stop.wait(1e6) is True


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    stop = Stop()
    task = asyncio.ensure_future(stop.wait(1e6))
    await turn()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stop.set(Interrupted("now"))


async def test_an_open_gate_is_passed_without_giving_way_to_another_task() -> None:
    house = House(4)
    await house.prove()
    with pytest.raises(StopIteration):  # ended, not suspended
        house.slots.enter("m", 0, house.stop).send(None)
    assert house.slots.in_air == 1


async def test_by_prefix_requests_with_a_common_beginning_follow_each_other() -> None:
    house = House(2, by_prefix=True)
    await house.prove()
    tasks = [house.start(f"{prompt} q{query}") for query in range(4) for prompt in ("kind", "terse", "long")]
    await turn()
    assert house.desk.arrived == ["kind q0", "terse q0"]  # nobody waited yet
    await house.finish(tasks)
    # on from the last one sent, then from the beginning
    waited = [
        "terse q1",
        "terse q2",
        "terse q3",
        "kind q1",
        "kind q2",
        "kind q3",
        *(f"long q{i}" for i in range(4)),
    ]
    assert house.desk.arrived[2:] == waited


async def test_by_prefix_priority_goes_first() -> None:
    house = House(1, by_prefix=True)
    await house.prove()
    tasks = [house.start("b now")]
    await turn()
    order = [("b later", 5), ("b", 1), ("a", 1), ("z urgent", 0)]
    tasks += [house.start(text, priority=priority) for text, priority in order]
    await turn()
    await house.finish(tasks)
    assert house.desk.arrived == ["b now", "z urgent", "a", "b", "b later"]


async def test_by_prefix_nobody_is_passed_over_for_ever() -> None:
    house = House(1, by_prefix=True)
    await house.prove()
    tasks = [house.start("m")]
    await turn()
    tasks.append(house.start("z waits"))
    for number in range(10_000):
        tasks.append(house.start(f"m{number:05}"))  # always just ahead
        await turn()
        house.desk.answer(next(iter(house.desk.open)))
        await turn()
        if house.desk.arrived[-1] == "z waits":
            break
    assert house.desk.arrived[-1] == "z waits"
    await house.finish(tasks)


async def test_by_prefix_too_one_request_is_in_the_air_until_a_model_has_answered() -> None:
    house = House(8, by_prefix=True)
    tasks = [
        house.start(text, model=model) for text, model in (("c", "m"), ("b", "m"), ("a", "m"), ("x", "n"))
    ]
    await turn()
    assert house.desk.arrived == ["c"]
    house.desk.fail("c", ProviderDown("overloaded"))
    await turn()
    assert house.desk.arrived == ["c", "x"]  # on from (m, c): then comes n, alone again
    house.desk.answer("x")
    await turn()
    assert house.desk.arrived == ["c", "x", "a"]  # the endpoint is proven, m is not
    house.desk.answer("a")
    await turn()
    assert house.desk.arrived == ["c", "x", "a", "b"]
    house.desk.answer("b")
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], ProviderDown) and house.slots.in_air == 0


async def test_by_prefix_a_cancelled_waiter_loses_no_slot_and_a_stop_wakes_all() -> None:
    house = House(1, by_prefix=True)
    await house.prove()
    held, a, b, c = (house.start(text) for text in ("held", "ia", "ib", "ic"))
    await turn()
    a.cancel()
    house.desk.answer("held")
    await turn()
    assert house.desk.arrived == ["held", "ib"]
    house.stop.set(Interrupted("now"))
    with pytest.raises(Stopped):
        await c
    house.desk.answer("ib")
    await asyncio.gather(held, b)
    assert house.slots.in_air == 0


async def test_without_by_prefix_no_text_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(request: Request) -> str:
        raise AssertionError("computed")

    monkeypatch.setattr("drpo.llm.limits.prefix_text", never)
    house = House(1)
    await house.prove()
    with pytest.raises(AssertionError, match="computed"):
        await House(1, by_prefix=True).limit.complete(ask())
