"""What a measurement found, on stdout: from the content of its summary.json, new or read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from drpo.commands.align_pro_text import estimate_lines
from drpo.commands.audit_table import audit_lines
from drpo.commands.bpo_text import build_lines
from drpo.commands.result_text import SIMULATED
from drpo.commands.terminal import columns, line_of, print_json
from drpo.judging.audit_result import read_audit
from drpo.rewriting.contract import REASONS

Json = Mapping[str, Any]
_SURE_P = 0.05


def print_summary(summary: Json, *, as_json: bool) -> None:
    """The figures of a measurement, for people or as they are in summary.json."""
    if as_json:
        print_json(dict(summary))
        return
    lines = {
        "evaluate": _evaluation,
        "compare": _comparison,
        "audit-judge": _audit,
        "align-pro-estimate": estimate_lines,
        "bpo-build": build_lines,
    }
    click.echo("\n".join(lines[summary["command"]](summary)))
    if summary["simulated"]:
        click.echo(SIMULATED)


def _evaluation(summary: Json) -> Iterator[str]:
    yield f"alignment  {line_of(summary['alignment'])}, {int(summary['shots'])} shots"
    for role, identity in summary["models"].items():
        yield f"{role:<11}{line_of(identity)}"
    yield from _rewriter(summary)
    for name in ("general", "safety"):
        if name in summary:
            yield ""
            yield from _part(name, summary[name], str(summary["na"]))
    reward = summary["reward"]
    if reward is not None:
        mean, variance = reward["mean"], _number(reward["variance"], 3)
        yield f"\nreward     {_number(mean['mean'], 3)} {_range(mean, 3)}, variance {variance}"


def _part(name: str, part: Json, summary_na: str) -> Iterator[str]:
    level = part["overall"]["level"]
    heading = "interval" if level is None else f"{level:.0%} interval"
    rows = [
        (
            line_of(aspect),
            _number(found["mean"]),
            _range(found),
            str(found["count"]),
            str(int(found["not_applicable"])),
        )
        for aspect, found in part["aspects"].items()
    ]
    if len(rows) > 1:
        rows.append(("overall", _number(part["overall"]["mean"]), _range(part["overall"]), "", ""))
    yield from columns((name, "mean", heading, "scored", "N/A"), rows, right=("mean", "scored", "N/A"))
    words = "" if part["mean_words"] is None else f", {part['mean_words']:.0f} words on average"
    counts = [f"{int(part['items'])} queries{words}"]
    counts += ["too few for an interval"] * (level is None)
    counts += ["what is N/A counts as 5"] * (summary_na == "five")
    counts += [f"{int(part['unreadable'])} replies of the judge unreadable"] * bool(part["unreadable"])
    counts += [f"{int(part['failed'])} responses failed"] * bool(part["failed"])
    yield "; ".join(counts)
    for title in ("topics", "tasks"):
        told = [
            f"{line_of(group)} {found['overall']:.2f} ({int(found['scored'])})"
            for group, found in part[title].items()
            if found["overall"] is not None
        ]
        if told:
            yield f"{title}: {', '.join(told)}"


def _comparison(summary: Json) -> Iterator[str]:
    names = (line_of(summary["alignment"]) + _before(summary), line_of(summary["against"]))
    models, shots = summary["models"], summary["shots"]
    asked = (models["base"], models.get("against", models["base"]))
    for letter, name, count, model in zip("AB", names, shots, asked, strict=True):
        yield f"{letter:<11}{name}, {int(count)} shots, at {line_of(model)}"
    yield f"judge      {line_of(models['judge'])}"
    yield from _rewriter(summary)
    yield ""
    flips = ""
    if summary["flips"]:
        flips = (
            f" ({int(summary['flips'])} changed with the order: the first place gained in "
            f"{int(summary['flips_first'])}, the second in {int(summary['flips_second'])})"
        )
    yield f"A wins     {int(summary['wins'])}"
    yield f"ties       {int(summary['ties'])}{flips}"
    yield f"B wins     {int(summary['losses'])}"
    if summary["missing"]:
        yield f"missing    {int(summary['missing'])} pairs without an outcome"
    rate = summary["win_rate"]
    yield f"win rate   {_percent(rate['mean'], rate)} for A, ties as halves"
    length = summary["length_controlled"]
    if length is not None:
        yield f"           {_percent(length['win_rate'], length)} with the effect of length taken out"
        if length["extrapolated"]:
            yield "           one side is longer in every pair: length and quality cannot be told apart"
    yield f"sign test  p {_p(summary['sign_test_p'])}: {_preferred(summary, names)}"
    words = " and ".join("-" if count is None else f"{count:.0f}" for count in summary["mean_words"])
    yield f"words      {words} on average"


def _rewriter(summary: Json) -> Iterator[str]:
    """What a rewriter before A did to the queries, where there is one."""
    found = summary.get("rewriter")
    if found is None:
        return
    kept = {why: int(count) for why, count in found["kept"].items() if why in REASONS}
    whys = ", ".join(f"{REASONS[why]} {count}" for why, count in kept.items())
    said = f"; {sum(kept.values())} could not stand and left the query as it was: {whys}" if kept else ""
    before = " before A" if summary["command"] == "compare" else ""
    yield (
        f"rewritten  {int(found['changed'])} of {int(found['queries'])} queries by "
        f"{line_of(found['name'])}{before}{said}"
    )


def _before(summary: Json) -> str:
    """How A's rewriter is called behind its alignment."""
    found = summary.get("rewriter")
    return "" if found is None else f" with {line_of(found['name'])}"


def _p(value: float) -> str:
    return f"= {value:.3g}" if value > 1e-16 else "< 1e-16"


def _preferred(summary: Json, names: tuple[str, str]) -> str:
    if summary["sign_test_p"] > _SURE_P:
        return "no preference can be told for certain"
    letter, name = ("A", names[0]) if summary["wins"] > summary["losses"] else ("B", names[1])
    return f"{letter} ({name}) is preferred"


def _audit(summary: Json) -> Iterator[str]:
    yield f"judge      {line_of(summary['models']['judge'])}"
    yield ""
    yield from audit_lines(read_audit(summary))


def _percent(rate: float | None, ends: Json) -> str:
    if rate is None:
        return "-"
    low, high = ends["low"], ends["high"]
    return f"{rate:.1%}" if low is None or high is None else f"{rate:.1%} [{low:.1%}, {high:.1%}]"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _range(found: Json, digits: int = 2) -> str:
    low, high = found["low"], found["high"]
    return "-" if low is None or high is None else f"[{low:.{digits}f}, {high:.{digits}f}]"
