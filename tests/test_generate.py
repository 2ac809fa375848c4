"""`drpo generate`: answers in order, resumed, with the prompt and shots of the search."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from drpo import load
from tests.support.command import Shell, ended, process
from tests.support.mock_openai import Answer
from tests.support.processes import until
from tests.support.served import Served

QUERIES = [f"question {n}?" for n in range(30)]
FOUND = ("--depth", "2", "--max-extra-depth", "0", "--shots", "2", "--validate", "0")


@pytest.fixture
def found(shell: Shell) -> Path:
    """A finished search, and a file of queries beside it."""
    shell.done("optimize", "--model", "demo", *FOUND, "--run-dir", "found", "--quiet")
    shell.write("queries.txt", "\n".join(QUERIES))
    return shell.folder / "found"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_the_answers_stand_in_the_order_of_the_queries_with_their_shots(shell: Shell, found: Path) -> None:
    shell.done("generate", "found", "--in", "queries.txt", "--out", "a.jsonl", "--run-dir", "g", "--quiet")
    answers = lines(shell.folder / "a.jsonl")
    assert [answer["query"] for answer in answers] == QUERIES
    assert all(answer["response"] and len(answer["shots"]) == 2 for answer in answers)


def test_what_is_asked_is_what_the_alignment_renders(shell: Shell, found: Path) -> None:
    with Served(lambda model, body: "An answer.") as server:
        flags = ("--model", f"openai/base@{server.url}", "--prompt-form", "chat", "--embedder", "lexical")
        ran = shell.done("generate", "found", "--in", "queries.txt", "--run-dir", "g", *flags)
        asked = {body["messages"][-1]["content"]: body["messages"] for body in server.bodies}
    loaded = load(found)
    assert asked == {query: loaded.messages(query) for query in QUERIES}
    assert "found was found for demo/seed=0,noise=0.5, openai/base@" in ran.err


def test_a_base_model_is_given_the_page_of_the_search_and_is_cut(shell: Shell, found: Path) -> None:
    def handler(model: str, body: dict[str, Any]) -> Answer:
        assert "messages" not in body
        return "The answer.\n\n# Query\nAnother question?"

    with Served(handler) as server:
        flags = ("--model", f"openai/base@{server.url}", "--prompt-form", "text")
        shell.done("generate", "found", "--in", "queries.txt", "--run-dir", "g", *flags, "--quiet")
        pages = {body["prompt"] for body in server.bodies}
    loaded = load(found)
    assert pages == {loaded.prompt(query) for query in QUERIES}
    assert {answer["response"] for answer in lines(shell.folder / "g" / "answers.jsonl")} == {"The answer."}


def test_killed_in_the_middle_it_goes_on_where_it_was(shell: Shell, found: Path) -> None:
    flags = ("generate", "found", "--in", "queries.txt", "--concurrency", "3", "--quiet")
    shell.done(*flags, "--run-dir", "whole")
    running = process(*flags, "--run-dir", "g", "--demo-latency-ms", "40")
    calls = shell.folder / "g" / "calls.jsonl"
    until(lambda: calls.exists() and len(calls.read_bytes().splitlines()) > 8)
    os.kill(running.pid, signal.SIGKILL)
    ended(running)
    shell.done(*flags, "--run-dir", "g")
    assert (calls.parent / "answers.jsonl").read_bytes() == (
        shell.folder / "whole/answers.jsonl"
    ).read_bytes()
    keys = [entry["key"] for entry in lines(calls) if entry["kind"] == "call"]
    assert len(keys) == len(set(keys)) == len(QUERIES)


def test_nothing_is_written_over_but_the_same_answers(shell: Shell, found: Path) -> None:
    flags = ("generate", "found", "--in", "queries.txt", "--out", "a.jsonl", "--run-dir", "g", "--quiet")
    shell.done(*flags)
    shell.done(*flags)
    shell.write("a.jsonl", "mine")
    assert "nothing is written over" in shell.refused(2, *flags)
    assert (shell.folder / "a.jsonl").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere", "--in", "queries.txt"), "found nothing of that name"),
        (("found",), "--queries is missing"),
        (("found", "--in", "none.txt"), "none.txt"),
        (("found", "--in", "queries.txt", "--out", "."), "is a folder"),
        (("none", "--in", "queries.txt"), "was made for no model"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    shell: Shell, found: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in shell.refused(2, "generate", *arguments)


def test_the_answers_are_printed_as_the_lines_of_the_file(shell: Shell, found: Path) -> None:
    ran = shell.done("generate", "found", "--in", "queries.txt", "--run-dir", "g", "--quiet", "--json")
    assert ran.out == (shell.folder / "g" / "answers.jsonl").read_text("utf-8")
