"""A few lines at the end of what a terminal shows, replaced in place; what else is said goes above them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console
from rich.text import Text

from drpo.commands.change_lines import cells

_PLAIN_SIGNS = str.maketrans("█░→…⏎", "#->.|")
"""For terminals whose encoding lacks them; one character each, so that lines stay as long as they are."""


def draws_on(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether lines can be replaced there and somebody looks: a terminal that knows how, and not in CI."""
    if not stream.isatty() or environment.get("CI", "").lower() not in ("", "0", "false"):
        return False
    if environment.get("TERM", "").lower() in ("dumb", "unknown"):
        return False
    return not Console(file=stream).legacy_windows


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Columns and lines of the terminal now; 80 and 24 where there is none, or one that does not know."""
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, lines = 0, 0
    return columns or 80, lines or 24


class Painter:
    """Draws on one terminal. The cursor is never hidden and rests on the line below, and nothing else of the
    terminal is changed: however the process ends, there is nothing to put back."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encoding = stream.encoding or "utf-8"
        self._console = Console(file=stream, force_terminal=True, markup=False, highlight=False, emoji=False)
        self._drawn: list[int] = []  # columns of each line that stands there
        self._last: tuple[Text, int] | None = None  # what stands there, drawn at that many columns

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal now."""
        return terminal_size(self._stream)

    def draw(self, text: Text, above: str = "") -> None:
        """Replace the lines by `text`, which is narrower than the terminal and less high; `above` is left
        standing over them. All is one write, and none where nothing has changed. Raises OSError when the
        terminal is gone."""
        columns, _ = self.size
        if not above and self._last == (text, columns):
            return
        self._last = (text, columns)
        # A terminal that became narrower has wrapped what it shows.
        up = sum(max(1, -(-drawn // columns)) for drawn in self._drawn)
        back = "\r" + (f"\x1b[{up}A" if up else "")
        out = back
        if above:
            # Line by line: tmux keeps a screen that is erased all at once in its history.
            out += "\x1b[2K\n" * up + "\x1b[2K" + back + above + ("" if above.endswith("\n") else "\n")
        for line in self._styled(text).split("\n"):
            out += f"{line}\x1b[K\n"
        self._drawn = [cells(line) for line in text.plain.split("\n")]
        self._write(out + "\x1b[J")

    def forget(self) -> None:
        """Leave standing what is drawn; the next lines come below whatever is said meanwhile."""
        self._drawn, self._last = [], None

    def _styled(self, text: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(text, no_wrap=True, overflow="ignore", crop=False, end="")
        return captured.get()

    def _write(self, out: str) -> None:
        try:
            out.encode(self._encoding)
        except UnicodeEncodeError:
            out = out.translate(_PLAIN_SIGNS).encode(self._encoding, "replace").decode(self._encoding)
        self._stream.write(out)
        self._stream.flush()
