"""Several servers of one model: who gets which request, and what happens when one goes and comes back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.errors import BudgetSpent, ParameterRefused, ProviderRefused
from drpo.llm.base import LLM, Choice, Completion, Message, Request
from drpo.llm.client import OpenAIClient
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.limits import Limit, Slots, Stop
from drpo.llm.retry import Retry, Transient, Unconnected
from drpo.llm.spread import LONGEST_OUT_S, OUT_S, Spread
from tests.support.mock_openai import MockServer, Reply, error

DONE = Completion((Choice("done"),))


def ask(system: str, query: str = "hi") -> Request:
    return Request("m", messages=(Message("system", system * 100), Message("user", query)))


class Fake:
    """A server that is up or down; what it is asked waits for `gate`."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.up = True
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        await self.gate.wait()
        if not self.up:
            raise Unconnected("nobody there")
        if self.error is not None:
            raise self.error
        return DONE


class Servers:
    """Fakes named a, b, ... behind one Spread, whose clock the test sets."""

    def __init__(self, count: int = 2) -> None:
        self.now_s = 0.0
        self.told: list[str] = []
        self.fakes = [Fake() for _ in range(count)]
        named = list(zip("abcdefgh", self.fakes, strict=False))
        self.spread = Spread(named, clock=lambda: self.now_s, notice=self.told.append)

    def hold(self) -> None:
        for fake in self.fakes:
            fake.gate.clear()

    def release(self) -> None:
        for fake in self.fakes:
            fake.gate.set()

    async def served_by(self, request: Request) -> int:
        """Index of the server that answers `request`, which it was asked alone."""
        before = [len(fake.asked) for fake in self.fakes]
        assert await self.spread.complete(request) is DONE
        return next(i for i, fake in enumerate(self.fakes) if len(fake.asked) > before[i] and fake.up)


async def turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_requests_that_begin_alike_go_to_one_server_and_the_longest_beginning_counts() -> None:
    servers = Servers(3)
    one = await servers.served_by(ask("kind"))
    assert {await servers.served_by(ask("kind", f"q{i}")) for i in range(5)} == {one}
    servers.hold()
    flying = [asyncio.ensure_future(servers.spread.complete(ask("terse", str(i)))) for i in range(2)]
    await turn()
    servers.release()
    await asyncio.gather(*flying)
    longer = Request("m", messages=(*ask("kind").messages, Message("assistant", "so " * 300)))
    two = await servers.served_by(longer)
    assert two == one
    assert await servers.served_by(Request("m", messages=(*longer.messages, Message("user", "and?")))) == one


async def test_a_new_beginning_goes_to_the_server_with_least_to_do() -> None:
    servers = Servers(4)
    servers.hold()
    flying = [asyncio.ensure_future(servers.spread.complete(ask(f"{i} of its own"))) for i in range(8)]
    await turn()
    assert [len(fake.asked) for fake in servers.fakes] == [2, 2, 2, 2]
    servers.release()
    await asyncio.gather(*flying)


async def test_who_gets_an_idle_tie_is_the_same_in_every_run_and_each_server_gets_some() -> None:
    async def run() -> list[int]:
        servers = Servers(3)
        return [await servers.served_by(ask(f"{i} of its own")) for i in range(60)]

    first = await run()
    assert first == await run()
    assert min(Counter(first)[server] for server in range(3)) >= 10


async def test_one_prompt_for_all_leaves_no_server_idle() -> None:
    servers = Servers(3)
    servers.hold()
    flying = [asyncio.ensure_future(servers.spread.complete(ask("kind", f"q{i}"))) for i in range(60)]
    await turn()
    shares = [len(fake.asked) for fake in servers.fakes]
    assert sum(shares) == 60 and max(shares) <= 1.25 * 20 + 2 and min(shares) >= 10
    servers.release()
    await asyncio.gather(*flying)


