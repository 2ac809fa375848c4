"""The books: what is let out, what is held for it, and what the file says afterwards."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.errors import BudgetSpent, InputError, ProviderRefused, RecordDamaged, Stopped
from drpo.llm.base import Choice, Completion, Message, Request, Usage
from drpo.llm.ledger import CallDone, Ledger, Limits, Spent, Ticket, read_ledger
from drpo.llm.limits import Stop
from drpo.llm.metered import Metered, most_tokens
from drpo.llm.retry import Transient
from drpo.tariffs import RoleTariff
from drpo.testing import ScriptedLLM
from tests.support.gated_llm import GatedLLM

DEAR = RoleTariff("given", 1_000_000.0, 1_000_000.0)  # a dollar a token: amounts that are easy to read
PRICES = {"base": DEAR, "optimizer": DEAR}


@asynccontextmanager
async def books(
    path: Path,
    *,
    max_calls: int | None = None,
    max_usd: float | None = None,
    told: Callable[[CallDone], None] | None = None,
    stop: Stop | None = None,
) -> AsyncIterator[Ledger]:
    ledger = Ledger(path, PRICES, Limits(max_calls, max_usd), stop or Stop(), told)
    try:
        yield ledger
    finally:
        await ledger.close()


async def take(ledger: Ledger, tokens: int = 10, role: str = "base", *, again: bool = False) -> Ticket:
    return await ledger.open(role, "m", Usage(tokens), again=again)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


async def test_a_request_is_in_the_file_before_it_may_be_sent(path: Path) -> None:
    async with books(path, max_usd=100) as ledger:
        await take(ledger)
        (sent,) = lines(path)
        assert (sent["kind"], sent["role"], sent["at_most_usd"]) == ("sent", "base", 10.0)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda b, t: b.answered(t, Usage(3, 4, 1)), Spent(answered=1, usd=7.0)),
        (lambda b, t: b.failed(t), Spent(failed=1)),
        (lambda b, t: b.unsent(t), Spent()),
        (lambda b, t: b.unknown(t), Spent(unknown=1, held_usd=10.0)),
        (lambda b, t: b.answered(t, Usage()), Spent(answered=1, unpriced=1, held_usd=10.0)),
    ],
    ids=["answered", "failed", "unsent", "unknown", "usage not told"],
)
async def test_each_ending_counts_as_what_it_is_now_and_when_read_again(
    path: Path, end: Callable[[Ledger, Ticket], object], expected: Spent
) -> None:
    async with books(path) as ledger:
        end(ledger, await take(ledger))
        now = ledger.spent["base"]
    for found in (now, read_ledger(path).get("base", Spent())):
        assert (found.calls, found.answered, found.failed, found.unknown) == (
            expected.calls,
            expected.answered,
            expected.failed,
            expected.unknown,
        )
        assert (found.usd, found.held_usd, found.unpriced) == (
            expected.usd,
            expected.held_usd,
            expected.unpriced,
        )
    async with books(path) as ledger:
        assert ledger.spent.get("base", Spent()).calls == expected.calls


async def test_a_request_waits_while_those_in_the_air_may_leave_room_for_it(path: Path) -> None:
    async with books(path, max_usd=15) as ledger:
        first = await take(ledger)
        second = asyncio.create_task(take(ledger))
        await asyncio.sleep(0)
        assert not second.done()
        ledger.answered(first, Usage(2, 1))
        await second
        assert ledger.total.usd + ledger.total.held_usd == 13.0


async def test_the_budget_is_spent_only_when_nothing_in_the_air_can_make_room(path: Path) -> None:
    async with books(path, max_usd=15) as ledger:
        first = await take(ledger)
        second = asyncio.create_task(take(ledger))
        await asyncio.sleep(0)
        ledger.answered(first, Usage(9))
        said = r"\$15 is spent: \$9\.0000 was, .* can cost \$10\.0000.*--max-usd"
        with pytest.raises(BudgetSpent, match=said):
            await second


async def test_what_got_no_answer_stays_held_and_is_said(path: Path) -> None:
    async with books(path, max_usd=15) as ledger:
        ledger.unknown(await take(ledger))
        with pytest.raises(BudgetSpent, match=r"\$10\.0000 may have been for 1 requests that got no answer"):
            await take(ledger)


async def test_a_killed_process_leaves_what_it_held_to_the_next(path: Path) -> None:
    ledger = Ledger(path, PRICES, Limits(max_calls=2), Stop())
    await take(ledger)  # and nothing more: as after kill -9
    async with books(path, max_calls=2) as second:
        assert second.spent["base"] == Spent(unknown=1, held_usd=10.0)
        await take(second)
        with pytest.raises(BudgetSpent, match="limit of 2 calls"):
            second.unknown(Ticket(2, "base", "m", 10.0, False, 0.0))
            await take(second)
    await ledger.close()


async def test_a_raised_limit_goes_on(path: Path) -> None:
    async with books(path, max_calls=1) as ledger:
        ledger.failed(await take(ledger))
        with pytest.raises(BudgetSpent):
            await take(ledger)
    async with books(path, max_calls=2) as ledger:
        await take(ledger)


async def test_without_a_price_nothing_is_sent_under_a_limit_on_money(path: Path) -> None:
    async with books(path, max_usd=15) as ledger:
        with pytest.raises(BudgetSpent, match="--price selector=IN/OUT"):
            await take(ledger, role="selector")
        with pytest.raises(BudgetSpent, match="no known highest price"):
            await ledger.open("base", "m", None)
    assert read_ledger(path) == {}


async def test_who_waits_is_woken_when_the_run_ends(path: Path) -> None:
    stop = Stop()
    async with books(path, max_calls=1, stop=stop) as ledger:
        await take(ledger)
        waiting = asyncio.create_task(take(ledger))
        await asyncio.sleep(0)
        stop.set(ProviderRefused("no"))
        with pytest.raises(Stopped):
            await waiting


def test_a_torn_last_line_is_left_out_and_damage_elsewhere_is_refused(path: Path) -> None:
    asyncio.run(_one_failed(path))
    with path.open("a") as file:
        file.write('{"kind":"sent","id":2,')
    assert read_ledger(path)["base"].calls == 1
    path.write_text("garbage\n" + path.read_text())
    with pytest.raises(InputError, match=r"ledger\.jsonl:1"):
        read_ledger(path)
    with pytest.raises(RecordDamaged, match=r"ledger\.jsonl:1"):
        asyncio.run(_one_failed(path))


async def _one_failed(path: Path) -> None:
    async with books(path) as ledger:
        ledger.failed(await take(ledger))


def test_an_ending_without_its_request_is_refused(path: Path) -> None:
    asyncio.run(_one_failed(path))
    second = path.read_text().splitlines(keepends=True)[1]
    path.write_text(second)
    with pytest.raises(InputError, match="found 'failed' of request 1"):
        read_ledger(path)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40), st.sampled_from("afukw"))),
    st.integers(1, 120),
)
def test_what_is_spent_and_held_never_passes_the_limit(steps: list[tuple[int, int, str]], limit: int) -> None:
    """Whatever the requests can cost, do cost, and however they end."""

    async def play(folder: Path) -> None:
        path = folder / "ledger.jsonl"
        path.unlink(missing_ok=True)
        in_air: list[tuple[Ticket, int]] = []
        async with books(path, max_usd=limit) as ledger:
            for most, real, ending in steps:
                asked = asyncio.create_task(take(ledger, most))
                for _ in range(6):
                    await asyncio.sleep(0)
                if asked.done() and asked.exception() is None:
                    in_air.append((asked.result(), min(most, real)))
                else:
                    asked.cancel()
                    await asyncio.gather(asked, return_exceptions=True)
                assert ledger.total.usd + ledger.total.held_usd <= limit
                if in_air and ending != "w":
                    ticket, cost = in_air.pop(0)
                    match ending:
                        case "a":
                            ledger.answered(ticket, Usage(cost))
                        case "f":
                            ledger.failed(ticket)
                        case "u":
                            ledger.unsent(ticket)
                        case _:
                            ledger.unknown(ticket)
                assert ledger.total.usd + ledger.total.held_usd <= limit
            for ticket, _ in in_air:
                ledger.unknown(ticket)
            totals = ledger.total
        assert sum(read_ledger(path).values(), Spent()) == totals

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        ("fine", "answered"),
        (ProviderRefused("key"), "failed"),
        (Transient("busy", charge="none"), "failed"),
        (Transient("nobody there", charge="unsent"), "unsent"),
        (Transient("broke"), "unknown"),
        (RuntimeError("bug"), "unknown"),
        (Completion((Choice("", "context_length"),)), "failed"),
        (Completion((Choice("", "content_filter"),), Usage(5, 1)), "answered"),
    ],
)
async def test_a_client_ends_its_requests_by_what_came(
    path: Path, answer: str | Completion | BaseException, ending: str
) -> None:
    heard: list[CallDone] = []
    async with books(path, told=heard.append) as ledger:
        llm = Metered(ScriptedLLM([answer]), ledger)
        request = Request("m", messages=(Message("user", "q"),), max_tokens=5, role="optimizer", again=True)
        if isinstance(answer, BaseException):
            with pytest.raises(type(answer)):
                await llm.complete(request)
        else:
            await llm.complete(request)
        assert ledger.total.in_air == 0
    (call,) = heard
    assert (call.ending, call.role, call.operation, call.again) == (ending, "optimizer", "chat", True)


async def test_a_cancelled_request_is_unknown(path: Path) -> None:
    llm = GatedLLM(open_gate=False)
    async with books(path) as ledger:
        task = asyncio.create_task(Metered(llm, ledger).complete(Request("m", prompt="p", max_tokens=5)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert llm.requests
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (ledger.total.in_air, ledger.total.unknown) == (0, 1)


def test_the_most_that_a_request_can_use_covers_every_byte_and_choice() -> None:
    request = Request("m", messages=(Message("system", "ü" * 10), Message("user", "q")), max_tokens=7, n=3)
    most = most_tokens(request)
    assert most is not None and most.completion_tokens == 21 and most.prompt_tokens >= 21 + 2
    with_schema = most_tokens(Request("m", prompt="p", max_tokens=7, reply_schema="x" * 500))
    assert with_schema is not None and with_schema.prompt_tokens > 500
    thinking = most_tokens(Request("m", prompt="p", max_completion_tokens=9))
    assert thinking is not None and thinking.completion_tokens == 9
    assert most_tokens(Request("m", prompt="p")) is None
