"""What stands at the top of a report and at its end: how the run stands, its figures, its settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drpo.progress import RunState
from drpo.report.charts import mean
from drpo.report.facts import TreeFacts
from drpo.report.scale import count, number, plural
from drpo.report.spending import total_bill
from drpo.run_view import RunView

_ENDS = {
    "depth": "the limit of levels was reached",
    "queries": "there was no further seed query",
    "stalled": "on three levels in a row no proposal could be evaluated",
    "patience": "no gain for as many levels as the setting patience allows",
    "perfect": "every score was the highest",
}
_STOPS = {
    "budget": "the limit on calls or money is reached. Raise it and run the same command again to go on",
    "interrupted": "it was interrupted. Run the same command again to go on",
    "failed": "an error ended it (its run.log says which). Run the same command again to go on",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands. state: finished, running, stopped, or open (nobody knows whether it goes on)."""

    state: str
    title: str
    says: str


@dataclass(frozen=True, slots=True)
class Card:
    """One figure: what it is, the figure, and a word on it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as the user names it. changed: whether it is not the default."""

    name: str
    value: str
    changed: bool


def standing(view: RunView, trees: Sequence[TreeFacts], state: RunState | None) -> Standing:
    """How the run stands by its events, and by `state` where its process has left word of it."""
    if view.finished:
        ends = [tree.end.ended for tree in trees if tree.end]
        why = _ENDS.get(ends[0], ends[0]) if len(ends) == 1 else plural(len(ends), "example") + " done"
        return Standing("finished", "Finished", f"{why[0].upper()}{why[1:]}.")
    far = _how_far(view, trees)
    if state in _STOPS:
        return Standing("stopped", "Stopped", f"{far}; {_STOPS[state]}.")
    again = "The page is renewed while the run goes on: load it again to see more."
    if state in ("running", "stopping"):
        return Standing("running", "Running", f"{far}. {again}")
    return Standing(
        "open", "Not finished", f"{far}. {again} A run that has stopped is resumed by its command."
    )


def _how_far(view: RunView, trees: Sequence[TreeFacts]) -> str:
    if not trees:
        return "No level is done yet"
    if view.command != "optimize":
        done = sum(tree.end is not None for tree in trees)
        return f"{done} of {plural(len(view.examples), 'example')} done"
    levels = trees[0].levels
    return (
        f"{plural(len(levels), 'level')} done, of at most {levels[-1].limit}"
        if levels
        else "No level is done yet"
    )


def cards(view: RunView, trees: Sequence[TreeFacts]) -> tuple[Card, ...]:
    """The figures of a run, most telling first."""
    found = _prompt_cards(view, trees[0]) if view.command == "optimize" and trees else []
    if view.command != "optimize" and trees:
        found = _example_cards(trees)
    nodes, dropped = sum(len(tree.nodes) for tree in trees), sum(len(tree.dropped) for tree in trees)
    kind = "Prompts tried" if view.command == "optimize" else "Responses tried"
    if trees:
        found.append(Card(kind, count(nodes), f"{count(dropped)} proposals dropped" if dropped else ""))
    if view.spent is None:
        why = why_unknown(view) or "no ledger was kept"
        return (*found, Card("Calls", "unknown", why), Card("Money", "unknown"))
    money = total_bill(view.spent)
    calls = sum(spent.calls for spent in view.spent.values())
    head, _, rest = str(money).partition(", ")
    return (*found, Card("Calls", count(calls), "requests sent"), Card("Money", head, rest))


def why_unknown(view: RunView) -> str | None:
    """Which file of the run says nothing of what was spent, and why; None where it does, or there is none."""
    if view.spent_unknown is None:
        return None
    return shown(view.spent_unknown.removeprefix(str(view.path)).lstrip("/\\"))


def _prompt_cards(view: RunView, tree: TreeFacts) -> list[Card]:
    start, best = tree.root, tree.best
    how = view.identity["settings"].get("path_score")
    rewards = [node.reward for node in tree.path[1:] if node.reward is not None]
    if how == "last":
        note = "the last reward of its path"
    else:
        note = f"mean of the {plural(len(rewards), 'reward')} on its path"
    limit = tree.levels[-1].limit if tree.levels else 0
    return [
        Card("Reward of the start", number(start.reward if start else None), "1 to 5, on the first query"),
        Card(
            "Score of the result" if tree.end else "Best score so far",
            number(best.score if best else None),
            note,
        ),
        Card("Levels", count(len(tree.levels)), f"of at most {limit}"),
    ]


def _example_cards(trees: Sequence[TreeFacts]) -> list[Card]:
    both = [
        (tree.root.reward, tree.best.reward)
        for tree in trees
        if tree.root and tree.best and tree.root.reward is not None and tree.best.reward is not None
    ]
    better = sum(after > before for before, after in both)
    return [
        Card("Mean reward before", number(mean([before for before, _ in both])), "1 to 5"),
        Card(
            "Mean reward after",
            number(mean([after for _, after in both])),
            f"{plural(better, 'example')} better",
        ),
    ]


def settings_of(view: RunView) -> tuple[Setting, ...]:
    """The settings that decide which run it is; what differs from the default comes first."""
    defaults = _defaults(view.command)
    rows = [
        Setting(name.replace("_", "-"), shown(value), name in defaults and defaults[name] != value)
        for name, value in _mapping(view.identity["settings"]).items()
    ]
    return tuple(sorted(rows, key=lambda row: not row.changed))


def shown(value: object) -> str:
    """A value of run.json for people."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _defaults(command: str) -> dict[str, Any]:
    """As they stand in run.json."""
    from drpo.config import ExamplesConfig, OptimizeConfig

    kind = OptimizeConfig if command == "optimize" else ExamplesConfig
    return {
        name: list(field.default) if isinstance(field.default, tuple) else field.default
        for name, field in kind.model_fields.items()
    }
