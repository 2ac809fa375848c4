"""The process that makes the pages of a run which goes on in another one: `drpo.report.maker` starts it.

It is told on its stdin what happens there and says on its stdout, a line each, that it is ready and that a
page is made. It ends when its stdin does, so it never outlives the run; whatever goes wrong ends it too, and
the run makes its last page itself.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path

from drpo.alignment import read_alignment
from drpo.data import read_examples, read_queries
from drpo.report.files import REPORT_NAME, replace_file
from drpo.report.growing import Growing, Wanted, read_line
from drpo.report.page import Page
from drpo.results import read_examples_result
from drpo.run_file import read_run

READY, MADE = b"ready\n", b"made\n"


def main() -> None:
    """Make a page whenever one is wanted, until nobody is there to want one."""
    with contextlib.suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whether the run ends is for the run to say
    told = sys.stdin.buffer
    path = read_line(told.readline() or b"{}")
    if not isinstance(path, Path):
        return
    page = Page()
    for prepare in page.preparations():
        prepare()
    growing = _read(path)
    _say(READY)
    for line in told:
        match read_line(line):
            case Wanted() as wanted:
                _make(path, growing, page, wanted)
                _say(MADE)
            case None | Path():
                pass
            case event:
                growing.add([event])


def _make(path: Path, growing: Growing, page: Page, wanted: Wanted) -> None:
    alignment = read_alignment(path) if wanted.result == "alignment" else None
    improved = read_examples_result(path) if wanted.result == "examples" else None
    text = page.render(growing.view(wanted.spent, alignment, improved), wanted.written_s, wanted.state)
    with contextlib.suppress(OSError):  # a disk that refuses costs the page
        replace_file(path / REPORT_NAME, text)


def _read(path: Path) -> Growing:
    inputs = path / "inputs"
    seeds = inputs / "queries.jsonl"
    queries = read_queries(seeds).queries if seeds.exists() else ()
    return Growing(path, read_run(path), queries, read_examples(inputs / "examples.jsonl").examples)


def _say(word: bytes) -> None:
    sys.stdout.buffer.write(word)
    sys.stdout.buffer.flush()
