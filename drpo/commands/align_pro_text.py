"""What an Align-Pro estimate found, as lines: from the content of its summary.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from drpo.commands.terminal import columns, line_of
from drpo.rewriting.contract import REASONS

Json = Mapping[str, Any]
_ROWS = {"reference": "reference", "best": "best of N"}
_LUCK = (
    "With one answer a rewrite is credited with the very reward that it is weighed by: what a judge got "
    "wrong counts as gain. --answers 2 or more takes that out."
)


def estimate_lines(summary: Json) -> Iterator[str]:
    """The table with the lambda curve, and what is known of the bound."""
    yield f"alignment  {line_of(summary['alignment'])}, {int(summary['shots'])} shots"
    for role, identity in summary["models"].items():
        yield f"{role:<11}{line_of(identity)}"
    yield f"reward     {line_of(summary['reward'])}"
    yield f"rewrites   {_rewrites(summary)}"
    answers = int(summary["answers"])
    said = "one greedy answer" if answers == 1 else f"{answers} sampled answers"
    yield f"queries    {int(summary['items'])}, {said} to each rewrite"
    if summary["missing"]:
        yield f"missing    {int(summary['missing'])} queries without a reward"
    yield ""
    yield from _table(summary)
    if answers == 1 and summary["rows"]:
        yield _LUCK
    yield from _bound(summary)


def _rewrites(summary: Json) -> str:
    found = summary["rewrites"]
    kept = {why: int(count) for why, count in found["kept"].items() if why in REASONS}
    told = [
        f"{int(summary['samples'])} drawn per query, {int(found['different'])} of "
        f"{int(found['drawn'])} different"
    ]
    if kept:
        whys = ", ".join(f"{REASONS[why]} {count}" for why, count in kept.items())
        told.append(f"{sum(kept.values())} stand as the query itself: {whys}")
    if found["unrewarded"]:
        told.append(f"{int(found['unrewarded'])} without a reward")
    return "; ".join(told)


def _table(summary: Json) -> Iterator[str]:
    level = summary["own"]["reward"]["level"]
    interval = "interval" if level is None else f"{level:.0%} interval"
    heads = ["prompter", "reward", interval, "variance", "gain", interval, "win rate", interval]
    heads += ["KL", interval, "log Z", "ESS"]
    rows = [_side("none", summary["own"], len(heads))]
    for row in summary["rows"]:
        rows.append(
            (
                _ROWS.get(row["kind"]) or f"lambda {row['lambda']:g}",
                *_ends(row["reward"]),
                _number(row["variance"]),
                *_ends(row["gain"]),
                *_ends(row["win_rate"], percent=True),
                *_ends(row["kl"]),
                "" if row["log_z"] is None else _number(row["log_z"]["mean"]),
                f"{row['effective']:.1f}",
            )
        )
    if summary["policy"] is not None:
        rows.append(_side("aligned", summary["policy"], len(heads)))
    yield from columns(heads, rows, right=("reward", "variance", "gain", "win rate", "KL", "log Z", "ESS"))


def _side(name: str, side: Json, width: int) -> tuple[str, ...]:
    found = (name, *_ends(side["reward"]), _number(side["variance"]))
    return (*found, *("",) * (width - len(found)))


def _bound(summary: Json) -> Iterator[str]:
    """The theorem's terms; nothing is said as a number that is not known."""
    rows: Sequence[Json] = [row for row in summary["rows"] if row["bound"] is not None]
    if not rows:
        return
    known = rows[0]["bound"]
    yield ""
    yield "bound on what a prompter leaves out against an aligned policy (Theorem 6.1 of Align-Pro):"
    needs = (
        "the range of the reward, and greedy answers or log-probabilities (of samples: local/ models, and "
        "vLLM servers asked as a chat at --answer-temperature 1)"
    )
    others = needs if known["rewriting"] is None or summary["policy"] is not None else ""
    missing = ", ".join(filter(None, ("" if summary["policy"] else "--against-model", others)))
    yield f"  policy     {_term(known['policy'], f'needs {missing}')}"
    yield f"  rewriting  {_term(known['rewriting'], f'needs {needs}')}"
    for row in rows:
        terms, gap = row["bound"], ""
        value = "not known" if terms["value"] is None else f"at most {terms['value']:.3f}"
        if row["gap"] is not None and row["gap"]["mean"] is not None:
            gap = f"; seen {_number(row['gap']['mean'])} {_range(row['gap'])}".rstrip()
        yield f"  lambda {row['lambda']:<8g} KL term {terms['kl']:.3f}: {value}{gap}"


def _term(value: float | None, needs: str) -> str:
    return f"not known: {needs}" if value is None else f"{value:.3f}"


def _ends(found: Json, *, percent: bool = False) -> tuple[str, str]:
    return _number(found["mean"], percent=percent), _range(found, percent=percent)


def _number(value: float | None, *, percent: bool = False) -> str:
    return "-" if value is None else f"{value:.1%}" if percent else f"{value:.3f}"


def _range(found: Json, *, percent: bool = False) -> str:
    if found["low"] is None or found["high"] is None:
        return "-"
    return f"[{_number(found['low'], percent=percent)}, {_number(found['high'], percent=percent)}]"
