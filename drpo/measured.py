"""A measurement as it lies on the disk: by which commands it is made, and its summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drpo.errors import InputError
from drpo.run_file import read_run

COMMANDS = ("evaluate", "compare", "audit-judge", "generate", "rewrite", "bpo-build", "align-pro-estimate")
SUMMARY_NAME, ANSWERS_NAME, SCHEMA = "summary.json", "answers.jsonl", 1


def is_measurement(path: Path) -> bool:
    """Whether the run in `path` measures, and is no search. Raises InputError where there is no run."""
    return read_run(path)["identity"]["command"] in COMMANDS


def read_summary(path: Path) -> dict[str, Any]:
    """The content of summary.json. Raises InputError where there is none yet, or one of another drpo."""
    file = path / SUMMARY_NAME
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (path / ANSWERS_NAME).exists():
            raise InputError(f"{path}: holds answers, in {path / ANSWERS_NAME}, and no figures") from None
        raise InputError(f"{path}: has no result yet: run its command again to go on with it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{file}: expected the summary of a measurement: {error}. Run its command again"
        ) from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA or data.get("command") not in COMMANDS:
        raise InputError(
            f"{file}: expected a summary of schema {SCHEMA}: run its command again, or use the drpo "
            "that wrote it"
        )
    return data
