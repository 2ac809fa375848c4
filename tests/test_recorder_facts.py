"""Facts: what else decides a search, computed once, kept, and read back in replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from drpo.errors import ReplayMissed
from drpo.jsonl import read_lines
from drpo.llm.recorder import Record
from tests.support.scripted_tree import idle


class Compute:
    """Gives a value once the test lets it; `begun` counts how often it was asked."""

    def __init__(self, value: Any = "v") -> None:
        self.value, self.begun, self.gate = value, 0, asyncio.Event()

    async def __call__(self) -> Any:
        self.begun += 1
        await self.gate.wait()
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


class Batch:
    """Gives "value of N" for each position; `asked` holds the positions."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    async def __call__(self, positions: list[int]) -> list[Any]:
        self.asked.append(positions)
        return [f"value of {position}" for position in positions]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


@pytest.fixture
async def record(path: Path) -> AsyncIterator[Record]:
    record = Record(path)
    yield record
    await record.close()


async def test_a_fact_is_computed_once_also_for_many_who_ask_together(record: Record, path: Path) -> None:
    compute = Compute({"form": ["text"]})
    asking = [asyncio.create_task(record.fact("form", compute)) for _ in range(4)]
    await idle()
    compute.gate.set()
    assert await asyncio.gather(*asking) == [{"form": ["text"]}] * 4
    assert await record.fact("form", compute) == {"form": ["text"]}
    assert compute.begun == 1
    assert await Record(path, writable=False).fact("form", compute) == {"form": ["text"]}


async def test_a_fact_that_could_not_be_computed_is_not_kept(record: Record) -> None:
    failing, good = Compute(ValueError("no")), Compute("found")
    failing.gate.set()
    good.gate.set()
    with pytest.raises(ValueError, match="no"):
        await record.fact("form", failing)
    assert await record.fact("form", good) == "found"


async def test_all_who_wait_for_a_failing_fact_hear_of_it(record: Record) -> None:
    failing = Compute(ValueError("no"))
    asking = [asyncio.create_task(record.fact("form", failing)) for _ in range(3)]
    await idle()
    failing.gate.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(result) for result in results} == {ValueError}
    assert failing.begun == 1


async def test_a_fact_is_kept_even_when_whoever_asked_is_gone(record: Record, path: Path) -> None:
    compute = Compute()
    asking = asyncio.create_task(record.fact("form", compute))
    await idle()
    asking.cancel()
    draining = asyncio.create_task(record.drain(60))
    await idle()
    assert not draining.done(), "a reward of the user's own is paid for like a call"
    compute.gate.set()
    assert await draining == 0
    assert read_lines(path).records == ({"kind": "fact", "name": "form", "value": "v"},)


async def test_strict_replay_computes_nothing(path: Path, record: Record) -> None:
    compute = Compute()
    with pytest.raises(ReplayMissed, match="form"):
        await Record(path, writable=False).fact("form", compute)
    assert compute.begun == 0


async def test_many_facts_are_computed_in_one_go_and_only_the_unknown_ones(
    record: Record, path: Path
) -> None:
    batch = Batch()
    assert await record.facts(["a", "b"], batch, offline=False) == ["value of 0", "value of 1"]
    assert await record.facts(["b", "c", "a", "d"], batch, offline=False) == [
        "value of 1",
        "value of 1",
        "value of 0",
        "value of 3",
    ]
    assert batch.asked == [[0, 1], [1, 3]]
    assert len(read_lines(path).records) == 4


async def test_equal_names_among_many_facts_are_one_fact(record: Record, path: Path) -> None:
    found = await record.facts(["a", "a"], Batch(), offline=False)
    assert found[0] == found[1]
    assert len(read_lines(path).records) == 1


@pytest.mark.parametrize("offline", [True, False])
async def test_strict_replay_computes_only_what_needs_no_socket(path: Path, offline: bool) -> None:
    replayed, batch = Record(path, writable=False), Batch()
    if offline:
        assert await replayed.facts(["a"], batch, offline=True) == ["value of 0"]
        assert read_lines(path).records == ()
    else:
        with pytest.raises(ReplayMissed, match="a"):
            await replayed.facts(["a"], batch, offline=False)
        assert batch.asked == []
