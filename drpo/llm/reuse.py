"""Replies that other runs have paid for: the aspects chosen for a query (DRPO, Appendix A.5)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from drpo.jsonl import decode_line, encode_line
from drpo.llm.base import LLM, Choice, Completion, Request, request_key

LOCK_TIMEOUT_S = 0.5  # another process appends in far less; one that hangs must not hang this one


class Store:
    """A file of replies shared by all runs of a user. A damaged line is a reply less, never an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._replies: dict[str, str] = {}
        with contextlib.suppress(OSError):
            for raw in path.read_bytes().splitlines():
                entry = decode_line(raw.decode("utf-8", "replace"))
                if entry and isinstance(entry.get("key"), str) and isinstance(entry.get("text"), str):
                    self._replies[entry["key"]] = entry["text"]

    def get(self, key: str) -> str | None:
        """The reply to the request with this key."""
        return self._replies.get(key)

    def add(self, key: str, text: str) -> None:
        """Keep a reply. A disk that refuses costs the reuse, not the run."""
        self._replies[key] = text
        line = encode_line({"key": key, "text": text}) + "\n"
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._path}.lock", timeout=LOCK_TIMEOUT_S):  # its Timeout is an OSError
                handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
                try:
                    end = os.lseek(handle, 0, os.SEEK_END)
                    os.lseek(handle, max(0, end - 1), os.SEEK_SET)
                    torn = os.read(handle, 1) not in (b"", b"\n")
                    os.write(
                        handle, (torn * "\n" + line).encode("ascii")
                    )  # or a torn line would take it along
                finally:
                    os.close(handle)


class Reuse:
    """Stands behind a `Recorder`: what it takes from the store is copied into the run's own record."""

    def __init__(self, inner: LLM, store: Store, readable: Callable[[str], bool]) -> None:
        self._inner, self._store, self._readable = inner, store, readable

    async def complete(self, request: Request) -> Completion:
        """The stored reply to exactly this request, or the inner model's, kept if it can be read."""
        key = request_key(request)
        text = self._store.get(key)
        if text is not None:
            return Completion((Choice(text),), served_model="reused")
        completion = await self._inner.complete(request)
        first = completion.choices[0].text
        if request.n == 1 and self._readable(first):
            self._store.add(key, first)
        return completion