@given(st.lists(st.tuples(st.sampled_from("pqrs"), st.booleans()), max_size=60), st.integers(1, 5))
async def test_no_server_is_ever_far_above_the_mean(steps: list[tuple[str, bool]], count: int) -> None:
    """Each step sends a request; True: the oldest one in the air is answered before."""
    in_air, gates = [0] * count, list[asyncio.Event]()

    class Busy:
        def __init__(self, index: int) -> None:
            self.index = index

        async def complete(self, request: Request) -> Completion:
            assert in_air[self.index] < 1.25 * sum(in_air) / count + 1
            in_air[self.index] += 1
            gates.append(asyncio.Event())
            await gates[-1].wait()
            in_air[self.index] -= 1
            return DONE

    spread, flying = Spread([(str(i), Busy(i)) for i in range(count)]), list[asyncio.Task[Completion]]()
    for number, (prompt, answer) in enumerate(steps):
        if answer and gates:
            gates.pop(0).set()
            await turn()
        flying.append(asyncio.ensure_future(spread.complete(ask(prompt, str(number)))))
        await turn()
    for gate in gates:
        gate.set()
    await asyncio.gather(*flying)
    assert sum(spread.sent.values()) == len(steps) and in_air == [0] * count


async def test_a_request_whose_server_is_gone_goes_to_another_at_once() -> None:
    servers = Servers(2)
    gone = await servers.served_by(ask("kind"))
    servers.fakes[gone].up = False
    assert await servers.served_by(ask("kind", "next")) == 1 - gone
    assert await servers.served_by(ask("kind", "third")) == 1 - gone
    assert len(servers.fakes[gone].asked) == 2  # the third was not sent there
    assert servers.told == [f"{'ab'[gone]} cannot be reached and is left out for now; 1 of 2 servers go on"]


async def test_requests_that_fail_together_are_one_outage() -> None:
    servers = Servers(2)
    servers.hold()
    flying = [asyncio.ensure_future(servers.spread.complete(ask("kind", str(i)))) for i in range(20)]
    await turn()
    servers.fakes[0].up = False
    servers.release()
    assert await asyncio.gather(*flying) == [DONE] * 20
    assert len(servers.told) == 1
    servers.now_s = OUT_S  # after one outage's time it is asked again
    servers.fakes[0].up = True
    servers.fakes[1].up = False
    assert await servers.served_by(ask("new")) == 0


class OneByOne:
    """A server whose requests are answered or refused a connection one at a time, in any order."""

    def __init__(self) -> None:
        self.in_air: list[asyncio.Future[Completion]] = []

    async def complete(self, request: Request) -> Completion:
        self.in_air.append(asyncio.get_running_loop().create_future())
        return await self.in_air[-1]


async def two_in_air(servers: Servers) -> tuple[OneByOne, list[asyncio.Task[Completion]]]:
    """A server that has two requests, beside one that answers everything."""
    home = await servers.served_by(ask("kind"))
    server = OneByOne()
    servers.spread._servers[home]._llm = server
    flying = [asyncio.create_task(servers.spread.complete(ask("kind", str(i)))) for i in range(2)]
    await turn()
    assert len(server.in_air) == 2
    return server, flying


async def test_a_request_from_before_an_outage_that_fails_later_does_not_make_it_longer() -> None:
    servers = Servers(2)
    server, flying = await two_in_air(servers)
    server.in_air[0].set_exception(Unconnected("gone"))
    await turn()
    servers.now_s = OUT_S - 1
    server.in_air[1].set_exception(Unconnected("gone"))
    assert await asyncio.gather(*flying) == [DONE, DONE]
    servers.now_s = OUT_S
    trying = [asyncio.create_task(servers.spread.complete(ask(f"new {i}"))) for i in range(9)]
    await turn()
    assert len(server.in_air) == 3
    server.in_air[2].set_result(DONE)
    assert await asyncio.gather(*trying) == [DONE] * 9


async def test_an_answer_from_before_an_outage_does_not_end_it() -> None:
    servers = Servers(2)
    server, flying = await two_in_air(servers)
    server.in_air[0].set_exception(Unconnected("gone"))
    await turn()
    server.in_air[1].set_result(DONE)
    assert await asyncio.gather(*flying) == [DONE, DONE]
    assert len(servers.told) == 1 and "left out" in servers.told[0]
    await asyncio.gather(*(servers.spread.complete(ask(f"new {i}")) for i in range(9)))
    assert len(server.in_air) == 2


