"""What can be compared of a run or an alignment file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.alignment import Alignment, read_alignment
from drpo.commands.show_run import examples_of, outcome_of, state_word
from drpo.commands.terminal import line_of
from drpo.commands.where import find_run, is_only_a_result, open_run
from drpo.llm.ledger import Spent
from drpo.run_view import RunView
from drpo.types import Example, left_to_right_sum
from drpo.validation.result import Validation


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two. name: as the user gave it, safe for a terminal. state: as `drpo runs` has it, or file.

    system_prompt: None for `optimize-examples`, whose `rewards` are those of each example before and after.
    identity: command, models, embedder, settings, digests. spent: None where nothing was kept, or why
    it is not known stands in spent_unknown; calls: distinct requests per role, where only these are known.
    """

    name: str
    command: str
    state: str
    identity: Mapping[str, Any]
    examples: tuple[Example, ...]
    simulated: bool
    system_prompt: str | None = None
    prompt_form: str | None = None
    score: float | None = None
    path_rewards: tuple[float, ...] = ()
    start_reward: float | None = None
    validation: Validation | None = None
    rewards: tuple[tuple[float | None, float | None], ...] = ()
    nodes: int | None = None
    levels: int | None = None
    ended: str | None = None
    spent: Mapping[str, Spent] | None = None
    calls: Mapping[str, int] | None = None
    elapsed_s: float | None = None
    spent_unknown: str | None = None


def read_side(given: Path) -> Side:
    """A run, also an unfinished one with a level that is done, or an alignment file."""
    found = find_run(given)
    name = line_of(str(given))
    if is_only_a_result(found):
        return _of_alignment(name, read_alignment(found))
    view = open_run(found)
    return _of_examples(name, view) if view.command == "optimize-examples" else _of_prompt(name, view)


def _of_alignment(name: str, alignment: Alignment) -> Side:
    found = alignment.found
    return Side(
        name,
        str(found.settings.get("command", "optimize")),
        "file",
        found.settings,
        alignment.examples,
        alignment.simulated,
        system_prompt=alignment.system_prompt,
        prompt_form=alignment.prompt_form,
        score=found.path_score,
        path_rewards=found.path_rewards,
        validation=alignment.validation,
        nodes=found.nodes,
        levels=found.levels,
        ended=found.ended,
        calls=found.calls,
    )


def _of_prompt(name: str, view: RunView) -> Side:
    outcome = outcome_of(view)
    return Side(
        name,
        view.command,
        state_word(view),
        view.identity,
        view.examples,
        view.simulated,
        system_prompt=outcome.system_prompt,
        prompt_form=None if view.alignment is None else view.alignment.prompt_form,
        score=outcome.path_score,
        path_rewards=outcome.path_rewards,
        start_reward=outcome.start_reward,
        validation=None if view.alignment is None else view.alignment.validation,
        nodes=outcome.nodes,
        levels=outcome.levels,
        ended=outcome.ended,
        spent=view.spent,
        spent_unknown=view.spent_unknown,
        calls=None if view.alignment is None else view.alignment.found.calls,
        elapsed_s=None if view.progress is None else view.progress.elapsed_s,
    )


def _of_examples(name: str, view: RunView) -> Side:
    result = examples_of(view)
    rewards = tuple((item.reward_before, item.reward_after) for item in result.examples)
    return Side(
        name,
        view.command,
        state_word(view),
        view.identity,
        tuple(item.after for item in result.examples),
        view.simulated,
        score=mean([after for _, after in rewards]),
        start_reward=mean([before for before, _ in rewards]),
        rewards=rewards,
        nodes=sum(len(tree.nodes) for tree in view.trees) or None,
        spent=view.spent,
        spent_unknown=view.spent_unknown,
        calls=result.calls or None,
        elapsed_s=None if view.progress is None else view.progress.elapsed_s,
    )


def mean(rewards: list[float | None]) -> float | None:
    """Of those that there are."""
    known = [reward for reward in rewards if reward is not None]
    return left_to_right_sum(known) / len(known) if known else None
