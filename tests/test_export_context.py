"""What becomes of an export whose shots do not fit the context of the model that it names."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from drpo.compose import PromptForm
from drpo.config_use import UseConfig
from drpo.errors import InputError
from drpo.exporting.context import CHARACTERS_PER_TOKEN
from drpo.exporting.exporting import Exported, export_alignment
from drpo.types import Example
from drpo.use.asking import Asked, using
from drpo.use.plan import use_plan
from tests.support import fake_vllm
from tests.support.command import Shell
from tests.support.export_cases import QUERY, alignment, examples, written
from tests.support.fake_vllm_http import FrontEnd
from tests.support.processes import free_port

LONG = "word " * 300
"""Of a shot; the stand-in counts a token a word."""


def long_one(folder: Path, form: PromptForm = "chat", system: str = "Be kind.", found_for: str = "") -> Path:
    """An alignment with two shots of 300 words each."""
    shots = tuple(Example(one.query, LONG) for one in examples("x"))
    known = alignment(form, hard="x", system_prompt=system, examples=shots)
    path = folder / "long.json"
    (replace(known, models={"base": found_for}) if found_for else known).save(path)
    return path


def no_end() -> NoReturn:
    raise AssertionError("the server was to die")


@asynccontextmanager
async def server(context: int, model: str = "org/m", key: str = "") -> AsyncIterator[FrontEnd]:
    """A stand-in for vLLM with a context of so many tokens."""
    flags = ["serve", model, "--port", "0", "--max-model-len", str(context)]
    front = FrontEnd(fake_vllm.planned(flags, {"VLLM_API_KEY": key} if key else {}), no_end)
    async with front:
        yield front


async def exported(path: Path, folder: Path, model: str | None, target: str = "openai") -> Exported:
    config = UseConfig(model=model, base_max_tokens=100, embedder="lexical")
    return await export_alignment(str(path), target, config, {}, folder=folder, shots_for=QUERY)


@pytest.mark.parametrize(("context", "shots"), [(900, 2), (500, 1), (200, 0)])
@pytest.mark.parametrize("form", ["chat", "chat-without-system", "text"])
async def test_a_server_is_asked_and_the_shots_are_those_that_it_is_shown(
    tmp_path: Path, form: PromptForm, context: int, shots: int
) -> None:
    path = long_one(tmp_path, form)
    name = "org/base" if form == "text" else "org/m"
    async with server(context, name) as front:
        model = f"vllm/{name}@{front.url}"
        done = await exported(path, tmp_path / "made", model, "text")
        config = UseConfig(model=model, base_max_tokens=100, embedder="lexical", prompt_form=form)
        async with using(use_plan("use", str(path), config, {}), {}, print) as ready:
            asked = await ready.asked(QUERY)
    assert isinstance(asked, Asked) and len(asked.shots) == shots
    files = [file for file in done.files if file.name != "NOTES.txt"]
    held = [file.read_text("utf-8").replace("QUERY", QUERY) for file in files]
    request = asked.request
    assert held == ([request.prompt] if form == "text" else [turn.content for turn in request.messages])
    told = " ".join(done.notes)
    assert (f"{context} tokens, as its server says" in told) == (shots < 2)
    assert (f"Left out: the last {2 - shots} of 2 examples" in told) == (shots < 2)
    assert "characters a token" not in told
    assert ("No examples are shown" in told) == (shots == 0)


async def test_what_fits_no_context_without_shots_is_refused_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    path = long_one(tmp_path, system=LONG)
    async with server(300) as front:
        with pytest.raises(InputError, match=r"the system prompt alone.*300 tokens.*answer of 100"):
            await exported(path, tmp_path / "made", f"vllm/org/m@{front.url}")
    assert not (tmp_path / "made").exists()


async def test_a_server_that_does_not_answer_is_told_of_and_all_shots_are_kept(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    done = await exported(long_one(tmp_path), tmp_path / "made", f"vllm/org/m@{url}", "messages")
    assert f"The server at {url} did not say how long the context of org/m is." in done.notes
    assert len(json.loads(done.files[0].read_text())["messages"]) == 5
    async with server(200, key="another") as front:
        done = await exported(long_one(tmp_path), tmp_path / "again", f"vllm/org/m@{front.url}")
    assert "VLLM_API_KEY" in " ".join(done.notes)


async def test_a_file_does_not_decide_that_a_server_is_asked(tmp_path: Path) -> None:
    async with server(200) as front:
        path = long_one(tmp_path, found_for=f"vllm/org/m@{front.url}")
        done = await exported(path, tmp_path / "made", None, "messages")
    assert len(json.loads(done.files[0].read_text())["messages"]) == 5


@pytest.mark.parametrize(
    ("flags", "known"),
    [
        (("--model", "llama-2-7b-chat", "--base-max-tokens", 3600), "4096 tokens, as the catalog says"),
        (("--vllm-arg", "max-model-len=600", "--base-max-tokens", 104), "600 tokens, as --vllm-arg says"),
        (("--model", "vllm/./small", "--base-max-tokens", 15), "511 tokens, as its config.json says"),
    ],
)
def test_without_a_server_tokens_are_estimated(shell: Shell, flags: tuple[object, ...], known: str) -> None:
    (shell.folder / "small").mkdir()
    shell.write("small/config.json", json.dumps({"max_position_embeddings": 511}))
    path = long_one(shell.folder)
    given = ("export", path, "--to", "messages", "--shots-for", QUERY, *flags)
    ran = shell.done(*given, "-o", "made")
    data = json.loads((shell.folder / "made" / "messages.json").read_text())
    # A shot has about 1,530 characters, and 496 tokens or less are left of each context.
    assert len(data["messages"]) == 3 and 1 < len(LONG) / CHARACTERS_PER_TOKEN / 248 < 2
    for said in (ran.err, " ".join(data["note"])):
        assert known in said and "Left out: the last 1 of 2 examples" in said
        assert "counted as 4 characters a token" in said and "the 1 example shown is" in said
    ran = shell.done(*given, "-o", "whole", "--long-prompts", "as-is")
    assert len(json.loads((shell.folder / "whole" / "messages.json").read_text())["messages"]) == 5
    assert "Left out" not in ran.err


def test_the_longest_query_of_an_example_counts_where_none_is_given(shell: Shell) -> None:
    path = written(shell.folder, hard="word " * 400, system_prompt="Be kind.")
    flags = ("--vllm-arg", "max-model-len=500", "--base-max-tokens", 100)
    said = shell.refused(2, "export", path, "--to", "messages", *flags)
    assert 'the query "My tap is leaking water, help word word' in said
    shell.done("export", path, "--to", "messages", "-o", "made", *flags, "--shots-for", QUERY)


def test_an_answer_as_long_as_the_context_is_refused(shell: Shell) -> None:
    path = long_one(shell.folder)
    flags = ("--to", "messages", "--vllm-arg", "max-model-len=2k")
    said = shell.refused(2, "export", path, *flags)
    assert "--base-max-tokens 2048" in said and "2000 tokens" in said and "--base-max-tokens 500" in said


def test_a_refusal_is_one_line_with_exit_code_2(shell: Shell) -> None:
    path = long_one(shell.folder, system=LONG * 20)
    said = shell.refused(2, "export", path, "--to", "messages", "--model", "llama-2-7b-chat")
    assert "the system prompt alone" in said and "4096 tokens, as the catalog says" in said
