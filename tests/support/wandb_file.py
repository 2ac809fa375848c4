"""What Weights & Biases has written for a run: the records of its transaction log."""

from __future__ import annotations

import json
import struct
from importlib import import_module
from pathlib import Path
from typing import Any

_HEADER, _BLOCK, _CHUNK = 7, 32 * 1024, 7
_FULL, _LAST = 1, 4


def records(file: Path) -> list[Any]:
    """The records of `run-ID.wandb`: protobuf messages as chunks in blocks, which is LevelDB's log format."""
    messages: Any = import_module("wandb.proto.wandb_internal_pb2")
    data, found, part, at = file.read_bytes(), [], b"", _HEADER
    while at + _CHUNK <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _CHUNK:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + _CHUNK])
        part += data[at + _CHUNK : at + _CHUNK + length]
        at += _CHUNK + length
        if kind in (_FULL, _LAST):
            record = messages.Record()
            record.ParseFromString(part)
            found.append(record)
            part = b""
    return found


def of_kind(written: list[Any], kind: str) -> list[Any]:
    """The records of one kind."""
    return [getattr(record, kind) for record in written if record.WhichOneof("record_type") == kind]


def values(items: Any) -> dict[str, Any]:
    """Names and values; what the library adds of its own begins with a low line."""
    named = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
    return {name: value for name, value in named.items() if not name.startswith("_")}
