"""Whether a run can be kept: folders that can be written, room, durable writes, locks."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from drpo.config import OptimizeConfig
from drpo.doctor.check import Check, ok, problem, warning
from drpo.doctor.prepare import Prepared
from drpo.errors import StorageError
from drpo.live import cache_folder
from drpo.plan import run_path

SLOW_FSYNC_S = 0.02
"""Above it the waiting for the disk shows beside an endpoint that answers quickly."""
_FSYNCS = 5
_LIKE_OUR_OWN = f".{os.getpid()}.tmp"  # a run that begins meanwhile must not take it for somebody else's
_BESIDES_BYTES = 20e6  # logs, events, a report
_BYTES_A_TOKEN = 6  # a token's text, escaped where it is not ASCII
_MOUNTS = Path("/proc/mounts")
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|lustre|gpfs|beegfs|glusterfs|fuse\..*(ssh|gluster|s3).*"
)
_OCTAL = re.compile(r"\\([0-7]{3})")


def nearest_folder(path: Path) -> Path:
    """`path`, or what is there of it: its nearest parent that exists."""
    path = path.expanduser().absolute()
    while not path.exists() and path.parent != path:
        path = path.parent
    return path


def free_gb(path: Path) -> float:
    """Room on the disk where `path` is or would be."""
    return shutil.disk_usage(nearest_folder(path)).free / 1e9


def disk_checks(prepared: Prepared, mounts: Path = _MOUNTS) -> Iterator[Check]:
    """The folder of the run (of the runs, where it cannot be told which), by a file that is removed."""
    config = prepared.config
    if config is None:
        return
    path = config.runs_dir if prepared.plan is None else run_path(prepared.plan)
    folder = nearest_folder(path)
    if not folder.is_dir():
        said = f"{folder}: expected a folder for the run, found a file in its place"
        yield problem("disk", said, "Give another --run-dir or --runs-dir")
        return
    shown = f"{path}" if folder == path.absolute() else f"{path} (to be made in {folder})"
    yield from _writes(folder, shown)
    yield from _room(folder, config)
    kind = file_system_of(folder, mounts)
    if _NETWORK.fullmatch(kind):
        said = (
            f"{folder} is on a network file system ({kind}): locks and fsync may promise more than they hold"
        )
        yield warning("disk", said, "Give --runs-dir on a disk of this machine, if there is one")


def cache_checks(environment: Mapping[str, str]) -> Iterator[Check]:
    """The folder of the caches: a run goes on without it."""
    path = cache_folder(environment)
    folder = nearest_folder(path)
    remedy = "Set DRPO_CACHE_DIR to a folder that can be written; until then nothing is reused by other runs"
    if not folder.is_dir():
        yield warning("cache", f"{folder}: expected a folder, found a file in its place", remedy)
        return
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-", suffix=_LIKE_OUR_OWN):
            pass
    except OSError as error:
        yield warning("cache", f"{path}: cannot be written: {error.strerror}", remedy)
        return
    yield ok("cache", f"{path} can be written")


def file_system_of(folder: Path, mounts: Path = _MOUNTS) -> str:
    """The type of the file system that holds `folder`, such as ext4; empty where that is not told."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    found = ("", "")
    for _, point, kind, *_ in (line for line in lines if len(line) > 2):
        place = _OCTAL.sub(lambda escaped: chr(int(escaped[1], 8)), point)
        if folder.resolve().is_relative_to(place) and len(place) >= len(found[0]):
            found = (place, kind)
    return found[1]


def _writes(folder: Path, shown: str) -> Iterator[Check]:
    remedy = "Free or unlock the disk, or give another --runs-dir"
    name = ""
    try:
        handle, name = tempfile.mkstemp(_LIKE_OUR_OWN, ".doctor-", folder)
        try:
            seconds = [_timed_sync(handle) for _ in range(_FSYNCS)]
        finally:
            os.close(handle)
        locks = _locks(name)
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        said = f"{shown}: cannot be written: {getattr(error, 'strerror', None) or error}"
        yield problem("disk", said, remedy, StorageError)
        return
    finally:
        if name:
            with contextlib.suppress(OSError):
                Path(name).unlink()
    took_s = statistics.median(seconds)
    said = f"{shown} can be written; an fsync takes {took_s * 1000:.2g} ms"
    if took_s > SLOW_FSYNC_S:
        slow = "each reply waits that long for the disk before it is used: give --runs-dir on a quicker one"
        yield warning("disk", said, slow[0].upper() + slow[1:])
    else:
        yield ok("disk", said)
    if not locks:
        said = f"{folder}: a file that is locked can be locked once more"
        yield problem("disk", said, f"Two runs could share a directory: {remedy.lower()}", StorageError)


def _timed_sync(handle: int) -> float:
    began_s = time.perf_counter()
    os.write(handle, b"x" * 4096)
    os.fsync(handle)
    return time.perf_counter() - began_s


def _locks(name: str) -> bool:
    """Whether a second lock on a locked file is refused."""
    with FileLock(name, timeout=0, is_singleton=False):
        try:
            with FileLock(name, timeout=0, is_singleton=False):
                return False
        except Timeout:
            return True


def _room(folder: Path, config: OptimizeConfig) -> Iterator[Check]:
    levels = config.depth + config.max_extra_depth
    nodes = levels * config.width * config.samples
    tokens = nodes * (config.base_max_tokens + 2 * config.max_tokens)
    need_gb = (_BESIDES_BYTES + tokens * _BYTES_A_TOKEN) / 1e9
    here = free_gb(folder)
    said = (
        f"{here:,.2f} GB are free; this run's record takes {need_gb:.2f} GB if every reply is of full length"
    )
    if here < need_gb:
        yield warning(
            "room", said, "Free the disk: a run that meets its end stops with exit code 8, to be resumed"
        )
    else:
        yield ok("room", said)
