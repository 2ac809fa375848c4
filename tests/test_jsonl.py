"""What stands in a file of lines is what was written, or it is refused; only a torn last line is forgiven."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.errors import RecordDamaged, StorageError
from drpo.jsonl import decode_line, encode_line, plain_lines, read_lines, write_atomically

# Two halves of a surrogate pair side by side are one character to JSON; text from JSON never holds them.
TEXT = st.text(st.characters()).filter(lambda text: json.loads(json.dumps(text)) == text) | st.sampled_from(
    ["\u2028\u2029\x85\x0b\x0c", "\ud800", "\udfff tail", "\x00", "\\n", '"sum":"']
)
NUMBERS = (
    st.integers()
    | st.sampled_from([10**400, -(2**63), 2**64])
    | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.dictionaries(TEXT.filter(lambda name: name != "sum"), JSON, min_size=1, max_size=4)

SAMPLE: list[dict[str, Any]] = [
    {"kind": "call", "text": 'a "quoted" \u2028 line\n'},
    {"n": 1.5, "sum of": [1, None, {"sum": "00000000"}]},
    {"last": "\ud83d"},
]


def written(path: Path, records: list[dict[str, Any]]) -> bytes:
    data = "".join(f"{encode_line(record)}\n" for record in records).encode("ascii")
    path.write_bytes(data)
    return data


@given(RECORDS)
def test_any_record_comes_back_as_it_was(record: dict[str, Any]) -> None:
    line = encode_line(record)
    assert line.isascii()
    assert "\n" not in line
    assert decode_line(line) == record
    assert json.loads(line) == {**record, "sum": json.loads(line)["sum"]}, "any JSON reader can read it"


@given(st.lists(RECORDS, max_size=4))
def test_many_records_come_back_in_order(records: list[dict[str, Any]]) -> None:
    assert [decode_line(encode_line(record)) for record in records] == records


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "replace")))
def test_other_text_is_no_record(line: str) -> None:
    assert decode_line(line) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_line({"value": value})


def test_no_file_holds_no_records(tmp_path: Path) -> None:
    lines = read_lines(tmp_path / "none.jsonl")
    assert (lines.records, lines.sound_bytes, lines.torn) == ((), 0, False)


def test_a_path_that_is_a_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        read_lines(tmp_path)


def test_every_changed_byte_of_an_earlier_line_is_damage_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    data = written(path, SAMPLE)
    last = data.rstrip(b"\n").rfind(b"\n") + 1
    for position in range(last):
        line = data[:position].count(b"\n") + 1
        for byte in (data[position] ^ 1, ord("\n"), 0xFF):
            if byte == data[position]:
                continue
            path.write_bytes(data[:position] + bytes([byte]) + data[position + 1 :])
            with pytest.raises(RecordDamaged, match=rf"calls\.jsonl:{line}:"):
                read_lines(path)


def test_a_changed_byte_of_the_last_line_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    data = written(path, SAMPLE)
    last = data.rstrip(b"\n").rfind(b"\n") + 1
    for position in range(last, len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        lines = read_lines(path)
        assert (list(lines.records), lines.sound_bytes, lines.torn) == (SAMPLE[:-1], last, True)


def test_a_file_cut_anywhere_loses_the_torn_line_only(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    data = written(path, SAMPLE)
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole = data[:length].count(b"\n")
        lines = read_lines(path)
        assert list(lines.records) == SAMPLE[:whole]
        assert data[: lines.sound_bytes].count(b"\n") == whole
        assert lines.torn == (lines.sound_bytes != length)


def test_two_lines_run_together_at_the_end_are_damage_not_one_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    data = written(path, SAMPLE)
    joined = data.replace(b"\n{", b" {")
    for length in (len(joined), len(joined) - 1, len(joined) - 5, joined.index(b"} {") + 3):
        path.write_bytes(joined[:length])
        with pytest.raises(RecordDamaged, match=r"calls\.jsonl:1:"):
            read_lines(path)


def test_an_empty_line_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_bytes(written(path, SAMPLE).replace(b"\n", b"\n\n", 1))
    with pytest.raises(RecordDamaged, match=r"calls\.jsonl:2:"):
        read_lines(path)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "alignment.json"
    write_atomically(path, "old\n")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_atomically(path, "new\n")
    assert path.read_text() == "old\n"
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["alignment.json"]


def test_half_a_surrogate_pair_is_written_as_json_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "alignment.json"
    write_atomically(path, json.dumps({"text": "a\udc80b"}, ensure_ascii=False))
    assert json.loads(path.read_text(encoding="utf-8")) == {"text": "a\udc80b"}


def test_plain_lines_are_one_json_value_each() -> None:
    text = plain_lines(SAMPLE[:2])
    assert [json.loads(line) for line in text.split("\n")[:-1]] == SAMPLE[:2]
