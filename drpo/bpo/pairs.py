"""Human preferences as people publish them: an instruction with the response they preferred and another.

Formats, told apart by the fields of a record:
- BPO: `prompt` (or `instruction`), `good_res`, `bad_res`, and `context` or `input` where there is one;
- chosen and rejected as whole dialogues in one text (HH-RLHF: "Human:", "Assistant:"), as lists of messages
  (UltraFeedback), or as responses beside a `prompt`;
- Arena: `conversation_a`, `conversation_b`, `winner`; ties say nothing about what is better.

Of a dialogue of several turns the last question is the instruction, and what was said before is its context.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.query_rows import read_records, record_of, refuse_half_pairs
from drpo.text_files import Entry, refusal, shown

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]*")
_TIE = re.compile(r"tie\b|both[ _-]?bad$", re.IGNORECASE)
_SPLITS = ("train", "train_prefs")
_CONTEXTS = ("context", "input")
_INSTRUCTIONS = ("prompt", "instruction", "question", "query")
_PAIRS = (("good_res", "bad_res"), ("chosen", "rejected"), ("good_response", "bad_response"))
_EXPECTED = (
    "good_res and bad_res beside a prompt, chosen and rejected, or conversation_a, conversation_b and winner"
)
Turns = tuple[tuple[str, str], ...]
"""(role, text), role being "user", "assistant" or "system"."""


@dataclass(frozen=True, slots=True)
class Preference:
    """One instruction with a preferred and another response. place: where it stands in its source."""

    instruction: str
    good: str
    bad: str
    context: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Preferences:
    """All of a source, in its order. left_out: how many records say nothing, by reason (a tie, equal
    responses, no instruction, repeated)."""

    items: tuple[Preference, ...]
    source: str
    left_out: dict[str, int]


def read_preferences(source: str | Path) -> Preferences:
    """The preferences of a file (.jsonl, .json, .csv) or of a Hugging Face dataset.

    A record without the fields of any format is an InputError with its place; one that says nothing (see
    `Preferences`) is left out and counted. At least one must be left.
    """
    entries, name = read_records(source, _SPLITS)
    items: dict[tuple[str, str, str, str], Preference] = {}
    left_out: Counter[str] = Counter()
    for entry in entries.entries:
        found = _preference(name, entry)
        if isinstance(found, str):
            left_out[found] += 1
            continue
        key = (found.instruction, found.good, found.bad, found.context)
        if key in items:
            left_out["repeated"] += 1
        items.setdefault(key, found)
    if not items:
        came = "none" if not left_out else f"none that says anything ({dict(left_out)})"
        raise refusal(name, "", f"at least one record with {_EXPECTED}", came, "Give another file")
    return Preferences(tuple(items.values()), name, dict(left_out))


def _preference(source: str, entry: Entry) -> Preference | str:
    """The preference of a record, or why it says nothing."""
    record = record_of(source, entry)
    names = next((pair for pair in _PAIRS if all(field in record for field in pair)), None)
    if names is not None:
        sides = [_turns(source, entry, field, record[field]) for field in names]
    elif {"conversation_a", "conversation_b", "winner"} <= record.keys():
        winner = record["winner"]
        if isinstance(winner, str) and _TIE.match(winner):
            return "a tie"
        if winner not in ("model_a", "model_b"):
            remedy = "Write model_a, model_b or tie"
            raise refusal(source, entry.place, "a winner", shown(winner), remedy)
        order = (
            ("conversation_a", "conversation_b")
            if winner == "model_a"
            else ("conversation_b", "conversation_a")
        )
        sides = [_turns(source, entry, field, record[field]) for field in order]
    else:
        came = f"the fields {', '.join(map(shown, record))}"
        raise refusal(source, entry.place, _EXPECTED, came, "Rename the fields that are meant")
    return _of_sides(source, entry, record, sides)


def _of_sides(
    source: str, entry: Entry, record: Mapping[str, Any], sides: Sequence[Turns]
) -> Preference | str:
    (*before, good), (*other, bad) = ([*side] or [("assistant", "")] for side in sides)
    if good[0] != "assistant" or bad[0] != "assistant":
        return "no response at the end"
    own = next((field for field in _INSTRUCTIONS if field in record), None)
    if not before and own is not None:
        before = other = list(_prompt(source, entry, own, record[own]))
    if before != other:
        return "the two answer different questions"
    questions = [n for n, (role, _) in enumerate(before) if role == "user"]
    if not questions:
        return "no instruction"
    earlier = before[: questions[-1]] + before[questions[-1] + 1 :]
    context = "\n\n".join(f"{role.capitalize()}: {text}" for role, text in earlier if text.strip())
    given = next((record[f] for f in _CONTEXTS if isinstance(record.get(f), str) and record[f].strip()), "")
    context = "\n\n".join(part for part in (context, given.strip()) if part)
    instruction = before[questions[-1]][1]
    if not instruction.strip():
        return "no instruction"
    if good[1].strip() == bad[1].strip():
        return "equal responses"
    if not good[1].strip():
        return "no response at the end"
    for field, text in (
        ("instruction", instruction),
        ("good", good[1]),
        ("bad", bad[1]),
        ("context", context),
    ):
        refuse_half_pairs(source, entry.place, field, text)
    return Preference(instruction.strip(), good[1].strip(), bad[1].strip(), context, entry.place)


def _prompt(source: str, entry: Entry, field: str, value: object) -> Turns:
    """The turns of a field `prompt`: a text, a dialogue in one text, or messages."""
    if isinstance(value, str) and not _is_dialogue(value):
        return (("user", value),)
    return _turns(source, entry, field, value)


def _turns(source: str, entry: Entry, field: str, value: object) -> Turns:
    """The turns of a side: of a plain text one, by the assistant."""
    if isinstance(value, str):
        return _dialogue(value) if _is_dialogue(value) else (("assistant", value),)
    if isinstance(value, Sequence) and all(_is_message(one) for one in value):
        return tuple((str(one["role"]), str(one["content"])) for one in value)
    remedy = 'Write a text, or a list of {"role": "user" or "assistant", "content": "..."}'
    raise refusal(source, entry.place, f"a response in {field!r}", shown(value), remedy)


def _is_message(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and value.get("role") in ("user", "assistant", "system")
        and isinstance(value.get("content"), str)
    )


def _is_dialogue(text: str) -> bool:
    """Whether a text is a whole dialogue as HH-RLHF writes it; a response that merely quotes one is not."""
    return text.lstrip("\n").startswith("Human:") and "Assistant:" in text


def _dialogue(text: str) -> Turns:
    parts = _TURN.split("\n\n" + text.lstrip("\n"))
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return tuple((roles[role], said.strip("\n")) for role, said in pairs)
