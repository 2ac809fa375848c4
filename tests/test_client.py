"""The real SDK against a real server on loopback: what goes on the wire, and what each answer becomes."""

import asyncio
import json
import socket
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from drpo.errors import DrpoError, ParameterRefused, ProviderRefused
from drpo.llm.base import LLM, Choice, Completion, Message, Request, Usage
from drpo.llm.client import OpenAIClient
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.limits import Limit, Slots, Stop
from drpo.llm.retry import Retry, Transient, Unconnected
from tests.support.mock_openai import MockServer, Reply, error

KEY = "sk-secret-4711-abcdef"
CHAT = Request(
    "drpo/identity", messages=(Message("system", "be kind"), Message("user", "hi")), role="evaluator"
)
TEXT = Request("drpo/identity", prompt="Once upon", max_tokens=5)


@pytest.fixture
async def server() -> AsyncIterator[MockServer]:
    async with MockServer() as server:
        yield server


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    connections = Connections()
    yield connections
    await connections.aclose()


Make = Callable[..., OpenAIClient]


@pytest.fixture(params=["sdk", "lean"])
def make(server: MockServer, connections: Connections, request: pytest.FixtureRequest) -> Make:
    """Both ways of asking must come to the same."""
    lean = request.param == "lean"

    def make(url: str = "", key: str | None = KEY, timeout_s: float = 30.0, **options: Any) -> OpenAIClient:
        endpoint = Endpoint(url or server.url, key)
        return OpenAIClient(connections, endpoint, "wire-name", timeout_s=timeout_s, lean=lean, **options)

    return make


async def failure(client: LLM, request: Request = CHAT) -> DrpoError:
    """The error that `request` ends with; neither it nor its traceback may hold the key."""
    try:
        completion = await client.complete(request)
    except DrpoError as err:
        told = "".join(traceback.format_exception(err)) + repr(err)
        assert KEY not in told and err.__cause__ is None and err.__context__ is None
        return err
    raise AssertionError(f"expected an error, got {completion}")


async def test_messages_go_to_chat_completions_with_nothing_that_was_not_asked_for(
    server: MockServer, make: Make
) -> None:
    completion = await make().complete(CHAT)
    assert completion.choices == (Choice("ok", "stop"),) and completion.served_model == "wire-name"
    (seen,) = server.requests
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions")
    assert seen.body == {
        "model": "wire-name",
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
    }
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["content-type"] == "application/json"
    assert not [name for name in seen.headers if name.startswith(("x-stainless", "openai-", "idempotency"))]


async def test_a_prompt_goes_to_completions(server: MockServer, make: Make) -> None:
    completion = await make().complete(TEXT)
    assert completion.choices == (Choice("ok", "stop"),)
    assert server.requests[0].path == "/v1/completions"
    assert server.bodies() == [{"model": "wire-name", "prompt": "Once upon", "max_tokens": 5}]


async def test_every_sampling_field_is_sent_when_given(server: MockServer, make: Make) -> None:
    fields: dict[str, Any] = {"temperature": 0.0, "top_p": 0.9, "seed": 0, "n": 3, "max_tokens": 7}
    fields["max_completion_tokens"] = 9
    request = Request("m", messages=(Message("user", "é\ud83d"),), stop=("\n", "END"), **fields)
    server.script.append(Reply(texts=("a", "b", "c")))
    completion = await make().complete(request)
    assert [choice.text for choice in completion.choices] == ["a", "b", "c"]
    (body,) = server.bodies()
    assert body.pop("messages") == [{"role": "user", "content": "é\ud83d"}]
    sent = {"model": "wire-name", "stop": ["\n", "END"], **fields}
    assert body == sent


async def test_a_schema_is_sent_as_a_response_format_in_either_form(server: MockServer, make: Make) -> None:
    schema = {"type": "object", "properties": {"b": {}, "a": {"type": "string"}}}
    client = make()
    for request in (CHAT, TEXT, CHAT):
        await client.complete(replace(request, reply_schema=json.dumps(schema)))
        assert server.bodies()[-1]["response_format"] == {
            "type": "json_schema",
            "json_schema": {"name": "reply", "schema": schema},
        }
        assert list(server.bodies()[-1]["response_format"]["json_schema"]["schema"]["properties"]) == [
            "b",
            "a",
        ]


async def test_a_schema_that_a_server_cannot_use_is_a_refused_parameter(
    server: MockServer, make: Make
) -> None:
    said = "Failed to transform json schema into a grammar"
    for reply in (error(400, said), error(500, said), error(422, "no", param="response_format")):
        server.script.extend([reply, reply])
        failed = await failure(make(), replace(CHAT, reply_schema="{}"))
        assert isinstance(failed, ParameterRefused) and failed.parameter == "reply_schema"
        assert not isinstance(await failure(make()), ParameterRefused)


