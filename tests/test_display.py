"""What is drawn of a run fits every terminal, obeys no foreign text, and never holds up the run."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from drpo.commands.change_lines import cells, change_lines
from drpo.commands.display import render
from drpo.commands.live_display import LiveDisplay
from drpo.commands.painter import Painter, draws_on
from drpo.progress import STALE_S, RoleProgress, RunState, Snapshot
from drpo.text_diff import word_diff

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals", allow_module_level=True)

NOW_S = 1_800_000_000.0
BEFORE = "You are a helpful assistant. Keep an eye on the facts. When you do not know, guess."
AFTER = "You are a helpful, courteous assistant. Keep an eye on the facts. When you do not know, say so."
RUNNING = Snapshot(
    command="optimize",
    state="running",
    run="runs/first",
    pid=4711,
    started_s=NOW_S - 65,
    updated_s=NOW_S,
    elapsed_s=65.0,
    levels=9,
    limit=20,
    nodes=54,
    dropped=3,
    start_reward=2.1,
    best=3.92,
    path=(2.1, 2.8, None, 3.92),
    change=tuple((part.change, part.text) for part in word_diff(BEFORE, AFTER)),
    roles={
        "selector": RoleProgress(0, 20, 0, 0, 4_000, 300, 0.001),
        "base": RoleProgress(3, 120, 0, 0, 45_123, 12_200, 0.04, 150.0),
        "optimizer": RoleProgress(1, 20, 0, 1, 8_000, 2_100, 0.0123, 40.0),
        "evaluator": RoleProgress(2, 118, 1, 0, 95_000, 1_234_567, 0.11, 20.0),
        "embedder": RoleProgress(0, 2, 0, 0, 900, 0, 0.0),
    },
    recorded=40,
    calls=282,
    max_calls=500,
    usd=0.1633,
    held_usd=0.02,
    max_usd=5.0,
    left_s=80.0,
    said="requests by server: http://127.0.0.1:8000 100",
    simulated=True,
)
HOSTILE = (
    "\x1b[2J\x1b[31mred\x1b[0m\x07 [bold]no markup[/bold] \x1b]0;title\x07\r\n\t"
    "‮evil⁦ \u2028 \x9b31m 👍🏽👩‍👩‍👧‍👦 漢字漢字 e\u0301 [/] :smile: \ud800 {+"
)


def shown(snapshot: Snapshot, width: int = 80, height: int = 23, now_s: float = NOW_S) -> str:
    return render(snapshot, width, now_s, height).plain


def hostile() -> Snapshot:
    """A run whose every text was written by somebody who means no good."""
    long = HOSTILE * 40
    return replace(
        RUNNING,
        command=HOSTILE,
        run=long,
        said=long,
        change=(("same", long), ("removed", long), ("added", long), ("same", long)),
        roles={long: RoleProgress(), **RUNNING.roles},
        usd=None,
    )


@pytest.mark.parametrize("snapshot", [RUNNING, hostile()], ids=["usual", "hostile"])
def test_it_fits_every_terminal(snapshot: Snapshot) -> None:
    for width in (*range(20, 64, 3), 79, 80, 88, 120, 240):
        for height in (1, 5, 14, 23, 99):
            lines = shown(snapshot, width, height).split("\n")
            assert len(lines) <= height
            assert max(map(cells, lines)) < width, lines


def test_foreign_text_is_shown_and_never_obeyed() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=200, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(render(hostile(), 120, NOW_S, 60), no_wrap=True, overflow="ignore", crop=False)
    colours = r"\x1b\[[0-9;]*m"
    left = re.sub(colours, "", captured.get())
    assert {c for c in left if unicodedata.category(c) in ("Cc", "Cf", "Cs")} == {"\n"}
    assert "[bold]no markup[/bold]" in left and "\\u001b[31m" in left and ":smile:" in left


def test_what_a_user_wants_to_know_is_there() -> None:
    text = shown(RUNNING)
    for told in (
        *("drpo optimize  running  runs/first", "simulated", "9 of 20   54 tried, 3 dropped"),
        *("3.92 path score, the start's reward 2.10", "2.10 → 2.80 → - → 3.92"),
        *("1:05 so far, left: about 1:20", "282 of 500, 40 more from the record"),
        *("$0.1633 of $5.00, up to $0.0200 held for calls without an answer", "requests by server"),
        "You are a helpful{+, courteous+} assistant.",
    ):
        assert told in text
    rows = [line.split() for line in text.split("\n")]
    assert ["base", "3", "120", "0", "0", "45.1k", "12.2k", "$0.0400"] in rows
    assert ["optimizer", "1", "20", "0", "1", "8000", "2100", "$0.0123"] in rows
    assert ["all", "6", "280", "1", "1", "153.0k", "1.25M", "$0.1633"] in rows
    roles = [row[0] for row in rows if row and row[0] in {*RUNNING.roles, "all"}]
    assert roles == ["base", "optimizer", "evaluator", "selector", "embedder", "all"]


def test_a_price_that_is_not_known_is_never_shown_as_nothing() -> None:
    roles = {**RUNNING.roles, "base": replace(RUNNING.roles["base"], usd=None)}
    text = shown(replace(RUNNING, roles=roles, usd=None, max_usd=None, held_usd=0.0))
    assert "cost      unknown, no price for base" in text
    rows = {line.split()[0]: line.split()[-1] for line in text.split("\n") if line}
    assert (rows["base"], rows["all"], rows["optimizer"]) == ("unknown", "unknown", "$0.0123")


def test_money_held_is_told_however_little_but_not_what_is_left_of_adding_up() -> None:
    rest = 0.1 + 0.2 - 0.3
    assert rest > 0 and "held" not in shown(replace(RUNNING, held_usd=rest))
    assert "up to <$0.0001 held" in shown(replace(RUNNING, held_usd=0.00002))


@pytest.mark.parametrize(
    ("state", "word"),
    [
        *(("running", "running"), ("stopping", "stopping"), ("finished", "finished")),
        *(("budget", "budget spent"), ("interrupted", "interrupted"), ("failed", "failed")),
    ],
)
def test_every_state_has_its_word_and_only_what_goes_on_can_be_gone(state: RunState, word: str) -> None:
    snapshot = replace(RUNNING, state=state)
    goes_on = state in ("running", "stopping")
    assert shown(snapshot).startswith(f"drpo optimize  {word}  ")
    assert ("left: about 1:20" in shown(snapshot)) == goes_on
    later = shown(snapshot, now_s=NOW_S + STALE_S + 1).split("\n")[0]
    assert ("  gone  " in later) == goes_on


def test_before_the_first_level_nothing_is_claimed() -> None:
    text = shown(Snapshot("optimize", "running", "runs/first", 1, NOW_S, NOW_S, 0.4))
    assert "0 of ?" in text and "not scored yet" in text and "change" not in text
    assert "left: not known yet" in text


def test_examples_are_counted_where_examples_are_improved() -> None:
    text = shown(replace(RUNNING, command="optimize-examples", path=()))
    assert "examples  " in text and "mean      3.92 reward" in text and "path score" not in text


def test_as_room_gets_less_the_essentials_stay_longest() -> None:
    first_words = [
        [line.split()[0] for line in shown(RUNNING, 80, height).split("\n") if line] for height in (1, 4, 7)
    ]
    assert first_words == [
        ["drpo"],
        ["drpo", "level", "best", "cost"],
        ["drpo", "level", "best", "path", "time", "calls", "cost"],
    ]
    narrow = shown(RUNNING, 32)
    assert "in the air" not in narrow and "air  done failed" in narrow and "$0.0400" not in narrow


def test_the_path_keeps_its_beginning_and_its_end() -> None:
    path = (1.0, *(2.0,) * 50, 4.5)
    line = next(line for line in shown(replace(RUNNING, path=path)).split("\n") if line.startswith("path"))
    assert line.startswith("path      1.00 → … → 2.00") and line.endswith("2.00 → 4.50")


def changed(before: str, after: str, width: int = 60, limit: int = 5) -> list[str]:
    parts = [(part.change, part.text) for part in word_diff(before, after)]
    return [line.plain for line in change_lines(parts, width, limit)]


def test_a_change_is_legible_without_colour() -> None:
    assert changed("Be brief and kind.", "Be thorough and kind.") == ["Be [-brief-]{+thorough+} and kind."]


def test_a_change_is_shown_with_what_is_around_it_and_no_more() -> None:
    long = "The quick brown fox jumps over the lazy dog. " * 30
    lines = changed(f"{long}Be brief. {long}", f"{long}Be thorough. {long}")
    assert len(lines) <= 3
    text = " ".join(lines)
    assert text.startswith("… ") and text.endswith(" …")
    assert "dog. Be [-brief-]{+thorough+}. The" in text


def test_a_long_passage_that_went_does_not_hide_what_came_for_it() -> None:
    lines = changed("a " + "old words " * 200 + "z", "a " + "new ideas " * 200 + "z")
    assert len(lines) <= 5 and "{+new ideas" in " ".join(lines)


def test_several_changes_are_told_shorter_rather_than_the_last_ones_not_at_all() -> None:
    before = " ".join(f"Rule {number}: old words that are to go away, all of them." for number in range(5))
    after = " ".join(f"Rule {number}: new." for number in range(5))
    lines = changed(before, after)
    assert len(lines) <= 5
    assert [mark for mark in ("{+", "+}") if " ".join(lines).count(mark) < 5] == []


def test_what_is_left_out_at_the_end_is_marked_once() -> None:
    many = [f"{number} " + "word " * 30 for number in range(12)]
    for width in range(30, 70):
        lines = changed("x ".join(many), "y ".join(many), width)
        assert lines[-1].endswith(" …") and not lines[-1].endswith("… …") and cells(lines[-1]) <= width


def test_where_nothing_changed_nothing_is_shown() -> None:
    assert changed("the same", "the same") == []
    assert change_lines((), 60, 5) == change_lines((("added", "word"),), 60, 0) == []


# On a pseudo-terminal


@dataclass
class Terminal:
    """A pseudo-terminal: `stream` is the end a program writes to."""

    stream: io.TextIOWrapper
    master: int

    def read(self) -> str:
        """All that was written, once the program's end is closed."""
        self.stream.close()
        read = b""
        while True:
            try:
                piece = os.read(self.master, 65536)
            except OSError:
                piece = b""
            if not piece:
                return read.decode().replace("\r\n", "\n")
            read += piece


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    master, slave = os.openpty()
    stream = os.fdopen(slave, "w", encoding="utf-8", errors="backslashreplace")
    yield Terminal(stream, master)
    stream.close()
    os.close(master)