async def test_what_others_have_taken_over_stays_with_them_when_a_server_is_back() -> None:
    servers = Servers(2)
    prompts = [f"{number} of its own" for number in range(16)]
    homes = [await servers.served_by(ask(prompt)) for prompt in prompts]
    moved = [prompt for prompt, home in zip(prompts, homes, strict=True) if home == 0]
    assert len(moved) >= 4
    servers.fakes[0].up = False
    for prompt in moved:
        assert await servers.served_by(ask(prompt)) == 1
    servers.fakes[0].up, servers.now_s = True, OUT_S
    assert {await servers.served_by(ask(f"{number} new")) for number in range(16)} == {0, 1}  # it is back
    assert {await servers.served_by(ask(prompt)) for prompt in moved} == {1}  # its cache was lost


async def test_a_server_that_stays_away_is_tried_after_twice_the_time_up_to_two_minutes() -> None:
    servers = Servers(2)
    servers.fakes[0].up = False
    tried_at: list[float] = []
    seen = 0
    for second in range(700):
        servers.now_s = float(second)
        servers.hold()
        flying = [asyncio.ensure_future(servers.spread.complete(ask(f"{second} {i}"))) for i in range(4)]
        await turn()
        servers.release()
        await asyncio.gather(*flying)
        if len(servers.fakes[0].asked) > seen:
            tried_at.append(servers.now_s)
            seen = len(servers.fakes[0].asked)
    waits = [later - earlier for earlier, later in pairwise(tried_at)]
    assert waits == [15.0, 30.0, 60.0, 120.0, 120.0, 120.0, 120.0] and LONGEST_OUT_S == 120.0
    assert seen <= len(tried_at) + 3  # one request tries it each time, others only before it was known
    assert len(servers.told) == 1


async def test_a_server_that_is_back_is_used_again_and_that_is_said_once() -> None:
    servers = Servers(2)
    gone = await servers.served_by(ask("kind"))
    servers.fakes[gone].up = False
    await servers.served_by(ask("kind"))
    servers.fakes[gone].up = True
    before = len(servers.fakes[gone].asked)
    servers.now_s = OUT_S - 1
    servers.hold()
    early = [asyncio.ensure_future(servers.spread.complete(ask(f"early {i}"))) for i in range(6)]
    await turn()
    assert len(servers.fakes[gone].asked) == before
    servers.now_s = OUT_S
    late = [asyncio.ensure_future(servers.spread.complete(ask(f"late {i}"))) for i in range(6)]
    await turn()
    assert len(servers.fakes[gone].asked) == before + 1  # one tries it
    servers.release()
    await asyncio.gather(*early, *late)
    assert servers.told[1:] == [f"{'ab'[gone]} answers again"]
    servers.hold()
    flying = [asyncio.ensure_future(servers.spread.complete(ask(f"again {i}"))) for i in range(6)]
    await turn()
    assert len(servers.fakes[gone].asked) == before + 4
    servers.release()
    await asyncio.gather(*flying)
    assert len(servers.told) == 2


async def test_a_cancelled_try_leaves_the_server_to_the_next_one() -> None:
    servers = Servers(2)
    servers.fakes[0].up = servers.fakes[1].up = False
    with pytest.raises(Unconnected):
        await servers.spread.complete(ask("kind"))
    servers.now_s = OUT_S
    servers.hold()
    flying = asyncio.ensure_future(servers.spread.complete(ask("kind")))
    await turn()
    flying.cancel()
    await turn()
    servers.release()
    servers.fakes[0].up = servers.fakes[1].up = True
    assert {await servers.served_by(ask(str(i))) for i in range(20)} == {0, 1}


