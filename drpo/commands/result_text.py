"""The result of `optimize` on stdout, and the sentences about it."""

from __future__ import annotations

from typing import Any

import click

from drpo.alignment import Alignment
from drpo.commands.terminal import print_json, safe
from drpo.validation.result import Validation, interval_text

SIMULATED = "Simulated models: these figures say nothing about real ones."


def print_alignment(alignment: Alignment, *, as_json: bool) -> None:
    """The result on stdout, for people or as JSON."""
    if as_json:
        print_json(summary(alignment))
        return
    found = alignment.found
    calls = ", ".join(f"{role} {count}" for role, count in found.calls.items())
    click.echo(safe(alignment.system_prompt))
    click.echo()
    click.echo(f"path score  {score_text(found.path_score, found.path_rewards)}")
    click.echo(
        f"searched    {found.levels} levels, {found.nodes} nodes; ended: {safe(explain_end(found.ended))}"
    )
    for line in validation_lines(alignment.validation):
        click.echo(line)
    click.echo(f"calls       {safe(calls)}")
    click.echo(safe(shots_text(alignment.shots, len(alignment.examples), alignment.embedder)))
    click.echo(safe(f"model       {alignment.models.get('base', '-')}, asked as {alignment.prompt_form}"))
    if alignment.simulated:
        click.echo(SIMULATED)


def validation_lines(validation: Validation | None) -> list[str]:
    """What the validation came to, in a few lines; none where there was none."""
    if validation is None:
        return []
    lines = [f"validated   {validation.sentence}"]
    first = validation.prompts[1] if len(validation.prompts) > 1 else None
    if first is not None and first.gain is not None and first.node != validation.chosen:
        own = f"{first.gain:+.2f} {interval_text(first.low, first.high)}"
        chosen = f"node {validation.chosen}" if validation.chosen else "the initial prompt"
        lines.append(f"            the result is {chosen}; the search's own, node {first.node}: {own}")
    if validation.missing:
        lines.append(f"            {validation.missing} of {validation.asked} rewards could not be had")
    for check in validation.floors:
        if check.node == validation.chosen or check.refused:
            change = "nothing could be measured" if check.change is None else f"{check.change:+.2f}"
            verdict = (
                f", more than {check.allowed:g} below: node {check.node} is refused" if check.refused else ""
            )
            lines.append(
                f"{'safety' if check.name == 'red-team' else 'refusals':<12}{check.name} queries "
                f"{change} {interval_text(check.low, check.high)}{verdict}"
            )
    return lines


def score_text(score: float | None, rewards: tuple[float, ...]) -> str:
    """A path score with the rewards of which it is made."""
    told = " ".join(f"{reward:.2f}" for reward in rewards) or "-"
    return f"{'not scored' if score is None else f'{score:.4f}'} (rewards, 1 to 5: {told})"


def shots_text(shots: int, examples: int, embedder: str) -> str:
    """The line that says which shots there are."""
    return f"shots       {shots} of {examples} examples, found by {embedder}"


def summary(alignment: Alignment) -> dict[str, Any]:
    """What `--json` prints."""
    found = alignment.found
    return {
        "system_prompt": alignment.system_prompt,
        "path_score": found.path_score,
        "path_rewards": list(found.path_rewards),
        "nodes": found.nodes,
        "levels": found.levels,
        "ended": found.ended,
        "calls": found.calls,
        "shots": alignment.shots,
        "examples": len(alignment.examples),
        "prompt_form": alignment.prompt_form,
        "embedder": alignment.embedder,
        "models": alignment.models,
        "simulated": alignment.simulated,
        "validation": None if alignment.validation is None else alignment.validation.as_dict(),
        "settings": found.settings["settings"],
    }


def explain_end(ended: str) -> str:
    """Why the search ended, in words."""
    return {
        "depth": "the limit of levels was reached",
        "queries": "there was no further seed query",
        "stalled": "on three levels in a row no proposal could be evaluated; this is the best so far",
        "patience": "no gain for as many levels as --patience allows",
        "perfect": "every score was the highest",
        "budget": "the budget was spent; this is the best so far",
    }.get(ended, ended)
