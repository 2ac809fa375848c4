"""Every way in which an alignment leaves drpo, and the token ids that a real model reads by each."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drpo
from drpo.compose import PromptForm
from tests.support.command import Shell
from tests.support.export_cases import (
    ask_only,
    run_in_inspect,
    run_in_lm_eval,
    run_in_promptfoo,
    run_tool,
)
from tests.support.real_vllm import KEY, ROOT, Reader, exported_server, posted
from tests.test_export_modelfile import read_modelfile

LONGEST = ("--base-max-tokens", 48)


@dataclass(frozen=True)
class Searched:
    """A run of one form, and a query that its search has asked with the prompt that it found.

    ids: what the model read then. door: where `drpo serve` serves the run. reader: what stands behind both.
    """

    form: PromptForm
    run: Path
    query: str
    ids: tuple[int, ...]
    door: str
    reader: Reader

    @property
    def model(self) -> str:
        return f"vllm/demo-lm@{self.reader.url}"

    def read(self) -> tuple[int, ...]:
        """What the model has read since, which was asked once."""
        (read,) = self.reader.taken()
        return read.ids

    def told(self, asked: str | list[dict[str, str]]) -> tuple[int, ...]:
        """What it would read of a page or a chat."""
        if isinstance(asked, str):
            body: dict[str, Any] = {"prompt": asked, "add_special_tokens": True}
        else:
            body = {"messages": asked, "add_generation_prompt": True}
        return tuple(posted(self.reader.url, "/tokenize", body)["tokens"])


def said_in(body: dict[str, Any]) -> str:
    """All that a request says."""
    return body.get("prompt") or "\n".join(message["content"] for message in body["messages"])


def by_serve(one: Searched, shell: Shell) -> tuple[int, ...]:
    from openai import OpenAI

    with OpenAI(base_url=one.door, api_key="none") as client:
        chat: Any = {"model": "run", "messages": [{"role": "user", "content": one.query}]}
        client.chat.completions.create(**chat)
        with client.chat.completions.create(**chat, stream=True) as coming:
            assert list(coming)
        client.completions.create(model="run", prompt=one.query)
        with client.completions.create(model="run", prompt=one.query, stream=True) as texts:
            assert list(texts)
    ids = {read.ids for read in one.reader.reads}
    assert len(one.reader.taken()) == 4 and len(ids) == 1
    return ids.pop()


def by_generate(one: Searched, shell: Shell) -> tuple[int, ...]:
    shell.write("queries.jsonl", json.dumps({"query": one.query}))
    shell.done("generate", one.run, "--in", "queries.jsonl", "--run-dir", "made", *LONGEST)
    return one.read()


def by_chat(one: Searched, shell: Shell) -> tuple[int, ...]:
    run_tool(
        shell.folder,
        *("sh", "-c", 'echo "$1" | "$0" -m drpo chat "$2" --base-max-tokens 48', sys.executable),
        *(one.query, one.run),
        env={"VLLM_API_KEY": KEY},
    )
    return one.read()


def by_load(one: Searched, shell: Shell) -> tuple[int, ...]:
    with drpo.load(one.run, base_max_tokens=LONGEST[1]) as aligned:
        aligned.complete(one.query)
        ids = one.told(_rendered(aligned, one))
        assert one.read() == ids
        assert "".join(aligned.stream(one.query))
        assert one.read() == ids
    return ids


def _rendered(aligned: Any, one: Searched) -> str | list[dict[str, str]]:
    found: str | list[dict[str, str]] = (
        aligned.prompt(one.query) if one.form == "text" else aligned.messages(one.query)
    )
    return found


def made(one: Searched, shell: Shell, target: str, *flags: object) -> Path:
    """The folder of an export whose shots are those of the query."""
    near = ("--shots-for", one.query, "--tokenizer", ROOT / "demo-lm", *LONGEST)
    shell.done("export", one.run, "--to", target, "-o", "made", *near, *flags)
    assert one.reader.taken() == []
    ask_only(shell.folder / "made", one.query)
    return shell.folder / "made"


def by_chat_template(one: Searched, shell: Shell) -> tuple[int, ...]:
    return _rendered_by(made(one, shell, "chat-template"), one)


def _rendered_by(folder: Path, one: Searched) -> tuple[int, ...]:
    """What vLLM and transformers make of the query by the chat template in a folder."""
    from transformers import AutoTokenizer

    text = (folder / "chat_template.jinja").read_bytes().decode()
    chat = [{"role": "user", "content": one.query}]
    body = {"messages": chat, "add_generation_prompt": True, "chat_template": text}
    ids = tuple(posted(one.reader.url, "/tokenize", body)["tokens"])
    known = AutoTokenizer.from_pretrained(str(ROOT / "demo-lm"))
    applied = {"chat_template": text, "add_generation_prompt": True, "return_dict": False}
    assert tuple(known.apply_chat_template(chat, **applied)) == ids
    return ids


def by_messages(one: Searched, shell: Shell) -> tuple[int, ...]:
    data = json.loads((made(one, shell, "messages") / "messages.json").read_text("utf-8"))
    query = data["query"]
    asked = {"role": query["role"], "content": query["before"] + one.query + query["after"]}
    return one.told([*data["messages"], asked])


def by_openai(one: Searched, shell: Shell, target: str = "openai") -> tuple[int, ...]:
    script = made(one, shell, target) / "ask.py"
    run_tool(shell.folder, sys.executable, script, one.query, env={"OPENAI_API_KEY": KEY})
    return one.read()


def by_promptfoo(one: Searched, shell: Shell) -> tuple[int, ...]:
    run_in_promptfoo(shell.folder, made(one, shell, "promptfoo"), env={"OPENAI_API_KEY": KEY})
    return one.read()


def by_inspect(one: Searched, shell: Shell) -> tuple[int, ...]:
    folder = made(one, shell, "inspect")
    run_in_inspect(shell.folder, folder, "demo-lm", one.reader.url, env={"LOCAL_API_KEY": KEY})
    return one.read()


def by_lm_eval(one: Searched, shell: Shell) -> tuple[int, ...]:
    run_in_lm_eval(shell.folder, made(one, shell, "lm-eval"), env={"OPENAI_API_KEY": KEY})
    return one.read()


def by_modelfile(one: Searched, shell: Shell) -> tuple[int, ...]:
    chat: list[dict[str, str]] = []
    for name, value in read_modelfile((made(one, shell, "modelfile") / "Modelfile").read_text("utf-8")):
        if name == "SYSTEM" or name.startswith("MESSAGE "):
            chat.append({"role": name.lower().removeprefix("message "), "content": value})
    return one.told([*chat, {"role": "user", "content": one.query}])


def by_text(one: Searched, shell: Shell) -> tuple[int, ...]:
    folder = made(one, shell, "text")
    if one.form == "text":
        return one.told((folder / "prompt.txt").read_bytes().decode().replace("QUERY", one.query))
    files = sorted(file for file in folder.iterdir() if file.name != "NOTES.txt")
    chat = [{"role": file.stem.partition("-")[2], "content": file.read_bytes().decode()} for file in files]
    chat[-1]["content"] = chat[-1]["content"].replace("QUERY", one.query)
    return one.told(chat)


def by_vllm(one: Searched, shell: Shell) -> tuple[int, ...]:
    """The script of the export starts the server; of a page, another one asks it."""
    if one.form == "text":
        return by_openai(one, shell, "vllm")
    flags = [part for flag in ("dtype=float32", "enforce-eager") for part in ("--vllm-arg", flag)]
    folder = made(one, shell, "vllm", "--model", f"vllm/{ROOT / 'demo-lm'}", *flags)
    if one.form == "chat-without-system":  # one start of a server is enough
        return _rendered_by(folder, one)
    asked = {"messages": [{"role": "user", "content": one.query}], "max_tokens": 1, "return_token_ids": True}
    with exported_server(folder / "serve.sh", shell.folder) as url:
        reply = posted(url, "/v1/chat/completions", {**asked, "model": str(ROOT / "demo-lm")})
    return tuple(reply["prompt_token_ids"])


WAYS: dict[str, Callable[[Searched, Shell], tuple[int, ...]]] = {
    "serve": by_serve,
    "generate": by_generate,
    "chat": by_chat,
    "load": by_load,
    "chat-template": by_chat_template,
    "messages": by_messages,
    "openai": by_openai,
    "promptfoo": by_promptfoo,
    "inspect": by_inspect,
    "lm-eval": by_lm_eval,
    "modelfile": by_modelfile,
    "text": by_text,
    "vllm": by_vllm,
}