async def test_more_choices_than_asked_for_are_dropped_and_fewer_are_taken(
    server: MockServer, make: Make
) -> None:
    server.script.extend([Reply(texts=("a", "b")), Reply(texts=("a",))])
    assert len((await make().complete(CHAT)).choices) == 1
    several = Request("m", messages=CHAT.messages, n=4)
    assert len((await make().complete(several)).choices) == 1


async def test_without_a_key_no_authorization_is_sent_not_even_from_the_environment(
    server: MockServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "from-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer from-the-environment")
    await make(key=None).complete(CHAT)
    await make().complete(CHAT)
    without, with_key = (seen.headers for seen in server.requests)
    assert "authorization" not in without and with_key["authorization"] == f"Bearer {KEY}"
    assert "from-the-environment" not in str([without, with_key])


async def test_usage_and_cached_tokens_are_read(server: MockServer, make: Make) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
    choice = {"message": {"content": "x"}, "finish_reason": "length"}
    server.script.append(Reply(body={"choices": [choice], "usage": usage}))
    server.script.append(
        Reply(body={"choices": [choice], "usage": {"prompt_tokens": None, "completion_tokens": "?"}})
    )
    assert await make().complete(CHAT) == Completion((Choice("x", "length"),), Usage(9, 3, 8), "")
    assert (await make().complete(CHAT)).usage == Usage()


@pytest.mark.parametrize(
    ("told", "cached"),
    [
        ({}, None),
        ({"prompt_tokens_details": None}, None),
        ({"prompt_tokens_details": {"audio_tokens": 1}}, None),
        ({"prompt_tokens_details": {"cached_tokens": None}}, None),
        ({"prompt_tokens_details": {"cached_tokens": "?"}}, None),
        ({"prompt_tokens_details": {"cached_tokens": -1}}, None),
        ({"prompt_tokens_details": {"cached_tokens": 0}}, 0),
    ],
)
async def test_cached_tokens_that_are_not_told_are_no_number(
    server: MockServer, make: Make, told: dict[str, object], cached: int | None
) -> None:
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, **told}
    server.script.append(Reply(body={"choices": [choice], "usage": usage}))
    assert (await make().complete(CHAT)).usage == Usage(9, 3, cached)


@pytest.mark.parametrize(
    ("one", "other", "both"), [(None, None, None), (None, 0, 0), (2, None, 2), (2, 3, 5)]
)
def test_what_was_told_of_cached_tokens_is_added(
    one: int | None, other: int | None, both: int | None
) -> None:
    assert Usage(1, 2, one) + Usage(10, 20, other) == Usage(11, 22, both)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": None}, ""),
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
        ({"content": "yes", "refusal": None}, "yes"),
        ({"content": "", "refusal": "no"}, ""),
        ({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "so"}]}, "so"),
        ({"content": "half \ud83d emoji"}, "half � emoji"),
    ],
)
async def test_text_is_found_where_servers_put_it(
    server: MockServer, make: Make, message: dict[str, Any], expected: str
) -> None:
    server.script.append(Reply(body={"choices": [{"message": message, "finish_reason": "length"}]}))
    assert (await make().complete(CHAT)).choices == (Choice(expected, "length"),)


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Welcome</body></html>", b"", b'{"choices": [{"mess', b"null", b"[]", b"{}",
        b"[" * 100_000,
        b'\xff\xfe{"choices"', {"choices": None}, {"choices": []}, {"choices": "x"}, {"choices": [None]},
        {"choices": [{}]}, {"choices": [{"message": None}]}, {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"text": "of the other form"}]}, {"error": {"code": 503, "message": "upstream"}},
        {"error": "odd"}, {"choices": [{"message": {"content": "half"}, "error": {"code": 502}}]},
    ],
)  # fmt: skip
async def test_a_broken_body_is_worth_another_try(server: MockServer, make: Make, body: object) -> None:
    for headers in ({}, {"Content-Type": "text/html"}):
        server.script.append(Reply(body=body, headers=headers))
        assert isinstance(await failure(make()), Transient)


async def test_json_is_read_whatever_the_server_calls_it(server: MockServer, make: Make) -> None:
    server.script.append(Reply(headers={"Content-Type": "text/plain"}))
    assert (await make().complete(CHAT)).choices[0].text == "ok"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
async def test_statuses_that_may_pass_are_worth_another_try(
    server: MockServer, make: Make, status: int
) -> None:
    server.script.append(error(status, "later", retry_after="3"))
    failed = await failure(make())
    assert type(failed) is Transient and failed.retry_after_s == 3.0
    for part in ("evaluator model wire-name", server.url, f"HTTP {status}: later"):
        assert part in str(failed)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["reset", "cut"])
