"""How model replies are read: python benchmarks/parser.py [--replies 100000] [--seed 0]

Every reply is an evaluation of known scores, written in one of the shapes of the field and then, for some
shapes, broken. A broken reply may be unreadable; a wrong value, an invalid score or a crash may not happen.
Exit code 1 if one did.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from drpo.parse import read_evaluation, read_rewrite
from drpo.types import Aspect, Evaluation

NAMES = ("Helpfulness", "Clarity", "Factuality", "Depth", "Critical-Thinking", "Safety", "Empathy")
WORDS = (
    "the",
    "response",
    "is",
    "clear",
    "but",
    "does",
    "not",
    "say",
    "why",
    "users'",
    "questions",
    "matter",
)
ODDITIES = (
    "it's",
    'a "quoted" word',
    "{x}",
    "(i.e. this)",
    "a\nline",
    "50 %",
    "é",
    "[1]",
    "\\d",
    "4/5",
    "score: 2",
)
INVALID = ("9", "0", "-1", "4.5", '"4.5"', '"4/5"', "[[4]]", "null", "NaN", "true", "[4]", "{}", '""', '"I"')
INVALID_BARE = ("4 stars", "4 out of 10", "<4", "04", "4%", "4/5", "4+", "1e400", "٤", "4 (good)", "~4")

Make = Callable[[random.Random, dict[str, Any]], str]


@dataclass
class Count:
    """What came of the replies of one shape."""

    read: int = 0
    unreadable: int = 0
    crashes: int = 0
    invalid: int = 0
    wrong: int = 0
    times_us: list[float] = field(default_factory=list)


def prose(rng: random.Random) -> str:
    words = rng.choices(WORDS, k=rng.randint(3, 40))
    for _ in range(rng.randint(0, 3)):
        words.insert(rng.randrange(len(words)), rng.choice(ODDITIES))
    return " ".join(words)


def evaluation(rng: random.Random) -> dict[str, Any]:
    names = rng.sample(NAMES, rng.randint(2, 5))
    told: list[Any] = [rng.choice(["1", "2", "3", "4", "5", 1, 2, 3, 4, 5, 4.0, " 3 ", "N/A"]) for _ in names]
    told[0] = "4"  # at least one is a number
    return {name: {"rationale": prose(rng), "score": score} for name, score in zip(names, told, strict=True)}


def truth(value: dict[str, Any]) -> list[tuple[str, int | None]]:
    return [(n, None if e["score"] == "N/A" else int(e["score"])) for n, e in value.items()]


def _trailing_commas(value: Any) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{" + "".join(f"{json.dumps(k)}: {_trailing_commas(v)},\n" for k, v in value.items()) + "}"


def _bare_quotes(rng: random.Random, value: dict[str, Any]) -> str:
    for entry in value.values():
        entry["rationale"] += f' It says "{prose(rng)}" twice.'
    return json.dumps(value).replace('\\"', '"')


def _listed(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"aspect": name, **entry} for name, entry in value.items()]


def _noisy(rng: random.Random, value: dict[str, Any]) -> str:
    """A letter inserted, deleted or doubled outside of the scores' own digits."""
    text = rng.choice([json.dumps, repr])(value)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text))
        if text[at] not in "12345N/A. '\"":
            text = text[:at] + rng.choice(["", text[at] * 2, '"', "'", ",", "{", "}", "\n"]) + text[at + 1 :]
    return text


def _cut(rng: random.Random, value: dict[str, Any]) -> str:
    text = rng.choice([json.dumps(value), repr(value), _trailing_commas(value), json.dumps(_listed(value))])
    return text[: rng.randrange(len(text))]


def _invalid(rng: random.Random, value: dict[str, Any], scores: tuple[str, ...]) -> str:
    name = rng.choice(list(value))
    marked = {**value, name: {"rationale": "r", "score": "SCORE"}}
    shape = rng.choice(["{}", "```json\n{}\n```", "Well: {}"])
    text = json.dumps(marked).replace('"SCORE"', rng.choice(scores))
    return shape.replace("{}", text[:-1] + rng.choice(["}", ",}"]))


