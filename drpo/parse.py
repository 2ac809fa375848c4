"""Reply text of a model -> a typed value, or what was wrong with it. Never an exception, never a guess.

`reply_json` finds the JSON; here names, scores and ends are checked, because the reading of broken text has
silent errors: a refusal becomes an empty text, a cut-off object merely loses its last aspect.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from drpo.reply_json import Found, Unreadable, find_json, shortened
from drpo.reply_literals import Repeating, unescaped
from drpo.reply_scores import read_score, stand_in_text
from drpo.types import Aspect, AspectScore, Evaluation, Selection

__all__ = ["Unreadable", "read_evaluation", "read_object", "read_rewrite", "read_selection"]

# Longer than any proposed aspect seen in the published runs; a longer one is an essay, not a name.
LONGEST_NAME = 60
LONGEST_DEFINITION = 500

_FOLD = str.maketrans("", "", " \t\r\n-_")
_CUT_OFF = Unreadable("the reply's JSON object is cut off before its end")
_Entry: TypeAlias = tuple[str, Any]


def read_object(text: str) -> dict[str, Any] | Unreadable:
    """The last JSON object in `text`, mended where it had to be: check what is in it.

    NaN, Infinity and numbers beyond a float come back as text.
    """
    found = find_json(text)
    return found if isinstance(found, Unreadable) else _last_object(found)


def read_evaluation(
    text: str, asked: Sequence[Aspect], *, names: Literal["asked", "returned"] = "asked"
) -> Evaluation | Unreadable:
    """Scores 1 to 5 or None ("N/A") with rationales, at least one of them a number.

    "asked": exactly the aspects asked, in that order and spelling. "returned": whatever aspects came, as they
    came: so the published runs read them. Shapes: {aspect: {"rationale", "score"}}, {aspect: score},
    a list of objects that name their aspect, each also as the one value of a wrapping object. A reply that
    lacks nothing but its last bracket is read in "asked" mode only: there a lost aspect shows.
    """
    found = find_json(text)
    if isinstance(found, Unreadable):
        return found
    if not (found.complete or (names == "asked" and found.end == "unclosed")):
        return cut_off(found)
    wanted = {folded_name(aspect.name) for aspect in asked} if names == "asked" else set()
    entries = entries_of(found.value, wanted)
    if isinstance(entries, Unreadable):
        return entries
    scores = _returned_scores(entries) if names == "returned" else asked_scores(entries, asked)
    if isinstance(scores, Unreadable):
        return scores
    if found.end == "closed" and not scores_stand(entries, scores, found.text):
        return Unreadable("the reply's JSON is broken where the scores are; they cannot be told for certain")
    if all(score.score is None for score in scores):
        return Unreadable("no aspect was scored; at least one needs a whole number from 1 to 5")
    return Evaluation(tuple(scores))


def read_selection(
    text: str, known: Sequence[Aspect], *, fewest: int = 2, most: int = 5
) -> Selection | Unreadable:
    """`fewest` to `most` different aspects, known ones as they are known, new ones with `proposed` set."""
    found = find_json(text)
    if isinstance(found, Unreadable):
        return found
    if not (found.complete or found.end == "unclosed"):
        return cut_off(found)
    value = _last_object(found)
    selection = value.get("aspects_selection", value)
    selected = selection.get("selected_aspects") if isinstance(selection, dict) else None
    if not isinstance(selected, list):
        return Unreadable('the reply has no list "selected_aspects" inside "aspects_selection"')
    by_name = {folded_name(aspect.name): aspect for aspect in known}
    chosen: dict[str, Aspect] = {}
    for item in selected:
        aspect = _selected_aspect(item, by_name)
        if isinstance(aspect, Unreadable):
            return aspect
        chosen.setdefault(folded_name(aspect.name), aspect)
    if not fewest <= len(chosen) <= most:
        wanted = f"{fewest} to {most}" if fewest != most else str(most)
        return Unreadable(f'"selected_aspects" names {len(chosen)} different aspects; {wanted} were expected')
    reasoning = selection.get("reasoning")
    return Selection(tuple(chosen.values()), _writable(reasoning) if isinstance(reasoning, str) else "")


def read_rewrite(text: str, field: str) -> str | Unreadable:
    """The whole text in `field`, as it is, but for backslash-n, which becomes a newline (DRPO's own code).

    A cut text must not pass for a whole one, and `json_repair` closes an open string without a word. So what
    was mended is taken only if (1) all strings and brackets are closed at the end of the reply, and (2) the
    text stands in the reply letter for letter, from the quote after the field's name to a quote that the next
    field or the closing bracket follows. A reply cut inside the text fails (1): its quotes within the text
    are escaped, so its string is still open. A mended text that ends at a bare quote within it fails (2).
    """
    found = find_json(text)
    if isinstance(found, Unreadable):
        return found
    if not found.complete:
        return cut_off(found)
    value = _last_object(found)
    rewrite = value.get(field)
    if not isinstance(rewrite, str) or not rewrite.replace("\\n", "\n").strip():
        what = "has no" if field not in value else "has no text in"
        return Unreadable(f'the reply {what} "{field}"; the whole new text was expected there')
    if isinstance(value, Repeating) and any(k == field and v != rewrite for k, v in value.pairs):
        return Unreadable(f'the reply has "{field}" more than once, with different texts')
    if found.end == "closed" and not _stands_whole(rewrite, field, found.text):
        return Unreadable(f'the end of "{field}" cannot be told; quotes inside the text must be escaped')
    if _writable(rewrite) != rewrite:
        return Unreadable(f'"{field}" holds half a character (a lone surrogate), which no file can hold')
    return rewrite.replace("\\n", "\n")


def entries_of(value: Any, wanted: set[str]) -> list[_Entry] | Unreadable:
    """(name, score or entry) as written, repeated keys repeated, a wrapper taken off."""
    if isinstance(value, dict) and len(value) == 1 and not isinstance(value, Repeating):
        ((name, inner),) = value.items()
        if folded_name(name) not in wanted and _wraps(inner):
            value = inner
    if isinstance(value, dict):
        return list(value.pairs if isinstance(value, Repeating) else value.items())
    entries: list[_Entry] = []
    for item in value:
        named = _members(item) if isinstance(item, dict) else {}
        name = named.get("aspect", named.get("name"))
        if not isinstance(name, str):
            return Unreadable(
                'the reply is a list in which an entry names no "aspect"; an object was expected'
            )
        entries.append((name, item))
    return entries


def _wraps(inner: Any) -> bool:
    """True for a list of objects, and for an object of entries or scores that is no entry itself."""
    if isinstance(inner, list):
        return bool(inner) and all(isinstance(item, dict) for item in inner)
    if not isinstance(inner, dict) or "score" in _members(inner):
        return False
    return any(_is_entry(item) or not isinstance(read_score(item), Unreadable) for item in inner.values())


def asked_scores(entries: list[_Entry], asked: Sequence[Aspect]) -> list[AspectScore] | Unreadable:
    """Exactly the scores of the aspects asked, in their order and spelling."""
    spelled = {folded_name(aspect.name): aspect.name for aspect in asked}
    read: dict[str, AspectScore] = {}
    for name, entry in entries:
        folded = folded_name(name)
        if folded not in spelled:
            if _is_entry(entry):
                return Unreadable(f"aspect {shortened(name)} was scored, but not asked for")
            continue  # a remark such as "overall_comment"
        score = _aspect_score(spelled[folded], entry)
        if isinstance(score, Unreadable):
            return score
        if folded in read and read[folded].score != score.score:
            return Unreadable(f"aspect {shortened(name)} has two different scores")
        read[folded] = score
    missing = [shortened(name) for folded, name in spelled.items() if folded not in read]
    if missing:
        return Unreadable(f"aspect {', '.join(missing[:5])} is missing; every aspect asked for needs a score")
    return [read[folded] for folded in spelled]


def _returned_scores(entries: list[_Entry]) -> list[AspectScore] | Unreadable:
    read: dict[str, AspectScore] = {}
    for name, entry in entries:
        score = _aspect_score(_writable(name), entry)
        if isinstance(score, Unreadable):
            return score
        earlier = read.get(folded_name(name))
        if earlier is not None and earlier.score != score.score:
            return Unreadable(f"aspect {shortened(name)} has two different scores")
        read[folded_name(name)] = score
    return list(read.values())


def scores_stand(entries: list[_Entry], scores: list[AspectScore], text: str) -> bool:
    """True if the text that was mended says these scores itself, in the order of the entries."""
    by_name = {folded_name(score.aspect): score.score for score in scores}
    read = [(name, entry) for name, entry in entries if folded_name(name) in by_name]
    inner = [by_name[folded_name(name)] for name, entry in read if isinstance(entry, dict)]
    bare = [(name, by_name[folded_name(name)]) for name, entry in read if not isinstance(entry, dict)]
    return stand_in_text(text, "score", inner) and all(stand_in_text(text, n, [score]) for n, score in bare)


def _aspect_score(name: str, entry: Any) -> AspectScore | Unreadable:
    rationale: Any = ""
    if isinstance(entry, dict):
        if isinstance(entry, Repeating):
            given = {_score_key(v) for k, v in entry.pairs if folded_name(k) == "score"}
            if len(given) > 1:
                return Unreadable(f"aspect {shortened(name)} has two different scores")
        members = _members(entry)
        if "score" not in members:
            return Unreadable(f'aspect {shortened(name)} has no "score"')
        entry, rationale = members["score"], members.get("rationale")
    score = read_score(entry)
    if isinstance(score, Unreadable):
        return Unreadable(f"aspect {shortened(name)} {score.problem}")
    if rationale is not None and not isinstance(rationale, str):
        return Unreadable(f"the rationale of aspect {shortened(name)} is {shortened(rationale)}, not a text")
    return AspectScore(name, score, _writable(rationale or ""))


def _score_key(value: Any) -> str:
    score = read_score(value)
    return score.problem if isinstance(score, Unreadable) else str(score)


def _selected_aspect(item: Any, by_name: dict[str, Aspect]) -> Aspect | Unreadable:
    """The known aspect of that name, else a proposed one with its definition on one line."""
    definition: Any = None
    name: Any = item
    if isinstance(item, dict):
        members = _members(item)
        name, definition = members.get("name", members.get("aspect")), members.get("definition")
    elif isinstance(item, str) and folded_name(item) not in by_name:
        name, _, definition = item.partition(":")
    if not isinstance(name, str) or not folded_name(name):
        return Unreadable(f'"selected_aspects" holds {shortened(item)}, which names no aspect')
    if folded_name(name) in by_name:
        return by_name[folded_name(name)]
    if not isinstance(definition, str) or not definition.strip():
        return Unreadable(
            f"aspect {shortened(name)} is not a known one; a proposed aspect needs a definition: "
            '{"name": "...", "definition": "..."}'
        )
    name, definition = _one_line(name), _one_line(definition)
    for what, value, most in (("name", name, LONGEST_NAME), ("definition", definition, LONGEST_DEFINITION)):
        if len(value) > most:
            return Unreadable(
                f"the {what} {shortened(value)} of a proposed aspect has {len(value)} characters; "
                f"at most {most} were expected"
            )
    return Aspect(name, definition, proposed=True)


def _stands_whole(rewrite: str, field: str, text: str) -> bool:
    openings = list(re.finditer(rf"[\"']{re.escape(field)}[\"']\s*+:\s*+([\"'])", text))
    if not openings:
        return False
    # The last one: json_repair's object is the last one too.
    start, quote = openings[-1].end(), openings[-1].group(1)
    for closing in re.finditer(rf"{quote}\s*+(?:,?\s*+\}}|,\s*+[\"'][\w ]++[\"']\s*+:)", text[start:]):
        raw = text[start : start + closing.start()]
        if len(raw) > 6 * len(rewrite):  # the longest escape, \uXXXX, has six characters
            return False
        if len(raw) >= len(rewrite) and unescaped(raw) == rewrite:
            return True
    return False


def _last_object(found: Found) -> dict[str, Any]:
    value: dict[str, Any] = found.value[-1] if isinstance(found.value, list) else found.value
    return value


def cut_off(found: Found) -> Unreadable:
    """What is said of JSON that has no end."""
    return Unreadable(f"{_CUT_OFF.problem}; it ends with {shortened(found.text[-60:])}")


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and "score" in _members(value)


def _members(value: dict[str, Any]) -> dict[str, Any]:
    return {folded_name(key): item for key, item in value.items()}


def folded_name(name: str) -> str:
    """What names are told apart by: not by case, blanks and hyphens."""
    return name.translate(_FOLD).casefold()


def _one_line(text: str) -> str:
    return _writable(" ".join(text.split()))


def _writable(text: str) -> str:
    """`text` with lone surrogates replaced: they cannot be written to any file of the run."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