class Run:
    """A run that somebody watches; `asked` is set when its state was looked at."""

    def __init__(self, snapshot: Snapshot = RUNNING) -> None:
        self.snapshot_now = snapshot
        self.asked = asyncio.Event()

    def snapshot(self) -> Snapshot:
        self.asked.set()
        return replace(self.snapshot_now, updated_s=time.time())


async def test_what_is_said_meanwhile_stands_above_the_display(terminal: Terminal) -> None:
    run, own = Run(), sys.stderr
    async with LiveDisplay(run, terminal.stream):
        await run.asked.wait()
        run.asked.clear()
        print("a warning of a library \x1b[1A", file=sys.stderr)
        sys.stderr.write("bar 10%\rbar 50%\rbar 99%\r\n")
        sys.stderr.write("said last")
        await run.asked.wait()
        run.snapshot_now = replace(RUNNING, state="finished")
    assert sys.stderr is own
    written = terminal.read()
    assert re.search(r"\x1b\[2K\r\x1b\[\d+Aa warning of a library \\u001b\[1A\nbar 99%\n", written)
    assert written.index("running") < written.index("a warning") < written.rindex("finished")
    assert written.rstrip().endswith("said last")
    assert "bar 10%" not in written


async def test_nothing_of_the_terminal_is_changed_that_had_to_be_put_back(terminal: Terminal) -> None:
    run = Run()
    with pytest.raises(ValueError, match="of the run"):
        async with LiveDisplay(run, terminal.stream):
            await run.asked.wait()
            raise ValueError("of the run")
    written = terminal.read()
    sequences = re.findall(r"\x1b\[?[^A-Za-z]*[A-Za-z]", written)
    assert {sequence[-1] for sequence in sequences} == set(
        "mAJK"
    )  # styles, up, erase below, erase to the right
    assert "?" not in "".join(sequences)  # no mode is set, the cursor is not hidden
    assert written.endswith("\n")


