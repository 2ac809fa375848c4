"""Scores of single responses -> means and counts. Every sum is exact; floats appear only where one is shown.

As just-eval adds up (Re-Align/just-eval, `report` and `show_tables.py`): the mean of an aspect is over all
responses scored on it, and the overall mean is the plain mean of the aspects' unrounded means, however many
responses each is over (the "Avg." of DRPO's Table 1: its five general aspects). Two habits of theirs are not
the default here: an "N/A" counts as a 5, and a response with several tags counts for its last one only.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeAlias

from drpo.errors import InputError
from drpo.reply_json import Unreadable
from drpo.reply_scores import read_score
from drpo.text_files import Entry, read_json_entries, refusal, shown
from drpo.types import HIGHEST_SCORE, AspectScore

Policy: TypeAlias = Literal["leave-out", "five"]
"""What an "N/A" does to a mean: nothing, or count as the highest score (just-eval's habit)."""

_REMEDY = "Give a result file of just-eval: a list of items with a parsed_result per aspect"


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of one response: its scores, or why there are none.

    outcome: "scored", "unreadable" (the judge's reply) or "failed" (no response, or no reply); only "scored"
    has scores, one per aspect. words: the response's length, None where unknown.
    """

    id: str
    outcome: Literal["scored", "unreadable", "failed"]
    scores: tuple[AspectScore, ...] = ()
    topics: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    words: int | None = None


@dataclass(frozen=True, slots=True)
class AspectMean:
    """The scores on one aspect. `counted` are those in `total`; with the policy "five" also the N/A ones."""

    aspect: str
    total: Fraction
    counted: int
    not_applicable: int

    @property
    def exact(self) -> Fraction | None:
        """The mean, 1 to 5; None if nothing was counted."""
        return self.total / self.counted if self.counted else None

    @property
    def mean(self) -> float | None:
        """The float nearest to `exact`."""
        return None if self.exact is None else float(self.exact)


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of responses, and the mean of each aspect in the order in which they first came."""

    items: int
    scored: int
    unreadable: int
    failed: int
    not_applicable: int
    aspects: tuple[AspectMean, ...]
    mean_words: float | None

    def mean(self, aspect: str) -> float | None:
        """The mean of one aspect; None if it has none."""
        return next((entry.mean for entry in self.aspects if entry.aspect == aspect), None)

    def overall(self, aspects: Collection[str] | None = None) -> float | None:
        """The mean of the means of `aspects` (default: all); aspects without a mean are left out.

        None if none has one.
        """
        means = [
            entry.exact
            for entry in self.aspects
            if entry.exact is not None and (aspects is None or entry.aspect in aspects)
        ]
        return float(sum(means, Fraction()) / len(means)) if means else None

    @property
    def missing_share(self) -> float:
        """The share of responses without scores, 0 to 1."""
        return (self.unreadable + self.failed) / self.items if self.items else 0.0


def summarise(items: Iterable[Judged], na: Policy = "leave-out") -> Summary:
    """The summary of all `items`. Unreadable and failed ones are counted, and are in no mean."""
    items = tuple(items)
    outcomes = [item.outcome for item in items]
    scores = [score for item in items if item.outcome == "scored" for score in item.scores]
    names = dict.fromkeys(score.aspect for score in scores)
    words = [item.words for item in items if item.words is not None]
    return Summary(
        items=len(items),
        scored=outcomes.count("scored"),
        unreadable=outcomes.count("unreadable"),
        failed=outcomes.count("failed"),
        not_applicable=sum(score.score is None for score in scores),
        aspects=tuple(_aspect_mean(name, scores, na) for name in names),
        mean_words=float(Fraction(sum(words), len(words))) if words else None,
    )


def by_topic(items: Iterable[Judged], na: Policy = "leave-out") -> dict[str, Summary]:
    """The summary of each topic's items, topics in alphabetical order; an item counts in each of its own."""
    return _grouped([(topic, item) for item in items for topic in dict.fromkeys(item.topics)], na)


def by_task(items: Iterable[Judged], na: Policy = "leave-out") -> dict[str, Summary]:
    """The same for the task categories."""
    return _grouped([(task, item) for item in items for task in dict.fromkeys(item.tasks)], na)


def item_mean(
    item: Judged, na: Policy = "leave-out", aspects: Collection[str] | None = None
) -> Fraction | None:
    """The mean of one response's scores on `aspects` (default: all); None if nothing counts.

    What paired differences and bootstrap samples are made of.
    """
    counted = [
        value
        for score in item.scores
        if (aspects is None or score.aspect in aspects) and (value := _value(score, na)) is not None
    ]
    return sum(counted, Fraction()) / len(counted) if counted else None


def read_just_eval(path: Path) -> tuple[Judged, ...]:
    """The items of a result file of just-eval, in file order. What has another shape is an `InputError`.

    An item is {"id", "output_cand", "parsed_result": {aspect: {"reason", "score"}}, ...}, scores as texts,
    numbers or "N/A". One without `parsed_result` is "unreadable" if it has a `result` text and "failed" if
    not: just-eval leaves "N/A" there after its last try. Fields "topic" and "task", a text or a list of
    texts, are taken where they stand (the data set has them; result files do not).
    """
    entries = read_json_entries(path).entries
    if not entries:
        raise refusal(path, "", "at least one item", "none", _REMEDY)
    return tuple(_just_eval_item(path, entry, number) for number, entry in enumerate(entries))


def _aspect_mean(name: str, scores: Sequence[AspectScore], na: Policy) -> AspectMean:
    own = [score for score in scores if score.aspect == name]
    counted = [value for score in own if (value := _value(score, na)) is not None]
    missing = sum(score.score is None for score in own)
    return AspectMean(name, sum(counted, Fraction()), len(counted), missing)


def _value(score: AspectScore, na: Policy) -> Fraction | None:
    if score.score is not None:
        return Fraction(score.score)
    return Fraction(HIGHEST_SCORE) if na == "five" else None


def _grouped(tagged: Sequence[tuple[str, Judged]], na: Policy) -> dict[str, Summary]:
    groups: dict[str, list[Judged]] = {}
    for tag, item in tagged:
        groups.setdefault(tag, []).append(item)
    return {tag: summarise(groups[tag], na) for tag in sorted(groups)}


def _just_eval_item(path: Path, entry: Entry, number: int) -> Judged:
    value = entry.value
    if not isinstance(value, dict):
        raise refusal(path, entry.place, "an object with a parsed_result", shown(value), _REMEDY)
    given = value.get("id", number)
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise refusal(
            path, entry.place, "an id, a number or a text", shown(given), "Correct it or take it out"
        )
    output = value.get("output_cand")
    if output is not None and not isinstance(output, str):
        raise refusal(path, entry.place, "a text in output_cand", shown(output), _REMEDY)
    parsed = value.get("parsed_result")
    scores: tuple[AspectScore, ...] = ()
    outcome: Literal["scored", "unreadable", "failed"] = "scored"
    if parsed is None:
        if not {"parsed_result", "result"} & value.keys():
            raise refusal(path, entry.place, "a parsed_result", f"only {_keys(value)}", _REMEDY)
        outcome = "failed" if value.get("result") in (None, "", "N/A") else "unreadable"
    else:
        scores = _just_eval_scores(path, entry.place, parsed)
    return Judged(
        id=str(given),
        outcome=outcome,
        scores=scores,
        topics=_tags(path, entry.place, value, "topic"),
        tasks=_tags(path, entry.place, value, "task"),
        words=None if output is None else len(output.split()),
    )


def _just_eval_scores(path: Path, place: str, parsed: Any) -> tuple[AspectScore, ...]:
    if not isinstance(parsed, dict) or not parsed:
        raise refusal(path, place, "a parsed_result with aspects", shown(parsed), _REMEDY)
    scores = []
    for name, result in parsed.items():
        where = f"{place}, aspect {json.dumps(name)}"
        if not isinstance(result, dict) or "score" not in result:
            raise refusal(path, where, 'an object with a "score"', shown(result), _REMEDY)
        score = read_score(result["score"])
        if isinstance(score, Unreadable):
            raise InputError(f"{path}, {where}: it {score.problem}. Correct the item or take it out")
        reason = result.get("reason", "")
        scores.append(
            AspectScore(_writable(name), score, _writable(reason) if isinstance(reason, str) else "")
        )
    return tuple(scores)


def _writable(text: str) -> str:
    """`text` with half characters replaced: JSON can spell them, and no file of a run can hold them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _tags(path: Path, place: str, value: dict[str, Any], field: str) -> tuple[str, ...]:
    tags = value.get(field)
    if tags is None:
        return ()
    listed = [tags] if isinstance(tags, str) else tags
    if not isinstance(listed, list) or not all(isinstance(tag, str) for tag in listed):
        raise refusal(path, place, f"a text or a list of texts in {field}", shown(tags), _REMEDY)
    return tuple(tag for tag in dict.fromkeys(listed) if tag)


def _keys(value: dict[str, Any]) -> str:
    return shown(", ".join(value)) if value else "an empty object"
