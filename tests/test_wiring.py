"""Which endpoint embeds the examples, and with which key it is asked."""

from __future__ import annotations

import pytest

from drpo.errors import InputError
from drpo.llm.connections import Connections
from drpo.llm.limits import Stop
from drpo.retrieve import Retriever
from drpo.types import Example
from drpo.wiring import EmbeddingLimits, build_retriever
from tests.support.mock_openai import MockServer

EXAMPLES = (Example("Why is the sky blue?", "Air."), Example("2+2?", "Four."))
OWN, VLLM, OPENAI = (
    {"DRPO_EMBEDDER_API_KEY": "of-the-embedder"},
    {"VLLM_API_KEY": "of-vllm"},
    {"OPENAI_API_KEY": "of-openai"},
)


def retriever(embedder: str, connections: Connections, environment: dict[str, str]) -> Retriever:
    return build_retriever(embedder, EXAMPLES, connections, environment, Stop(), EmbeddingLimits())


@pytest.mark.parametrize(
    ("provider", "environment", "key"),
    [
        ("vllm", {**OWN, **VLLM, **OPENAI}, "of-the-embedder"),
        ("vllm", {**VLLM, **OPENAI}, "of-vllm"),
        ("vllm", OPENAI, None),
        ("openai", {**OWN, **VLLM, **OPENAI}, "of-the-embedder"),
        ("openai", {**VLLM, **OPENAI}, None),
    ],
)
async def test_an_embedding_endpoint_is_asked_with_the_key_that_is_meant_for_it(
    provider: str, environment: dict[str, str], key: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = {**environment, "DRPO_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    connections = Connections()
    async with MockServer() as server:
        found = retriever(f"{provider}/org/emb@{server.url}", connections, environment)
        assert await found.top_k(["2+2?"], 1) == [(1,)]
        await connections.aclose()
    assert {seen.path for seen in server.requests} == {"/v1/embeddings"}
    assert {seen.body["model"] for seen in server.requests} == {"org/emb"}
    sent = {seen.headers.get("authorization") for seen in server.requests}
    assert sent == {f"Bearer {key}" if key else None}


@pytest.mark.parametrize(
    ("embedder", "said"),
    [
        ("vllm/org/emb", r"--embedder vllm/org/emb: expected @URL.*--runner pooling.*vllm/org/emb@http"),
        ("vllm/org/emb@http://127.0.0.1:1/v1,http://127.0.0.1:2/v1", r"expected one URL, came 2"),
        ("openai/emb@http://127.0.0.1:1/v1,http://127.0.0.1:2/v1", r"expected one URL, came 2"),
        ("other/emb", r"expected lexical, .*vllm/NAME@URL"),
    ],
)
def test_an_embedder_that_is_served_nowhere_or_at_two_places_is_refused(embedder: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        retriever(embedder, Connections(), {})