async def test_when_all_are_gone_each_request_tries_one_in_turn_and_fails() -> None:
    servers = Servers(3)
    for fake in servers.fakes:
        fake.up = False
    with pytest.raises(Unconnected, match="nobody there"):
        await servers.spread.complete(ask("kind"))
    assert [len(fake.asked) for fake in servers.fakes] == [1, 1, 1]
    assert servers.told[-1].endswith("no other server is left")
    for second in range(3):
        servers.now_s = float(second + 1)
        with pytest.raises(Unconnected):
            await servers.spread.complete(ask("kind"))
    assert [len(fake.asked) for fake in servers.fakes] == [2, 2, 2]
    servers.fakes[2].up = True
    for second in range(3):
        servers.now_s = 5.0 + second
        try:
            await servers.spread.complete(ask("kind"))
        except Unconnected:
            continue
        break
    assert servers.told[-1] == "c answers again" and len(servers.told) == 4


async def test_the_failure_of_all_says_how_long_it_took() -> None:
    servers = Servers(2)

    class Slow(Fake):
        async def complete(self, request: Request) -> Completion:
            servers.now_s += 10.0
            raise Unconnected("timed out")

    spread = Spread([("a", Slow()), ("b", Slow())], clock=lambda: servers.now_s)
    with pytest.raises(Unconnected) as caught:
        await spread.complete(ask("kind"))
    assert caught.value.took_s == 20.0 and caught.value.__context__ is None


@pytest.mark.parametrize("failure", [ProviderRefused("no such model"), ParameterRefused("seed", "no")])
async def test_what_a_server_says_itself_is_passed_on_and_it_stays_in(failure: Exception) -> None:
    servers = Servers(2)
    for fake in servers.fakes:
        fake.error = failure
    with pytest.raises(type(failure)) as caught:
        await servers.spread.complete(ask("kind"))
    assert caught.value is failure and sum(servers.spread.sent.values()) == 1 and servers.told == []


async def test_a_server_that_answers_anything_is_back() -> None:
    servers = Servers(1)
    servers.fakes[0].up = False
    with pytest.raises(Unconnected):
        await servers.spread.complete(ask("kind"))
    servers.fakes[0].up, servers.fakes[0].error = True, ProviderRefused("no such model")
    with pytest.raises(ProviderRefused, match="no such model"):
        await servers.spread.complete(ask("kind"))
    assert servers.told[-1] == "a answers again"


@pytest.mark.parametrize("failure", [BudgetSpent("the budget is spent"), ZeroDivisionError("a bug")])
async def test_what_no_server_has_said_brings_none_back(failure: Exception) -> None:
    servers = Servers(1)
    servers.fakes[0].up = False
    with pytest.raises(Unconnected):
        await servers.spread.complete(ask("kind"))
    servers.fakes[0].up, servers.fakes[0].error = True, failure
    with pytest.raises(type(failure)) as caught:
        await servers.spread.complete(ask("kind"))
    assert caught.value is failure and not any("answers again" in said for said in servers.told)


async def test_a_request_that_one_server_cannot_answer_now_goes_to_another_and_later_ones_too() -> None:
    servers = Servers(2)
    home = await servers.served_by(ask("kind"))
    servers.fakes[home].error = Transient("HTTP 502: bad gateway")
    for _ in range(5):
        await servers.spread.complete(ask("kind"))
    assert [len(fake.asked) for fake in servers.fakes] == ([2, 5] if home == 0 else [5, 2])
    assert servers.told == []


async def test_what_no_server_can_answer_now_is_tried_at_each_once() -> None:
    servers = Servers(3)
    for fake in servers.fakes:
        fake.error = Transient("HTTP 503: busy")
    with pytest.raises(Transient, match="busy"):
        await servers.spread.complete(ask("kind"))
    assert list(servers.spread.sent.values()) == [1, 1, 1]


async def test_what_a_server_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drpo.llm.spread.REMEMBERED", 8)
    servers = Servers(2)
    home = await servers.served_by(ask("kind"))
    for number in range(50):
        await servers.served_by(ask(f"{number} other"))
    for server in servers.spread._servers:
        assert len(server.known) <= 8
    assert await servers.served_by(ask("kind")) == home  # by lot, as the first time


# From here on against servers on loopback, through the real client.


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    connections = Connections()
    yield connections
    await connections.aclose()


def spread_over(
    connections: Connections, *servers: MockServer, clock: Callable[[], float] = lambda: 0.0
) -> Spread:
    def client(url: str) -> LLM:
        return OpenAIClient(connections, Endpoint(url), "m", timeout_s=30.0)

    return Spread([(server.url, client(server.url)) for server in servers], clock=clock)


