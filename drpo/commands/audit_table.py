"""What an audit of a judge found, on stdout."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from drpo.commands.terminal import columns, line_of, styled
from drpo.judging.audit import Audit, Check

WIDTH = 80
_HEADINGS = ("check", "wrong", "result", "interval", "limit", "")
_MARKS = {"ok": "ok", "unsure": "unsure", "flagged": "FLAGGED", "no data": "no data"}
_MOST_CASES = 12
_NOTE = (
    "wrong: of those that could be told; a missing reply is not counted, nor, as a wrong choice, a verdict "
    "that changes with the order. result: their share, or a mean in points of the scale 1 to 5. FLAGGED: "
    "the whole 95 % interval is beyond the limit; unsure: the result is, and not all of the interval."
)


def audit_lines(audit: Audit) -> list[str]:
    """The checks as a table of at most 80 columns, then what is behind each that is beyond its limit."""
    rows = [_row(check) for check in audit.checks]
    heading, *lines = columns(_HEADINGS, rows, right=("wrong", "result", "limit"))
    table = [
        styled(line, fg="red", bold=True) if check.status == "flagged" else line
        for check, line in zip(audit.checks, lines, strict=True)
    ]
    told = [line for check in audit.checks for line in _details(check)]
    asked = f"{audit.questions} questions on {audit.cases} cases"
    return [
        heading,
        *table,
        "",
        *textwrap.wrap(_NOTE, WIDTH),
        *([""] if told else []),
        *told,
        "",
        *textwrap.wrap(line_of(f"{asked}: {audit.sentence}"), WIDTH),
    ]


def _row(check: Check) -> tuple[str, ...]:
    return (
        line_of(check.name),
        f"{check.wrong}/{check.counted}" if check.counted else "-",
        "-" if check.value is None else _figure(check, check.value),
        _interval(check),
        _limit(check),
        _MARKS[check.status],
    )


def _details(check: Check) -> Iterator[str]:
    """For a check beyond its limit, what it means and the cases that went wrong."""
    if check.status not in ("flagged", "unsure"):
        return
    yield from textwrap.wrap(line_of(f"{check.name}: {check.meaning}"), WIDTH, subsequent_indent="    ")
    if check.cases:
        more = len(check.cases) - _MOST_CASES
        cases = " ".join(check.cases[:_MOST_CASES]) + (f" and {more} more" if more > 0 else "")
        yield from textwrap.wrap(
            line_of(cases), WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
        )


def _figure(check: Check, value: float) -> str:
    if check.unit == "points":
        return f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: no minus before a nought
    # Small shares are told to a tenth, so that one beyond a limit does not look like the limit itself.
    return f"{100 * value:.1f} %" if 0 < value < 0.1 else f"{100 * value:.0f} %"


def _interval(check: Check) -> str:
    if check.interval is None:
        return "-"
    low, high = check.interval.low, check.interval.high
    if check.unit == "share":
        return f"{100 * low:.0f} to {100 * high:.0f} %"
    return f"{low:+.2f} to {high:+.2f}"


def _limit(check: Check) -> str:
    if check.unit == "points":
        return f"{check.limit:+.2f}"
    lowest = "" if check.lower_limit is None else f"{100 * check.lower_limit:.0f}-"
    return f"{lowest}{100 * check.limit:.0f} %"
