"""The books: what is let out, what is held for it, and what the file says afterwards."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.errors import (
    BudgetSpent,
    InputError,
    ParameterRefused,
    ProviderRefused,
    RecordDamaged,
    Stopped,
    StorageError,
)
from drpo.jsonl import encode_line
from drpo.llm.base import Choice, Completion, Message, Request, Usage
from drpo.llm.ledger import CallDone, Ledger, Limits, Spent, Ticket, read_ledger
from drpo.llm.limits import Stop
from drpo.llm.metered import Metered, most_tokens
from drpo.llm.recorder import Record
from drpo.llm.retry import Transient
from drpo.llm.spent import Tariff
from drpo.tariffs import FREE, UNKNOWN, RoleTariff
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
    prices: Mapping[str, Tariff] = PRICES,
    notice: Callable[[str], None] | None = None,
) -> AsyncIterator[Ledger]:
    limits, calls = Limits(max_calls, max_usd), path.with_name("calls.jsonl")
    ledger = Ledger(path, prices, limits, stop or Stop(), told, calls=calls, notice=notice)
    try:
        yield ledger
    finally:
        await ledger.close()


async def take(ledger: Ledger, tokens: int = 10, role: str = "base", *, again: bool = False) -> Ticket:
    return await ledger.open(role, "m", Usage(tokens), again=again)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def content(path: Path) -> str:
    return path.read_text()


def keep(path: Path, number: int, *, of: str) -> None:
    """The first lines only; of none no file."""
    path.unlink(missing_ok=True)
    if number:
        path.write_text("".join(of.splitlines(keepends=True)[:number]))


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
    assert read_ledger(path) == {}


async def test_without_a_bound_nothing_is_sent_under_a_limit_on_money_but_what_is_free(path: Path) -> None:
    async with books(path, max_usd=15, prices={"base": DEAR, "optimizer": FREE}) as ledger:
        with pytest.raises(
            InputError, match=r"m \(the base\) takes no max_tokens.*--max-thinking-tokens.*--run-dir"
        ):
            await ledger.open("base", "m", None)
        assert (await ledger.open("optimizer", "m", None)).at_most_usd == 0.0
    async with books(path, max_calls=9) as ledger:
        assert (await ledger.open("base", "m", None)).at_most_usd is None


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
        (Completion((Choice("", "context_length"),), turned_away=True), "failed"),
        (Completion((Choice("", "content_filter"),), turned_away=True), "failed"),
        (Completion((Choice("", "content_filter"),)), "answered"),
        (Completion((Choice("half a repl", "content_filter"),)), "answered"),
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


@pytest.mark.parametrize(
    ("text", "usage", "usd"),
    [
        ("fine", Usage(5, 1), 6.0),
        ("", Usage(5, 0), 5.0),  # nothing was written, and that is what is told
        ("fine", Usage(5, 0), None),
        ("fine", Usage(0, 5), None),
        ("fine", Usage(), None),
    ],
)
async def test_a_usage_that_tells_a_part_leaves_the_most_booked(
    path: Path, text: str, usage: Usage, usd: float | None
) -> None:
    request = Request("m", messages=(Message("user", "q"),), max_tokens=5)
    most = most_tokens(request)
    assert most is not None
    async with books(path, max_usd=1000) as ledger:
        await Metered(ScriptedLLM([Completion((Choice(text),), usage)]), ledger).complete(request)
        now = ledger.total
    held_usd = 0.0 if usd is not None else DEAR.usd(most)
    assert (now.usd, now.held_usd, now.unpriced) == (usd or 0.0, held_usd, int(usd is None))
    assert read_ledger(path)["base"] == now
    async with books(path, max_usd=1000) as ledger:
        assert ledger.total == now


async def test_what_was_held_and_is_settled_leaves_no_residue(path: Path) -> None:
    async with books(path, max_usd=1, prices={"base": RoleTariff("given", 100_000.0)}) as ledger:
        for ticket in [await take(ledger, tokens) for tokens in (1, 2, 3)]:
            ledger.answered(ticket, Usage(1))
        assert ledger.total.held_usd == 0.0


async def test_a_server_that_ignores_max_tokens_is_told_of_once_and_later_requests_are_held_for_more(
    path: Path,
) -> None:
    said: list[str] = []
    async with books(path, max_usd=200, notice=said.append) as ledger:
        in_air = [await ledger.open("base", "m", Usage(1, 9)) for _ in range(2)]
        for ticket, written in zip(in_air, (45, 18), strict=True):
            ledger.answered(ticket, Usage(1, written))
        assert ledger.total.usd == 65.0  # what it truly cost
        assert len(said) == 1 and "wrote 45 tokens in a request of 9 at most" in said[0]
        assert (await ledger.open("base", "m", Usage(1, 9))).at_most_usd == pytest.approx(46, abs=1)
        assert (await ledger.open("optimizer", "m", Usage(1, 9))).at_most_usd == 10.0  # another role's
    async with books(path, max_usd=1000) as ledger:  # the next process knows
        assert (await ledger.open("base", "m", Usage(2, 9))).at_most_usd == pytest.approx(47, abs=1)


async def test_a_limit_is_passed_by_no_more_than_was_in_the_air_when_a_server_ignored_max_tokens(
    path: Path,
) -> None:
    async with books(path, max_usd=100) as ledger:
        for _ in range(3):
            ledger.answered(await ledger.open("base", "m", Usage(0, 10)), Usage(0, 30))
        with pytest.raises(BudgetSpent, match=r"\$90\.0000 was, .* can cost \$31"):
            await ledger.open("base", "m", Usage(0, 10))


@pytest.mark.parametrize("end", ["answered", "failed", "unsent"])
async def test_a_disk_that_refuses_an_ending_does_not_cost_the_reply(
    path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(path, PRICES, Limits(max_usd=100), Stop())
    ticket, other = await take(ledger), await take(ledger)

    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        assert ledger.answered(other, Usage(3)) == 3.0  # its line fails later, on the disk
        with pytest.raises(StorageError, match="No space left"):
            await take(ledger)
    if end == "answered":
        assert ledger.answered(ticket, Usage(4)) == 4.0
    else:
        getattr(ledger, end)(ticket)
    assert ledger.total.in_air == 0
    assert ledger.total.usd == (7.0 if end == "answered" else 3.0)
    with pytest.raises(StorageError, match="No space left"):
        await take(ledger)
    assert ledger.total.in_air == 0
    await ledger.close()
    assert read_ledger(path)["base"] == Spent(unknown=2, held_usd=20.0)  # never less than was spent


# What an earlier process leaves to a limit


async def _unpriced(path: Path, *endings: Usage | None) -> None:
    """Requests without a price: answered with that usage, None: without an answer."""
    async with books(path, prices={"base": UNKNOWN}) as ledger:
        for usage in endings:
            ticket = await take(ledger)
            if usage is None:
                ledger.unknown(ticket)
            else:
                ledger.answered(ticket, usage)


async def test_what_was_spent_without_a_price_counts_by_its_usage(path: Path) -> None:
    await _unpriced(path, Usage(3, 1), Usage(4, 2))
    assert read_ledger(path)["base"].unpriced == 2
    async with books(path, max_usd=15) as ledger:
        assert (ledger.total.usd, ledger.total.unpriced) == (10.0, 0)
        with pytest.raises(BudgetSpent, match=r"\$10\.0000 was"):
            await take(ledger)
    async with books(path, max_calls=15) as ledger:
        assert ledger.total.unpriced == 2  # without a limit on money nothing is priced anew


@pytest.mark.parametrize(
    "ending", [None, Usage(), Usage(3, 0)], ids=["no answer", "no usage", "half a usage"]
)
async def test_a_limit_on_money_is_refused_where_nobody_can_tell_what_was_spent(
    path: Path, ending: Usage | None
) -> None:
    await _unpriced(path, Usage(3, 1))
    async with books(path, prices={"base": UNKNOWN}) as ledger:
        ticket = await take(ledger)
        if ending is None:
            ledger.unknown(ticket)
        else:
            ledger.answered(ticket, ending, whole=False)
    with pytest.raises(
        InputError, match=r"--max-usd 15: .*\(1 of the base\).*--run-dir, or leave --max-usd out"
    ):
        async with books(path, max_usd=15):
            pass
    async with books(path, max_usd=15, prices={"base": RoleTariff("given")}) as ledger:  # 0/0 costs nothing
        assert ledger.total.usd + ledger.total.held_usd == 0.0
    async with books(path, max_calls=15) as ledger:
        assert ledger.total.calls == 2


async def _record(path: Path, *answers: Completion | BaseException, turned: str = "m") -> None:
    """calls.jsonl and ledger.jsonl of a run in which the base model gave those answers."""
    async with books(path) as ledger:
        record = Record(path.with_name("calls.jsonl"))
        llm = Metered(ScriptedLLM(list(answers)), ledger)
        for number in range(len(answers)):
            request = Request(turned, messages=(Message("user", f"q{number}"),), max_tokens=5, role="base")
            await asyncio.gather(record.answer(request, llm), return_exceptions=True)
        await record.close()


async def test_what_the_ledger_has_lost_is_booked_by_the_record(path: Path) -> None:
    reply = Completion((Choice("yes"),), Usage(3, 1), "m")
    answers = [reply, replace(reply, usage=Usage(5, 2)), reply]
    await _record(
        path,
        *answers,
        Completion((Choice("", "context_length"),), turned_away=True),
        ParameterRefused("seed", "no seed"),
        replace(reply, served_model="reused"),
    )
    whole, reused = len(lines(path)), 4.0
    copy = content(path)
    expected = {"answered": 3, "failed": 2, "usd": 15.0}
    for kept in (0, 2, 4):
        keep(path, kept, of=copy)
        async with books(path, max_usd=1000) as ledger:
            now = ledger.total
            assert {name: getattr(now, name) for name in expected} == expected, kept
        keep(path, kept, of=copy)
        async with books(path, max_calls=5) as ledger:
            with pytest.raises(BudgetSpent, match="limit of 5 calls"):
                await take(ledger)
    keep(path, 0, of=copy)
    async with books(path) as ledger:  # without a limit nobody reads them
        assert ledger.total == Spent()
    keep(path, whole, of=copy)
    async with books(path, max_usd=1000) as ledger:
        assert ledger.total.usd == 15.0 + reused  # the books are whole: nothing is booked twice


async def test_a_reply_recorded_before_its_process_was_killed_is_not_booked_twice(path: Path) -> None:
    await _record(path, Completion((Choice("yes"),), Usage(3, 1), "m"))
    keep(path, 1, of=content(path))
    async with books(path, max_calls=9, max_usd=1000) as ledger:
        assert (ledger.total.calls, ledger.total.unknown, ledger.total.usd) == (1, 1, 0.0)
        assert ledger.total.held_usd > 4.0


async def test_a_lost_ledger_is_refused_where_the_record_does_not_tell_what_was_spent(path: Path) -> None:
    await _record(path, Completion((Choice("yes"),), Usage(), "m"))
    keep(path, 0, of=content(path))
    with pytest.raises(InputError, match=r"--max-usd 15: .*no whole usage.*\(1 of the base\)"):
        async with books(path, max_usd=15):
            pass
    async with books(path, max_calls=15) as ledger:
        assert ledger.total.calls == 1


async def test_a_lost_ledger_is_refused_where_texts_were_embedded(path: Path) -> None:
    fact = {"kind": "fact", "name": "shots 0", "value": [1]}
    keep(path.with_name("calls.jsonl"), 1, of=encode_line(fact) + "\n")
    prices = {"base": DEAR, "embedder": DEAR}
    with pytest.raises(InputError, match=r"what the embedder was sent: --max-calls could not hold"):
        async with books(path, max_calls=15, prices=prices):
            pass
    async with books(path, max_usd=15, prices={**prices, "embedder": FREE}):
        pass
    async with books(path, max_calls=15):
        pass


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
