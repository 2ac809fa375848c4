"""Text of users inside comments and sentences: one line, nothing that ends a comment or drives a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence


def quoted(text: str) -> str:
    """`text` in quotation marks, on one line, in ASCII."""
    return json.dumps(text)


def plain_line(text: str) -> str:
    """`text` on one line; what is not printed stands there as an escape."""
    line = " ".join(text.split())
    return "".join(
        c if c.isprintable() else c.encode("unicode-escape", "surrogatepass").decode() for c in line
    )


def comment(notes: Sequence[str], mark: str = "#") -> str:
    """The notes as lines of comment, each behind `mark`."""
    return "".join(f"{mark} {plain_line(note)}\n" for note in notes)
