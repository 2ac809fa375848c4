"""The door of `drpo serve`: what is refused there, how, and what never goes through it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.alignments import written_alignment
from tests.support.bodies import drawn_bodies
from tests.support.mock_openai import MockServer, Reply, error
from tests.support.serving import ASKING, Running, at, becomes, head, raw, serving
from tests.support.streaming_upstream import StreamingUpstream
from tests.support.streams import delta, stream

JSON = {"Content-Type": "application/json"}
SECRET = "client-5ecret"


@pytest.fixture
def alignment(tmp_path: Path) -> Path:
    return written_alignment(tmp_path / "bees.json")


@asynccontextmanager
async def both(
    alignment: Path, reply: Any = "An answer.", **settings: Any
) -> AsyncIterator[tuple[Running, MockServer]]:
    async with (
        MockServer(lambda model, body: reply) as upstream,
        serving(**at(upstream.url, alignment, **settings)) as running,
    ):
        yield running, upstream


async def ask(running: Running, body: Any = ASKING, **named: Any) -> tuple[int, dict[str, Any], Any]:
    """Status, error (or body) and headers."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = named.pop("headers", JSON)
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.url}/chat/completions", data=data, headers=headers, **named) as reply,
    ):
        found = json.loads(await reply.read())
        return reply.status, found.get("error", found), reply.headers


