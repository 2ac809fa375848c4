"""Of what a base model writes, its answer is what stands before the page goes on; chats are left alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.alignment import read_alignment
from drpo.compose import Composer, PromptForm
from drpo.templates import Templates
from tests.support.command import Shell
from tests.support.mock_openai import Reply
from tests.support.served import Served

TEMPLATES = Templates()
TEXT = Composer(TEMPLATES, "text")


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("Four.", "Four."),
        ("Four.\n\n# Query\nAnd 3+3?\n\n# Answer\nSix.", "Four."),
        ("Four.\n\n# Answer\nSix.", "Four."),
        ("Four.\n# Query", "Four."),
        ("Four.\n# Query  \t\nx", "Four."),
        ("Four.\r\n\r\n# Query\r\nx", "Four."),
        ("Four.\n# Answer \x0b", "Four."),
        ("# Query\nAnd 3+3?", ""),
        ("\n# Answer\nFour.", ""),
        ("Four.\n# Query language\nSQL", "Four.\n# Query language\nSQL"),
        ("Four.\n## Answer\nSix", "Four.\n## Answer\nSix"),
        ("See # Answer\nSix", "See # Answer\nSix"),
        ("  Four.  \n", "  Four."),
    ],
)
def test_a_page_ends_where_the_next_question_or_answer_begins(written: str, answer: str) -> None:
    assert TEXT.answer(written) == answer


PIECES = st.lists(st.sampled_from(["a", "\n", "# Query", "# Answer", "#", " ", "\t", "\r", "\x0b", "\x85"]))


@given(st.one_of(PIECES.map("".join), st.text(max_size=30)))
def test_an_answer_has_no_heading_of_the_page_and_is_cut_once(written: str) -> None:
    answer = TEXT.answer(written)
    assert written.startswith(answer)
    assert not [line for line in answer.split("\n") if line.rstrip() in ("# Query", "# Answer")]
    assert TEXT.answer(answer) == answer


@given(st.one_of(PIECES.map("".join), st.text(max_size=30)))
def test_chats_and_uncut_pages_are_left_as_they_are(written: str) -> None:
    forms: tuple[PromptForm, ...] = ("chat", "chat-without-system")
    for composer in (*(Composer(TEMPLATES, form) for form in forms), Composer(TEMPLATES, "text", cut=False)):
        assert composer.answer(written) == written


def going_on(model: str, body: dict[str, Any]) -> Reply:
    return Reply(texts=("Four.\n\n# Answer\nFive.",))


@pytest.mark.parametrize(("more", "kept", "response"), [
    ((), "cut", "Four."),
    (("--answer-end", "as-written"), "as-written", "Four.\n\n# Answer\nFive."),
    (("--preset", "published"), "as-written", "Four.\n\n# Answer\nFive."),
])  # fmt: skip
def test_a_run_keeps_how_its_answers_ended(
    shell: Shell, more: tuple[str, ...], kept: str, response: str
) -> None:
    small = ("--depth", "2", "--width", "1", "--samples", "1", "--max-extra-depth", "0")
    judges = ("--optimizer", "demo", "--evaluator", "demo", "--embedder", "lexical", "--prompt-form", "text")
    with Served(going_on) as server:
        model = f"openai/m@{server.url}"
        shell.done("optimize", "--model", model, *judges, *more, *small, "--run-dir", "run")
    events = [json.loads(line) for line in (shell.folder / "run/events.jsonl").read_text().splitlines()]
    assert {event["state"]["response"] for event in events if "state" in event} == {response}
    file = shell.folder / "run/alignment.json"
    assert json.loads(file.read_text())["answer_end"] == kept == read_alignment(file).answer_end


def test_an_alignment_from_before_says_nothing_and_was_not_cut(shell: Shell) -> None:
    shell.done("optimize", "--model", "demo", "--depth", "2", "--run-dir", "run")
    file = shell.folder / "run/alignment.json"
    data = json.loads(file.read_text())
    assert data.pop("answer_end") == "cut"
    file.write_text(json.dumps(data), encoding="utf-8")
    assert read_alignment(file).answer_end == "as-written"
