"""Replies that other runs have paid for: found again, copied into the run's own record, never an error."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from filelock import FileLock

from drpo.jsonl import encode_line, read_lines
from drpo.llm.base import Choice, Completion, request_key
from drpo.llm.recorder import Record
from drpo.llm.reuse import Reuse, Store
from tests.support.gated_llm import GatedLLM, echo, question, reply


def readable(text: str) -> bool:
    return not text.startswith("garbage")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shared" / "selections.jsonl"


async def test_a_reply_is_reused_by_the_next_run(path: Path) -> None:
    first = await Reuse(GatedLLM(), Store(path), readable).complete(question())
    unused = GatedLLM()
    again = await Reuse(unused, Store(path), readable).complete(question())
    assert [choice.text for choice in again.choices] == [choice.text for choice in first.choices]
    assert again.served_model == "reused"
    assert unused.requests == []


async def test_only_exactly_the_same_request_is_answered(path: Path) -> None:
    await Reuse(GatedLLM(), Store(path), readable).complete(question())
    llm = GatedLLM()
    for other in (question("x"), question(model="other"), question(temperature=0.5), question(n=2)):
        assert await Reuse(llm, Store(path), readable).complete(other) == echo(other)
    assert len(llm.requests) == 4


async def test_what_cannot_be_read_is_not_kept(path: Path) -> None:
    await Reuse(GatedLLM(lambda request: reply("garbage")), Store(path), readable).complete(question())
    assert Store(path).get(request_key(question())) is None


async def test_several_choices_are_not_kept(path: Path) -> None:
    await Reuse(GatedLLM(), Store(path), readable).complete(question(n=2))
    assert read_lines(path).records == ()


async def test_a_reused_reply_is_copied_into_the_runs_own_record(path: Path, tmp_path: Path) -> None:
    store = Store(path)
    store.add(request_key(question()), "kept")
    record = Record(tmp_path / "calls.jsonl")
    unused = GatedLLM()
    await record.answer(question(), Reuse(unused, store, readable))
    await record.close()
    replayed = Record(tmp_path / "calls.jsonl", writable=False)
    assert await replayed.answer(question(), None) == Completion((Choice("kept"),), served_model="reused")
    assert unused.requests == []
    assert replayed.calls_by_role() == record.calls_by_role() == {"base": 1}


def test_a_damaged_line_is_a_reply_less(path: Path) -> None:
    store = Store(path)
    for name in "abc":
        store.add(name, f"text {name}")
    path.write_bytes(path.read_bytes().replace(b"text b", b"text x") + b"\xff\xfe torn")
    again = Store(path)
    assert [again.get(name) for name in "abc"] == ["text a", None, "text c"]


def test_a_torn_last_line_does_not_take_the_next_reply_along(path: Path) -> None:
    Store(path).add("a", "text a")
    path.write_bytes(path.read_bytes()[:-4])
    Store(path).add("b", "text b")
    Store(path).add("c", "text c")
    again = Store(path)
    assert [again.get(name) for name in "abc"] == [None, "text b", "text c"]


def test_lines_of_another_shape_are_passed_over(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("".join(encode_line(r) + "\n" for r in ({"key": 1, "text": "a"}, {"key": "k"}, {})))
    assert Store(path).get("k") is None


def test_a_disk_that_refuses_costs_the_reuse_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "selections.jsonl")
    store.add("a", "text")
    assert store.get("a") == "text"
    assert Store(tmp_path).get("a") is None


def test_another_process_that_holds_the_lock_for_ever_costs_the_reuse_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drpo.llm.reuse.LOCK_TIMEOUT_S", 0)
    Store(path).add("a", "text a")
    with FileLock(f"{path}.lock"):
        Store(path).add("b", "text b")
    assert [Store(path).get(name) for name in "ab"] == ["text a", None]


def add_many(path: Path, name: str) -> None:
    store = Store(path)
    for number in range(20):
        store.add(f"{name}{number}", name * 50)


def test_two_processes_may_add_at_once(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=add_many, args=(path, name)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert {worker.exitcode for worker in workers} == {0}
    assert len(read_lines(path).records) == 40