# The shapes that are whole must all be read; the others may be unreadable.
WHOLE: dict[str, Make] = {
    "json": lambda rng, v: json.dumps(v),
    "json, indented": lambda rng, v: json.dumps(v, indent=2, ensure_ascii=False),
    "fence": lambda rng, v: f"```json\n{json.dumps(v)}\n```",
    "prose around": lambda rng, v: f"Here's my {{fair}} view:\n{json.dumps(v)}\nThat's all [1].",
    "thinking": lambda rng, v: f'<think>{prose(rng)} {{"Clarity": 1</think>\n{json.dumps(v)}',
    "orphan closing tag": lambda rng, v: f'{prose(rng)} {{"Clarity": {{"score": 1}}}}</think>{json.dumps(v)}',
    "single quotes": lambda rng, v: repr(v),
    "trailing commas": lambda rng, v: _trailing_commas(v),
    "tuple of objects": lambda rng, v: f"Scores: {tuple(_listed(v))!r}.",
    "list of objects": lambda rng, v: json.dumps(_listed(v)),
    "wrapped": lambda rng, v: json.dumps({"evaluation": v}),
    "draft, then answer": lambda rng, v: f'{{"Clarity": {{"score": 1}}}}\n\n{json.dumps(v)}',
    "last brace missing": lambda rng, v: json.dumps(v)[:-1],
}
BROKEN: dict[str, Make] = {
    "bare quotes in text": _bare_quotes,
    "cut": _cut,
    "cut in thinking": lambda rng, v: f"<think>{prose(rng)} {json.dumps(v)} {prose(rng)}",
    "noise": _noisy,
    "refusal": lambda rng, v: f"I'm sorry, but I can't rate this. {prose(rng)}",
    "one aspect missing": lambda rng, v: json.dumps(dict(list(v.items())[1:])),
    "contradiction": lambda rng, v: json.dumps(v)[:-1] + f', "{next(iter(v))}": {{"score": 5}}}}',
}
FAST = {"json", "json, indented"}
NEVER_READ = (
    "cut in thinking",
    "refusal",
    "one aspect missing",
    "contradiction",
    "invalid score",
    "invalid, bare",
)
SHAPES: dict[str, Make] = {
    **WHOLE,
    **BROKEN,
    "invalid score": lambda rng, v: _invalid(rng, v, INVALID),
    "invalid, bare": lambda rng, v: _invalid(rng, v, INVALID_BARE),
}


def ask_evaluation(rng: random.Random, shape: str, count: Count) -> None:
    value = evaluation(rng)
    text = SHAPES[shape](rng, value)
    asked = [Aspect(name, "") for name in value]
    begin = time.perf_counter()
    try:
        read = read_evaluation(text, asked)
    except Exception as error:  # noqa: BLE001 - counting them is the point
        count.crashes += 1
        print(f"{shape}: {error!r} on {text!r}", file=sys.stderr)
        return
    count.times_us.append((time.perf_counter() - begin) * 1e6)
    if not isinstance(read, Evaluation):
        count.unreadable += 1
        count.wrong += shape in WHOLE
        return
    count.read += 1
    count.invalid += any(score.score not in (None, 1, 2, 3, 4, 5) for score in read.scores)
    right = [(score.aspect, score.score) for score in read.scores] == truth(value)
    if shape in WHOLE:
        right = right and [score.rationale for score in read.scores] == [
            e["rationale"] for e in value.values()
        ]
    if shape in NEVER_READ or not right:
        count.invalid += shape.startswith("invalid")
        count.wrong += 1
        print(f"{shape}: wrongly read {text!r} as {read}", file=sys.stderr)


def ask_rewrite(rng: random.Random, shape: str, count: Count) -> None:
    prompt = "\n- ".join(prose(rng).replace("\\", "") for _ in range(8))
    text = rng.choice([json.dumps, repr, _trailing_commas])({"analysis": prose(rng), "new_response": prompt})
    if shape == "rewrite, bare quotes":
        text = json.dumps({"analysis": "a", "new_response": prompt}).replace('\\"', '"')
    elif shape == "rewrite, cut":
        text = text[: rng.randrange(len(text))]
    begin = time.perf_counter()
    try:
        read = read_rewrite(text, "new_response")
    except Exception as error:  # noqa: BLE001
        count.crashes += 1
        print(f"{shape}: {error!r} on {text!r}", file=sys.stderr)
        return
    count.times_us.append((time.perf_counter() - begin) * 1e6)
    whole = isinstance(read, str)
    count.read += whole
    count.unreadable += not whole
    if (whole and read != prompt) or (not whole and shape == "rewrite"):
        count.wrong += 1
        print(f"{shape}: read {text!r} as {read!r}", file=sys.stderr)


def table(counts: dict[str, Count]) -> str:
    lines = [f"{'shape':24}{'read':>8}{'unreadable':>12}{'crashes':>9}{'invalid':>9}{'wrong':>7}{'µs':>8}"]
    for shape, c in counts.items():
        median = statistics.median(c.times_us) if c.times_us else 0
        lines.append(
            f"{shape:24}{c.read:8}{c.unreadable:12}{c.crashes:9}{c.invalid:9}{c.wrong:7}{median:8.0f}"
        )
    fast = [t for shape, c in counts.items() if shape in FAST for t in c.times_us]
    rest = [t for shape, c in counts.items() if shape not in FAST for t in c.times_us]
    lines.append(
        f"median: fast path {statistics.median(fast):.0f} µs, the rest {statistics.median(rest):.0f} µs"
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--replies", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    shapes = [*SHAPES, "rewrite", "rewrite, bare quotes", "rewrite, cut"]
    counts = {shape: Count() for shape in shapes}
    for number in range(max(options.replies, len(shapes))):
        shape = shapes[number % len(shapes)]
        (ask_evaluation if shape in SHAPES else ask_rewrite)(rng, shape, counts[shape])
    print(table(counts))
    return int(any(c.crashes or c.invalid or c.wrong for c in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
