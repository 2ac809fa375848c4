"""The figures of a dry run as tables: calls, tokens and cost."""

from __future__ import annotations

from collections.abc import Iterator

from drpo.commands.dry_run_facts import DryRun
from drpo.commands.dry_run_numbers import listed, money, short, three, whole, wrapped
from drpo.commands.dry_run_words import words_of
from drpo.commands.terminal import columns, line_of, safe
from drpo.estimate.adding import StudyForecast
from drpo.estimate.roles import RoleForecast
from drpo.llm.base import ROLES
from drpo.tariffs import EMBEDDER_ROLE

_STATES = {"begin": "to do", "resume": "begun", "finished": "done", "running": "running"}
_LONGEST_NAME = 36
_BOUNDS = ("at least", "expected", "at most")


def is_resumed(told: DryRun) -> bool:
    """Whether anything of it is recorded already."""
    return any(role.done for role in told.forecast.roles)


def part_lines(told: DryRun) -> Iterator[str]:
    """The runs of a study: what is there of each, and what is to come."""
    said = told.forecast
    if not isinstance(said, StudyForecast):
        return
    headings = ["run", "is", "had", "expected", "at most"]
    has_cost = any(role.tariff.source not in ("free", "unknown") for role in said.roles)
    rows = []
    for part in said.parts:
        name = line_of(f"{part.command} {part.what}")
        short_name = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
        done, left = sum(role.done for role in part.forecast.roles), part.forecast.left
        row = [short_name, _STATES[part.state], f"{done:,}", *whole(left)[1:]]
        rows.append(row + [money(part.forecast.left_usd.expected)] * has_cost)
    headings += ["cost"] * has_cost
    yield from columns(headings, rows, right=headings[2:])
    yield from wrapped(
        "Had: calls that are there already. Expected and at most: calls to come, and what is expected of "
        "their cost."
        if has_cost
        else "Had: calls that are there already. Expected and at most: calls to come.",
        "  ",
    )


def call_lines(told: DryRun) -> Iterator[str]:
    """The calls of each role, and what the columns mean."""
    said, resumed = told.forecast, is_resumed(told)
    papers = [role.paper for role in said.roles if role.paper is not None]
    paper, came = ["paper"] * bool(papers), ["had", "to come"] * resumed
    headings = ["calls           ", *_BOUNDS, *paper, *came]
    rows = []
    for role in said.roles:
        known = ["-" if role.paper is None else f"{role.paper:,}"] * bool(papers)
        row = [role.role, *whole(role.calls), *known]
        rows.append(row + [f"{role.done:,}", f"{role.left.expected:,.0f}"] * resumed)
    done = sum(role.done for role in said.roles)
    row = ["total", *whole(said.calls), *[f"{sum(papers):,}"] * bool(papers)]
    rows.append(row + [f"{done:,}", f"{said.left.expected:,.0f}"] * resumed)
    yield from columns(headings, rows, right=headings[1:])
    words = words_of(told)
    for line in (words.expected, *words.legend, *([_had(told)] if resumed else [])):
        yield from wrapped(line, "  ")


def _had(told: DryRun) -> str:
    reused = told.forecast.recorded.reused
    others = f", {reused:,} of them aspects that other runs have chosen" if reused else ""
    return f"Had: there already, and free{others}."


def token_lines(told: DryRun) -> Iterator[str]:
    """The tokens of each role."""
    headings = ["tokens          ", *_BOUNDS]
    rows = []
    for role in told.forecast.roles:
        rows.append([f"{role.role} reads", *map(short, three(role.prompt_tokens))])
        if role.role != EMBEDDER_ROLE:
            rows.append([f"{role.role} writes", *map(short, three(role.completion_tokens))])
    yield from columns(headings, rows, right=headings[1:])


def cost_lines(told: DryRun) -> Iterator[str]:
    """The cost of each role that has one, and what is not in it."""
    said = told.forecast
    rows = [[role.role, *_money(role)] for role in said.roles if role.tariff.source != "free"]
    if not rows:
        return
    headings = [f"{'cost to come' if is_resumed(told) else 'cost':<16}", *_BOUNDS]
    label = "total known" if said.unpriced else "total"
    rows.append([label, *map(money, three(said.left_usd))])
    yield from columns(headings, rows, right=headings[1:])
    if said.unpriced:
        prices = " ".join(f"--price {role}=IN/OUT" for role in said.unpriced)
        yield from wrapped(f"The total is without {listed(said.unpriced)}; this would tell: {prices}", "")
    if said.thinking:
        yield from wrapped(_about_thinking(told), "")


def _about_thinking(told: DryRun) -> str:
    said, models = told.forecast, told.plan.models
    names = dict.fromkeys(models[role].name for role in ROLES if role in said.thinking)
    text = (
        f"{safe(' and '.join(names))} may think before replying. That is charged as if it were written, and "
        "cannot be known before: it is not in what is expected. "
    )
    if said.thinking_usd:
        text += f"Each 1,000 tokens of it in every reply add {money(said.thinking_usd)}. "
    if told.plan.config.max_thinking_tokens is None:
        return text + "--max-thinking-tokens bounds it, and so the cost."
    return text + "At most knows it, by --max-thinking-tokens."


def _money(role: RoleForecast) -> list[str]:
    if role.left_usd is None:
        return ["unknown"] * 3
    return [money(usd) for usd in three(role.left_usd)]
