"""The outputs of a command: stdout is read or the command is over, stderr may be read or not."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class ReaderLeft(BrokenPipeError):
    """Whoever read our stdout closed it, as `head` does."""


class Output(io.TextIOBase):
    """The stream `behind`, to be written to.

    lossy: what cannot be written is left out. Else ReaderLeft is raised where nobody reads any more, and the
    stream's own OSError for the rest.
    """

    def __init__(self, behind: TextIO, *, lossy: bool) -> None:
        self._behind, self._lossy = behind, lossy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._behind.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._behind.errors

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._behind.isatty()

    def fileno(self) -> int:
        return self._behind.fileno()

    def write(self, text: str) -> int:
        with self._refusals():
            self._behind.write(text)
        return len(text)

    def flush(self) -> None:
        with self._refusals():
            self._behind.flush()

    def discard(self) -> None:
        """What is still buffered cannot be written: the interpreter must not try again as it ends."""
        with contextlib.suppress(OSError):
            handle = self._behind.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, handle)
            os.close(nowhere)

    def give_up(self) -> None:
        """Write what is buffered, or else discard it."""
        try:
            self._behind.flush()
        except (OSError, ValueError):
            self.discard()

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._lossy:
                return
            if isinstance(error, BrokenPipeError):
                raise ReaderLeft from None
            raise


@contextlib.contextmanager
def outputs() -> Iterator[tuple[Output, Output]]:
    """sys.stdout and sys.stderr as they are in a command, whatever they were; these come back in the end.

    A stream that is missing (`>&-`) is one that nobody reads. One without Unicode gets escapes.
    """
    before = sys.stdout, sys.stderr
    out = Output(_there(sys.stdout, 1), lossy=False)
    err = Output(_there(sys.stderr, 2), lossy=True)
    sys.stdout, sys.stderr = out, err
    try:
        yield out, err
    finally:
        sys.stdout, sys.stderr = before
        err.give_up()


def _there(stream: TextIO | None, handle: int) -> TextIO:
    """The stream, or one to nowhere in its place."""
    if stream is None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != handle and _is_free(handle):
            # Else the next file that is opened would be what others take for this output.
            os.dup2(nowhere, handle)
            os.close(nowhere)
            nowhere = handle
        # Not closed with the stream: it is the output of the process for as long as that lives.
        stream = open(nowhere, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


def _is_free(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return True
    return False
