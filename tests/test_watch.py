"""drpo watch shows a run of another process from its small file, and a run shows itself where it can."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from drpo.progress import PROGRESS_NAME, STALE_S, RoleProgress, RunState, Snapshot, write_progress
from tests.support.command import Ran, Shell, ended, killed_at_the_end, process
from tests.support.processes import until

IDENTITY = {
    "command": "optimize",
    "models": {"base": "demo/seed=0,noise=0.5"},
    "embedder": "lexical",
    "settings": {},
    "digests": {},
}


def snapshot(state: RunState = "running", *, age_s: float = 0.0) -> Snapshot:
    now_s = time.time()
    return Snapshot(
        command="optimize",
        state=state,
        run="run",
        pid=1,
        started_s=now_s - 60,
        updated_s=now_s - age_s,
        elapsed_s=60.0,
        levels=3,
        limit=20,
        nodes=11,
        start_reward=2.0,
        best=3.5,
        path=(2.0, 3.0, 3.5),
        change=(("same", "Be "), ("removed", "brief"), ("added", "kind \x1b[31m[bold]")),
        roles={"base": RoleProgress(1, 12, 0, 0, 100, 50, None)},
        calls=13,
        usd=None,
        said="notice \x1b]0;title\x07",
    )


@pytest.fixture
def run(shell: Shell) -> Path:
    """A run directory as far as it is looked at; it has no progress yet, and is an hour old."""
    folder = shell.folder / "run"
    folder.mkdir()
    file = folder / "run.json"
    file.write_text(json.dumps({"schema": 1, "identity": IDENTITY, "settings": {}, "versions": {}}))
    os.utime(file, (time.time() - 3600,) * 2)
    return folder


def shows(run: Path, state: Snapshot) -> None:
    write_progress(run / PROGRESS_NAME, state)


def test_once_prints_the_state_as_plain_text(shell: Shell, run: Path) -> None:
    shows(run, snapshot())
    ran = shell.done("watch", "run", "--once")
    assert ran.err == ""
    assert ran.out.startswith("drpo optimize  running  run\nlevel")
    for told in (
        "3 of 20",
        "3.50 path score",
        "unknown, no price for base",
        "[-brief-]{+kind \\u001b[31m[bold]+}",
    ):
        assert told in ran.out
    assert "\x1b" not in ran.out and "\x07" not in ran.out


def test_json_prints_the_snapshot_as_one_document(shell: Shell, run: Path) -> None:
    state = snapshot()
    shows(run, state)
    told = shell.done("watch", "run", "--json").json
    assert told == {"schema": 1, "alive": True, **json.loads(json.dumps(asdict(state)))}
    shows(run, replace(state, updated_s=state.updated_s - STALE_S - 1))
    assert shell.done("watch", "run", "--json").json["alive"] is False


@pytest.mark.parametrize(
    ("state", "word", "then"),
    [
        ("finished", "finished", "drpo show prints the result."),
        ("budget", "budget spent", "given again with a higher --max-calls or --max-usd, resumes it."),
        ("interrupted", "interrupted", "The run's command, given again, resumes it."),
        ("failed", "failed", "Its run.log says why."),
    ],
)
def test_a_run_that_has_ended_is_shown_once_with_what_to_do_next(
    shell: Shell, run: Path, state: RunState, word: str, then: str
) -> None:
    shows(run, replace(snapshot(state, age_s=9_000), left_s=60.0))
    notice, line, last = shell.done("watch", run).out.splitlines()
    assert notice == "notice \\u001b]0;title\\u0007"
    assert line == "level 3 of 20: 11 tried, best path score 3.50, 13 calls, cost unknown, 1:00 so far"
    assert last.startswith(f"{word}. ") and then in last
    drawn = shell.done("watch", run, "--once").out
    assert f"drpo optimize  {word}  " in drawn and then in drawn


def test_a_run_whose_process_is_gone_says_when_it_was_seen_and_how_to_resume_it(
    shell: Shell, run: Path
) -> None:
    shows(run, snapshot(age_s=3725))
    last = shell.done("watch", run).out.splitlines()[-1]
    assert re.fullmatch(
        r"gone\. Last seen \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, 1:02:0\d ago: its process is gone or hangs\. "
        r"The run's command, given again, resumes it\.",
        last,
    )


def test_what_is_no_run_or_has_no_progress_is_said_in_a_sentence(shell: Shell, run: Path) -> None:
    assert "expected a run directory" in shell.refused(2, "watch", "nowhere")
    (shell.folder / "empty").mkdir()
    assert "found no run.json" in shell.refused(2, "watch", "empty")
    assert "found no run.json" in shell.refused(2, "watch", run / "run.json")
    refused = shell.refused(2, "watch", run)
    assert "expected a run that keeps progress.json, found none" in refused and "drpo show" in refused
    (run / PROGRESS_NAME).write_text('{"schema": 99}')
    assert "use the drpo that wrote it" in shell.refused(2, "watch", run)
    (run / "run.json").write_text(json.dumps({"schema": 99, "identity": IDENTITY}))
    assert "it was written by a newer drpo" in shell.refused(2, "watch", run)


def test_a_run_that_has_just_begun_is_told_from_one_that_keeps_no_progress(shell: Shell, run: Path) -> None:
    os.utime(run / "run.json")
    assert "only just begun: try again in a second" in shell.refused(2, "watch", run)


def test_a_run_is_found_by_its_name_inside_the_runs_folder(shell: Shell, run: Path) -> None:
    shows(run, snapshot("finished"))
    (shell.folder / "runs").mkdir()
    run.rename(shell.folder / "runs" / "mine")
    assert shell.done("watch", "mine").out.endswith("finished. drpo show prints the result.\n")


def test_ctrl_c_ends_the_watching_at_once_and_nothing_else(shell: Shell, run: Path) -> None:
    shows(run, snapshot())
    before = (run / PROGRESS_NAME).read_bytes()
    with killed_at_the_end(process("watch", "run", PYTHONUNBUFFERED="1")) as watching:
        assert watching.stdout.readline().startswith("notice")
        assert watching.stdout.readline().startswith("level 3 of 20")
        watching.send_signal(signal.SIGINT)
        ran = ended(watching)
    assert (ran.code, ran.err) == (0, "") and ran.out.endswith(
        "\nNo longer watched; the run is left alone.\n"
    )
    assert (run / PROGRESS_NAME).read_bytes() == before


# A real run of another process


@dataclass(frozen=True)
class Watched:
    """A demo run without a terminal, what was seen of it meanwhile, and what became of it."""

    seen: Ran
    ran: Ran
    files: set[str]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """One run for all tests below, watched by another process from its first moment to its last."""
    folder = tmp_path_factory.mktemp("watched")
    run = folder / "run"
    flags = ("--depth", "4", "--max-extra-depth", "0", "--embedder", "lexical", "--demo-latency-ms", "50")
    optimize = ("optimize", "--model", "demo", *flags, "--run-dir", run, "--json")
    with killed_at_the_end(process(*optimize, DRPO_CACHE_DIR=str(folder / "cache"))) as going:
        until(lambda: (run / PROGRESS_NAME).exists())
        with killed_at_the_end(process("watch", run)) as watching:
            ran = ended(going)
            yield Watched(ended(watching), ran, {path.name for path in run.iterdir()})


def test_a_run_of_another_process_is_followed_to_its_end(watched: Watched) -> None:
    assert (watched.seen.code, watched.seen.err) == (0, "")
    *levels, last = watched.seen.out.splitlines()
    assert last == "finished. drpo show prints the result."
    score = r"(not scored yet|(reward|best path score) \d\.\d\d)"
    shape = rf"level (\d) of (4|\?): \d+ tried, {score}, \d+ calls, \$0, .*"
    found = [re.fullmatch(shape, line) for line in levels]
    numbers = [int(match[1]) for match in found if match is not None]
    assert len(numbers) == len(levels) and numbers == sorted(set(numbers)) and numbers[-1] == 4
    assert watched.ran.json["levels"] == 4
    assert f"best path score {watched.ran.json['path_score']:.2f}, " in levels[-1]
    assert f" {sum(watched.ran.json['calls'].values())} calls, " in levels[-1]


def test_without_a_terminal_a_run_says_a_line_per_level_and_only_its_result_on_stdout(
    watched: Watched,
) -> None:
    assert watched.ran.code == 0 and isinstance(watched.ran.json["system_prompt"], str)
    assert "\x1b" not in watched.ran.err and "\r" not in watched.ran.err
    levels = [line for line in watched.ran.err.splitlines() if line.startswith("level ")]
    assert [line.split(":")[0] for line in levels] == [f"level {number} of 4" for number in range(1, 5)]


def test_the_progress_file_is_replaced_and_leaves_nothing_beside_it(watched: Watched) -> None:
    assert PROGRESS_NAME in watched.files
    assert not [name for name in watched.files if name.endswith(".tmp")]
