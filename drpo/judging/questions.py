"""The two questions to a judge, scores and a preference, as text; and the reading of the scores.

What a judge is shown was written by others. It stands in fences whose mark comes from the digest of the text
inside, so that no text can close its own fence, and equal questions stay equal requests.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.errors import InputError
from drpo.parse import Unreadable, asked_scores, cut_off, entries_of, folded_name, scores_stand
from drpo.reply_json import find_json
from drpo.reply_literals import Repeating
from drpo.templates import TemplateFolder
from drpo.types import HIGHEST_SCORE, LOWEST_SCORE, Aspect, AspectScore

FOLDER = "judge"
CRITERIA_FILE = "criteria.toml"
VARIABLES: dict[str, tuple[str, ...]] = {
    "score": ("query", "response", "aspects"),
    "prefer": ("query", "response_a", "response_b", "criteria"),
}
_SETS = ("general", "safety", "preference")


@dataclass(frozen=True, slots=True)
class Criteria:
    """What is judged: two sets of aspects to score, and the criteria of a comparison."""

    general: tuple[Aspect, ...]
    safety: tuple[Aspect, ...]
    preference: tuple[Aspect, ...]


class JudgeTemplates:
    """The two templates and the criteria of `folder`/judge, read and checked as a `TemplateFolder` is.

    `folder` is the one that `Templates` takes.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._files = TemplateFolder(folder, FOLDER, VARIABLES, CRITERIA_FILE)
        self.criteria = self._load_criteria()

    def score(self, query: str, response: str, aspects: Sequence[Aspect]) -> str:
        """The request to score one response on each of `aspects`; `read_scores` reads the reply."""
        return self._files.render("score", query=query, response=response, aspects=tuple(aspects))

    def prefer(
        self, query: str, response_a: str, response_b: str, criteria: Sequence[Aspect] | None = None
    ) -> str:
        """The request to compare two responses, by default on `self.criteria.preference`.

        `verdicts.read_verdict` reads the reply. Ask in both orders: see `preference.pair_outcome`.
        """
        weighed = self.criteria.preference if criteria is None else tuple(criteria)
        return self._files.render(
            "prefer", query=query, response_a=response_a, response_b=response_b, criteria=weighed
        )

    def digests(self) -> dict[str, str]:
        """ "judge/FILE" -> first 16 hex digits of the SHA-256 of its text, for the record of a run."""
        return self._files.digests()

    def source(self, name: str) -> str:
        """The text of a template or of the criteria file, without mark and carriage returns."""
        return self._files.source(name)

    def _load_criteria(self) -> Criteria:
        path = self._files.path(CRITERIA_FILE)
        try:
            data = tomllib.loads(self._files.source(CRITERIA_FILE))
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{path}: expected TOML: {error}") from error
        defined = data.get("criteria")
        if not isinstance(defined, dict) or not defined:
            raise InputError(f'{path}: expected a table [criteria] with lines name = "definition"')
        known: dict[str, Aspect] = {}
        for name, definition in defined.items():
            if not isinstance(definition, str) or not definition.strip() or not name.strip():
                raise InputError(
                    f"{path}: criterion {name!r}: expected a definition in quotes, came {definition!r}"
                )
            if folded_name(name) in map(folded_name, known):
                raise InputError(
                    f"{path}: criterion {name!r} comes twice; names differ by more than case and blanks"
                )
            known[name] = Aspect(name, definition)
        return Criteria(*(_chosen(path, key, data.get(key), known) for key in _SETS))


def read_scores(text: str, aspects: Sequence[Aspect]) -> tuple[AspectScore, ...] | Unreadable:
    """A score 1 to 5 or None ("N/A") with its reason for each of `aspects`, in that order and spelling.

    As `parse.read_evaluation` reads, with two differences: all of them may be None, since a judge may find
    that nothing applies, and the reason may be called "reason" or "rationale".
    """
    found = find_json(text)
    if isinstance(found, Unreadable):
        return found
    if not (found.complete or found.end == "unclosed"):
        return cut_off(found)
    entries = entries_of(found.value, {folded_name(aspect.name) for aspect in aspects})
    if isinstance(entries, Unreadable):
        return entries
    entries = [(name, _with_rationale(entry)) for name, entry in entries]
    scores = asked_scores(entries, aspects)
    if isinstance(scores, Unreadable):
        return scores
    if found.end == "closed" and not scores_stand(entries, scores, found.text):
        return Unreadable("the reply's JSON is broken where the scores are; they cannot be told for certain")
    return tuple(scores)


def scores_schema(aspects: Sequence[Aspect]) -> str:
    """The JSON schema of what `read_scores` takes, for servers that hold a model to one."""
    scores = [str(score) for score in range(LOWEST_SCORE, HIGHEST_SCORE + 1)]
    entry = _object({"reason": {"type": "string"}, "score": {"enum": [*scores, "N/A"]}}, ["score"])
    names = [aspect.name for aspect in aspects]
    return _text(_object(dict.fromkeys(names, entry), names))


def verdict_schema() -> str:
    """The JSON schema of what `prefer.j2` asks for; the reason comes first, so that it can decide."""
    return _text(_object({"reason": {"type": "string"}, "verdict": {"enum": ["A", "B", "tie"]}}, ["verdict"]))


def _chosen(path: Path, key: str, names: object, known: dict[str, Aspect]) -> tuple[Aspect, ...]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: {key}: expected a list of names from [criteria], came {names!r}")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"{path}: {key} names {unknown[0]!r}, which [criteria] does not define")
    return tuple(known[name] for name in dict.fromkeys(names))


def _with_rationale(entry: Any) -> Any:
    """The entry of one aspect with its "reason" under the name that the shared reader knows."""
    if not isinstance(entry, dict):
        return entry
    pairs = entry.pairs if isinstance(entry, Repeating) else entry.items()
    renamed = [("rationale" if folded_name(key) == "reason" else key, item) for key, item in pairs]
    return dict(renamed) if len(dict(renamed)) == len(renamed) else Repeating(renamed)


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, ensure_ascii=True, separators=(",", ":"))
