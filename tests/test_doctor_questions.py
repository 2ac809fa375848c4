"""What the doctor asks: what a run would send, put into one tiny request; and what is refused of it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from drpo.config import OptimizeConfig
from drpo.llm.connections import Connections
from drpo.llm.limits import Stop
from drpo.plan import optimize_plan
from drpo.settings import resolve
from drpo.wiring import EmbeddingLimits, build_retriever
from tests.support import fake_vllm
from tests.support.doctor import KEY, NOBODY, Handler, amiss, examined, in_folder, only, refusing, told
from tests.support.fake_vllm_http import FrontEnd
from tests.support.mock_openai import MockServer, Reply, drpo_answers, error


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    in_folder(tmp_path, monkeypatch)
    return tmp_path


async def test_a_model_of_several_roles_is_asked_once_with_all_that_they_would_send() -> None:
    async with MockServer(drpo_answers) as server:
        name = f"openai/optimizer@{server.url}"
        findings = await examined(model=name, optimizer=name, samples=4, optimizer_temperature=0.7)
        (body,) = server.bodies()
    assert amiss(findings) == []
    assert (body["n"], body["temperature"], body["top_p"], body["max_tokens"]) == (4, 0.7, 0.95, 16)
    assert "seed" in body and [message["role"] for message in body["messages"]] == ["system", "user"]
    assert told(findings, "endpoint")[0].said.startswith("base, optimizer, evaluator, selector: optimizer at")


async def test_what_a_model_refuses_is_known_before_the_run() -> None:
    async with MockServer(refusing("temperature", "seed", "n", "max_tokens")) as server:
        findings = await examined(model="demo", optimizer=f"openai/optimizer@{server.url}", evaluator="demo")
        last = server.bodies()[-1]
        assert len(server.requests) == findings.sent == 5
    assert not {"temperature", "seed", "n", "max_tokens"} & last.keys() and "top_p" in last
    warned = [check.said.rpartition(" ")[2] for check in amiss(findings)]
    assert warned == ["temperature", "seed", "n", "max_tokens"] and findings.exit_code == 0
    assert "--max-thinking-tokens" in amiss(findings)[3].remedy


async def test_thinking_that_is_bounded_is_asked_for_as_a_run_does() -> None:
    async with MockServer(refusing("max_tokens")) as server:
        settings = {"evaluator": "demo", "max_thinking_tokens": 100}
        await examined(model="demo", optimizer=f"openai/optimizer@{server.url}", **settings)
        assert server.bodies()[-1]["max_completion_tokens"] == 116


async def test_what_the_catalog_knows_to_be_refused_is_not_sent_and_no_warning() -> None:
    async with MockServer(drpo_answers) as server:
        env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url}
        findings = await examined(env, model="gpt-6.1-sol", evaluator="demo")
        (body,) = server.bodies()
    assert amiss(findings) == [] and not {"temperature", "top_p", "max_tokens"} & body.keys()
    assert "known to take no max_tokens and no temperature" in told(findings, "endpoint")[1].said


async def test_a_server_that_ignores_n_is_found_out() -> None:
    async with MockServer(only("ok")) as server:
        findings = await examined(model="demo", optimizer=f"openai/x@{server.url}", evaluator="demo")
    (check,) = amiss(findings)
    assert "ignores n: 1 of 3 replies came" in check.said and "by itself" in check.remedy


@asynccontextmanager
async def vllm(folder: Path, model: str, context: int = 4096) -> AsyncIterator[FrontEnd]:
    """A stand-in's front end, which plays all roles and counts tokens."""

    def no_end() -> NoReturn:
        raise AssertionError("the server was to die")

    flags = ["serve", model, "--port", "0", "--max-model-len", str(context)]
    written = {"FAKE_VLLM_REQUESTS": str(folder / "requests.jsonl")}
    server = FrontEnd(fake_vllm.planned(flags, written), no_end)
    async with server:
        yield server


@pytest.mark.parametrize(
    ("model", "roles"),
    [
        ("org/m", ["system", "user"]),
        ("org/nosystem", ["user"]),
        ("org/tiny-base", None),
    ],
)
async def test_the_base_model_is_asked_as_its_tokenizer_says(
    folder: Path, model: str, roles: list[str] | None
) -> None:
    async with vllm(folder, model) as server:
        findings = await examined(model=f"vllm/{model}@{server.url}")
    assert findings.exit_code == 0 and findings.sent == 1
    asked = json.loads((folder / "requests.jsonl").read_text().splitlines()[-1])["body"]
    if roles is None:
        assert asked["prompt"].rstrip().endswith("# Answer") and asked["stop"] == ["\n# Query"]
        assert "answered as a page to continue" in told(findings, "endpoint")[1].said
    else:
        assert [message["role"] for message in asked["messages"]] == roles
    assert "4096 tokens of prompt and answer" in told(findings, "context")[0].said


