"""What a server tells of its model: asked with patience, refused in words, never trusted to make sense."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from drpo.errors import DrpoError, ProviderDown, ProviderRefused
from drpo.llm.base import Message, Request
from drpo.llm.connections import Connections, Endpoint, sdk_options
from drpo.llm.limits import Stop
from drpo.llm.retry import Patience, Transient
from drpo.llm.vllm.process import Address, Probe
from drpo.llm.vllm.tokens import Refusal, ServerFacts
from tests.support.mock_openai import Answer, MockServer, Reply, Seen, error

KEY = "secret-of-this-server"
HELLO = Request("", messages=(Message("system", "Be kind."), Message("user", "Hello")))


class FactsServer(MockServer):
    """A server that is asked for facts: each request gets the next reply, the last one for ever."""

    replies: tuple[Reply, ...] = ()

    def decide(self, seen: Seen) -> tuple[float, Answer]:
        self.requests.append(seen)
        return 0.0, self.replies[min(len(self.requests), len(self.replies)) - 1]


@pytest.fixture
async def server() -> AsyncIterator[FactsServer]:
    server = FactsServer()
    async with server:
        yield server


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    connections = Connections()
    yield connections
    await connections.aclose()


@pytest.fixture
def facts(server: FactsServer, connections: Connections) -> ServerFacts:
    return asking(Endpoint(server.url, KEY), connections)


def asking(
    endpoints: Endpoint | Iterator[Endpoint], connections: Connections, *, deadline_s: float = 60.0
) -> ServerFacts:
    """Asks for the model `m`, at several endpoints in turn, and never waits between tries."""
    turns = itertools.repeat(endpoints) if isinstance(endpoints, Endpoint) else endpoints

    async def where() -> Endpoint:
        return next(turns)

    async def no_wait(seconds: float) -> bool:
        return False

    patience = Patience(Stop(), random.Random(0), deadline_s=deadline_s, sleep=no_wait)
    return ServerFacts(where, connections, "m", patience, 5.0)


def tokens(*ids: object) -> Reply:
    return Reply(body={"count": len(ids), "max_model_len": 9, "tokens": list(ids), "token_strs": None})


def models(**limits: object) -> Reply:
    return Reply(body={"object": "list", "data": [{"id": i, "max_model_len": n} for i, n in limits.items()]})


async def test_a_chat_is_counted_as_the_model_reads_it(server: FactsServer, facts: ServerFacts) -> None:
    server.replies = (tokens(1, 5, 7),)
    assert await facts.tokens(HELLO) == (1, 5, 7)
    (seen,) = server.requests
    assert (seen.method, seen.path) == ("POST", "/tokenize")
    assert seen.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}],
        "add_generation_prompt": True,
    }


async def test_a_page_is_counted_with_its_first_token(server: FactsServer, facts: ServerFacts) -> None:
    server.replies = (tokens(1),)
    await facts.tokens(Request("", prompt="# Query\nWhy?"))
    assert server.bodies() == [{"model": "m", "prompt": "# Query\nWhy?", "add_special_tokens": True}]


async def test_the_context_is_that_of_the_model_asked_for(server: FactsServer, facts: ServerFacts) -> None:
    server.replies = (models(other=5, m=4096),)
    assert await facts.context_tokens() == 4096
    assert [seen.path for seen in server.requests] == ["/v1/models"]


@pytest.mark.parametrize(
    "reply",
    [
        models(other=5),
        models(m=None),
        models(m=0),
        models(m="many"),
        Reply(body={"data": None}),
        Reply(body={"data": ["m"]}),
        Reply(body=["m"]),
        Reply(body=b"<html>"),
        Reply(status=404, body={"detail": "Not Found"}),
    ],
)
async def test_a_context_that_is_not_told_is_unknown(
    server: FactsServer, facts: ServerFacts, reply: Reply
) -> None:
    server.replies = (reply,)
    assert await facts.context_tokens() is None


@pytest.mark.parametrize(
    ("reply", "refusal"),
    [
        (Reply(status=404, body={"detail": "Not Found"}), Refusal(404, "Not Found")),
        (error(400, "no chat template"), None),
        (Reply(body=b"not json"), Refusal(200, "a reply that is not JSON")),
        (Reply(body=b""), Refusal(200, "a reply that is not JSON")),
        (tokens("a", "b"), Refusal(200, "no list of token ids came")),
        (Reply(body={"count": 3}), Refusal(200, "no list of token ids came")),
        (Reply(body=[1, 2]), Refusal(200, "no list of token ids came")),
    ],
)
async def test_what_a_server_does_not_tell_is_a_refusal(
    server: FactsServer, facts: ServerFacts, reply: Reply, refusal: Refusal | None
) -> None:
    server.replies = (reply,)
    said = await facts.tokens(HELLO)
    assert isinstance(said, Refusal)
    assert said == refusal if refusal else said.status == 400 and "no chat template" in said.said
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_wrong_key_is_named_but_not_shown(
    server: FactsServer, facts: ServerFacts, status: int
) -> None:
    server.replies = (error(status, f"Incorrect API key provided: {KEY}"),)
    with pytest.raises(ProviderRefused, match=f"HTTP {status}.*Check this endpoint's API key") as caught:
        await facts.tokens(HELLO)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "failing",
    [
        error(503, "starting"),
        error(429, "slow down"),
        error(500, "EngineCore encountered an issue. See stack trace (above) for the root cause."),
        Reply(fault="reset"),
        Reply(fault="cut"),
    ],
)
async def test_what_may_pass_is_asked_again(server: FactsServer, facts: ServerFacts, failing: Reply) -> None:
    server.replies = (failing, failing, tokens(3))
    assert await facts.tokens(HELLO) == (3,)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [401, 503])
async def test_a_message_names_the_address_that_was_asked(
    server: FactsServer, connections: Connections, status: int
) -> None:
    server.replies = (error(status, "no"),)
    asked = asking(Endpoint(server.url, KEY), connections, deadline_s=0.0)
    root = server.url.removesuffix("/v1")
    with pytest.raises(DrpoError, match=re.escape(f"m at {root}/tokenize: HTTP {status}")):
        await asked.tokens(HELLO)
    with pytest.raises(DrpoError, match=re.escape(f"m at {root}/v1/models: HTTP {status}")):
        await asked.context_tokens()


async def test_the_time_of_the_first_try_counts(
    server: FactsServer, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[Transient] = []

    async def insist(self: Patience, first: Transient, work: Any) -> Any:
        began.append(first)
        return await work()

    monkeypatch.setattr(Patience, "insist", insist)
    server.replies = (error(503, "starting"), tokens(3))
    assert await asking(Endpoint(server.url, KEY), connections).tokens(HELLO) == (3,)
    assert began[0].took_s > 0.0


async def test_what_is_worked_out_for_a_server_is_kept_beside_that_of_the_others(
    server: FactsServer, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Endpoint] = []

    def counting(endpoint: Endpoint) -> Any:
        made.append(endpoint)
        return sdk_options(endpoint)

    monkeypatch.setattr("drpo.llm.vllm.tokens.sdk_options", counting)
    server.replies = (tokens(3),)
    both = [Endpoint(server.url, KEY), Endpoint(server.url.replace("127.0.0.1", "localhost"), KEY)]
    facts = asking(itertools.cycle(both), connections)
    for _ in range(4):
        assert await facts.tokens(HELLO) == (3,)
    assert made == both


async def test_patience_ends_and_the_key_is_not_shown(server: FactsServer, connections: Connections) -> None:
    server.replies = (error(503, f"no, {KEY}"),)
    with pytest.raises(ProviderDown, match="gave up") as caught:
        await asking(Endpoint(server.url, KEY), connections, deadline_s=0.0).tokens(HELLO)
    assert KEY not in str(caught.value)


async def test_only_a_key_that_belongs_to_the_server_is_sent(
    server: FactsServer, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "openais-own")
    server.replies = (tokens(1),)
    await asking(Endpoint(server.url, KEY), connections).tokens(HELLO)
    await asking(Endpoint(server.url, None), connections).tokens(HELLO)
    assert [seen.headers.get("authorization") for seen in server.requests] == [f"Bearer {KEY}", None]
    assert not any("openais-own" in str(seen.headers) for seen in server.requests)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (models(m=9, other=None), {"m": 9, "other": None}),
        (Reply(status=401, body={"error": "Unauthorized"}), {}),
        (Reply(body=b"<html>"), {}),
        (Reply(fault="reset"), None),
    ],
)
async def test_a_server_that_breaks_off_is_not_taken_for_another(
    server: FactsServer, reply: Reply, told: dict[str, int | None] | None
) -> None:
    server.replies = (reply,)
    probe = Probe()
    try:
        assert await probe.models(Address("127.0.0.1", int(server.url.split(":")[2][:-3])), 5.0) == told
    finally:
        await probe.aclose()


async def test_asking_often_does_not_grow(server: FactsServer, connections: Connections) -> None:
    server.replies = (tokens(1),)
    endpoint = Endpoint(server.url, None)
    facts = asking(endpoint, connections)
    for _ in range(5):
        await facts.tokens(HELLO)
    client: Any = connections.client(endpoint)
    assert len(client._known_headers) == 1
