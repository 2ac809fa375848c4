"""What becomes of a command whose output nobody reads: the search is never the price."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from drpo.cli import cli
from drpo.commands.streams import Output
from tests.support.command import SMALL, Ran, Shell, demo, ended, killed_at_the_end

TOLD = ["optimize", "--model", "demo", *SMALL, "--run-dir", "run"]


def closed_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def ran(*arguments: object, out: int = subprocess.PIPE, err: int = subprocess.PIPE) -> Ran:
    """drpo as a process of its own with these outputs, which are closed here afterwards."""
    command = [sys.executable, "-m", "drpo", *map(str, arguments)]
    with killed_at_the_end(subprocess.Popen(command, stdout=out, stderr=err, text=True)) as running:
        for handle in {out, err} - {subprocess.PIPE}:
            os.close(handle)
        return ended(running)


def test_a_reader_of_stderr_that_leaves_costs_what_it_would_have_read(shell: Shell) -> None:
    done = ran(*TOLD, err=closed_pipe())
    assert done.code == 0 and "path score" in done.out
    assert (shell.folder / "run" / "alignment.json").exists()


def test_a_reader_of_both_that_leaves_at_once_does_not_end_the_search(shell: Shell) -> None:
    both = closed_pipe()
    assert ran(*TOLD, out=both, err=both).code == 0
    assert (shell.folder / "run" / "alignment.json").exists()


def test_a_spent_budget_is_told_by_the_exit_code_whoever_reads_the_best_so_far(shell: Shell) -> None:
    done = ran(*demo("--max-calls", 12), out=closed_pipe())
    assert done.code == 9 and done.err.count("drpo: ") == 1
    assert (shell.folder / "run" / "alignment.json").exists()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_missing_output_is_as_one_that_nobody_reads(shell: Shell, closed: str) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "drpo", *TOLD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert ("path score" in done.stdout) == (closed == "2>&-")
    assert ("run:" in done.stderr) == (closed == ">&-")
    assert (shell.folder / "run" / "alignment.json").exists()


def test_an_error_that_nobody_reads_keeps_its_exit_code(shell: Shell) -> None:
    assert ran("show", "nothing", err=closed_pipe()).code == 2


def test_a_pipe_that_breaks_elsewhere_is_no_reader_that_left(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(as_json: bool) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    models = cli.get_command(click.Context(cli), "models")
    assert models is not None
    monkeypatch.setattr(models, "callback", breaks)
    done = shell.run("models")
    assert done.code == 1 and "a bug of drpo" in done.err and "Broken pipe" in done.err


def test_a_stream_answers_as_the_one_behind_it(tmp_path: Path) -> None:
    with (tmp_path / "said").open("w", encoding="ascii", errors="strict") as behind:
        told = Output(behind, lossy=True)
        assert (told.encoding, told.errors, told.isatty()) == ("ascii", "strict", False)
        assert told.fileno() == behind.fileno() and told.buffer is behind.buffer
        assert told.write("two words") == 9
        told.flush()
    assert (tmp_path / "said").read_text(encoding="ascii") == "two words"
