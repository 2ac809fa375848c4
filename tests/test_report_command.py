"""`drpo report` writes the page of a run anew, says where, and opens it where there is a browser."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.support.command import Shell, ended, process
from tests.support.shown_runs import change_json, copy_of, examples_run, killed, prompt_run


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prompt_run(tmp_path_factory.mktemp("prompts") / "run")


def page(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    assert text.lower().startswith("<!doctype html") and text.rstrip().endswith("</html>")
    return text


def test_the_report_is_written_anew_and_its_path_is_all_of_stdout(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "run")
    (run / "report.html").write_text("old", encoding="utf-8")
    ran = shell.done("report", "run")
    assert (ran.out, ran.err) == ("run/report.html\n", "")
    page(run / "report.html")


def test_a_run_inside_the_runs_folder_is_found_by_its_name(shell: Shell, prompts: Path) -> None:
    copy_of(prompts, shell.folder / "runs" / "mine")
    assert shell.done("report", "mine").out == "runs/mine/report.html\n"


def test_it_works_while_the_run_is_under_way(shell: Shell, prompts: Path) -> None:
    run = killed(prompts, shell.folder / "run", 2)
    change_json(run / "progress.json", lambda data: data.update(state="running", updated_s=9e9))
    shell.done("report", run)
    page(run / "report.html")


def test_it_works_for_examples(shell: Shell) -> None:
    run = examples_run(shell.folder / "run", 2, depth=1)
    page(Path(shell.done("report", run).out.strip()))


def test_another_file_can_be_named_and_leaves_the_run_alone(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "run", without=("report.html",))
    assert shell.done("report", run, "--out", "page.html").out == "page.html\n"
    page(shell.folder / "page.html")
    assert not (run / "report.html").exists()
    shell.done("report", run, "--out", "page.html")  # an earlier page is replaced


def test_nothing_else_is_written_over(shell: Shell, prompts: Path) -> None:
    mine = shell.write("thesis.html", "years of work")
    assert "it is no report; name another" in shell.refused(2, "report", prompts, "--out", mine)
    assert mine.read_text() == "years of work"
    assert "found a folder" in shell.refused(2, "report", prompts, "--out", shell.folder)
    assert "its folder is not there" in shell.refused(2, "report", prompts, "--out", "nowhere/page.html")
    assert sorted(path.name for path in shell.folder.iterdir()) == ["thesis.html"]


def test_what_cannot_be_reported_is_told(shell: Shell, prompts: Path) -> None:
    assert "found no run.json in it" in shell.refused(2, "report", shell.folder)
    assert "nowhere" in shell.refused(2, "report", "nowhere")
    begun = killed(prompts, shell.folder / "begun", 0)
    assert "nothing to show yet" in shell.refused(2, "report", begun)
    assert not (begun / "report.html").exists()
    newer = copy_of(prompts, shell.folder / "newer")
    change_json(newer / "run.json", lambda data: data.update(schema=7))
    error = shell.refused(2, "report", newer)
    assert "found 7" in error and "written by a newer drpo; use that one" in error


@pytest.mark.skipif(os.name == "nt", reason="browsers are found otherwise there")
def test_the_browser_is_given_the_page(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "a run")
    browser = shell.write("browser", '#!/bin/sh\nprintf "%s" "$1" > opened\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    ran = ended(process("report", run, "--open", BROWSER=f"{browser} %s"))
    assert (ran.code, ran.err) == (0, "") and ran.out == f"{run}/report.html\n"
    assert (shell.folder / "opened").read_text() == (run / "report.html").resolve().as_uri()


@pytest.mark.skipif(os.name == "nt", reason="browsers are found otherwise there")
def test_a_machine_without_a_browser_is_told_and_has_the_page(shell: Shell, prompts: Path) -> None:
    run = copy_of(prompts, shell.folder / "run")
    bare = {"PATH": str(shell.folder), "DISPLAY": "", "WAYLAND_DISPLAY": "", "BROWSER": ""}
    ran = ended(process("report", run, "--open", **bare))
    assert ran.code == 0 and ran.out == f"{run}/report.html\n"
    assert "no browser could be opened here" in ran.err
    page(run / "report.html")
