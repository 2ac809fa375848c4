"""A dry run on stdout, for people at any width from 80 columns on, or as one JSON document."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from drpo.commands.dry_run import DryRun, Verdict
from drpo.commands.dry_run_json import dry_run_json
from drpo.commands.setting_sources import Setting
from drpo.commands.terminal import columns, print_json, safe, styled
from drpo.config import ExamplesConfig, flag
from drpo.estimate.forecast import Enough, RoleForecast
from drpo.estimate.ranges import Range
from drpo.llm.base import ROLES
from drpo.tariffs import EMBEDDER_ROLE, RoleTariff

_STATES = {
    "begin": "it would begin here",
    "resume": "it has begun and would go on",
    "finished": "it has finished: the command would show its result and send nothing",
    "running": "process {process} is at it; the command would be refused until that has ended",
}
_BOUNDS = ("at least", "expected", "at most")
_LONGEST_VALUE = 40
_SUFFICES: Mapping[Enough, str] = {
    "enough": "enough for the most it can take, but for what is sent again after a failure",
    "may end early": "enough for what is expected; the run may end early, with the best so far",
    "will likely end early": "less than is expected; the run will likely end early, with the best so far",
    "will end early": "less than the least; the run will end early, with the best so far",
    "too little to begin": "cannot pay for the first level: no prompt would be rewritten and tried",
}
_LEGEND = (
    "At least: every reply is readable, prompts are kept and requests equal wherever that can be.",
    "At most: every level there can be, every reply repaired, one choice a request.",
    "Paper: DRPO, Appendix A.5, where each sample is a call; drpo asks for a prompt's samples in one.",
    "What is sent again after a failure comes on top of all of these.",
)


def print_dry_run(told: DryRun, *, as_json: bool) -> None:
    """All of it on stdout."""
    if as_json:
        print_json(dry_run_json(told))
        return
    click.echo("\n".join(_lines(told)))


def _lines(told: DryRun) -> Iterator[str]:
    command = told.plan.identity["command"]
    yield _heading(f"drpo {command}, dry run: nothing is sent, started or written")
    yield from _wrapped(_summary(told), "")
    for refusal in told.refusals:
        yield from _wrapped(f"! As it is, it would end before its first request: {safe(refusal)}", "  ")
    for said in _limits(told):
        yield from _wrapped(said, "  ")
    yield from ("", f"run        {safe(str(told.path))}")
    yield f"           {_STATES[told.state].format(process=told.process)}"
    for part in (_roles(told), _calls(told), _tokens(told), _cost(told), _servers(told)):
        lines = list(part)
        yield from ["", *lines] if lines else []
    yield ""
    yield from _settings(told)
    for note in _notes(told):
        yield from ["", *_wrapped(note, "")]


def _summary(told: DryRun) -> str:
    """The answer in one sentence."""
    said = told.forecast
    if told.state == "finished":
        return "This run has finished: nothing more would be sent."
    calls, usd = said.left, said.left_usd
    text = f"About {calls.expected:,.0f} calls{_still(told)} ({_whole(calls)[0]} to {_whole(calls)[2]})"
    priced = [role for role in said.roles if role.tariff.source not in ("free", "unknown")]
    if priced:
        text += f" for {_dollars(usd.expected)} ({_dollars(usd.least)} to {_dollars(usd.most)})"
    elif not said.unpriced:
        text += ", free of charge"
    if said.unpriced:
        text += (
            f"{' and' if priced else ' for'} what the {' and the '.join(said.unpriced)} cost, unknown here"
        )
    return text + (", thinking not counted." if said.thinking else ".")


def _still(told: DryRun) -> str:
    return " still to come" if _is_resumed(told) else ""


def _is_resumed(told: DryRun) -> bool:
    return any(role.done for role in told.forecast.roles)


# Who and what


def _roles(told: DryRun) -> Iterator[str]:
    plan = told.plan
    tariffs = {role.role: role.tariff for role in told.forecast.roles}
    rows: list[tuple[str, ...]] = []
    for role, choice in plan.models.items():
        chosen = " *" if choice.defaulted else ""
        rows.append((role, safe(choice.identity) + chosen, _price(tariffs.get(role))))
    if plan.embedder:
        price = _price(tariffs[EMBEDDER_ROLE]) if EMBEDDER_ROLE in tariffs else "free, on this machine"
        rows.append((EMBEDDER_ROLE, safe(plan.embedder), price))
    yield from columns(("role     ", "model", "price, $ a million tokens"), rows)
    chosen_roles = [f"--{role}" for role, choice in plan.models.items() if choice.defaulted]
    if chosen_roles:
        yield f"* drpo's choice; {', '.join(chosen_roles)} name{'s' * (len(chosen_roles) == 1)} another"


def _price(tariff: RoleTariff | None) -> str:
    if tariff is None or tariff.source == "free":
        return "free, drpo runs it"
    if not tariff.known:
        return "unknown"
    source = "--price" if tariff.source == "given" else "price list"
    return f"{tariff.input_usd:g} in, {tariff.output_usd:g} out ({source})"


def _settings(told: DryRun) -> Iterator[str]:
    rows = [
        (
            setting.name if "." in setting.name else flag(setting.name)[2:],
            _value(setting.value),
            safe(setting.source),
        )
        for setting in told.settings
        if not setting.is_default
    ]
    yield from columns(("setting", "value", "from"), rows)
    rest = [
        f"{flag(setting.name)[2:]} {_value(setting.value)}"
        for setting in told.settings
        if setting.is_default and _shapes_the_run(setting, told)
    ]
    yield from _wrapped(f"By default: {', '.join(rest)}.", "")


def _shapes_the_run(setting: Setting, told: DryRun) -> bool:
    """Whether a default is worth a word: it decides the search, and says something."""
    known = setting.name in told.plan.config.identity_fields() and setting.value not in (None, [], {})
    return known and (told.plan.simulated or not setting.name.startswith("demo_"))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = safe(" ".join(str(value).split()))
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


# How much


def _calls(told: DryRun) -> Iterator[str]:
    said, resumed = told.forecast, _is_resumed(told)
    headings = ["calls           ", *_BOUNDS, "paper", *(["had", "to come"] if resumed else [])]
    rows = []
    for role in said.roles:
        row = [role.role, *_whole(role.calls), "-" if role.paper is None else f"{role.paper:,}"]
        rows.append(row + ([f"{role.done:,}", f"{role.left.expected:,.0f}"] if resumed else []))
    papers = [role.paper for role in said.roles if role.paper is not None]
    done = sum(role.done for role in said.roles)
    row = ["total", *_whole(said.calls), f"{sum(papers):,}"]
    rows.append(row + ([f"{done:,}", f"{said.left.expected:,.0f}"] if resumed else []))
    yield from columns(headings, rows, right=headings[1:])
    for line in (_levels(told), *_LEGEND, *([_had(told)] if resumed else [])):
        yield from _wrapped(line, "  ")


def _levels(told: DryRun) -> str:
    said = told.forecast
    least, expected, most = _whole(said.levels)
    levels = f"{least} to {most} levels, about {expected} of them" if least != most else f"{least} levels"
    if isinstance(told.plan.config, ExamplesConfig):
        levels = f"{said.searches:,} searches of {levels}"
    return f"Expected: {levels}, as in {said.habits.about}."


def _had(told: DryRun) -> str:
    reused = told.forecast.recorded.reused
    others = f", {reused:,} of them aspects that other runs have chosen" if reused else ""
    return f"Had: there already, and free{others}."


def _tokens(told: DryRun) -> Iterator[str]:
    headings = ["tokens          ", *_BOUNDS]
    rows = []
    for role in told.forecast.roles:
        rows.append([f"{role.role} reads", *map(_short, _three(role.prompt_tokens))])
        if role.role != EMBEDDER_ROLE:
            rows.append([f"{role.role} writes", *map(_short, _three(role.completion_tokens))])
    yield from columns(headings, rows, right=headings[1:])


def _cost(told: DryRun) -> Iterator[str]:
    said = told.forecast
    rows = [[role.role, *_money(role)] for role in said.roles if role.tariff.source != "free"]
    if not rows:
        return
    headings = [f"{'cost to come' if _is_resumed(told) else 'cost':<16}", *_BOUNDS]
    label = "total known" if said.unpriced else "total"
    rows.append([label, *map(_dollars, _three(said.left_usd))])
    yield from columns(headings, rows, right=headings[1:])
    if said.unpriced:
        prices = " ".join(f"--price {role}=IN/OUT" for role in said.unpriced)
        yield from _wrapped(f"The total is without {_listed(said.unpriced)}; this would tell: {prices}", "")
    if said.thinking:
        yield from _wrapped(_about_thinking(told), "")


def _about_thinking(told: DryRun) -> str:
    said, models = told.forecast, told.plan.models
    names = dict.fromkeys(models[role].name for role in ROLES if role in said.thinking)
    text = (
        f"{safe(' and '.join(names))} may think before replying. That is charged as if it were written, and "
        "cannot be known before: it is not in what is expected. "
    )
    if said.thinking_usd:
        text += f"Each 1,000 tokens of it in every reply add {_dollars(said.thinking_usd)}. "
    if told.plan.config.max_thinking_tokens is None:
        return text + "--max-thinking-tokens bounds it, and so the cost."
    return text + "At most knows it, by --max-thinking-tokens."


def _money(role: RoleForecast) -> list[str]:
    if role.left_usd is None:
        return ["unknown"] * 3
    return [_dollars(usd) for usd in _three(role.left_usd)]


def _limits(told: DryRun) -> Iterator[str]:
    """What the limits of calls and money mean for the run."""
    config, spent = told.plan.config, told.forecast.recorded
    if told.state == "finished":
        return
    if (verdict := told.calls_verdict) is not None:
        yield f"--max-calls {config.max_calls:,}: {_verdict(verdict, f'{spent.spent_calls:,} were sent')}"
    if (verdict := told.usd_verdict) is not None:
        before = f"${spent.spent_usd:.4f} was spent or set aside"
        yield f"--max-usd {config.max_usd:g}: {_verdict(verdict, before)}"


def _verdict(verdict: Verdict, before: str) -> str:
    if verdict == "used up":
        return f"{before} before, so the command would end at once with exit code 9, at its next request"
    return _SUFFICES[verdict]


def _servers(told: DryRun) -> Iterator[str]:
    if told.servers:
        yield _heading("vLLM, as drpo would start it; port and key are drawn then")
        yield from map(safe, told.servers)


def _notes(told: DryRun) -> Iterator[str]:
    yield from map(safe, told.notes)
    if told.plan.simulated:
        yield "Models named demo are simulated: their figures say nothing about real models."


# As text


def _heading(text: str) -> str:
    return styled(text, bold=True)


def _wrapped(text: str, indent: str) -> list[str]:
    width = min(100, max(60, shutil.get_terminal_size().columns))
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _three(said: Range) -> tuple[float, float, float | None]:
    return said.least, said.expected, said.most


def _whole(said: Range) -> list[str]:
    most = "no limit" if said.most is None else f"{said.most:,.0f}"
    return [f"{said.least:,.0f}", f"{said.expected:,.0f}", most]


def _short(tokens: float | None) -> str:
    """12k, 3.4M: two figures are what these are good for."""
    if tokens is None:
        return "no limit"
    for size, mark in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size * 0.9995:
            return f"{tokens / size:.1f}{mark}" if tokens < 10 * size else f"{tokens / size:,.0f}{mark}"
    return f"{tokens:.0f}"


def _dollars(usd: float | None) -> str:
    if usd is None:
        return "no limit"
    return "<$0.01" if 0 < usd < 0.01 else f"${usd:,.2f}"
