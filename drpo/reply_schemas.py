"""JSON schemas of the replies that `parse` reads, for servers that hold a model to one while it writes.

A schema admits what the reader takes and demands only what the reader needs. What the shipped templates ask
for besides comes in their order, the reasons before the score and the new text, and may be left out: a
template can be replaced. Grammar-guided servers let no other keys through and keep this order, so it is part
of the text: keys are never sorted.

Three things that a reader wants are not said here, because of what xgrammar 0.2 (vLLM's) makes of them:
- that a new text is not blank: a string with a length or a pattern admits no escapes there, and a system
  prompt without newlines and quotes is the worse loss (names and definitions of aspects can do without);
- that the chosen aspects differ: `uniqueItems` is not taken at all;
- LONGEST_DEFINITION: 14 s to compile for a vocabulary of 128,000 tokens, on one slow core. LONGEST_NAME takes
  3 s, once per server; everything else 20 to 40 ms.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from drpo.parse import LONGEST_NAME
from drpo.types import HIGHEST_SCORE, LOWEST_SCORE, Aspect

# As `choose_aspects.j2`, `improve_system_prompt.j2` and `improve_response.j2` ask for them.
QUERY_ANALYSIS = ("main_topic", "user_intent", "ambiguities", "response_format", "challenges")
BEFORE_THE_REWRITE = ("analysis", "thought")

_TEXT = {"type": "string"}
_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


def evaluation_schema(aspects: Sequence[Aspect]) -> str:
    """An object that scores each of `aspects`, by name and in this order: what `read_evaluation` takes."""
    scores = [str(score) for score in range(LOWEST_SCORE, HIGHEST_SCORE + 1)]
    entry = _object({"rationale": _TEXT, "score": {"enum": scores}}, "score")
    names = [aspect.name for aspect in aspects]
    return _text(_object(dict.fromkeys(names, entry), *names))


def selection_schema(known: Sequence[Aspect], fewest: int = 2, most: int = 5) -> str:
    """`fewest` to `most` names of `known` or proposals: what `read_selection` takes, if they differ."""
    name = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}
    proposed = _object({"name": name, "definition": {"type": "string", "minLength": 1}}, "name", "definition")
    named = [{"enum": [aspect.name for aspect in known]}] if known else []
    selected = {"type": "array", "items": {"anyOf": [*named, proposed]}, "minItems": fewest}
    if most < sys.maxsize:
        selected["maxItems"] = most
    analysis = _object(dict.fromkeys(QUERY_ANALYSIS, _TEXT))
    selection = _object({"reasoning": _TEXT, "selected_aspects": selected}, "selected_aspects")
    return _text(_object({"query_analysis": analysis, "aspects_selection": selection}, "aspects_selection"))


def rewrite_schema(field: str) -> str:
    """An object with a text in `field`: what `read_rewrite` takes, if the text is not blank."""
    return _text(_object({**dict.fromkeys(BEFORE_THE_REWRITE, _TEXT), field: _TEXT}, field))


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return {**schema, "required": list(required)} if required else schema


def _text(schema: dict[str, Any]) -> str:
    return _ENCODER.encode(schema)
