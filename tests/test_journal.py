"""`Journal.append` returns when its record is on the disk, and not otherwise."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.errors import StorageError
from drpo.jsonl import Journal, encode_line, read_lines


class Gate:
    """Stands in for `os.fsync`: passes when the test opens it, or fails as told. `calls` counts its uses."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Event()
        self.error: OSError | None = None
        self.calls = 0

    def __call__(self, _: int) -> None:
        self.calls += 1
        self.begun.set()
        if not self.open.wait(20):
            raise AssertionError("the gate was never opened")
        if self.error is not None:
            raise self.error

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, 20)
        self.begun.clear()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr("drpo.jsonl.sync_folder", lambda folder: None)
    monkeypatch.setattr("os.fsync", gate)
    yield gate
    gate.open.set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


def put(path: Path, text: str) -> None:
    path.write_text(text)


def held(path: Path) -> list[dict[str, Any]]:
    return list(read_lines(path).records)


async def test_append_returns_only_after_the_fsync(path: Path, gate: Gate) -> None:
    journal = Journal(path, inline_below_s=0)
    append = asyncio.create_task(journal.append({"n": 1}))
    await gate.reached()
    assert not append.done()
    gate.open.set()
    await append
    assert held(path) == [{"n": 1}]
    await journal.close()


async def test_records_that_wait_share_one_fsync_and_keep_their_order(path: Path, gate: Gate) -> None:
    journal = Journal(path, inline_below_s=0)
    appends = [asyncio.create_task(journal.append({"n": 0}))]
    await gate.reached()
    appends += [asyncio.create_task(journal.append({"n": n})) for n in range(1, 9)]
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(*appends)
    assert gate.calls == 2
    assert held(path) == [{"n": n} for n in range(9)]
    await journal.close()


@given(st.lists(st.integers(0, 3), max_size=20))
def test_order_on_disk_is_order_of_appending(pauses: list[int]) -> None:
    async def work(path: Path) -> None:
        journal = Journal(path)
        appends = []
        for number, pause in enumerate(pauses):
            appends.append(asyncio.create_task(journal.append({"n": number})))
            for _ in range(pause):
                await asyncio.sleep(0)
        await asyncio.gather(*appends)
        await journal.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(work(Path(folder, "calls.jsonl")))
        assert held(Path(folder, "calls.jsonl")) == [{"n": number} for number in range(len(pauses))]


async def test_a_failed_fsync_fails_this_append_and_every_later_one(path: Path, gate: Gate) -> None:
    journal = Journal(path, inline_below_s=0)
    gate.error = OSError(errno.EIO, "Input/output error")
    gate.open.set()
    with pytest.raises(StorageError, match="Input/output error"):
        await journal.append({"n": 1})
    gate.error = None
    with pytest.raises(StorageError):
        await journal.append({"n": 2})
    await journal.close()
    assert {"n": 2} not in held(path)


async def test_nothing_is_written_behind_a_line_that_a_full_disk_tore(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(path, inline_below_s=0)
    await journal.append({"n": 0})
    write, entered, go = os.write, threading.Event(), threading.Event()
    writes = 0

    def full_for_once(handle: int, data: bytes) -> int:
        """The disk takes ten bytes, then nothing, and then has room again."""
        nonlocal writes
        writes += 1
        entered.set()
        assert go.wait(20)
        if writes == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[:10] if writes == 1 else data)

    monkeypatch.setattr("os.write", full_for_once)
    first = asyncio.create_task(journal.append({"n": 1}))
    assert await asyncio.to_thread(entered.wait, 20)
    others = [asyncio.create_task(journal.append({"n": n})) for n in (2, 3)]  # wait while the disk runs full
    await asyncio.sleep(0)
    go.set()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    assert [type(result) for result in results] == [StorageError] * 3
    await journal.close()
    lines = read_lines(path)
    assert (list(lines.records), lines.torn) == ([{"n": 0}], True), "a resumed run can go on from here"


async def test_a_torn_tail_is_cut_off_before_the_next_record(path: Path) -> None:
    put(path, encode_line({"n": 1}) + "\n" + encode_line({"n": 2})[:-3])
    journal = Journal(path, read_lines(path).sound_bytes)
    await journal.append({"n": 3})
    await journal.close()
    assert held(path) == [{"n": 1}, {"n": 3}]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