async def test_a_broken_connection_is_worth_another_try(server: MockServer, make: Make, fault: Any) -> None:
    server.script.append(Reply(fault=fault))
    assert isinstance(await failure(make()), Unconnected)
    assert (await make().complete(CHAT)).choices[0].text == "ok"


@pytest.mark.parametrize("fault", ["hang", "trickle"])
async def test_a_whole_request_is_bounded_in_time(server: MockServer, make: Make, fault: Any) -> None:
    server.script.append(Reply(fault=fault))
    failed = await failure(make(timeout_s=0.05))
    assert type(failed) is Transient and 0.05 <= failed.took_s < 5.0
    assert "no complete answer within 0.05 s" in str(failed)


async def test_nobody_listening_is_worth_another_try(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    failed = await failure(make(url=f"http://127.0.0.1:{port}/v1"))
    assert isinstance(failed, Unconnected) and f"127.0.0.1:{port}" in str(failed)


async def test_an_answer_that_is_not_http_is_worth_another_try(make: Make) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP ready\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as strange:
        port = strange.sockets[0].getsockname()[1]
        assert isinstance(await failure(make(url=f"http://127.0.0.1:{port}/v1")), Unconnected)


@pytest.mark.parametrize("url", ["ftp://example.test/v1", "localhost:8000/v1"])
async def test_a_url_that_cannot_be_used_is_refused_at_once(make: Make, url: str) -> None:
    assert type(await failure(make(url=url))) is ProviderRefused


@pytest.mark.parametrize(
    ("reply", "remedy"),
    [
        (error(401, "wrong"), "Check the API key"),
        (error(403, "not yours"), "may use this model"),
        (error(404, "no model"), "Check the model's name"),
        (error(402, "empty"), "Add credit"),
        (error(429, "spent", code="insufficient_quota"), "Add credit"),
        (error(429, "spent", code="billing_hard_limit_reached"), "Add credit"),
        (error(400, "temperature must be <= 1", param="temperature"), "check the model and its settings"),
        (
            Reply(status=422, body={"detail": [{"loc": ["body", "messages"], "msg": "empty"}]}),
            "check the model",
        ),
        (Reply(body={"error": {"code": "invalid_api_key", "message": "wrong"}}), "Check the API key"),
    ],
)
async def test_what_will_not_pass_is_refused_at_once_with_a_remedy(
    server: MockServer, make: Make, reply: Reply, remedy: str
) -> None:
    server.script.append(reply)
    failed = await failure(make())
    assert type(failed) is ProviderRefused and failed.exit_code == 3
    assert remedy in str(failed) and "evaluator model wire-name" in str(failed) and server.url in str(failed)


async def test_a_refusal_without_a_key_says_that_none_was_sent(server: MockServer, make: Make) -> None:
    server.script.append(error(401, "who are you"))
    assert "No key was sent" in str(await failure(make(key=None)))


async def test_a_parameter_that_the_model_does_not_take_is_named_by_its_field(
    server: MockServer, make: Make
) -> None:
    request = Request("m", messages=CHAT.messages, temperature=0.0, max_completion_tokens=9)
    said = "Unsupported parameter: 'max_completion_tokens' is not supported with this model."
    server.script.append(error(400, said, param="max_completion_tokens", code="unsupported_parameter"))
    failed = await failure(make(), request)
    assert isinstance(failed, ParameterRefused) and failed.parameter == "max_completion_tokens"


async def test_a_parameter_that_was_not_sent_is_no_refused_parameter(server: MockServer, make: Make) -> None:
    server.script.append(error(400, "'seed' is not supported", param="seed", code="unsupported_parameter"))
    assert type(await failure(make())) is ProviderRefused


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (error(400, "too many tokens", code="context_length_exceeded"), "context_length"),
        (
            error(400, "This model's maximum context length is 4096 tokens", param="input_tokens"),
            "context_length",
        ),
        (error(400, "the prompt violates our policy", code="content_filter"), "content_filter"),
        (error(400, "your prompt was flagged", code="invalid_prompt"), "content_filter"),
        (Reply(body={"error": {"code": "context_length_exceeded", "message": "x"}}), "context_length"),
    ],
)
async def test_too_long_and_filtered_requests_are_replies_without_text(
    server: MockServer, make: Make, reply: Reply, reason: str
) -> None:
    server.script.append(reply)
    assert await make().complete(CHAT) == Completion((Choice("", reason),))


