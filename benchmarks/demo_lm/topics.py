"""The closed world as data: `topics.toml`, read once. Of each topic, the last entities are held out."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HELD_OUT_ENTITIES = 5


@dataclass(frozen=True, slots=True)
class Topic:
    """One family of questions. `points` are the body of an answer, `reasons` and `examples` its detail."""

    name: str
    kind: str
    entities: tuple[str, ...]
    wordings: tuple[str, ...]
    held_out_wordings: tuple[str, ...]
    leads: tuple[str, ...]
    points: tuple[str, ...]
    reasons: tuple[str, ...]
    examples: tuple[str, ...]
    asks: tuple[str, ...]


def _topic(name: str, table: dict[str, Any]) -> Topic:
    entities = tuple(" ".join(entity.split()) for entity in table.pop("entities").split(","))
    kind = table.pop("kind")
    return Topic(name, kind, entities, **{field: tuple(lines) for field, lines in table.items()})


TOPICS: tuple[Topic, ...] = tuple(
    _topic(name, table)
    for name, table in tomllib.loads(
        Path(__file__).with_name("topics.toml").read_text(encoding="utf-8")
    ).items()
)