async def test_a_context_without_room_for_a_prompt_is_a_problem(folder: Path) -> None:
    async with vllm(folder, "org/m", context=2000) as server:
        findings = await examined(model=f"vllm/org/m@{server.url}")
        assert [(c.name, c.exit_code) for c in amiss(findings)] == [("context", 2)]
        findings = await examined(model=f"vllm/org/m@{server.url}", long_prompts="as-is")
        assert amiss(findings) == []


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (refusing("response_format"), "refuses reply_schema"),
        (only(Reply(texts=("ok", "ok", "ok"))), "does not keep to it"),
        (only(Reply(texts=('{"analysis"',) * 3)), None),
    ],
)
async def test_a_schema_is_sent_where_a_run_would_and_its_refusal_is_told(
    handler: Handler, said: str | None
) -> None:
    async with MockServer(handler) as server:
        findings = await examined(model="demo", optimizer=f"vllm/optimizer@{server.url}", evaluator="demo")
        assert server.bodies()[0]["response_format"]["type"] == "json_schema"
    assert [said in check.said for check in amiss(findings) if said] == ([True] if said else [])
    async with MockServer(handler) as server:
        name = f"vllm/optimizer@{server.url}"
        await examined(model="demo", optimizer=name, evaluator="demo", structured="off")
        assert "response_format" not in server.bodies()[0]


async def test_what_the_doctor_has_sent_is_told_with_its_price(folder: Path) -> None:
    async with vllm(folder, "org/m") as server:
        findings = await examined(model=f"vllm/org/m@{server.url}", price=("base=1000000/1000000",))
    (check,) = told(findings, "requests")
    found = re.search(r"(\d+) tokens read and (\d+) written, \$(\d+)\.00", check.said)
    assert found is not None and int(found[1]) + int(found[2]) == int(found[3]) > 10
    assert check.said.startswith("1 sent by this doctor") and "4 questions to servers" in check.said


async def test_a_price_that_is_unknown_is_told_and_refused_with_a_limit() -> None:
    settings = {"model": f"openai/base@{NOBODY}"}
    findings = await examined(**settings)
    assert "price unknown (--max-usd would need --price base=IN/OUT)" in [c.said for c in findings.checks]
    assert [c.exit_code for c in amiss(await examined(**settings, max_usd=1.0))] == [5, 2]
    priced = await examined(**settings, max_usd=1.0, price=("base=1/2",))
    assert [c.exit_code for c in amiss(priced)] == [5]


EMBEDDERS = [
    ("openai/e@{url}", {"DRPO_EMBEDDER_API_KEY": "sk-embedder", "OPENAI_API_KEY": "sk-openai"}),
    ("openai/e@{url}", {"OPENAI_API_KEY": "sk-openai", "VLLM_API_KEY": "sk-vllm"}),
    ("openai/e", {"OPENAI_BASE_URL": "{url}", "OPENAI_API_KEY": "sk-openai"}),
    ("openai/e@{url}", {"OPENAI_BASE_URL": "{url}", "OPENAI_API_KEY": "sk-openai"}),
    ("vllm/e@{url}", {"VLLM_API_KEY": "sk-vllm", "OPENAI_API_KEY": "sk-openai"}),
    ("vllm/e@{url}", {"VLLM_API_KEY": "sk-vllm", "DRPO_EMBEDDER_API_KEY": "sk-embedder"}),
]


@pytest.mark.parametrize(("embedder", "env"), EMBEDDERS)
async def test_an_embedder_is_asked_once_where_and_with_the_key_that_a_run_would_send(
    embedder: str, env: dict[str, str]
) -> None:
    async with MockServer() as server:
        embedder = embedder.format(url=server.url)
        env = {"DRPO_CACHE_DIR": "cache", **{name: text.format(url=server.url) for name, text in env.items()}}
        findings = await examined(env, model="demo", embedder=embedder)
        assert findings.exit_code == 0 and findings.sent == 1
        assert "a vector of 8 numbers" in told(findings, "embedder")[0].said
        plan = optimize_plan(resolve(OptimizeConfig, {"model": "demo", "embedder": embedder}, {}), env)
        connections, limits = Connections(), EmbeddingLimits()
        examples = plan.inputs.examples.examples
        await build_retriever(embedder, examples, connections, env, Stop(), limits).top_k(["ok"], 1)
        await connections.aclose()
        sent = [(seen.path, seen.headers.get("authorization")) for seen in server.requests]
    assert len(sent) == 3 and len(set(sent)) == 1


@pytest.mark.parametrize(
    ("settings", "said", "code"),
    [
        ({"embedder": f"openai/e@{NOBODY}"}, "openai/e@http://127.0.0.1:9/v1: expected a vector per text", 5),
        ({"embedder": "vllm/e"}, "drpo starts no embedding servers", 2),
        ({"embedder": "word2vec"}, "expected lexical, sentence-transformers/NAME", 2),
        ({"embedder": f"openai/e@{NOBODY},http://127.0.0.1:7/v1"}, "expected one URL, came 2", 2),
    ],
)
async def test_an_embedder_that_cannot_be_used_is_a_problem(
    settings: dict[str, str], said: str, code: int
) -> None:
    findings = await examined(model="demo", **settings)
    (check,) = amiss(findings)
    assert said in check.said and check.remedy and findings.exit_code == code


async def test_a_refused_key_of_the_embedder_is_named_by_its_variable() -> None:
    async with MockServer() as server:
        server.decide = lambda seen: (0.0, error(401, f"no {KEY}"))  # type: ignore[method-assign]
        env = {"DRPO_EMBEDDER_API_KEY": KEY}
        findings = await examined(env, model="demo", embedder=f"openai/e@{server.url}")
    (check,) = amiss(findings)
    assert check.exit_code == 3 and "(DRPO_EMBEDDER_API_KEY)" in check.remedy and KEY not in str(check)
