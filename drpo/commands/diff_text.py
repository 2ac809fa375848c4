"""Two results compared, and the comparison as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from drpo.commands.diff_sides import Side
from drpo.commands.result_text import SIMULATED, explain_end
from drpo.commands.show_run import spent_json
from drpo.commands.terminal import columns, diff_text, line_of, styled
from drpo.llm.ledger import Spent
from drpo.report.scale import duration
from drpo.report.spending import total_bill
from drpo.text_diff import Part, word_diff
from drpo.types import Example

_LONGEST_QUERY = 100
_UNTOLD = "unknown"


@dataclass(frozen=True, slots=True)
class ChangedExample:
    """An example of both whose response differs. rewards: of the responses, where they were scored."""

    query: str
    parts: tuple[Part, ...]
    rewards: tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two results. prompt: the change from a to b, None where there are no prompts.

    settings: (name, value in a, value in b) of each setting, model and digest of inputs that differs.
    """

    a: Side
    b: Side
    prompt: tuple[Part, ...] | None
    added: tuple[Example, ...]
    removed: tuple[Example, ...]
    changed: tuple[ChangedExample, ...]
    same_examples: int
    settings: tuple[tuple[str, Any, Any], ...]

    @property
    def prompt_equal(self) -> bool:
        return self.prompt is None or self.a.system_prompt == self.b.system_prompt

    @property
    def equal(self) -> bool:
        """Whether the results are: prompt and form, examples, shots. Settings and rewards are none."""
        examples = not (self.added or self.removed or self.changed)
        forms = {self.a.prompt_form, self.b.prompt_form} - {None}
        return self.prompt_equal and examples and len(forms) < 2 and _shots(self.a) == _shots(self.b)


def compare(a: Side, b: Side) -> Comparison:
    """What differs between two sides of one command."""
    prompt = None
    if a.system_prompt is not None and b.system_prompt is not None:
        prompt = word_diff(a.system_prompt, b.system_prompt)
    left, right = _numbered(a.examples), _numbered(b.examples)
    both = [key for key in left if key in right]
    changed = tuple(
        ChangedExample(
            key[0],
            word_diff(left[key][1].response, right[key][1].response),
            (_reward(a, left[key][0]), _reward(b, right[key][0])),
        )
        for key in both
        if left[key][1].response != right[key][1].response
    )
    return Comparison(
        a,
        b,
        prompt,
        tuple(example for key, (_, example) in right.items() if key not in left),
        tuple(example for key, (_, example) in left.items() if key not in right),
        changed,
        len(both) - len(changed),
        tuple(_settings(a.identity, b.identity)),
    )


def _numbered(examples: tuple[Example, ...]) -> dict[tuple[str, int], tuple[int, Example]]:
    """By query, and by how often it stood before: two examples may have one query."""
    found: dict[tuple[str, int], tuple[int, Example]] = {}
    seen: dict[str, int] = {}
    for at, example in enumerate(examples):
        times = seen[example.query] = seen.get(example.query, 0) + 1
        found[example.query, times] = (at, example)
    return found


def _reward(side: Side, at: int) -> float | None:
    return side.rewards[at][1] if at < len(side.rewards) else None


def _shots(side: Side) -> object:
    settings = side.identity.get("settings")
    return settings.get("shots") if isinstance(settings, Mapping) else None


def _settings(a: Mapping[str, Any], b: Mapping[str, Any], kind: str = "") -> Iterator[tuple[str, Any, Any]]:
    names = {"models": "model of the ", "digests": "content of ", "settings": ""}
    for name in dict.fromkeys([*a, *b]):
        one, other = a.get(name), b.get(name)
        if not kind and name in names and isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from ((names[name] + key, x, y) for key, x, y in _settings(one, other, name))
        elif one != other:
            yield name, one, other


def warnings_about(a: Side, b: Side) -> Iterator[str]:
    """Why figures of the two cannot be held against each other."""
    if a.simulated != b.simulated:
        simulated, real = (a, b) if a.simulated else (b, a)
        yield (
            f"the models of {simulated.name} are simulated, those of {real.name} are real: their rewards say "
            "nothing about each other"
        )
        return
    judges = [side.identity.get("models", {}).get("evaluator") for side in (a, b)]
    if judges[0] != judges[1]:
        yield "the evaluators differ, and so may what a reward means"
    digests = [side.identity.get("digests", {}) for side in (a, b)]
    if digests[0].get("seeds") != digests[1].get("seeds"):
        yield "the seed queries or their order differ: the rewards are of other questions"


def comparison_lines(found: Comparison) -> list[str]:
    """For people."""
    a, b = found.a, found.b
    rows = [(name, *figures) for name, *figures in _figures(a, b) if set(figures) != {"-"}]
    lines = columns(("", a.name, b.name), rows)
    if found.prompt is not None:
        same = "the same in both" if found.prompt_equal else diff_text(found.prompt)
        lines += ["", styled("system prompt", bold=True), same]
    lines += _example_lines(found)
    if found.settings:
        rows = [(line_of(name), _short(one), _short(other)) for name, one, other in found.settings]
        lines += ["", *columns(("differs", a.name, b.name), rows)]
    else:
        lines += ["", "The settings, models and inputs are the same."]
    lines.append("The results are equal." if found.equal else "The results differ.")
    if a.simulated and b.simulated:
        lines.append(SIMULATED)
    return lines


