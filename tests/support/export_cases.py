"""Alignments that are hard to write down, and what the search would have sent for them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from drpo import load
from drpo.alignment import Alignment, Found, template_digest
from drpo.compose import PromptForm, Sampling
from drpo.templates import Templates
from drpo.types import Example

# What means something to Jinja, Nunjucks, Go, YAML, Python, a shell or a parser of lines.
PRINTED = (
    "One\r\nTwo\tthree {{ x }} {% endraw %}{% raw %} {# c #} }} %} #} -#} {{{ {{{{ ''' ' \" \"\" \\ \\n"
    " \\u0041 $HOME `id` $(id) ! # : - & * @ % </s> <|end|> 子 é 😀 ---\n\n# Query\n: a\n \n"
)
UNPRINTED = " \u2028 \u00a0 \u200d \x07 \x1b[31m \x85 \ufeff {"
SYSTEM = f"Be kind. {PRINTED}{UNPRINTED}"
QUERY = "How do I fix a leaking tap?"
"""Near to the fourth example and then the second, by their words."""


def examples(hard: str = PRINTED + UNPRINTED) -> tuple[Example, ...]:
    return (
        Example("Tell me a story about whales", f"Once. {hard}"),
        Example(f"My tap is leaking water, help {hard}", f"Close the valve. {hard}"),
        Example("Who wrote Hamlet?", "Shakespeare."),
        Example("Fix a leaking roof, water comes in", "file:///etc/hostname"),
    )


def alignment(form: PromptForm = "chat", *, hard: str = PRINTED + UNPRINTED, **fields: Any) -> Alignment:
    """An alignment of two shots, found lexically for a model at a server."""
    known: dict[str, Any] = {
        "system_prompt": f"Be kind. {hard}",
        "examples": examples(hard),
        "shots": 2,
        "prompt_form": form,
        "embedder": "lexical",
        "models": {"base": "vllm/some/model"},
        "sampling": Sampling(),
        "template_digest": template_digest(Templates(), form),
        "found": Found({}, None, (), 1, 1, "converged", {}),
        "answer_end": "cut",
    }
    return Alignment(**{**known, **fields})


def written(folder: Path, form: PromptForm = "chat", **fields: Any) -> Path:
    """The same in a file named after its form."""
    path = folder / f"{form}.json"
    alignment(form, **fields).save(path)
    return path


def searched_messages(path: Path, query: str = QUERY) -> list[dict[str, str]]:
    """The chat that the search sends for `query`."""
    return load(path).messages(query)


def searched_page(path: Path, query: str = QUERY) -> str:
    """The page that the search sends for `query`."""
    return load(path).prompt(query)


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


def tool(name: str, package: str) -> str:
    """The program, wherever it is installed; or the test is left out and says what is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} ({package}) is not on the PATH")
    return found


def run_tool(
    folder: Path, *command: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """What a program says that must succeed. folder: for what it keeps; env: further variables."""
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **QUIET, "PROMPTFOO_CONFIG_DIR": str(folder / "kept"), **(env or {})},
        cwd=cwd or folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def ask_only(folder: Path, query: str) -> None:
    """Make `query` the only one that an export is tried on."""
    if (folder / "queries.jsonl").exists():
        (folder / "queries.jsonl").write_text(json.dumps({"query": query}) + "\n")
    file = folder / "promptfooconfig.yaml"
    if file.exists():
        lines = file.read_text().splitlines(keepends=True)
        told = "".join(line for line in lines if line.startswith("#"))
        config = json.loads("".join(lines)[len(told) :])
        config["tests"] = [{"vars": {"query": query}}]
        file.write_text(told + json.dumps(config))


def run_in_promptfoo(folder: Path, made: Path, env: Mapping[str, str] | None = None) -> None:
    """Have promptfoo ask what an export holds."""
    program = tool("promptfoo", "npm install promptfoo")
    config = made / "promptfooconfig.yaml"
    run_tool(folder, program, "eval", "-c", config, "--no-cache", "--no-write", env=env)


def run_in_inspect(
    folder: Path, made: Path, model: str, url: str, env: Mapping[str, str] | None = None
) -> None:
    """Have Inspect ask what an export holds."""
    program = tool("inspect", "pip install inspect-ai openai")
    flags = ("--model", f"openai-api/local/{model}", "--model-base-url", url, "--log-dir", folder / "logs")
    run_tool(folder, program, "eval", "drpo_alignment.py", *flags, cwd=made, env=env)


def run_in_lm_eval(folder: Path, made: Path, env: Mapping[str, str] | None = None) -> None:
    """Have lm-eval ask what an export holds."""
    tool("lm_eval", "pip install 'lm-eval[api]'")
    run_tool(folder, "sh", made / "run.sh", env=env)
