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
        data: Any = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: expected a run directory, found no run.json in it") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}. Unlock it") from None
    except (ValueError, RecursionError) as error:
        raise _no_run(file, f"no JSON ({error})") from None
    if not isinstance(data, dict):
        kinds = {list: "a list", str: "a string", type(None): "null"}
        raise _no_run(file, kinds.get(type(data), "a number or truth value"))
    schema = data.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise InputError(
            f"{file}: expected schema {SCHEMA}, found {schema}: it was written by a newer drpo; use that one"
        )
    if schema != SCHEMA:
        raise _no_run(file, "no schema" if schema is None else "another one")
    if not _is_identity(data.get("identity")):
        raise _no_run(file, "one without a whole identity")
    return data


def _no_run(file: Path, came: str) -> InputError:
    return InputError(
        f"{file}: expected a run of drpo, schema {SCHEMA}, came {came}. Restore it from a "
        "copy, or use the drpo that wrote it"
    )


def _is_identity(found: object) -> bool:
    if not isinstance(found, Mapping) or not set(IDENTITY) <= set(found):
        return False
    tables = [found[name] for name in ("models", "settings", "digests")]
    texts = [found["command"], found["embedder"]]
    if all(isinstance(table, Mapping) for table in tables):
        texts += [*found["models"].values(), *found["digests"].values()]
        return all(isinstance(text, str) for text in texts)
    return False