REFUSED: list[tuple[Any, int, str]] = [
    (b"{", 400, "not JSON"),
    (b"\xff\xfe{}", 400, "not JSON"),
    (b"[" * 100_000, 400, "not JSON"),
    (b'{"model": NaN}', 400, "not JSON"),
    ([], 400, "expected a JSON object"),
    ({}, 400, "model is missing"),
    ({"model": "bees"}, 400, "messages is missing"),
    ({**ASKING, "model": 3}, 400, "model: expected the name of a model"),
    ({**ASKING, "model": "x" * 5000}, 404, "does not exist; this server has: bees"),
    ({**ASKING, "messages": []}, 400, "messages: expected a list"),
    ({**ASKING, "messages": ASKING["messages"] * 2049}, 400, "at most 2048"),
    ({**ASKING, "messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role"),
    ({**ASKING, "messages": [{"role": "assistant", "content": "x"}]}, 400, "must be the user's"),
    ({**ASKING, "messages": [*ASKING["messages"], {"role": "assistant", "content": ""}]}, 400, "last"),
    ({**ASKING, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "images"),
    ({**ASKING, "temperature": "hot"}, 400, "temperature: expected a number"),
    ({**ASKING, "temperature": True}, 400, "temperature: expected a number"),
    ({**ASKING, "temperature": 2.5}, 400, "from 0 to 2"),
    ({**ASKING, "max_tokens": 0}, 400, "max_tokens: expected a whole number"),
    ({**ASKING, "max_tokens": 1.5}, 400, "max_tokens: expected a whole number"),
    ({**ASKING, "seed": 10**300}, 400, "beyond all bounds"),
    ({**ASKING, "stop": ["a"] * 5}, 400, "stop: expected"),
    ({**ASKING, "stream": "yes"}, 400, "stream: expected"),
    ({**ASKING, "n": 2, "stream": True}, 400, "a stream has one choice"),
    ({**ASKING, "stream_options": {"include_usage": True}}, 400, "with stream only"),
    ({**ASKING, "tools": [{"type": "function"}]}, 400, "tools: this server does not do that"),
    ({**ASKING, "response_format": {"type": "json_object"}}, 400, "response_format"),
    ({**ASKING, "logprobs": True}, 400, "logprobs"),
    ({**ASKING, "api_base": "http://169.254.169.254/"}, 400, "Unrecognized request argument supplied: api"),
    ({**ASKING, "api_key": "sk-other"}, 400, "Unrecognized request argument supplied: api_key"),
]  # fmt: skip


async def test_what_cannot_be_asked_is_refused_in_openais_shape_and_sent_nowhere(alignment: Path) -> None:
    async with both(alignment) as (running, upstream):
        for body, status, said in REFUSED:
            got, told, _ = await ask(running, body)
            assert (got, set(told)) == (status, {"message", "type", "param", "code"}), body
            assert said in told["message"] and told["type"] == "invalid_request_error", told
            assert len(told["message"]) < 400
        assert upstream.requests == []


async def test_nothing_in_a_request_but_the_conversation_goes_on(alignment: Path) -> None:
    headers = {
        **JSON,
        "Authorization": f"Bearer {SECRET}",
        "X-Api-Base": "http://elsewhere/",
        "Cookie": "a=b",
    }
    body = {**ASKING, "user": "me", "metadata": {"api_base": "http://elsewhere"}, "tools": None}
    async with both(alignment) as (running, upstream):
        status, _, _ = await ask(running, body, headers=headers, params={"api-version": "1"})
        (seen,) = upstream.requests
    told = json.dumps([dict(seen.headers), seen.body, seen.path, seen.query])
    assert status == 200 and seen.path == "/v1/chat/completions" and seen.query == ""
    assert not any(word in told for word in (SECRET, "elsewhere", "a=b", '"user": "me"', "api-version"))


async def test_with_a_key_only_health_is_open(alignment: Path) -> None:
    async with MockServer() as upstream:
        given = at(upstream.url, alignment, api_key_env="SERVE_KEY")
        async with serving(**given, environment={"SERVE_KEY": SECRET}) as running:
            for wrong in (
                "",
                SECRET,
                f"Basic {SECRET}",
                f"Bearer {SECRET}x",
                "Bearer ",
                f"Bearer {SECRET[:-1]}",
            ):
                status, told, headers = await ask(running, headers={**JSON, "Authorization": wrong})
                assert (status, told["code"]) == (401, "invalid_api_key")
                assert headers["WWW-Authenticate"] == "Bearer" and SECRET not in told["message"]
            root = running.url.removesuffix("/v1")
            async with aiohttp.ClientSession() as session:
                for path, status in (
                    ("/health", 200),
                    ("/metrics", 401),
                    ("/v1/models", 401),
                    ("/openapi.json", 401),
                    ("/x", 401),
                ):
                    async with session.get(root + path) as reply:
                        assert reply.status == status, path
            assert upstream.requests == []
            status, _, _ = await ask(running, headers={**JSON, "Authorization": f"bearer {SECRET}"})
            assert status == 200 and SECRET not in str(upstream.requests[0].headers)


async def test_a_page_of_another_site_cannot_ask_a_server_without_a_key(alignment: Path) -> None:
    async with both(alignment) as (running, upstream):
        status, told, _ = await ask(running, headers={**JSON, "Host": "rebound.example:8000"})
        assert (status, told["code"]) == (421, "unknown_host")
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"):
            status, told, _ = await ask(running, headers={"Content-Type": kind})
            assert status == 415 and "application/json" in told["message"]
        status, told, _ = await ask(running, headers={**JSON, "Content-Encoding": "gzip"})
        assert status == 415
        assert upstream.requests == []


async def test_other_addresses_and_methods_are_answered_in_the_same_shape(alignment: Path) -> None:
    async with both(alignment) as (running, _), aiohttp.ClientSession() as session:
        root = running.url.removesuffix("/v1")
        for method, path, status in (
            *(
                ("GET", "/v1/chat/completions", 405),
                ("DELETE", "/v1/models", 405),
                ("OPTIONS", "/health", 405),
            ),
            *(
                ("POST", "/v1/embeddings", 404),
                ("GET", "/../../etc/passwd", 404),
                ("GET", "/v1/models/x", 404),
            ),
            *(("POST", "/v1/chat/completions/", 404), ("GET", "/%00%0d%0a", 404)),
        ):
            async with session.request(method, root + path) as reply:
                told = await reply.json()
                assert reply.status == status and told["error"]["type"] == "invalid_request_error", path
                assert (status == 405) == ("Allow" in reply.headers)


async def test_a_body_too_long_is_413_whether_its_length_is_told_or_not(alignment: Path) -> None:
    body = b" " * 3000

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield body[:100]

    async with (
        both(alignment, max_body_bytes=2000) as (running, upstream),
        aiohttp.ClientSession() as session,
    ):
        for data in (body, unannounced()):
            async with session.post(f"{running.url}/chat/completions", data=data, headers=JSON) as reply:
                assert reply.status == 413 and (await reply.json())["error"]["code"] == "request_too_large"
        told = await raw(running.port, head(10**12))  # more than is thrown away: answered before it comes
        assert told.startswith(b"HTTP/1.1 413") and b"request_too_large" in told
        told = await raw(running.port, head(3000, "Expect: 100-continue"))
        assert told.startswith(b"HTTP/1.1 413")
        assert upstream.requests == []


async def test_who_is_slow_to_ask_is_answered_408_and_let_go(alignment: Path) -> None:
    async with both(alignment, request_s=0.2) as (running, upstream):
        idle, half_head, half_body, blank = await asyncio.gather(
            raw(running.port),
            raw(running.port, b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"),
            raw(running.port, head(100), b'{"model"'),
            raw(running.port, b"\r\n\r\n"),
        )
        assert idle == blank == b""
        assert half_head.startswith(b"HTTP/1.1 408") and half_body.startswith(b"HTTP/1.1 408")
        assert upstream.requests == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nBad Header\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nX: " + b"a" * 300_000, 431),
        (b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 40_000, 431),
        (b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (head(2, "Transfer-Encoding: chunked"), 400),  # both lengths: how requests are smuggled
        (head("-1"), 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
async def test_what_is_no_http_is_refused_below_the_application(
    alignment: Path, sent: bytes, status: int
) -> None:
    async with both(alignment) as (running, upstream):
        told = await raw(running.port, sent)
        assert told.startswith(b"HTTP/1.1 %d" % status), told[:200]
        assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
        assert upstream.requests == []


async def test_a_line_end_in_a_name_makes_no_header_and_no_line(alignment: Path) -> None:
    name = "x\r\nX-Injected: 1\r\n\r\n\x1b[31m<b>"
    async with both(alignment) as (running, _):
        status, told, headers = await ask(running, {**ASKING, "model": name})
        assert status == 404 and "X-Injected" not in headers and "\n" not in told["message"]
        assert not any("\x1b" in said for said in running.told)


FAILURES: list[tuple[Reply, int, str, str]] = [
    (error(401, "no such key sk-upstream-123456"), 502, "upstream_key", "server_error"),
    (error(404, "no such model"), 502, "upstream_model", "server_error"),
    (error(400, "bad: http://10.1.2.3:8000/v1"), 400, "upstream_refused", "invalid_request_error"),
    (error(429, "slow down", retry_after="7"), 429, "rate_limit_exceeded", "rate_limit_error"),
    (error(429, "no money", code="insufficient_quota"), 429, "insufficient_quota", "insufficient_quota"),
    (error(503, "overloaded"), 503, "upstream_overloaded", "server_error"),
    (error(500, "Traceback /home/x"), 502, "upstream_error", "server_error"),
    (error(504, "gateway"), 504, "upstream_timeout", "server_error"),
    (Reply(body=b"<html>"), 502, "upstream_error", "server_error"),
    (Reply(body={"choices": []}), 502, "upstream_error", "server_error"),
    (Reply(fault="reset"), 502, "upstream_unreachable", "server_error"),
    (Reply(fault="hang"), 504, "upstream_timeout", "server_error"),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_failures_behind_the_server_are_told_without_its_keys_and_addresses(
    alignment: Path, stream: bool
) -> None:
    answers: dict[str, Reply] = {}
    async with MockServer(lambda model, body: answers["now"]) as upstream:
        key = "sk-upstream-123456"
        given = at(upstream.url, alignment, timeout_s=0.3)
        async with serving(**given, environment={"DRPO_BASE_API_KEY": key}) as running:
            for reply, status, code, kind in FAILURES:
                answers["now"] = reply
                got, told, headers = await ask(running, {**ASKING, "stream": stream})
                assert (got, told["code"], told["type"]) == (status, code, kind), reply
                text = told["message"]
                hidden = (key, upstream.url.split("/")[2], "127.0.0.1", "10.1.2.3", "http://", "Traceback")
                assert not any(word in text for word in hidden), text
                assert ("Retry-After" in headers) == (status in (429, 503) and code != "insufficient_quota")
            assert upstream.requests[-1].headers["authorization"] == f"Bearer {key}"
            assert not any(key in said for said in running.told)


async def test_a_failure_in_the_middle_of_a_stream_is_its_last_event(alignment: Path) -> None:
    broken = stream(delta("Go"), {"error": {"message": "engine at 10.0.0.1 died", "code": 500}})
    async with both(alignment, broken) as (running, _), aiohttp.ClientSession() as session:
        url, body = f"{running.url}/chat/completions", {**ASKING, "stream": True}
        async with session.post(url, json=body) as reply:
            text = (await reply.read()).decode()
    assert reply.status == 200 and '"content": "Go"' in text and "[DONE]" not in text
    last = json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["code"] == "upstream_error" and "10.0.0.1" not in text


async def test_a_stale_connection_to_the_model_costs_no_answer(alignment: Path) -> None:
    async with both(alignment) as (running, upstream):
        assert (await ask(running))[0] == 200
        upstream.script.append(Reply(fault="reset"))
        assert (await ask(running))[0] == 200
        assert len(upstream.requests) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_its_request_to_the_model_within_a_second(
    alignment: Path, stream: bool
) -> None:
    arrived = asyncio.Event()

    def handler(model: str, body: dict[str, Any]) -> Reply:
        arrived.set()
        return Reply(fault="hang")

    body = json.dumps({**ASKING, "stream": stream}).encode()
    async with MockServer(handler) as upstream, serving(**at(upstream.url, alignment)) as running:
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(head(len(body)) + body)
        await arrived.wait()
        assert upstream.in_air == 1
        writer.close()
        await becomes(lambda: upstream.in_air == 0)


async def test_a_client_that_leaves_in_the_middle_of_a_stream_ends_it_at_the_model(alignment: Path) -> None:
    async with (
        StreamingUpstream(tokens=None, interval_s=0.01) as upstream,
        serving(**at(upstream.url, alignment)) as running,
    ):
        body = json.dumps({**ASKING, "stream": True}).encode()
        twice = head(len(body)) + body
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(twice + twice)  # the second one in the line must not hide that the first one's is gone
        await reader.readuntil(b"word")
        assert upstream.streams == 1
        writer.transport.abort()
        await becomes(lambda: upstream.streams == 0)
        assert upstream.abandoned == 1


async def test_a_reader_who_does_not_read_is_cut_off_and_the_model_let_go(alignment: Path) -> None:
    async with (
        StreamingUpstream(tokens=None, text="word " * 4000) as upstream,
        serving(**at(upstream.url, alignment, reader_s=0.3)) as running,
    ):
        body = json.dumps({**ASKING, "stream": True}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**16)
        writer.write(head(len(body)) + body)
        await reader.readuntil(b"word")
        await becomes(lambda: upstream.streams == 0, 8.0)
        writer.transport.abort()


async def test_more_than_may_be_in_work_are_told_to_come_again(alignment: Path) -> None:
    arrived = asyncio.Event()

    def handler(model: str, body: dict[str, Any]) -> Reply:
        arrived.set()
        return Reply(fault="hang")

    async with (
        MockServer(handler) as upstream,
        serving(**at(upstream.url, alignment, max_waiting=1)) as running,
    ):
        first = asyncio.create_task(ask(running))
        await arrived.wait()
        status, told, headers = await ask(running)
        assert (status, told["code"], headers["Retry-After"]) == (503, "overloaded", "1")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await becomes(lambda: upstream.in_air == 0)
        upstream.handler = lambda model, body: "An answer."
        assert (await ask(running))[0] == 200


async def test_no_body_that_can_be_drawn_makes_the_server_fail(alignment: Path) -> None:
    statuses: dict[int, int] = {}
    async with (
        StreamingUpstream(tokens=2) as upstream,
        serving(**at(upstream.url, alignment)) as running,
        aiohttp.ClientSession() as session,
    ):
        for path, body in drawn_bodies(300, seed=0):
            async with session.post(running.url + path, data=body, headers=JSON) as reply:
                text = await reply.text()
                assert reply.status < 500, (path, body, text)
                assert reply.status in (200, 400, 404)
                assert reply.status == 200 or json.loads(text)["error"]["message"], body
                statuses[reply.status] = statuses.get(reply.status, 0) + 1
        assert running.told == []
    assert statuses[200] > 20 < statuses[400], statuses