async def test_no_key_reaches_a_message_whatever_the_server_says(server: MockServer, make: Make) -> None:
    said = f"bad key {KEY} sent as Bearer {KEY}; other sk-proj-12345**78 at http://user:word@host/x"
    for reply in (error(401, said), error(503, said), Reply(body=said.encode()), Reply(body={"x": said})):
        server.script.append(reply)
        message = str(await failure(make()))
        for secret in (KEY, "4711", "12345", "word@"):
            assert secret not in message
        assert "[key]" in message


async def test_a_message_is_one_line_without_markup_of_at_most_300_characters(
    server: MockServer, make: Make
) -> None:
    body = b"<html><h1>Bad\n gateway</h1><p>" + b"long " * 500 + KEY.encode()
    server.script.append(Reply(status=502, body=body, headers={"Content-Type": "text/html"}))
    message = str(await failure(make()))
    said = message.partition("HTTP 502: ")[2]
    assert said.startswith("Bad gateway long") and len(said) == 300 and "\n" not in message


async def test_neither_password_nor_query_of_a_url_is_shown(server: MockServer, make: Make) -> None:
    url = server.url.replace("http://", "http://user:word@") + "?token=hidden"
    endpoint = Endpoint(url, KEY)
    assert endpoint.shown == server.url and KEY not in repr(endpoint)
    server.script.append(error(404, "no"))
    failed = await failure(make(url=url))
    assert "word" not in str(failed) and "hidden" not in str(failed)
    await make(url=url, key=None).complete(CHAT)
    await make(url=server.url + "/").complete(CHAT)
    assert server.requests[0].path == server.requests[-1].path == "/v1/chat/completions"
    assert [seen.query for seen in server.requests] == ["token=hidden", "token=hidden", ""]
    assert [seen.headers["authorization"] for seen in server.requests[:2]] == [
        f"Bearer {KEY}",
        "Basic dXNlcjp3b3Jk",
    ]


async def test_one_connection_pool_per_endpoint_and_none_after_closing(server: MockServer) -> None:
    connections = Connections()
    one, two = Endpoint(server.url, KEY), Endpoint(server.url, None)
    assert connections.client(one) is connections.client(Endpoint(server.url, KEY))
    assert connections.client(one) is not connections.client(two)
    client = connections.client(one)
    await connections.aclose()
    await connections.aclose()
    assert client.is_closed() and not connections.client(one).is_closed()
    await connections.aclose()


def test_each_event_loop_has_its_own_connections() -> None:
    connections = Connections()

    async def ask() -> str:
        async with MockServer() as server:
            client = OpenAIClient(connections, Endpoint(server.url), "m", timeout_s=30.0)
            text = (await client.complete(CHAT)).choices[0].text
            await connections.aclose()
            return text

    assert [asyncio.run(ask()) for _ in range(2)] == ["ok", "ok"]


async def test_hundreds_of_requests_are_in_the_air_together(server: MockServer, make: Make) -> None:
    arrived, everyone = 0, asyncio.Event()

    async def together(model: str, body: dict[str, Any]) -> str:
        nonlocal arrived
        arrived += 1
        if arrived == 300:
            everyone.set()
        await everyone.wait()
        return "ok"

    server.handler = together
    client = make()
    await asyncio.gather(*(client.complete(CHAT) for _ in range(300)))
    assert server.most_in_air == 300


async def test_a_wrong_key_costs_one_request_when_twenty_start_together(
    server: MockServer, make: Make
) -> None:
    server.handler = lambda model, body: error(401, "wrong key")
    stop = Stop()
    model = Retry(Limit(make(), Slots(64), stop), stop, Random(1), deadline_s=60.0)
    results = await asyncio.gather(*(model.complete(CHAT) for _ in range(20)), return_exceptions=True)
    assert len(server.requests) == 1 and isinstance(stop.cause, ProviderRefused)
    assert sum(result is stop.cause for result in results) == 1


async def test_the_whole_stack_gets_past_an_overloaded_server(server: MockServer, make: Make) -> None:
    async def sleep(seconds: float) -> bool:
        assert seconds >= 60.0
        return False

    server.script.extend([error(429, "slow down", retry_after="60"), Reply(fault="reset", headers={})])
    stop, clock = Stop(), iter(float(t) for t in range(1000))
    limit = Limit(make(), Slots(64), stop)
    model = Retry(
        limit, stop, Random(1), deadline_s=900.0, clock=lambda: next(clock), sleep=lambda s: sleep(s + 60)
    )
    results = await asyncio.gather(*(model.complete(CHAT) for _ in range(20)))
    assert len(results) == 20 and model.retries == 2 and len(server.requests) == 22


def test_importing_the_client_loads_no_sdk() -> None:
    code = (
        "import sys, drpo.llm.client, drpo.llm.retry, drpo.llm.limits\n"
        "print([m for m in ('openai', 'aiohttp', 'httpx2', 'tenacity', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
