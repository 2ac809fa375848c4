"""The event file is the same to the byte however often the run was cut, and says so when it is another's."""

from __future__ import annotations

import itertools
import json
import tempfile
import typing
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo import events as room
from drpo.errors import RecordDamaged, StorageError
from drpo.events import (
    Event,
    EventFile,
    LevelDone,
    NodeMade,
    ProposalDropped,
    SearchDone,
    Validated,
    event_line,
    read_events,
)

RUN: list[list[Event]] = [
    [
        NodeMade(0, "r", None, 0, False, 3.0, None, {"system_prompt": "a\nb \u2028 ü"}),
        LevelDone(0, 20, (0,), False),
    ],
    [
        NodeMade(1, "r/0.0", 0, 1, False, None, None, {"text": "half \ud83d"}, failure="cut off"),
        ProposalDropped("r/0.1", 0, "unreadable", "<raw>"),
        NodeMade(2, "r/k", 0, 1, True, 4.0, 4.0, {}, subject=3),
        LevelDone(1, 21, (2, 1), True, subject=0),
    ],
    [SearchDone(2, 4.0, 3, 2, "depth")],
    [Validated({"better": True})],
]


def emit_all(path: Path, runs: list[list[Event]] = RUN) -> bytes:
    file = EventFile(path)
    for level in runs:
        file.emit(level)
    return path.read_bytes()


def test_every_event_is_a_line_that_names_its_kind(tmp_path: Path) -> None:
    emit_all(tmp_path / "events.jsonl")
    kinds = [event["event"] for event in read_events(tmp_path / "events.jsonl")]
    assert kinds == ["node", "level", "node", "dropped", "node", "level", "end", "validation"]


def test_a_subject_is_told_where_there_is_one() -> None:
    assert "subject" not in json.loads(event_line(RUN[0][0]))
    assert json.loads(event_line(RUN[1][2]))["subject"] == 3
    assert json.loads(event_line(RUN[1][3]))["subject"] == 0


def test_any_text_comes_back_from_the_file(tmp_path: Path) -> None:
    emit_all(tmp_path / "events.jsonl")
    read = list(read_events(tmp_path / "events.jsonl"))
    assert read[0]["state"] == {"system_prompt": "a\nb \u2028 ü"}
    assert read[2]["state"] == {"text": "half \ud83d"}


def test_a_file_cut_at_any_byte_is_made_whole_again(tmp_path: Path) -> None:
    whole = emit_all(tmp_path / "events.jsonl")
    cut = tmp_path / "cut.jsonl"
    for length in range(len(whole) + 1):
        cut.write_bytes(whole[:length])
        assert emit_all(cut) == whole


@given(st.lists(st.integers(0, 7), max_size=6))
def test_levels_may_be_emitted_in_any_portions(cuts: list[int]) -> None:
    flat = [event for level in RUN for event in level]
    bounds = sorted({0, len(flat), *(min(cut, len(flat)) for cut in cuts)})
    portions = [flat[a:b] for a, b in itertools.pairwise(bounds)]
    with tempfile.TemporaryDirectory() as folder:
        assert emit_all(Path(folder, "a"), portions) == emit_all(Path(folder, "b"))


def test_a_whole_file_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    whole = emit_all(path)

    def refuse(*_: object) -> None:
        raise AssertionError("written again")

    monkeypatch.setattr(EventFile, "_write", refuse)
    assert emit_all(path) == whole


def test_a_line_that_differs_is_damage_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    whole = emit_all(path)
    for position, byte in enumerate(whole):
        path.write_bytes(whole[:position] + bytes([byte ^ 1]) + whole[position + 1 :])
        line = whole[:position].count(b"\n") + 1
        with pytest.raises(RecordDamaged, match=rf"events\.jsonl:{line}:"):
            emit_all(path)
        assert path.read_bytes()[position] == byte ^ 1, "nothing is written over"


def test_another_run_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    emit_all(path)
    other = EventFile(path)
    with pytest.raises(RecordDamaged):
        other.emit([NodeMade(0, "r", None, 0, False, 2.0, None, {})])


def test_a_torn_last_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(emit_all(path)[:-5])
    assert [event["event"] for event in read_events(path)][-1] == "end"
    assert list(read_events(tmp_path / "none.jsonl")) == []


def test_a_path_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        EventFile(tmp_path)
    with pytest.raises(StorageError, match="cannot be written"):
        EventFile(tmp_path / "missing" / "events.jsonl").emit(RUN[0])


def test_the_union_of_events_is_closed_and_each_of_them_has_a_line() -> None:
    defined = {
        value
        for value in vars(room).values()
        if isinstance(value, type) and value.__module__ == room.__name__ and hasattr(value, "__match_args__")
    }
    union = set(typing.get_args(Event))
    assert union == defined
    assert {type(event) for level in RUN for event in level} == union


def test_events_hold_no_clock_host_or_count_of_retries() -> None:
    names = {field.name for kind in typing.get_args(Event) for field in fields(kind)}
    assert not {
        name for name in names for word in ("time", "host", "seconds", "retr", "sent", "pid") if word in name
    }


def test_a_number_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        event_line(SearchDone(0, float("nan"), 1, 1, "depth"))


def test_lines_behind_the_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(event_line(RUN[2][0]) + "{}\n")
    again = EventFile(path)
    again.emit(RUN[2])
    with pytest.raises(RecordDamaged, match=r"events\.jsonl:2: expected the end of the run"):
        again.finish()


def test_a_whole_file_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        file = EventFile(path)
        file.emit(RUN[2])
        file.finish()
    assert path.read_text() == event_line(RUN[2][0])
