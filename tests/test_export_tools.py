"""Exports in the tools they are for: what these send to a server is what the search sent, sign by sign.

The tools are looked for on the PATH, so that each may have an environment of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drpo.compose import PromptForm
from tests.support.command import Shell
from tests.support.export_cases import QUERY, searched_messages, searched_page, written
from tests.support.served import Served

pytestmark = pytest.mark.export
QUIET = {
    "OPENAI_API_KEY": "none",
    "LOCAL_API_KEY": "none",
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_CACHE_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
    "INSPECT_DISPLAY": "none",
    "NO_PROXY": "127.0.0.1",
}


@pytest.fixture
def server() -> Iterator[Served]:
    with Served(lambda model, body: "The answer.") as served:
        yield served


def tool(name: str, package: str) -> str:
    """The program, or the test is left out and says what is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} ({package}) is not on the PATH")
    return found


def exported(shell: Shell, target: str, url: str, form: PromptForm, **fields: Any) -> tuple[Path, Path]:
    """The alignment, and the folder of its export with QUERY as the one query in it."""
    path = written(shell.folder, form, **fields)
    flags = ("--shots-for", QUERY, "--model", f"openai/base@{url}")
    shell.done("export", path, "--to", target, "-o", "made", *flags)
    folder = shell.folder / "made"
    if (folder / "queries.jsonl").exists():
        (folder / "queries.jsonl").write_text(json.dumps({"query": QUERY}) + "\n")
    return path, folder


def run(shell: Shell, *command: object, folder: Path | None = None) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **QUIET, "PROMPTFOO_CONFIG_DIR": str(shell.folder / "kept")},
        cwd=folder or shell.folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


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
    program = tool("promptfoo", "npm install promptfoo")
    path, folder = exported(shell, "promptfoo", server.url, form)
    file = folder / "promptfooconfig.yaml"
    told = [line for line in file.read_text().splitlines(keepends=True) if line.startswith("#")]
    config = json.loads(file.read_text()[len("".join(told)) :])
    config["tests"] = [{"vars": {"query": QUERY}}]
    file.write_text("".join(told) + json.dumps(config))
    run(shell, program, "eval", "-c", file, "--no-cache", "--no-write")
    assert sent(server, form) == wanted(path, form)


@pytest.mark.parametrize("form", ["chat", "chat-without-system"])
def test_inspect_sends_what_the_search_sent(shell: Shell, server: Served, form: PromptForm) -> None:
    program = tool("inspect", "pip install inspect-ai openai")
    path, folder = exported(shell, "inspect", server.url, form)
    model = ("--model", "openai-api/local/base", "--model-base-url", server.url)
    logs = shell.folder / "logs"
    run(shell, program, "eval", "drpo_alignment.py", *model, "--log-dir", logs, folder=folder)
    assert sent(server, form) == wanted(path, form)


@pytest.mark.parametrize("form", ["chat", "chat-without-system", "text"])
def test_lm_eval_sends_what_the_search_sent(shell: Shell, server: Served, form: PromptForm) -> None:
    tool("lm_eval", "pip install 'lm-eval[api]'")
    path, folder = exported(shell, "lm-eval", server.url, form)
    run(shell, "sh", folder / "run.sh")
    assert sent(server, form) == wanted(path, form)
    assert list((folder / "results").rglob("samples_*.jsonl"))
