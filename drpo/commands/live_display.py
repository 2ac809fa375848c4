"""The display of a run on stderr while the run goes on in the same process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Protocol, TextIO

from drpo.commands.display import render
from drpo.commands.painter import Painter
from drpo.commands.terminal import safe
from drpo.progress import Snapshot

FIRST_S, EVERY_S, LEAST_S = 0.3, 0.5, 0.1
"""A run that ends before the first is not drawn at all. From then on it is drawn twice a second, and when
something is said, but not more often than the last."""
log = logging.getLogger("drpo")


class Watched(Protocol):
    """What says where a run stands."""

    def snapshot(self) -> Snapshot:
        """The state now. Called from the event loop."""
        ...


class LiveDisplay:
    """Shows a run on the terminal `stream` for as long as the context is open.

    Meanwhile sys.stderr is a collector: whatever is written there stands above the display. What is drawn is
    written by a thread, so that a terminal that takes nothing (Ctrl-S, a slow line) does not hold up the run;
    one that is gone ends the display only.
    """

    def __init__(self, watched: Watched, stream: TextIO) -> None:
        self._watched, self._stream = watched, stream
        self._painter = Painter(stream)
        self._woken, self._ended = asyncio.Event(), asyncio.Event()
        self._drawn = False

    async def __aenter__(self) -> LiveDisplay:
        loop = asyncio.get_running_loop()
        self._said = _Said(lambda: loop.call_soon_threadsafe(self._woken.set))
        self._before, sys.stderr = sys.stderr, self._said
        with contextlib.suppress(AttributeError, NotImplementedError):  # Windows
            # Back in the foreground (fg): the shell has written below the display meanwhile.
            loop.add_signal_handler(signal.SIGCONT, self._painter.forget)
        self._showing = asyncio.create_task(self._show())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._woken.set()
        try:
            await self._showing
        finally:
            self._let_go()
            with contextlib.suppress(AttributeError, NotImplementedError):
                asyncio.get_running_loop().remove_signal_handler(signal.SIGCONT)

    async def _show(self) -> None:
        try:
            await self._pause(FIRST_S)
            while not self._ended.is_set():
                await self._draw(self._watched.snapshot())
                self._drawn = True
                await self._pause(EVERY_S)
            if self._drawn:  # what is left standing: without the change, for the result comes next
                await self._draw(replace(self._watched.snapshot(), change=(), said=""))
                self._stream.write("\n")
        except OSError:  # the terminal is gone
            self._let_go()
        except Exception as error:  # noqa: BLE001 - what is only to look at must not end a run
            log.error("the display has failed, the run goes on without it: %r", error)
            self._let_go()

    async def _pause(self, seconds: float) -> None:
        """Until it is time to draw, something was said, or the run has ended."""
        self._woken.clear()
        if self._said.has_lines or self._ended.is_set():
            self._woken.set()
        if await _within(self._woken, seconds):
            await _within(self._ended, min(LEAST_S, seconds))

    async def _draw(self, snapshot: Snapshot) -> None:
        columns, lines = self._painter.size
        text = render(snapshot, columns, time.time(), lines - 1)  # the cursor's line is the last
        await asyncio.to_thread(self._painter.draw, text, self._said.take())

    def _let_go(self) -> None:
        """stderr is again what it was, and what was collected stands on the terminal."""
        sys.stderr = self._before
        with contextlib.suppress(OSError):
            self._stream.write(self._said.take(whole=True))
            self._stream.flush()


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether it happens in that time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


class _Said(io.TextIOBase):
    """A text stream that keeps what is written, from whichever thread, until it is taken line by line.

    It is no terminal to whoever asks: bars that redraw themselves would fight with the display.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, wake: Callable[[], object]) -> None:
        self._lock = threading.Lock()
        self._text = ""
        self._wake = wake

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            kept, lines, rest = (self._text + text).rpartition("\n")
            self._text = kept + lines + (rest.rpartition("\r")[2] or rest)
        if self.has_lines:
            with contextlib.suppress(RuntimeError):  # the loop is closed; the text stays
                self._wake()
        return len(text)

    @property
    def has_lines(self) -> bool:
        """Whether there is a whole line to take."""
        return "\n" in self._text

    def take(self, *, whole: bool = False) -> str:
        """The lines so far, control characters made visible; `whole`: also one that has not ended."""
        with self._lock:
            lines, ended, rest = self._text.rpartition("\n")
            if whole and rest:
                lines, ended, rest = self._text, "\n", ""
            self._text = rest
        return "".join(f"{safe(_overwritten(line))}\n" for line in lines.split("\n")) if ended else ""


def _overwritten(line: str) -> str:
    """What is left to see of a line that was begun anew by carriage returns."""
    return line.rstrip("\r").rpartition("\r")[2]