async def test_a_folder_that_refuses_is_a_storage_error(
    path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(StorageError, match=os.strerror(code)):
        Journal(path)


async def test_a_missing_folder_is_a_storage_error(path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        Journal(path / "deeper")


async def test_closing_finishes_what_is_pending(path: Path, gate: Gate) -> None:
    journal = Journal(path, inline_below_s=0)
    appends = [asyncio.create_task(journal.append({"n": n})) for n in range(3)]
    await gate.reached()
    closing = asyncio.create_task(journal.close())
    await asyncio.sleep(0)
    assert not closing.done()
    gate.open.set()
    await closing
    await asyncio.gather(*appends)
    assert held(path) == [{"n": n} for n in range(3)]


async def test_whoever_appends_on_being_told_of_a_record_is_served_before_the_file_closes(path: Path) -> None:
    journal = Journal(path)

    async def two(first: int, second: int, turns: int) -> None:
        await journal.append({"n": first})
        for _ in range(turns):
            await asyncio.sleep(0)
        await journal.append({"n": second})

    tasks = [asyncio.create_task(two(1, 3, turns=0)), asyncio.create_task(two(2, 4, turns=1))]
    await asyncio.sleep(0)
    await journal.close()
    await asyncio.wait_for(asyncio.gather(*tasks), 20)
    assert held(path) == [{"n": n} for n in (1, 2, 3, 4)]


async def test_a_closed_journal_refuses_instead_of_waiting_for_ever(path: Path) -> None:
    journal = Journal(path)
    await journal.close()
    await journal.close()
    with pytest.raises(StorageError, match="closed"):
        await asyncio.wait_for(journal.append({"n": 1}), 20)


async def test_cancelling_an_append_does_not_lose_its_record_or_its_neighbours(
    path: Path, gate: Gate
) -> None:
    journal = Journal(path, inline_below_s=0)
    appends = [asyncio.create_task(journal.append({"n": n})) for n in range(3)]
    await gate.reached()
    appends[1].cancel()
    gate.open.set()
    await asyncio.gather(appends[0], appends[2])
    await journal.close()
    assert held(path) == [{"n": n} for n in range(3)]


async def test_cancelling_whoever_closes_does_not_cancel_the_writing(path: Path, gate: Gate) -> None:
    journal = Journal(path, inline_below_s=0)
    append = asyncio.create_task(journal.append({"n": 1}))
    await gate.reached()
    closing = asyncio.create_task(journal.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    gate.open.set()
    await asyncio.wait_for(append, 20)
    await journal.close()
    assert [record["n"] for record in read_lines(path).records] == [1]


def test_a_journal_outlives_an_event_loop(path: Path, gate: Gate) -> None:
    journal = Journal(path, inline_below_s=0)

    async def cut_off() -> None:
        task = asyncio.create_task(journal.append({"n": 1}))
        await gate.reached()
        task.cancel()

    async def go_on() -> None:
        await asyncio.wait_for(journal.append({"n": 2}), 20)
        await journal.close()

    asyncio.run(cut_off())
    gate.open.set()
    asyncio.run(go_on())
    assert held(path) == [{"n": 1}, {"n": 2}]


async def test_a_record_that_is_no_json_is_refused_and_the_journal_goes_on(path: Path) -> None:
    journal = Journal(path)
    with pytest.raises(ValueError, match="JSON"):
        await journal.append({"n": float("nan")})
    await journal.append({"n": 1})
    await journal.close()
    assert held(path) == [{"n": 1}]


async def test_a_slow_fsync_sends_the_next_ones_to_a_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    monkeypatch.setattr("os.fsync", lambda handle: threads.append(threading.get_ident()))
    journal = Journal(path, inline_below_s=1e-9)  # any fsync takes longer
    threads.clear()  # the folder's
    for number in range(3):
        await journal.append({"n": number})
    await journal.close()
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [True, False, False]
    assert [record["n"] for record in read_lines(path).records] == [0, 1, 2]
