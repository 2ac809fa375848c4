"""Exports in the tools they are for: what these send to a server is what the search sent, sign by sign.

The tools are looked for on the PATH, so that each may have an environment of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drpo.compose import PromptForm
from tests.support.command import Shell
from tests.support.export_cases import (
    QUERY,
    ask_only,
    run_in_inspect,
    run_in_lm_eval,
    run_in_promptfoo,
    searched_messages,
    searched_page,
    written,
)
from tests.support.served import Served

pytestmark = pytest.mark.export


@pytest.fixture
def server() -> Iterator[Served]:
    with Served(lambda model, body: "The answer.") as served:
        yield served


def exported(shell: Shell, target: str, url: str, form: PromptForm, **fields: Any) -> tuple[Path, Path]:
    """The alignment, and the folder of its export with QUERY as the one query in it."""
    path = written(shell.folder, form, **fields)
    flags = ("--shots-for", QUERY, "--model", f"openai/base@{url}")
    shell.done("export", path, "--to", target, "-o", "made", *flags)
    folder = shell.folder / "made"
    ask_only(folder, QUERY)
    return path, folder


def sent(server: Served, form: PromptForm) -> Any:
    """What was asked: the chats or pages, each once."""
    key = "prompt" if form == "text" else "messages"
    asked = [body[key] for body in server.bodies]
    asked = [one[0] if isinstance(one, list) and form == "text" else one for one in asked]
    assert {body["model"] for body in server.bodies} == {"base"}
    assert {body["temperature"] for body in server.bodies} == {0}
    return asked


def wanted(path: Path, form: PromptForm) -> Any:
    return [searched_page(path) if form == "text" else searched_messages(path)]


@pytest.mark.parametrize("form", ["chat", "chat-without-system", "text"])
def test_promptfoo_sends_what_the_search_sent(shell: Shell, server: Served, form: PromptForm) -> None:
    path, folder = exported(shell, "promptfoo", server.url, form)
    run_in_promptfoo(shell.folder, folder)
    assert sent(server, form) == wanted(path, form)


@pytest.mark.parametrize("form", ["chat", "chat-without-system"])
def test_inspect_sends_what_the_search_sent(shell: Shell, server: Served, form: PromptForm) -> None:
    path, folder = exported(shell, "inspect", server.url, form)
    run_in_inspect(shell.folder, folder, "base", server.url)
    assert sent(server, form) == wanted(path, form)


@pytest.mark.parametrize("form", ["chat", "chat-without-system", "text"])
def test_lm_eval_sends_what_the_search_sent(shell: Shell, server: Served, form: PromptForm) -> None:
    path, folder = exported(shell, "lm-eval", server.url, form)
    run_in_lm_eval(shell.folder, folder)
    assert sent(server, form) == wanted(path, form)
    assert list((folder / "results").rglob("samples_*.jsonl"))
