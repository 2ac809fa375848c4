"""The essentials of a run, finished or not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import click

from drpo.commands.examples_table import examples_data, print_examples
from drpo.commands.result_text import (
    SIMULATED,
    explain_end,
    score_text,
    shots_text,
    summary,
    validation_lines,
)
from drpo.commands.terminal import columns, line_of, print_json, safe, styled
from drpo.errors import InputError
from drpo.llm.base import ROLES
from drpo.llm.ledger import Spent
from drpo.report.scale import duration, plural
from drpo.report.spending import bill, spent_table, total_bill
from drpo.results import BUDGET, EXAMPLES_NAME, ExamplesResult
from drpo.run_list import state_of
from drpo.run_view import RunView
from drpo.types import Example
from drpo.validating_examples import ImprovedExample

_AGAIN = "Its command, given again, goes on: what is recorded is not asked again."
_NEXT = {
    "running": "drpo watch follows it.",
    "stopping": "drpo watch follows it.",
    "budget": "Its command, given again with a higher --max-calls or --max-usd, goes on.",
    "failed": f"Its run.log says why. {_AGAIN}",
}
_STATES = {
    "budget": "budget spent",
    "stopped": "stopped, its process is gone or hangs",
    "unfinished": "not finished",
}


@dataclass(frozen=True, slots=True)
class PromptOutcome:
    """What a search of a prompt has come to. path_rewards and path_score: 1 to 5, without the start, whose
    reward stands by itself. ended: None while the search goes on, or can."""

    system_prompt: str
    path_score: float | None
    path_rewards: tuple[float, ...]
    start_reward: float | None
    nodes: int
    levels: int
    limit: int | None
    dropped: int
    ended: str | None


def is_final(view: RunView) -> bool:
    """Whether the run has its result: a best so far that a spent budget left is none."""
    if view.improved is not None:
        return all(item.ended != BUDGET for item in view.improved.examples)
    return view.alignment is not None and view.alignment.found.ended != BUDGET


def state_word(view: RunView) -> str:
    """What the run does now, as `drpo runs` lists it."""
    return state_of(view.progress, is_final(view), time.time())


def outcome_of(view: RunView) -> PromptOutcome:
    """The result of an `optimize` run, or the best so far."""
    tree = view.trees[0] if view.trees else None
    start = None if tree is None else tree.nodes[0].reward
    dropped = 0 if tree is None else len(tree.dropped)
    limit = tree.levels[-1].limit if tree is not None and tree.levels else None
    if view.alignment is not None and (is_final(view) or tree is None or not tree.levels):
        found = view.alignment.found
        prompt = view.alignment.system_prompt
        about = (found.path_score, found.path_rewards, start, found.nodes, found.levels, limit, dropped)
        return PromptOutcome(prompt, *about, found.ended)
    best = None if tree is None else tree.best
    if tree is None or best is None:
        raise InputError(f"{view.path}: expected a level that is done, found none")
    rewards = tuple(node.reward for node in tree.path(best)[1:] if node.reward is not None)
    sizes = (len(tree.nodes), len(tree.levels), limit, dropped)
    ended = None if tree.end is None else tree.end.ended
    return PromptOutcome(best.state["system_prompt"], best.score, rewards, start, *sizes, ended)


def examples_of(view: RunView) -> ExamplesResult:
    """The result of an `optimize-examples` run, or what it would be now: examples that are not done yet are
    as they were, without rewards. `ended` is empty for them."""
    if view.improved is not None:
        return view.improved
    improved = [ImprovedExample(example, example, None, None, "") for example in view.examples]
    for tree in view.trees:
        best = tree.best
        if tree.subject is not None and best is not None and tree.subject < len(improved):
            before = improved[tree.subject].before
            after = Example(before.query, best.state["response"], before.kind)
            ended = "" if tree.end is None else tree.end.ended
            improved[tree.subject] = ImprovedExample(before, after, tree.nodes[0].reward, best.reward, ended)
    return ExamplesResult(view.path, tuple(improved), view.path / EXAMPLES_NAME, {}, view.simulated)


def print_run(view: RunView, as_json: bool) -> None:
    """The essentials on stdout."""
    of_examples = view.command == "optimize-examples"
    if as_json:
        print_json({**(_examples_json(view) if of_examples else _prompt_json(view)), **_about_json(view)})
        return
    if of_examples:
        print_examples(examples_of(view), as_json=False)
    else:
        click.echo(safe(outcome_of(view).system_prompt))
    click.echo()
    click.echo("\n".join([*_state_lines(view), *([] if of_examples else _prompt_lines(view)), *_lines(view)]))
    if view.simulated:
        click.echo(f"\n{SIMULATED}")


def _state_lines(view: RunView) -> list[str]:
    """Nothing for a finished run; else what it does, and how to go on."""
    state = state_word(view)
    if state == "finished":
        return []
    done = sum(tree.end is not None for tree in view.trees)
    if view.command == "optimize-examples":
        so_far = f"{done} of {len(view.examples)} examples done"
    else:
        outcome = outcome_of(view)
        so_far = f"{outcome.levels} of {outcome.limit or '?'} levels done"
    told = styled(_STATES.get(state, state), bold=True)
    return [
        f"state       {told}: {so_far}; this is the best so far",
        f"            {_NEXT.get(state, _AGAIN)}",
    ]


def _prompt_lines(view: RunView) -> list[str]:
    outcome = outcome_of(view)
    score = score_text(outcome.path_score, outcome.path_rewards)
    start = "not scored" if outcome.start_reward is None else f"reward {outcome.start_reward:.2f}"
    dropped = f", {plural(outcome.dropped, 'proposal')} dropped" if outcome.dropped else ""
    ended = "" if outcome.ended is None else f"; ended: {line_of(explain_end(outcome.ended))}"
    settings = view.identity["settings"]
    shots = shots_text(settings.get("shots", "?"), len(view.examples), view.identity["embedder"])
    return [
        f"path score  {score}",
        f"start       {start}, not part of the path score",
        f"searched    {outcome.levels} levels, {outcome.nodes} nodes{dropped}{ended}",
        *validation_lines(view.alignment.validation if view.alignment is not None else None),
        line_of(shots).replace("shots ", "shots       ", 1),
    ]


def _lines(view: RunView) -> list[str]:
    """Models, time, and what all requests came to."""
    form = f", base asked as {view.alignment.prompt_form}" if view.alignment is not None else ""
    by_model: dict[str, list[str]] = {}
    for role, model in view.identity["models"].items():
        by_model.setdefault(model, []).append(role)
    told = [line_of(model) for model in by_model]
    if len(told) > 1:
        told = [f"{line_of(model)} ({', '.join(roles)})" for model, roles in by_model.items()]
    lines = [f"model       {told[0]}{form if len(told) == 1 else ''}"]
    lines += [f"            {each}" for each in told[1:-1]]
    lines += [f"            {each}{form}" for each in told[1:][-1:]]
    if view.progress is not None:
        lines.append(
            f"time        {duration(view.progress.elapsed_s)}, of the last process that worked on it"
        )
    return [*lines, *_spent_lines(view)]


def _spent_lines(view: RunView) -> list[str]:
    """Money, and a table of the requests of each role."""
    if view.spent is None:
        calls: Mapping[str, int] = {}
        if view.alignment is not None:
            calls = view.alignment.found.calls
        elif view.improved is not None:
            calls = view.improved.calls
        told = ", ".join(f"{line_of(role)} {count}" for role, count in calls.items()) or "unknown"
        why = "no ledger.jsonl was kept" if view.spent_unknown is None else line_of(view.spent_unknown)
        return [f"calls       {told}", f"spent       unknown: {why}"]
    rows = []
    spent = {role: view.spent[role] for role in sorted(view.spent, key=_place)}
    table = spent_table(spent)
    for row in [*table.rows, *([] if table.total is None else [table.total])]:
        figures = (row.answered, row.failed, row.open, row.retried, row.prompt_tokens, row.completion_tokens)
        rows.append((line_of(row.role), *figures, row.each, row.money))
    headings = ("role", "answered", "failed", "no answer", "retried", "tokens in", "out", "a call", "cost")
    lines = columns(headings, rows, headings[1:-1])
    open_ = sum((counts.unknown + counts.in_air for counts in spent.values()), 0)
    if open_ and state_word(view) not in ("running", "stopping"):
        lines.append("A request without an answer may have been charged: it counts at the most it can cost.")
    return [f"spent       {total_bill(spent)}", "", *lines]


def _place(role: str) -> int:
    """Those of a search first."""
    return ROLES.index(role) if role in ROLES else len(ROLES)


def spent_json(spent: Mapping[str, Spent] | None) -> dict[str, Any] | None:
    """Per role and for all of them; None where no ledger was kept. usd is None where it is not known of
    every answer, `priced_usd` is what is known of it; held_usd None where no bound is known."""
    if spent is None:
        return None
    total = sum(spent.values(), Spent())
    rows = {role: (counts, bill(counts)) for role, counts in spent.items()}
    return {
        "roles": {role: _counts_json(counts, cost.unbounded) for role, (counts, cost) in rows.items()},
        "all": _counts_json(total, total_bill(spent).unbounded),
    }


def _counts_json(counts: Spent, unbounded: int) -> dict[str, Any]:
    return {
        "calls": counts.calls,
        **asdict(counts),
        "usd": None if counts.unpriced else counts.usd,
        "priced_usd": counts.usd,
        "held_usd": None if unbounded else counts.held_usd,
    }


def _about_json(view: RunView) -> dict[str, Any]:
    return {
        "run": str(view.path),
        "command": view.command,
        "state": state_word(view),
        "models": view.identity["models"],
        "simulated": view.simulated,
        "elapsed_s": None if view.progress is None else view.progress.elapsed_s,
        "spent": spent_json(view.spent),
        "spent_unknown": view.spent_unknown,
    }


def _prompt_json(view: RunView) -> dict[str, Any]:
    outcome = outcome_of(view)
    alignment = view.alignment
    if alignment is not None and is_final(view):
        told = summary(alignment)
    else:
        settings = view.identity["settings"]
        told = {
            "system_prompt": outcome.system_prompt,
            "path_score": outcome.path_score,
            "path_rewards": list(outcome.path_rewards),
            "nodes": outcome.nodes,
            "levels": outcome.levels,
            "ended": outcome.ended,
            "calls": None if alignment is None else alignment.found.calls,
            "shots": settings.get("shots"),
            "examples": len(view.examples),
            "prompt_form": None if alignment is None else alignment.prompt_form,
            "embedder": view.identity["embedder"],
            "settings": settings,
        }
    return {**told, "start_reward": outcome.start_reward, "dropped": outcome.dropped, "limit": outcome.limit}


def _examples_json(view: RunView) -> dict[str, Any]:
    result = examples_of(view)
    return {"out": str(result.out), "calls": result.calls or None, **examples_data(result)}
