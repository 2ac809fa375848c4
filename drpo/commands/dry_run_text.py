"""A dry run on stdout, for people at any width from 80 columns on, or as one JSON document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from drpo.commands.dry_run_facts import DryRun, Verdict
from drpo.commands.dry_run_figures import call_lines, cost_lines, is_resumed, part_lines, token_lines
from drpo.commands.dry_run_json import dry_run_json
from drpo.commands.dry_run_numbers import money, whole, wrapped
from drpo.commands.dry_run_words import words_of
from drpo.commands.setting_sources import Setting
from drpo.commands.terminal import columns, print_json, safe, styled
from drpo.config import flag
from drpo.tariffs import EMBEDDER_ROLE, RoleTariff

_STATES = {
    "begin": "it would begin here",
    "resume": "it has begun and would go on",
    "finished": "it has finished: the command would show its result and send nothing",
    "running": "process {process} is at it; the command would be refused until that has ended",
}
_LONGEST_VALUE = 40


def print_dry_run(told: DryRun, *, as_json: bool) -> None:
    """All of it on stdout."""
    if as_json:
        print_json(dry_run_json(told))
        return
    click.echo("\n".join(_lines(told)))


def _lines(told: DryRun) -> Iterator[str]:
    command = told.plan.identity["command"]
    yield _heading(f"drpo {command}, dry run: nothing is sent, started or written")
    yield from wrapped(_summary(told), "")
    for refusal in told.refusals:
        yield from wrapped(f"! As it is, it would end before its first request: {safe(refusal)}", "  ")
    for said in _limits(told):
        yield from wrapped(said, "  ")
    if told.is_kept:
        yield from ("", f"run        {safe(str(told.path))}")
        yield f"           {_STATES[told.state].format(process=told.process)}"
    else:
        yield from ("", "run        none is left behind; --run-dir or --name keeps it, and resumes")
    for part in (
        part_lines(told),
        _roles(told),
        call_lines(told),
        token_lines(told),
        cost_lines(told),
        _servers(told),
    ):
        lines = list(part)
        yield from ["", *lines] if lines else []
    yield ""
    yield from _settings(told)
    for note in _notes(told):
        yield from ["", *wrapped(note, "")]


def _summary(told: DryRun) -> str:
    """The answer in one sentence."""
    said = told.forecast
    if told.state == "finished":
        return words_of(told).finished
    calls, usd = said.left, said.left_usd
    text = f"About {calls.expected:,.0f} calls{_still(told)} ({whole(calls)[0]} to {whole(calls)[2]})"
    priced = [role for role in said.roles if role.tariff.source not in ("free", "unknown")]
    if priced:
        text += f" for {money(usd.expected)} ({money(usd.least)} to {money(usd.most)})"
    elif not said.unpriced:
        text += ", free of charge"
    if said.unpriced:
        text += (
            f"{' and' if priced else ' for'} what the {' and the '.join(said.unpriced)} cost, unknown here"
        )
    return text + (", thinking not counted." if said.thinking else ".")


def _still(told: DryRun) -> str:
    return " still to come" if is_resumed(told) else ""


# Who and what


def _roles(told: DryRun) -> Iterator[str]:
    plan = told.plan
    tariffs = {role.role: role.tariff for role in told.forecast.roles}
    rows: list[tuple[str, ...]] = []
    for one in told.players:
        chosen = " *" if one.choice.defaulted else ""
        rows.append((one.role, safe(one.choice.identity) + chosen, _price(one.tariff)))
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
    yield from wrapped(f"By default: {', '.join(rest)}.", "")


def _shapes_the_run(setting: Setting, told: DryRun) -> bool:
    """Whether a default is worth a word: it decides what is done, and says something."""
    known = setting.name in told.plan.config.identity_fields() and setting.value not in (None, [], {})
    return known and (told.plan.simulated or not setting.name.startswith("demo_"))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = safe(" ".join(str(value).split()))
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _limits(told: DryRun) -> Iterator[str]:
    """What the limits of calls and money mean for the run."""
    config, spent = told.plan.config, told.forecast.recorded
    if told.state == "finished":
        return
    if (verdict := told.calls_verdict) is not None:
        before = f"{spent.spent_calls:,} were sent"
        yield f"--max-calls {config.max_calls:,}: {_verdict(told, verdict, before)}"
    if (verdict := told.usd_verdict) is not None:
        before = f"{money(spent.spent_usd)} was spent or set aside"
        yield f"--max-usd {config.max_usd:g}: {_verdict(told, verdict, before)}"


def _verdict(told: DryRun, verdict: Verdict, before: str) -> str:
    if verdict == "used up":
        return f"{before} before, so the command would end at once with exit code 9, at its next request"
    return words_of(told).suffices[verdict]


def _servers(told: DryRun) -> Iterator[str]:
    if told.servers:
        yield _heading("vLLM, as drpo would start it; port and key are drawn then")
        yield from map(safe, told.servers)


def _notes(told: DryRun) -> Iterator[str]:
    yield from map(safe, told.notes)
    if told.plan.simulated:
        yield "Models named demo are simulated: their figures say nothing about real models."


def _heading(text: str) -> str:
    return styled(text, bold=True)
