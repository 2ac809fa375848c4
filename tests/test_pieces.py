"""The pieces of a stream are those of its events read one by one, however its bytes are cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.llm import pieces as module
from drpo.llm.pieces import Pieces
from drpo.llm.wire import Piece, piece_of

TEXTS = st.one_of(
    st.sampled_from([",", ":", '"', "\\", "\n", "a", "a\\", '","', "content", "\ud83d", "é", "•", ""]),
    st.text(max_size=5),
)
ENDINGS = st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n", b" \n"])


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """One event, or what may stand between events: alike but for the text, or not."""
    text = draw(TEXTS)
    shape: Any = draw(
        st.sampled_from(
            [
                {"choices": [{"delta": {"content": text}, "finish_reason": None}]},
                {"choices": [{"delta": {"content": text}, "finish_reason": None}], "usage": None},
                {"id": text, "choices": [{"delta": {"content": "a"}}]},
                {"choices": [{"delta": {"content": "a", "x": ["a", "a"], text: "a"}}]},
                {"choices": [{"delta": {"content": "a"}}, {"delta": {"content": text}}]},
                {"choices": [{"delta": {"content": "", "refusal": text}}]},
                {"choices": [{"text": text}]},
                {"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]},
                {"choices": [{"delta": {"content": text}}], "usage": {"prompt_tokens": 1}},
                {"choices": []},
                [text],
                {"error": {"message": text}},
                {"error": text},
            ]
        )
    )
    said = json.dumps(shape, ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()):
        said = json.dumps(shape, separators=(",", ":"))
    value = said.encode("utf-8", "surrogatepass")
    other = [
        b": ping",
        b"event: x",
        b"data:",
        b"data: \xff",
        b'data: {"a": "\xff"}',
        b"data: [DONE]",
        b"data",
    ]
    line = draw(st.sampled_from([b"data: " + value] * 6 + [b"data:" + value, b" data : " + value, *other]))
    return line + draw(ENDINGS)


STREAMS = st.lists(lines(), max_size=12).map(b"".join)


def one_by_one(stream: bytes) -> list[object]:
    """What the pieces are, by the plainest reading: each, then how it ended."""
    found: list[object] = []
    for line in stream.split(b"\n")[:-1]:
        field, _, value = line.strip().partition(b":")
        if field != b"data":
            continue
        if value.strip() == b"[DONE]":
            return [*found, "over"]
        try:
            event = json.loads(value)
        except ValueError as error:
            return [*found, str(error)]
        if not isinstance(event, dict):
            return [*found, f"expected an object, came {value[:60]!r}"]
        if isinstance(event.get("error"), dict):
            return [*found, event["error"]]
        found.append(piece_of(event, chat=True))
    return found


def cut(stream: bytes, cuts: list[int]) -> list[object]:
    """As `one_by_one`, of the stream in parts."""
    places = [0, *sorted(place % (len(stream) + 1) for place in cuts), len(stream)]
    found: list[object] = []
    reading = Pieces(chat=True)
    try:
        for start, end in pairwise(places):
            found.extend(reading.of(stream[start:end]))
    except ValueError as error:
        return [*found, str(error)]
    if reading.over:
        found.append(reading.fault or "over")
    return found


@given(STREAMS, st.lists(st.integers(0, 2000), max_size=8))
def test_pieces_are_those_of_the_events_read_one_by_one(stream: bytes, cuts: list[int]) -> None:
    assert cut(stream, cuts) == one_by_one(stream)


@given(st.lists(TEXTS, min_size=1, max_size=30), st.booleans())
def test_events_alike_but_for_their_text_have_each_its_own(texts: list[str], ascii_: bool) -> None:
    events = [{"id": "m", "choices": [{"delta": {"content": text}, "index": 0}]} for text in texts]
    stream = b"".join(
        b"data: " + json.dumps(event, ensure_ascii=ascii_).encode("utf-8", "surrogatepass") + b"\n\n"
        for event in events
    )
    expected = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
    assert [piece.text for piece in Pieces(chat=True).of(stream)] == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{"content":"a"}, "x": "a"', '{"content":"a"}, "x": "b"'),  # the text stands elsewhere too
        ('{"content":"\\u0061"}, "x": "a"', '{"content":"\\u0061"}, "x": "b"'),  # and only there as it is
        ('{"content":"\\u0061"}, "a": 1', '{"content":"\\u0061"}, "b": 1'),
        ('{"content":","}, "x": ["a","b"]', '{"content":";"}, "x": ["a","b"]'),  # between two strings
        ('{"content":"a", "content": "b"}', '{"content":"c", "content": "b"}'),
        ('{"content":"a"}, "finish_reason": null', '{"content":"a"}, "finish_reason": "stop"'),
        ('{"content":"a"}', '{"content":""}'),
        ('{"content":"a"}', '{"content":"a\\n"}'),
        ('{"content":"a"}', '{"content":"a", "x": "b"}'),
        ('{"content":"a"}', '{"content":"a"'),
    ],
)
def test_what_stands_around_a_text_is_never_taken_for_it(first: str, second: str) -> None:
    stream = "".join(f'data: {{"choices": [{{"delta": {delta}}}]}}\n' for delta in [first] * 2 + [second] * 2)
    assert cut(stream.encode(), []) == one_by_one(stream.encode())


@pytest.mark.parametrize("cuts", [[], [3], [1500], [40, 41, 1000, 1499]])
def test_an_event_that_is_too_long_is_refused_however_it_is_cut(
    monkeypatch: pytest.MonkeyPatch, cuts: list[int]
) -> None:
    monkeypatch.setattr(module, "LONGEST_EVENT", 1000)
    good = b'data: {"choices": [{"delta": {"content": "a"}}]}\n'
    long = b'data: {"choices": [{"delta": {"content": "' + b"a" * 1000 + b'"}}]}\n'
    assert cut(good * 100, cuts) == [Piece("a")] * 100
    assert cut(good + long, cuts) == [Piece("a"), "an event without an end"]
    assert cut(good + long[:-1], cuts) == [Piece("a"), "an event without an end"]


def test_an_event_that_is_nested_beyond_reading_is_none() -> None:
    deep = b'data: {"a":' + b"[" * 200_000 + b"\n"
    assert cut(deep, [100]) == ["an event that is nested too deeply"]


def test_what_follows_the_end_is_not_read() -> None:
    reading = Pieces(chat=True)
    assert list(reading.of(b"data: [DONE]\ndata: {no json\n")) == [] and reading.over
    assert list(reading.of(b"data: {no json\n" + b"x" * 10)) == []


def test_what_differs_in_each_event_is_not_sought_for_ever() -> None:
    """The work that is to save reading must not double it where it is of no use."""
    reading, probed = Pieces(chat=True), 0
    for number in range(50):
        before = reading._before
        event = {"choices": [{"delta": {"content": "a"}}], "obfuscation": str(number)}
        assert list(reading.of(b"data: " + json.dumps(event).encode() + b"\n")) == [Piece("a")]
        probed += reading._before != before or reading._behind.count(b'"%d"' % number)
    assert probed <= 6
