"""What a run gives: the result of `optimize` and of `optimize-examples`, and the file of the latter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drpo.alignment import FILE_NAME, Alignment, read_alignment
from drpo.errors import InputError
from drpo.measured import SUMMARY_NAME
from drpo.types import Example
from drpo.validation.result import Validation, read_validation

if TYPE_CHECKING:  # loading them takes longer than all that `drpo runs` does with a result
    from drpo.plan import Plan
    from drpo.validating_examples import ImprovedExample, ImprovedSet

RESULT_NAME, EXAMPLES_NAME = "result.json", "examples.jsonl"
BUDGET = "budget"  # how a search ended whose budget was spent: it can be resumed


@dataclass(frozen=True, slots=True)
class OptimizeResult:
    """What `drpo optimize` found. `sent`: calls per role that this process sent, the rest was recorded."""

    run_dir: Path
    alignment: Alignment
    sent: dict[str, int]
    finished_before: bool = False


@dataclass(frozen=True, slots=True)
class ExamplesResult:
    """What `drpo optimize-examples` made. validation: whether the improved examples were better shots than
    the original ones, which `examples` hold as the result where they were not; None where nobody asked."""

    run_dir: Path
    examples: tuple[ImprovedExample, ...]
    out: Path
    calls: dict[str, int]
    simulated: bool
    finished_before: bool = False
    validation: Validation | None = None


def is_finished(path: Path) -> bool:
    """Whether the run in `path` has its result: a best so far that a spent budget left is none."""
    if (path / FILE_NAME).exists():
        return read_alignment(path).found.ended != BUDGET
    if (path / SUMMARY_NAME).exists():
        return True
    if (path / RESULT_NAME).exists():
        return all(item.ended != BUDGET for item in read_examples_result(path).examples)
    return False


def examples_json(plan: Plan, improved: ImprovedSet, calls: Mapping[str, int]) -> str:
    """The content of result.json. A row has `found` where its search came to something that the validation
    has not handed over."""
    rows = [
        {
            "query": item.before.query,
            "kind": item.before.kind,
            "before": {"response": item.before.response, "reward": item.reward_before},
            "after": {"response": item.after.response, "reward": item.reward_after},
            **(
                {}
                if item.found is None
                else {"found": {"response": item.found.response, "reward": item.reward_found}}
            ),
            "ended": item.ended,
        }
        for item in improved.examples
    ]
    data = {
        "schema": 1,
        "simulated": plan.simulated,
        "calls": dict(calls),
        "settings": plan.identity,
        **({} if improved.validation is None else {"validation": improved.validation.as_dict()}),
        "examples": rows,
    }
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"


def read_examples_result(path: Path) -> ExamplesResult:
    """The result of a finished `optimize-examples` run."""
    file = path / RESULT_NAME
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return ExamplesResult(
            path,
            tuple(_improved(row) for row in data["examples"]),
            path / EXAMPLES_NAME,
            dict(data["calls"]),
            bool(data["simulated"]),
            finished_before=True,
            validation=read_validation(data.get("validation")),
        )
    except FileNotFoundError:
        raise InputError(f"{file}: the run has not finished: run its command again to resume it") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: expected the result of a run, {error!r}; delete it and run again"
        ) from None


def _improved(row: Mapping[str, Any]) -> ImprovedExample:
    from drpo.validating_examples import ImprovedExample

    def example(of: Mapping[str, Any]) -> Example:
        return Example(row["query"], of["response"], row["kind"])

    found = row.get("found")
    return ImprovedExample(
        example(row["before"]),
        example(row["after"]),
        row["before"]["reward"],
        row["after"]["reward"],
        row["ended"],
        None if found is None else example(found),
        None if found is None else found["reward"],
    )