async def test_what_is_left_standing_has_no_change_for_the_result_comes_next(terminal: Terminal) -> None:
    run = Run()
    async with LiveDisplay(run, terminal.stream):
        await run.asked.wait()
        run.snapshot_now = replace(RUNNING, state="finished")
    running, finished = terminal.read().split("finished")
    assert "courteous" in running and "courteous" not in finished


async def test_a_run_that_ends_at_once_is_not_drawn(terminal: Terminal) -> None:
    async with LiveDisplay(Run(), terminal.stream):
        print("said", file=sys.stderr)
    assert terminal.read() == "said\n"


async def test_a_terminal_that_takes_nothing_does_not_hold_up_the_run(terminal: Terminal) -> None:
    os.set_blocking(terminal.stream.fileno(), False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(terminal.stream.fileno(), b"x" * 1024)
    os.set_blocking(terminal.stream.fileno(), True)
    drained: list[bytes] = []

    def drain() -> None:
        while b"finished" not in b"".join(drained[-4:]):
            drained.append(os.read(terminal.master, 65536))

    run = Run()
    rescue = threading.Timer(10.0, drain)  # else a display that waits for the terminal would hang the test
    rescue.start()
    async with LiveDisplay(run, terminal.stream):
        await run.asked.wait()  # the first drawing begins, and can come to no end
        for _ in range(1000):
            await asyncio.sleep(0)
        went_on = not drained
        rescue.cancel()
        run.snapshot_now = replace(RUNNING, state="finished")
        reader = threading.Thread(target=drain)
        reader.start()
    await asyncio.to_thread(reader.join)
    assert went_on


async def test_a_display_that_fails_does_not_end_the_run(
    terminal: Terminal, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Run):
        def snapshot(self) -> Snapshot:
            super().snapshot()
            raise ZeroDivisionError("a bug")

    run, own = Broken(), sys.stderr
    async with LiveDisplay(run, terminal.stream):
        print("said before", file=sys.stderr)
        await run.asked.wait()
        assert sys.stderr is own
    assert terminal.read() == "said before\n"
    assert "ZeroDivisionError('a bug')" in caplog.text


def test_a_terminal_that_became_narrower_has_wrapped_what_is_replaced(terminal: Terminal) -> None:
    import termios

    painter = Painter(terminal.stream)
    termios.tcsetwinsize(terminal.master, (24, 80))
    painter.draw(Text("x" * 79 + "\n" + "y" * 30))
    assert painter.size == (80, 24)
    termios.tcsetwinsize(terminal.master, (24, 40))
    painter.draw(Text("z"))
    painter.draw(Text("last"))
    assert terminal.read().split("\n")[-3:] == [
        "\x1b[J\r\x1b[3Az\x1b[K",
        "\x1b[J\r\x1b[1Alast\x1b[K",
        "\x1b[J",
    ]


def test_what_has_not_changed_is_not_written_again_unless_something_was_said(terminal: Terminal) -> None:
    painter = Painter(terminal.stream)
    for above in ("", "", "said\n", ""):
        painter.draw(Text("the same"), above)
    painter.forget()
    painter.draw(Text("the same"))
    assert terminal.read().count("the same") == 3


def test_a_screen_is_never_erased_at_once_which_some_terminals_keep_in_their_history(
    terminal: Terminal,
) -> None:
    painter = Painter(terminal.stream)
    painter.draw(Text("one\ntwo"))
    painter.draw(Text("one\ntwo"), "said")
    assert terminal.read().split("\x1b[J")[1] == (
        "\r\x1b[2A" + "\x1b[2K\n" * 2 + "\x1b[2K\r\x1b[2A" + "said\n" + "one\x1b[K\ntwo\x1b[K\n"
    )


def test_a_terminal_without_the_signs_gets_others_as_long() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace", newline="")
    Painter(stream).draw(Text("██░░ 1 → 2 … ⏎ é"), above="naïve")
    assert raw.getvalue() == b"\r\x1b[2K\rna?ve\n##-- 1 > 2 . | ?\x1b[K\n\x1b[J"


@pytest.mark.parametrize(
    ("environment", "drawn"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "CI": "false"}, True),
        ({"TERM": "xterm", "CI": "true"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_lines_are_replaced_only_where_that_works_and_somebody_looks(
    terminal: Terminal, tmp_path: Path, environment: dict[str, str], drawn: bool
) -> None:
    assert draws_on(terminal.stream, environment) is drawn
    with (tmp_path / "file").open("w") as file:
        assert not draws_on(file, environment)
