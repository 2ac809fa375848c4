"""Every reply is on the disk before anything uses it, and is never asked for again."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from drpo.errors import DrpoError, ParameterRefused, ProviderDown, ReplayMissed, Stopped, StorageError
from drpo.jsonl import Journal, read_lines
from drpo.llm.base import Choice, Completion, Request, Usage
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record, Recorder
from tests.support.gated_llm import GatedLLM, echo, question, reply
from tests.support.scripted_tree import idle


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


@pytest.fixture
async def record(path: Path) -> AsyncIterator[Record]:
    record = Record(path)
    yield record
    await record.close()


def data_of(path: Path) -> bytes:
    return path.read_bytes()


def put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


async def test_a_reply_comes_back_whole_from_the_record(path: Path) -> None:
    full = Completion((Choice("a\u2028", "length"), Choice("", "stop")), Usage(3, 2, 1), "served")
    first = Record(path)
    assert await first.answer(question(n=2), GatedLLM(lambda request: full)) == full
    await first.close()
    again = Record(path, writable=False)
    assert await again.answer(question(n=2), None) == full
    assert (len(again), again.holds(question(n=2))) == (1, True)


@pytest.mark.parametrize(("told", "written"), [(None, "null"), (0, "0"), (1, "1")])
async def test_what_was_not_told_of_the_cache_is_written_as_such(
    path: Path, told: int | None, written: str
) -> None:
    whole = Completion((Choice("a"),), Usage(3, 2, told))
    record = Record(path)
    await record.answer(question(), GatedLLM(lambda request: whole))
    await record.close()
    assert f"[3,2,{written}]" in data_of(path).decode().replace(" ", "")
    assert await Record(path, writable=False).answer(question(), None) == whole


async def test_a_recorded_call_is_not_sent_again(record: Record) -> None:
    llm = GatedLLM()
    replies = [await record.answer(question(), llm) for _ in range(3)]
    assert len(llm.requests) == 1
    assert len(set(replies)) == 1


async def test_equal_requests_in_the_air_are_one_call(record: Record) -> None:
    llm = GatedLLM(open_gate=False)
    asking = [asyncio.create_task(record.answer(question(priority=n), llm)) for n in range(5)]
    other = asyncio.create_task(record.answer(question("another"), llm))
    await idle()
    assert len(llm.requests) == 2
    llm.gate.set()
    assert len({await task for task in asking}) == 1
    await other
    assert record.sent == {"base": 2}


async def test_a_reply_is_used_only_once_it_is_on_the_disk(
    record: Record, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable, append = asyncio.Event(), Journal.append

    async def slow(journal: Journal, entry: dict[str, object]) -> None:
        await durable.wait()
        await append(journal, entry)

    monkeypatch.setattr(Journal, "append", slow)
    asking = asyncio.create_task(record.answer(question(), GatedLLM()))
    late = asyncio.create_task(record.answer(question(), GatedLLM()))
    await idle()
    assert not asking.done()
    assert not late.done(), "nor by whoever asks the same while it is being written"
    assert not record.holds(question())
    durable.set()
    await asyncio.gather(asking, late)
    assert len(read_lines(path).records) == 1


async def test_a_reply_that_cannot_be_recorded_is_not_used(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    stop = Stop()
    with pytest.raises(StorageError, match="No space left"):
        await Recorder(record, GatedLLM(), stop).complete(question())
    assert isinstance(stop.cause, StorageError)
    assert not record.holds(question())


async def test_a_reply_is_recorded_even_when_whoever_asked_is_gone(record: Record, path: Path) -> None:
    llm = GatedLLM(open_gate=False)
    asking = asyncio.create_task(record.answer(question(), llm))
    await idle()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    llm.gate.set()
    assert await record.drain(20) == 0
    assert record.holds(question())
    assert len(read_lines(path).records) == 1


async def test_one_of_two_askers_may_go(record: Record) -> None:
    llm = GatedLLM(open_gate=False)
    gone, stays = (asyncio.create_task(record.answer(question(), llm)) for _ in range(2))
    await idle()
    gone.cancel()
    llm.gate.set()
    assert await stays == echo(question())


async def test_a_failed_call_is_neither_kept_nor_final(record: Record) -> None:
    with pytest.raises(ProviderDown):
        await record.answer(question(), GatedLLM(lambda request: ProviderDown("gone")))
    assert await record.answer(question(), GatedLLM()) == echo(question())
    assert record.calls_by_role() == {"base": 1}
    assert record.sent == {"base": 2}


async def test_a_refusal_is_recorded_and_raised_again_unsent(path: Path) -> None:
    def refuse(request: Request) -> ParameterRefused:
        return ParameterRefused("top_p", "not this one")

    first = Record(path)
    with pytest.raises(ParameterRefused):
        await first.answer(question(top_p=0.9), GatedLLM(refuse))
    await first.close()
    again = Record(path, writable=False)
    with pytest.raises(ParameterRefused, match="not this one") as caught:
        await again.answer(question(top_p=0.9), None)
    assert caught.value.parameter == "top_p"
    assert list(again.refused_by_model["m"]) == ["top_p"]
    assert (len(again), again.missed) == (0, {})


async def test_an_endpoint_that_ignores_n_is_not_noted(record: Record) -> None:
    """Who asked before the note and who after it would depend on timing, and so would the samples."""
    await record.answer(question(n=3), GatedLLM(lambda request: reply("one")))
    assert record.refused_by_model == {}


async def test_strict_replay_lists_what_is_missing_and_sends_nothing(path: Path, record: Record) -> None:
    await record.answer(question("known"), GatedLLM())
    replayed, stop, unused = Record(path, writable=False), Stop(), GatedLLM()
    model = Recorder(replayed, None, stop)
    asked = [question("known"), question("a"), question("b"), question("a")]
    results = await asyncio.gather(*(model.complete(request) for request in asked), return_exceptions=True)
    assert [type(result) for result in results] == [Completion, ReplayMissed, ReplayMissed, ReplayMissed]
    assert list(replayed.missed.values()) == [question("a"), question("b")]
    assert not stop.is_set, "a miss does not keep the others from being looked up"
    with pytest.raises(ReplayMissed):
        await replayed.answer(question("a"), unused)
    assert unused.requests == []


async def test_a_replay_leaves_the_file_alone(path: Path) -> None:
    first = Record(path)
    await first.answer(question(), GatedLLM())
    await first.close()
    before = data_of(path) + b'{"torn'
    put(path, before)
    again = Record(path, writable=False)
    await again.answer(question(), None)
    await again.close()
    assert data_of(path) == before


async def test_calls_are_counted_once_and_by_role_whoever_was_first(path: Path) -> None:
    roles = ("evaluator", "base", "optimizer")
    for order in (roles, roles[::-1]):
        record = Record(path)
        for role in order:
            await record.answer(question(role=role), GatedLLM())
        await record.answer(question("x", role="selector"), GatedLLM())
        assert record.calls_by_role() == {"base": 1, "selector": 1}
        await record.close()


async def test_a_call_held_back_by_the_end_of_the_run_was_not_sent(record: Record) -> None:
    with pytest.raises(Stopped):
        await record.answer(question(), GatedLLM(lambda request: Stopped("ending")))
    assert record.sent["base"] == 0


@pytest.mark.parametrize(
    ("error", "ends"),
    [(ProviderDown("gone"), True), (ParameterRefused("n", "no"), False), (KeyError("a bug"), False)],
)
async def test_a_broken_boundary_ends_the_run_for_all(record: Record, error: Exception, ends: bool) -> None:
    stop = Stop()
    with pytest.raises(type(error)):
        await Recorder(record, GatedLLM(lambda request: error), stop).complete(question())
    assert stop.is_set == ends
    assert (stop.cause is error) == (ends and isinstance(error, DrpoError))


async def test_draining_waits_for_calls_in_the_air(record: Record) -> None:
    llm = GatedLLM(open_gate=False)
    asking = asyncio.create_task(record.answer(question(), llm))
    await idle()
    draining = asyncio.create_task(record.drain(60))
    await idle()
    assert not draining.done()
    llm.gate.set()
    assert await draining == 0
    assert record.holds(question())
    await asking


async def test_draining_gives_up_after_its_time_and_says_how_many(record: Record) -> None:
    llm = GatedLLM(open_gate=False)
    asking = [asyncio.create_task(record.answer(question(str(n)), llm)) for n in range(3)]
    await idle()
    assert await record.drain(0) == 3
    assert await asyncio.wait_for(record.drain(0), 20) == 0, "and nothing is in the air any more"
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(result) for result in results} == {asyncio.CancelledError}


async def test_draining_ends_for_a_call_given_up_before_it_began(record: Record) -> None:
    asking = asyncio.create_task(record.answer(question(), GatedLLM(open_gate=False)))
    await asyncio.sleep(0)  # asked, but its task has not had a turn
    for task in asyncio.all_tasks() - {asking, asyncio.current_task()}:
        if "_send" in repr(task):
            task.cancel()
    assert await asyncio.wait_for(record.drain(1), 20) == 0
    await asyncio.gather(asking, return_exceptions=True)


async def test_nothing_to_drain_takes_no_time(record: Record) -> None:
    assert await record.drain(1e9) == 0


@pytest.mark.parametrize("seed", range(12))
async def test_after_a_kill_no_recorded_call_is_sent_again(path: Path, tmp_path: Path, seed: int) -> None:
    questions = [question(str(n), n=1 + n % 3) for n in range(12)]
    first = Record(path)
    whole = [await first.answer(request, GatedLLM()) for request in questions]
    await first.close()
    data, chance = data_of(path), random.Random(seed)
    torn = tmp_path / "torn.jsonl"
    put(torn, data[: chance.randrange(len(data))])
    kept = len(read_lines(torn).records)
    llm = GatedLLM()
    again = Record(torn)
    assert [await again.answer(request, llm) for request in questions] == whole
    await again.close()
    assert llm.requests == questions[kept:]
    assert data_of(torn) == data


async def test_steering_of_a_request_is_not_recorded_but_its_first_role_is(
    path: Path, record: Record
) -> None:
    await record.answer(replace(question(), role="optimizer", priority=5), GatedLLM())
    (entry,) = read_lines(path).records
    assert entry["role"] == "optimizer"
    assert "priority" not in entry["request"]
