"""The pieces of a streamed reply, from the bytes of its server-sent events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from drpo.llm.wire import Piece, piece_of

LONGEST_EVENT = 4_000_000
"""Bytes of one event of a stream: a server that sends no line end is not read for ever."""
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]+').fullmatch  # what stands in a JSON string as it is
_PROBE = b"\xe2\x80\xa2 probe \xe2\x80\xa2"
_TRIES = 3
_decoded = json.JSONDecoder().decode


class Pieces:
    """Reads one stream. over: its end has come ([DONE], or an error), behind which nothing counts. fault: the
    error that the server told in place of an event, as its JSON, or None.

    Most events of a stream differ in their text alone. What stands before and behind it is remembered, once a
    probe has shown that it is read as nothing but the text: to read such an event as JSON would take longer
    than all else that is done for it.
    """

    __slots__ = ("_before", "_begun", "_behind", "_chat", "_length", "_tries", "fault", "over")

    def __init__(self, *, chat: bool) -> None:
        self._chat = chat
        self._begun: list[bytes] = []  # of a line whose end has not come
        self._length = 0
        self._before = self._behind = b""
        self._tries = _TRIES
        self.over = False
        self.fault: dict[str, Any] | None = None

    def of(self, chunk: bytes) -> Iterator[Piece]:
        """The pieces whose last byte is in this part of the stream: together the same, however it is cut.

        Raises ValueError for an event that is no JSON object, and for one longer than `LONGEST_EVENT`.
        """
        *lines, rest = chunk.split(b"\n")
        if lines and self._begun:
            lines[0] = b"".join((*self._begun, lines[0]))
            self._begun, self._length = [], 0
        for line in lines:
            if self.over:
                return
            if len(line) > LONGEST_EVENT:
                raise ValueError("an event without an end")
            line = line.strip()
            if line and (piece := self._like_the_last(line) or self._read(line)) is not None:
                yield piece
        if rest and not self.over:
            self._begun.append(rest)
            self._length += len(rest)
            if self._length > LONGEST_EVENT:
                raise ValueError("an event without an end")

    def _like_the_last(self, line: bytes) -> Piece | None:
        """The piece of an event that differs from an earlier one in its text alone, else None."""
        before, behind = self._before, self._behind
        if not before or not line.startswith(before) or not line.endswith(behind):
            return None
        inner = line[len(before) : -len(behind)]
        if _PLAIN(inner) is None:
            return None
        try:
            text = inner.decode()
        except UnicodeDecodeError:  # which is told with its place in the whole event
            return None
        self._tries = _TRIES
        return Piece(text)

    def _read(self, line: bytes) -> Piece | None:
        field, _, value = line.partition(b":")
        if field != b"data":
            return None  # comments that keep the connection open, names of events
        if value.strip() == b"[DONE]":
            self.over = True
            return None
        event = _event(value)
        if isinstance(fault := event.get("error"), dict):
            self.over, self.fault = True, fault
            return None
        piece = piece_of(event, chat=self._chat)
        if self._tries and piece.text and piece.finish_reason is None and piece.usage is None:
            self._remember(line, piece.text)
        return piece

    def _remember(self, line: bytes, text: str) -> None:
        """Remember what stands around the text of an event. Where that is seldom of use, it is not tried for
        ever."""
        self._tries -= 1
        before, found, behind = line.rpartition(b'"%b"' % text.encode())
        if not found:  # the text is written with escapes
            return
        before, behind = before + b'"', b'"' + behind
        try:
            probed = piece_of(_event((before + _PROBE + behind).partition(b":")[2]), chat=self._chat)
        except ValueError:  # what was found is no string: the comma between two of them, for one
            return
        # Inside a string, a plain text is read as itself, and what follows it as before.
        if probed == Piece(_PROBE.decode()):
            self._before, self._behind = before, behind


def _event(value: bytes) -> dict[str, Any]:
    # Text in UTF-8, as nearly all of them are: json would need longer to find that out.
    try:
        if value.startswith((b' {"', b'{"')):
            event = _decoded(str(value, "utf-8", "surrogatepass"))
        else:
            event = json.loads(value)
    except RecursionError:
        raise ValueError("an event that is nested too deeply") from None
    if not isinstance(event, dict):
        raise ValueError(f"expected an object, came {value[:60]!r}")
    return event
