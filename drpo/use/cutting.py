"""The answer in a stream of text: what a base model writes behind the end of its answer is no part of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable

from drpo.llm.wire import Piece


async def cut_stream(
    pieces: AsyncGenerator[Piece, None], answer: Callable[[str], str], *, waits: bool
) -> AsyncGenerator[Piece, None]:
    """The pieces up to the end of the answer, which `answer` finds in the text so far.

    waits: whether the text may go on behind its answer. Then a line is held back as long as it could be the
    heading that ends the answer, and blanks until something follows them.
    """
    async with contextlib.aclosing(pieces):  # who stops reading ends the request
        async for piece in _cut(pieces, answer) if waits else pieces:
            yield piece


async def _cut(
    pieces: AsyncGenerator[Piece, None], answer: Callable[[str], str]
) -> AsyncGenerator[Piece, None]:
    written = given = ""
    last = Piece("", "stop")
    async for piece in pieces:
        written += piece.text
        last = Piece("", piece.finish_reason or last.finish_reason, piece.usage or last.usage)
        whole = answer(written)
        ended = whole != written.rstrip()
        sure = whole if ended else _sure(written)
        if len(sure) > len(given):
            yield Piece(sure[len(given) :])
            given = sure
        if ended:
            break
    whole = answer(written)
    yield Piece(whole[len(given) :], last.finish_reason, last.usage)


def _sure(written: str) -> str:
    """What belongs to the answer, whatever comes next: not the last line where it may become a heading."""
    head, _, line = written.rpartition("\n")
    if line.startswith("#") or not line.strip():
        return head.rstrip()
    return written.rstrip() if written[-1:].isspace() else written