def _figures(a: Side, b: Side) -> Iterator[tuple[str, str, str]]:
    of_examples = a.system_prompt is None
    sides = (a, b)

    def row(name: str, one: str, other: str) -> tuple[str, str, str]:
        return name, one, other

    yield row("state", *(_state(side) for side in sides))
    yield row("mean reward" if of_examples else "path score", *(_number(side.score, 4) for side in sides))
    yield row("before" if of_examples else "start", *(_number(side.start_reward, 4) for side in sides))
    yield row("validated", *(_validated(side) for side in sides))
    yield row("rewards", *(" ".join(f"{r:.2f}" for r in side.path_rewards) or "-" for side in sides))
    yield row("levels", *(str(side.levels or "-") for side in sides))
    yield row("nodes", *(str(side.nodes or "-") for side in sides))
    yield row("asked as", *(line_of(side.prompt_form or "-") for side in sides))
    yield row("calls", *(_calls(side) for side in sides))
    yield row("spent", *(_spent(side) for side in sides))
    yield row("time", *("-" if side.elapsed_s is None else duration(side.elapsed_s) for side in sides))


def _validated(side: Side) -> str:
    if side.validation is None:
        return "-"
    return side.validation.figures if side.validation.better else "not better: the initial prompt"


def _state(side: Side) -> str:
    if side.state == "file":
        return "an alignment file"
    if side.state != "finished":
        return f"{side.state}, the best so far"
    return "finished" + (f": {line_of(explain_end(side.ended))}" if side.ended else "")


def _calls(side: Side) -> str:
    """Requests sent; where no ledger was kept, those that the result counts."""
    if side.spent is not None:
        return f"{sum(side.spent.values(), Spent()).calls:,}"
    return f"{sum(side.calls.values()):,}" if side.calls else "-"


def _spent(side: Side) -> str:
    if side.spent is not None:
        return str(total_bill(side.spent))
    return _UNTOLD if side.spent_unknown is None else line_of(f"unknown: {side.spent_unknown}")


def _example_lines(found: Comparison) -> list[str]:
    counts = {"changed": len(found.changed), "added": len(found.added), "removed": len(found.removed)}
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    lines = [
        "",
        styled("examples", bold=True),
        f"{found.same_examples} the same" + (f", {told}" if told else ""),
    ]
    for changed in found.changed:
        rewards = " -> ".join(_number(reward, 2) for reward in changed.rewards)
        scored = f" (reward {rewards})" if found.a.rewards else ""
        lines += ["", f"changed{scored}: {_query(changed.query)}", diff_text(changed.parts)]
    for what, examples in (("added", found.added), ("removed", found.removed)):
        lines += [f"{what}: {_query(example.query)}" for example in examples]
    return lines


def _query(query: str) -> str:
    line = line_of(query)
    return line if len(line) <= _LONGEST_QUERY else f"{line[: _LONGEST_QUERY - 1]}…"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _short(value: object) -> str:
    text = line_of(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 60 else f"{text[:59]}…"


def comparison_json(found: Comparison) -> dict[str, Any]:
    """For programs."""
    return {
        "equal": found.equal,
        "command": found.a.command,
        "a": _side_json(found.a),
        "b": _side_json(found.b),
        "system_prompt": None
        if found.prompt is None
        else {"equal": found.prompt_equal, "change": _parts_json(found.prompt)},
        "examples": {
            "same": found.same_examples,
            "changed": [
                {
                    "query": changed.query,
                    "change": _parts_json(changed.parts),
                    "reward_a": changed.rewards[0],
                    "reward_b": changed.rewards[1],
                }
                for changed in found.changed
            ],
            "added": [{"query": e.query, "response": e.response} for e in found.added],
            "removed": [{"query": e.query, "response": e.response} for e in found.removed],
        },
        "differences": [{"name": name, "a": one, "b": other} for name, one, other in found.settings],
        "warnings": list(warnings_about(found.a, found.b)),
    }


def _side_json(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "state": side.state,
        "simulated": side.simulated,
        "system_prompt": side.system_prompt,
        "prompt_form": side.prompt_form,
        "score": side.score,
        "path_rewards": list(side.path_rewards),
        "start_reward": side.start_reward,
        "validation": None if side.validation is None else side.validation.as_dict(),
        "nodes": side.nodes,
        "levels": side.levels,
        "ended": side.ended,
        "calls": side.calls,
        "elapsed_s": side.elapsed_s,
        "spent": spent_json(side.spent),
        "spent_unknown": side.spent_unknown,
    }


def _parts_json(parts: tuple[Part, ...]) -> list[dict[str, str]]:
    return [{"change": part.change, "text": part.text} for part in parts]
