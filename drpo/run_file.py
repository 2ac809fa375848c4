"""run.json, the file that says whose a run directory is. By itself, so that a list of many runs is quick."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drpo.errors import InputError

RUN_NAME = "run.json"
SCHEMA = 1
IDENTITY = ("command", "models", "embedder", "settings", "digests")


def read_run(path: Path) -> dict[str, Any]:
    """The content of run.json, whose `identity` has all its fields. Raises InputError where `path` is no run
    directory, or one that another version of drpo wrote."""
    file = path / RUN_NAME
    try:
        data = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: expected a run directory, found no run.json in it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: expected the run.json of a run of drpo: {error}") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise InputError(
            f"{file}: expected schema {SCHEMA}, found {schema}: it was written by a newer drpo; use that one"
        )
    if schema != SCHEMA or not _is_identity(data.get("identity")):
        raise InputError(f"{file}: expected a run of drpo, schema {SCHEMA}; use the drpo that wrote it")
    return dict(data)


def _is_identity(found: object) -> bool:
    if not isinstance(found, Mapping) or not set(IDENTITY) <= set(found):
        return False
    tables = [found[name] for name in ("models", "settings", "digests")]
    texts = [found["command"], found["embedder"]]
    if all(isinstance(table, Mapping) for table in tables):
        texts += [*found["models"].values(), *found["digests"].values()]
        return all(isinstance(text, str) for text in texts)
    return False
