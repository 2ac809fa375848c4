"""The validation of a search, drawn: gains over what it began with, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

from drpo.validating_examples import ORIGINAL, examples_sentence
from drpo.validation.result import Compared, FloorCheck, Validation, interval_text

WIDTH, HEIGHT, EDGE = 240, 22, 6
"""Pixels of one drawing; EDGE is free at both sides."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Places of one interval, of its middle, and of no gain at all, in pixels from the left."""

    low: float
    high: float
    middle: float
    zero: float


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt or a set of examples, or a part of the safety queries for it, in words and as a drawing. node:
    where the report shows it; None for what is no node."""

    node: int | None
    name: str
    mean: float | None
    gain: str
    interval: str
    pairs: int
    says: str
    chosen: bool
    bar: Bar | None


@dataclass(frozen=True, slots=True)
class ValidationPart:
    """What the report says of a validation. of_examples: two sets of examples were compared, not prompts."""

    of_examples: bool
    sentence: str
    better: bool
    queries: int
    missing: int
    asked: int
    prompts: tuple[Row, ...]
    floors: tuple[Row, ...]


def validation_part(validation: Validation | None, *, of_examples: bool = False) -> ValidationPart | None:
    """The rows, all drawn to one scale; None where there was no validation."""
    if validation is None:
        return None
    ends = [(prompt.low, prompt.high) for prompt in validation.prompts]
    ends += [(check.low, check.high) for check in validation.floors]
    reach = max([0.5, *(abs(end) for both in ends for end in both if end is not None)])
    return ValidationPart(
        of_examples,
        examples_sentence(validation) if of_examples else f"The result is {validation.sentence}",
        validation.better,
        validation.queries,
        validation.missing,
        validation.asked,
        tuple(_row(prompt, validation.chosen, reach, of_examples) for prompt in validation.prompts),
        tuple(_floor_row(check, reach, of_examples) for check in validation.floors),
    )


def _name(node: int, of_examples: bool) -> str:
    if of_examples:
        return "the original examples" if node == ORIGINAL else "the improved examples"
    return f"node {node}" if node else "the initial prompt"


def _row(prompt: Compared, chosen: int, reach: float, of_examples: bool) -> Row:
    says = f"left out after round {prompt.dropped}: {prompt.why}" if prompt.dropped else ""
    if prompt.node == chosen:
        says = "handed over"
    return Row(
        None if of_examples else prompt.node,
        _name(prompt.node, of_examples),
        prompt.mean,
        "" if prompt.gain is None else f"{prompt.gain:+.2f}",
        "" if prompt.low is None else interval_text(prompt.low, prompt.high),
        prompt.scores if prompt.node == 0 else prompt.pairs,
        says,
        prompt.node == chosen,
        _bar(prompt.gain, prompt.low, prompt.high, reach),
    )


def _floor_row(check: FloorCheck, reach: float, of_examples: bool) -> Row:
    says = f"refused: more than {check.allowed:g} below" if check.refused else "passed"
    return Row(
        None if of_examples else check.node,
        f"{_name(check.node, of_examples)}, {check.name} queries",
        None,
        "" if check.change is None else f"{check.change:+.2f}",
        "" if check.low is None else interval_text(check.low, check.high),
        check.pairs,
        says,
        False,
        _bar(check.change, check.low, check.high, reach),
    )


def _bar(middle: float | None, low: float | None, high: float | None, reach: float) -> Bar | None:
    if middle is None or low is None or high is None:
        return None

    def at(value: float) -> float:
        return round(EDGE + (value + reach) / (2 * reach) * (WIDTH - 2 * EDGE), 1)

    return Bar(at(low), at(high), at(middle), at(0.0))