def prompts_at(server: MockServer) -> Counter[str]:
    """How many requests of each system prompt arrived."""
    return Counter(body["messages"][0]["content"] for body in server.bodies())


async def test_each_system_prompt_lives_at_one_server_and_many_are_shared_out(
    connections: Connections,
) -> None:
    async with MockServer() as one, MockServer() as two:
        spread = spread_over(connections, one, two)
        for query in range(4):
            for prompt in range(24):
                await spread.complete(ask(f"prompt {prompt}", f"q{query}"))
        seen, other = prompts_at(one), prompts_at(two)
        assert not seen.keys() & other.keys() and set(seen.values()) | set(other.values()) == {4}
        assert 6 <= len(seen) <= 18
        assert spread.sent == {one.url: seen.total(), two.url: other.total()}


async def test_in_parallel_the_bound_on_load_costs_few_moves(connections: Connections) -> None:
    async with MockServer(latency_s={"m": 0.002}) as one, MockServer(latency_s={"m": 0.002}) as two:
        spread, stop = spread_over(connections, one, two), Stop()
        limit = Limit(spread, Slots(8, by_prefix=True), stop)
        asked = [ask(f"prompt {prompt}", f"q{query}") for query in range(10) for prompt in range(20)]
        await asyncio.gather(*(limit.complete(request) for request in asked))
        seen, other = prompts_at(one), prompts_at(two)
        assert seen.total() + other.total() == 200
        assert min(seen.total(), other.total()) >= 60


async def test_a_server_that_dies_loses_no_request_and_is_used_again_when_it_is_back(
    connections: Connections,
) -> None:
    now_s = 0.0
    answered = 0
    async with AsyncExitStack() as stack:
        stays = await stack.enter_async_context(MockServer())
        busy = asyncio.Event()

        def never(model: str, body: dict[str, Any]) -> Reply:
            if len(dies.requests) == 10:
                busy.set()
            return Reply(fault="hang")

        dies = await MockServer(never).__aenter__()
        spread = spread_over(connections, stays, dies, clock=lambda: now_s)

        async def one(number: int) -> None:
            nonlocal answered
            await spread.complete(ask(f"prompt {number}"))
            answered += 1

        asked = [asyncio.ensure_future(one(number)) for number in range(40)]
        await busy.wait()
        await dies.__aexit__()  # with requests in the air
        await asyncio.gather(*asked)
        assert answered == 40 and len(stays.requests) == 40

        back = MockServer(port=int(dies.url.rsplit(":", 1)[1].partition("/")[0]))
        await stack.enter_async_context(back)
        await asyncio.gather(*(one(number) for number in range(40, 60)))
        assert back.requests == []  # not yet
        now_s = OUT_S
        await one(60)
        for number in range(61, 101):
            await one(number)
        assert len(back.requests) >= 10 and answered == 101


async def test_when_all_servers_are_dead_the_failure_is_one_that_is_tried_again(
    connections: Connections,
) -> None:
    async with MockServer() as one, MockServer() as two:
        spread = spread_over(connections, one, two)
        port = int(two.url.rsplit(":", 1)[1].partition("/")[0])
    with pytest.raises(Unconnected, match="no connection"):
        await spread.complete(ask("kind"))

    again: list[MockServer] = []

    async def sleep(seconds: float) -> bool:
        if not again:
            again.append(await MockServer(port=port).__aenter__())
        return False

    stop = Stop()
    retry = Retry(Limit(spread, Slots(4), stop), stop, Random(1), deadline_s=60.0, sleep=sleep)
    assert (await retry.complete(ask("kind"))).choices[0].text == "ok"
    await again[0].__aexit__()


async def test_a_model_that_one_server_does_not_know_is_refused(connections: Connections) -> None:
    async with MockServer(lambda model, body: error(404, "no such model")) as one, MockServer() as two:
        spread = spread_over(connections, one, two)
        with pytest.raises(ProviderRefused, match="no such model"):
            for number in range(40):
                await spread.complete(ask(str(number)))
        assert len(one.requests) == 1
