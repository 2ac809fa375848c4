"""Finds the parts of a request that was rendered from the prompt templates."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from drpo.errors import InputError
from drpo.llm.base import Request
from drpo.types import Aspect

_FENCE = re.compile(r"<([a-z][a-z-]*)-([0-9a-f]{8})>\n(.*?)\n</\1-\2>", re.DOTALL)
_ASPECT_KEY = re.compile(r'^\s*("(?:[^"\\]|\\.)*"): \{"(?:rationale|reason)"', re.MULTILINE)
_ASPECT_LINE = re.compile(r"^- ([^:\n]+): (.+)$", re.MULTILINE)
_HOW_MANY = re.compile(r"\b(\d{1,3}) to (\d{1,3}) (?:aspects|entries)\b")
_BOLD = re.compile(r"\b[Bb]e bold\b|\baggressive\b")
_BULLETS = re.compile(r"[Nn]ever more than (\d{1,3}) in all and at most (\d{1,3})\b")


@dataclass(frozen=True, slots=True)
class Parts:
    """A request taken apart: fenced texts by label, and the template's own text without them."""

    fenced: Mapping[str, tuple[str, ...]]
    frame: str

    def text(self, label: str, role: str) -> str:
        """The fenced text with this label; an `InputError` names a part that is not in the request."""
        found = self.fenced.get(label)
        if not found:
            raise InputError(
                f"simulated {role}: found no part marked <{label}-...> in the request; a template for the"
                f' simulated models must hold it with the filter fenced("{label}")'
            )
        return found[0]


def take_apart(request: Request) -> Parts:
    """The parts of a request to the optimizer, evaluator or selector; a repair turn is part of it."""
    text = request.prompt
    if text is None:
        opening = []
        for message in request.messages:
            if message.role == "assistant":
                break
            opening.append(message.content)
        text = "\n".join(opening)
    fenced: dict[str, list[str]] = {}
    for match in _FENCE.finditer(text):
        fenced.setdefault(match.group(1), []).append(match.group(3))
    return Parts({label: tuple(texts) for label, texts in fenced.items()}, _FENCE.sub("", text))


def is_repair(request: Request) -> bool:
    """Whether the model is asked again after a reply that could not be used."""
    return any(message.role == "assistant" for message in request.messages)


def judged_aspects(parts: Parts, role: str = "evaluator") -> tuple[Aspect, ...]:
    """The aspects an evaluation is wanted for, in the order of the reply's shape, with their definitions."""
    names = [json.loads(match, strict=False) for match in _ASPECT_KEY.findall(parts.frame)]
    lines = {line[2:] for line in parts.frame.splitlines() if line.startswith("- ")}
    aspects = []
    for name in dict.fromkeys(names):
        definition = next(
            (line[len(name) + 2 :] for line in sorted(lines) if line.startswith(f"{name}: ")), ""
        )
        aspects.append(Aspect(name, definition))
    return tuple(aspects) or listed_aspects(parts, role)


def weighed_criteria(parts: Parts) -> tuple[Aspect, ...]:
    """The criteria of a comparison: the first list of lines `- name: definition`; later lists are rules."""
    first: list[str] = []
    for line in parts.frame.splitlines():
        if _ASPECT_LINE.fullmatch(line):
            first.append(line)
        elif first:
            break
    return listed_aspects(Parts({}, "\n".join(first)), "judge")


def listed_aspects(parts: Parts, role: str) -> tuple[Aspect, ...]:
    """The aspects of a list with one line `- Name: definition` each."""
    aspects = tuple(Aspect(name.strip(), text.strip()) for name, text in _ASPECT_LINE.findall(parts.frame))
    if not aspects:
        raise InputError(
            f"simulated {role}: found no list of aspects (lines `- Name: definition`) in the request"
        )
    return aspects


def wanted_number(parts: Parts) -> tuple[int, int]:
    """Fewest and most aspects that the selector may choose; 2 and 5 where the template does not say."""
    match = _HOW_MANY.search(parts.frame)
    return (int(match.group(1)), int(match.group(2))) if match else (2, 5)


def bullet_limits(parts: Parts) -> tuple[int, int]:
    """Most bullets in all and most new ones at a time; 8 and 2 where the template does not say."""
    match = _BULLETS.search(parts.frame)
    return (int(match.group(1)), int(match.group(2))) if match else (8, 2)


def wants_rewrite_as_json(parts: Parts) -> bool:
    """Whether a rewriter is to reply with an object that holds the query; else with the query alone."""
    return '"rewritten_query"' in parts.frame


def is_bold(parts: Parts) -> bool:
    """Whether a rewriter is told to add more than most users would."""
    return _BOLD.search(parts.frame) is not None


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the base model sees."""

    system_prompt: str
    shots: tuple[tuple[str, str], ...]
    query: str


def conversation(request: Request) -> Conversation:
    """The conversation of a request to the base model, from messages or from a page of text."""
    if request.prompt is not None:
        return _page(request.prompt)
    system = "\n".join(m.content for m in request.messages if m.role == "system")
    users = [i for i, m in enumerate(request.messages) if m.role == "user"]
    if not users:
        raise InputError("simulated base model: found no user message, the query, in the request")
    shots = []
    for at, message in enumerate(request.messages[: users[-1]]):
        after = request.messages[at + 1]
        if message.role == "user" and after.role == "assistant":
            shots.append((message.content, after.content))
    return Conversation(system, tuple(shots), request.messages[users[-1]].content)


def _page(prompt: str) -> Conversation:
    """System prompt, then blocks `# Query` / `# Answer`, the last answer left open."""
    head, *blocks = re.split(r"(?:^|\n)# Query[ \t]*\n", prompt)
    if not blocks:
        raise InputError("simulated base model: found no line `# Query`, above the query, in the prompt")
    pairs = []
    for block in blocks:
        question, _, answer = block.partition("\n# Answer")
        pairs.append((question.strip(), answer.strip()))
    return Conversation(head.strip(), tuple(pairs[:-1]), pairs[-1][0])


def evaluation_of(text: str) -> dict[str, tuple[float, str]]:
    """Aspect -> (score, rationale) of an evaluation in JSON; what cannot be read is left out."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    result: dict[str, tuple[float, str]] = {}
    for name, value in data.items() if isinstance(data, dict) else ():
        entry = value if isinstance(value, dict) else {"score": value}
        try:
            score = min(5.0, max(1.0, float(str(entry.get("score", 3)))))
        except ValueError:  # "N/A": nothing to mend here
            continue
        result[name] = (score, str(entry.get("rationale", "")))
    return result
