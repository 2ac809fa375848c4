"""JSON lines that can be trusted: appended durably, each with a checksum, read back or refused.

A line is a JSON object whose last field is `"sum"`, the CRC-32 of the text before that field. Reading
tolerates one damaged *last* line (a process that was killed while it wrote) and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.errors import RecordDamaged, StorageError

_SUM_LENGTH = len(',"sum":"00000000"}')
_SEAL = re.compile(rb',"sum":"[0-9a-f]{8}"}')


def encode_line(record: dict[str, Any]) -> str:
    """One checksummed line without its newline. `record` must not be empty nor have a field `sum`."""
    body = json.dumps(record, ensure_ascii=True, separators=(",", ":"), allow_nan=False)[:-1]
    return f'{body},"sum":"{zlib.crc32(body.encode("ascii")):08x}"}}'


def decode_line(line: str) -> dict[str, Any] | None:
    """The record of one line, or None where the line is not what `encode_line` wrote."""
    body, seal = line[:-_SUM_LENGTH], line[-_SUM_LENGTH:]
    if seal != f',"sum":"{zlib.crc32(body.encode("utf-8", "replace")):08x}"}}':
        return None
    try:
        record = json.loads(body + "}")
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


INLINE_BELOW_S = 0.002  # a thread hand-over costs about 0.5 ms of CPU, a local fsync 0.2 ms of waiting


@dataclass(frozen=True, slots=True)
class Lines:
    """What a file of lines holds. `sound_bytes` is its length without a torn last line (`torn`)."""

    records: tuple[dict[str, Any], ...]
    sound_bytes: int
    torn: bool


def read_lines(path: Path) -> Lines:
    """All records of `path` (none if there is no file). Raises RecordDamaged with the line's number."""
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
    records: list[dict[str, Any]] = []
    raw_lines = data.split(b"\n")
    unfinished = raw_lines.pop()  # what follows the last newline: empty unless the last write was cut
    sound = 0
    for number, raw in enumerate(raw_lines, 1):
        record = decode_line(raw.decode("utf-8", "replace"))
        if record is None:
            if number == len(raw_lines) and not unfinished and not _begins_with_record(raw):
                return Lines(tuple(records), sound, torn=True)
            raise _damaged(path, number)
        records.append(record)
        sound += len(raw) + 1
    if _begins_with_record(unfinished):
        raise _damaged(path, len(raw_lines) + 1)
    return Lines(tuple(records), sound, torn=bool(unfinished))


def _begins_with_record(raw: bytes) -> bool:
    """A whole record and more than a newline's place: two lines run together, which no cut write explains."""
    seal = _SEAL.search(raw)
    if seal is None or seal.end() + 1 >= len(raw):
        return False
    return decode_line(raw[: seal.end()].decode("utf-8", "replace")) is not None


def _damaged(path: Path, number: int) -> RecordDamaged:
    return RecordDamaged(
        f"{path}:{number}: expected a line with a matching checksum, found a damaged one. Only the last "
        "line of a record may be torn. Restore the file from a copy, or begin anew with another --run-dir"
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line to be written; `done` is for whoever waits for it."""

    line: str
    durable: bool
    done: asyncio.Future[None] | None


class Journal:
    """Appends records to a file; `append` returns when its record is on the disk.

    Records that wait share one write and one fsync (group commit). On a quick disk that is done on the spot,
    where it costs less than waking a thread; once an fsync takes `inline_below_s` or longer, the next happens
    in a worker thread, so that a slow disk delays the record and not the whole event loop.
    """

    def __init__(
        self, path: Path, sound_bytes: int | None = None, *, inline_below_s: float = INLINE_BELOW_S
    ) -> None:
        self._path = path
        self._pending: list[_Entry] = []
        self._writer: asyncio.Task[None] | None = None
        self._broken: StorageError | None = None
        self._closed = False
        self._inline_below_s, self._last_sync_s = inline_below_s, 0.0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            if sound_bytes is not None and os.fstat(self._file).st_size != sound_bytes:
                os.ftruncate(self._file, sound_bytes)  # the torn last line goes, or the next would join it
            sync_folder(path.parent)
        except OSError as error:
            raise _storage_error(path, error) from error
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="drpo-journal")

    async def append(self, record: dict[str, Any], *, durable: bool = True) -> None:
        """Write one record, durably: else it outlives this process but perhaps not this machine.

        After a failure every further one fails: the disk's state is unknown.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._take(_Entry(encode_line(record), durable, done))
        await done

    def note(self, record: dict[str, Any]) -> None:
        """Write one record soon, of which it is no loss when the process ends before that."""
        self._take(_Entry(encode_line(record), False, None))

    def _take(self, entry: _Entry) -> None:
        if self._broken:
            raise self._broken
        if self._closed:
            raise StorageError(f"{self._path}: expected an open record, it is closed; this entry is not kept")
        self._pending.append(entry)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_pending())

    async def close(self) -> None:
        """Finish what is pending and close the file."""
        while self._writer is not None:  # again: whoever was told of a written record may append the next one
            await asyncio.wait({self._writer})  # a plain await would pass a cancellation on to the writer
        if self._closed:
            return
        self._closed = True
        self._thread.shutdown(wait=True)
        os.close(self._file)

    async def _write_pending(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                await self._write_batch(batch)
        finally:
            self._writer = None

    async def _write_batch(self, batch: list[_Entry]) -> None:
        data = "".join(f"{entry.line}\n" for entry in batch).encode("ascii")
        durable = any(entry.durable for entry in batch)
        waiting = [entry.done for entry in batch if entry.done is not None]
        try:
            if self._broken is None:  # else a line could follow a torn one, and the file would be damaged
                began_s = time.perf_counter()
                if not durable or self._last_sync_s < self._inline_below_s:
                    self._write(data, durable)
                else:
                    await asyncio.get_running_loop().run_in_executor(self._thread, self._write, data, durable)
                if durable:
                    self._last_sync_s = time.perf_counter() - began_s
        except OSError as error:
            self._broken = _storage_error(self._path, error)
        except BaseException:  # cancelled, or a bug of ours: whoever waits must not wait for ever
            for done in waiting:
                done.cancel()
            raise
        for done in waiting:
            if done.cancelled():
                continue
            if self._broken:
                done.set_exception(self._broken)
            else:
                done.set_result(None)

    def _write(self, data: bytes, durable: bool) -> None:
        while data:
            data = data[os.write(self._file, data) :]
        if durable:
            os.fsync(self._file)


def write_atomically(path: Path, text: str) -> None:
    """`path` holds either its old content or all of `text`, whatever happens.

    Half a surrogate pair, which UTF-8 cannot hold, is written as the escape that JSON reads back.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _storage_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable too (a no-op where folders cannot be opened, as on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def plain_lines(records: Iterable[dict[str, Any]]) -> str:
    """Records as JSON lines without checksums, for files that people and other programs read."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _storage_error(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path}: cannot be written: {error.strerror or error}. Free or unlock the disk, then run the same "
        "command again: what is recorded is not asked again"
    )
