"""`drpo serve`: what the OpenAI SDK is answered, and what the model behind the server is asked."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from drpo.api_use import load
from tests.support.alignments import SYSTEM_PROMPT, written_alignment
from tests.support.mock_openai import Handler, MockServer, Reply, error
from tests.support.serving import Running, at, serving
from tests.support.streams import delta, stream

QUERY = "How do I keep bees in town?"


@pytest.fixture
def alignment(tmp_path: Path) -> Path:
    return written_alignment(tmp_path / "bees.json")


@asynccontextmanager
async def sdk(running: Running, key: str = "client-key") -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=running.url, api_key=key, max_retries=0) as client:
        yield client


@asynccontextmanager
async def both(
    alignment: Path, handler: Handler = lambda model, body: "An answer.", **settings: Any
) -> AsyncIterator[tuple[openai.AsyncOpenAI, MockServer, Running]]:
    async with (
        MockServer(handler) as upstream,
        serving(**at(upstream.url, alignment, **settings)) as running,
        sdk(running) as client,
    ):
        yield client, upstream, running


def user(text: str = QUERY) -> Any:
    return {"role": "user", "content": text}


async def test_the_model_is_asked_what_the_alignment_renders_and_its_answer_comes_back(
    alignment: Path,
) -> None:
    async with both(alignment) as (client, upstream, _):
        got = await client.chat.completions.with_raw_response.create(model="bees", messages=[user()])
        reply = got.parse()
        (body,) = upstream.bodies()
    assert body["messages"] == load(alignment).messages(QUERY) and len(body["messages"]) == 8
    assert body["temperature"] == 0 and body["max_tokens"] == 2048 and body["model"] == "m"
    assert reply.choices[0].message.content == "An answer." and reply.choices[0].finish_reason == "stop"
    assert reply.model == "bees" and reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0
    assert len(got.headers["x-drpo-shots"].split(",")) == 3


async def test_a_completions_prompt_is_the_query(alignment: Path) -> None:
    async with both(alignment) as (client, upstream, _):
        reply = await client.completions.create(model="bees", prompt=QUERY)
        (body,) = upstream.bodies()
    assert body["messages"] == load(alignment).messages(QUERY)
    assert reply.choices[0].text == "An answer."


def events(*texts: str, reason: str = "stop") -> Reply:
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}
    return stream(*(delta(text) for text in texts), delta(None, reason), usage)


async def test_a_stream_begins_with_the_role_and_ends_with_reason_usage_and_done(alignment: Path) -> None:
    async with both(alignment, lambda m, b: events("Good ", "day 🐝.", reason="length")) as (client, mock, _):
        coming = await client.chat.completions.create(
            model="bees", messages=[user()], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in coming]
        assert mock.bodies()[0]["messages"] == load(alignment).messages(QUERY)
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(said) == "Good day 🐝."
    assert [c.choices[0].finish_reason for c in chunks if c.choices] == [None] * (len(chunks) - 2) + [
        "length"
    ]
    assert [chunk.usage and chunk.usage.total_tokens for chunk in chunks] == [None] * (len(chunks) - 1) + [9]
    assert len({chunk.id for chunk in chunks}) == 1 and {chunk.model for chunk in chunks} == {"bees"}


async def test_a_completion_can_be_streamed_and_tells_usage_only_where_it_is_asked_for(
    alignment: Path,
) -> None:
    async with both(alignment, lambda m, b: events("Good ", "day.")) as (client, _, _r):
        coming = await client.completions.create(model="bees", prompt=QUERY, stream=True)
        chunks = [chunk async for chunk in coming]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Good day."
    assert chunks[-1].choices[0].finish_reason == "stop" and all(chunk.usage is None for chunk in chunks)


async def test_shots_are_chosen_for_the_first_turn_and_kept_behind_them_stands_what_was_said(
    alignment: Path,
) -> None:
    later = [user(), {"role": "assistant", "content": "In a hive."}, user("Which planet is the largest?")]
    async with both(alignment) as (client, upstream, _):
        await client.chat.completions.create(model="bees", messages=[user()])
        await client.chat.completions.create(model="bees", messages=later)
        first, second = (body["messages"] for body in upstream.bodies())
    assert second == [*first, *later[1:]]


@pytest.mark.parametrize(
    ("rule", "system"),
    [("append", f"{SYSTEM_PROMPT}\n\nBe brief.\n\nIn French."), ("ignore", SYSTEM_PROMPT)],
)
async def test_a_clients_system_messages_follow_the_stated_rule(
    alignment: Path, rule: str, system: str
) -> None:
    said: Any = [{"role": "system", "content": "Be brief."}, {"role": "developer", "content": "In French."}]
    async with both(alignment, client_system=rule) as (client, upstream, _):
        await client.chat.completions.create(model="bees", messages=[*said, user()])
        (body,) = upstream.bodies()
    assert body["messages"] == [{"role": "system", "content": system}, *load(alignment).messages(QUERY)[1:]]


async def test_a_clients_system_message_can_be_refused(alignment: Path) -> None:
    async with both(alignment, client_system="refuse") as (client, upstream, _):
        with pytest.raises(openai.BadRequestError) as raised:
            said: Any = [{"role": "system", "content": "Be brief."}, user()]
            await client.chat.completions.create(model="bees", messages=said)
        assert upstream.requests == []
    assert "leave yours out" in str(raised.value)


async def test_what_a_client_asks_of_sampling_is_passed_on_within_the_servers_bound(alignment: Path) -> None:
    wanted: Any = {"temperature": 0.7, "top_p": 0.9, "seed": -3, "stop": ["END", "\n\n"], "n": 2}
    reply = Reply(texts=("one", "two"))
    async with both(alignment, lambda m, b: reply, base_max_tokens=100) as (client, upstream, _):
        got = await client.chat.completions.create(
            model="bees", messages=[user()], max_completion_tokens=999, **wanted
        )
        (body,) = upstream.bodies()
    assert {name: body[name] for name in wanted} == wanted and body["max_tokens"] == 100
    assert [choice.message.content for choice in got.choices] == ["one", "two"]
    assert [choice.index for choice in got.choices] == [0, 1]


async def test_a_base_model_is_given_the_page_and_its_answer_is_cut_streamed_or_not(tmp_path: Path) -> None:
    alignment = written_alignment(tmp_path / "bees.json", "text")
    written = "In a hive.\n\n# Query\nAnother?"
    pieces = [{"choices": [{"text": text}]} for text in ("In a ", "hive.\n\n", "# Que", "ry\nAnother?")]

    def handler(model: str, body: dict[str, Any]) -> Any:
        return stream(*pieces) if body.get("stream") else written

    async with both(alignment, handler, prompt_form="text") as (client, upstream, _):
        whole = await client.chat.completions.create(model="bees", messages=[user()], stop="END")
        coming = await client.chat.completions.create(model="bees", messages=[user()], stream=True)
        streamed = [chunk async for chunk in coming]
        bodies = upstream.bodies()
    assert {body["prompt"] for body in bodies} == {load(alignment).prompt(QUERY)}
    assert [body["stop"] for body in bodies] == [["\n# Query", "END"], ["\n# Query"]]
    assert whole.choices[0].message.content == "In a hive."
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == "In a hive."


async def test_several_alignments_and_the_unaligned_model_are_served_under_their_names(
    alignment: Path,
) -> None:
    async with (
        MockServer() as upstream,
        serving(
            ["lessons/bees=urial", str(alignment)], model=f"openai/org/m@{upstream.url}", base="none"
        ) as running,
        sdk(running) as client,
    ):
        assert [model.id async for model in client.models.list()] == ["lessons/bees", "bees", "org/m"]
        assert (await client.models.retrieve("org/m")).id == "org/m"
        for name in ("lessons/bees", "bees", "org/m"):
            await client.chat.completions.create(model=name, messages=[user()])
        asked = [body["messages"] for body in upstream.bodies()]
        with pytest.raises(openai.NotFoundError) as raised:
            await client.chat.completions.create(model="m", messages=[user()])
    assert asked[2] == [{"role": "system", "content": "You are a helpful assistant."}, user()]
    assert [len(messages) for messages in asked] == [8, 8, 2] and asked[0] != asked[1]
    assert raised.value.code == "model_not_found"
    assert "this server has: lessons/bees, bees, org/m" in raised.value.message


async def test_a_content_part_list_is_one_text(alignment: Path) -> None:
    parts: Any = [{"type": "text", "text": "How do I keep"}, {"type": "text", "text": "bees in town?"}]
    async with both(alignment) as (client, upstream, _):
        await client.chat.completions.create(model="bees", messages=[{"role": "user", "content": parts}])
        asked = upstream.bodies()[0]["messages"]
    assert asked[-1]["content"] == "How do I keep\nbees in town?"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_does_not_fit_the_context_is_a_400_of_that_code(alignment: Path, stream: bool) -> None:
    reply = error(400, "This model's maximum context length is 8 tokens", code="context_length_exceeded")
    async with both(alignment, lambda m, b: reply) as (client, _, _r):
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(model="bees", messages=[user()], stream=stream)
    assert raised.value.code == "context_length_exceeded"


async def test_a_setting_that_the_model_does_not_take_is_left_out_unless_a_client_wants_it(
    alignment: Path,
) -> None:
    def handler(model: str, body: dict[str, Any]) -> Any:
        refused = [name for name in ("temperature", "max_tokens") if name in body]
        if refused:
            return error(400, f"Unsupported parameter: '{refused[0]}'", param=refused[0])
        return "An answer."

    async with both(alignment, handler) as (client, upstream, _):
        await client.chat.completions.create(model="bees", messages=[user()])
        tries = len(upstream.requests)
        await client.chat.completions.create(model="bees", messages=[user()], max_tokens=7)
        assert len(upstream.requests) == tries + 1 == 4
        assert upstream.bodies()[-1]["max_completion_tokens"] == 7
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(model="bees", messages=[user()], temperature=0.5)
    assert raised.value.param == "temperature" and raised.value.code == "unsupported_parameter"


async def test_counts_are_told_as_prometheus_reads_them(alignment: Path) -> None:
    async with both(alignment) as (client, _, running), aiohttp.ClientSession() as session:
        await client.chat.completions.create(model="bees", messages=[user()])
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model='x"\n', messages=[user()])
        root = running.url.removesuffix("/v1")
        async with session.get(f"{root}/metrics") as reply:
            text = await reply.text()
        async with session.get(f"{root}/health") as healthy:
            assert healthy.status == 200 and await healthy.json() == {"status": "ok"}
    assert 'drpo_requests_total{route="chat",model="bees",status="200"} 1' in text
    assert 'drpo_requests_total{route="chat",model="",status="404"} 1' in text
    assert 'drpo_request_seconds_bucket{route="chat",le="+Inf"} 2' in text
    assert "drpo_requests_in_work 0" in text and 'drpo_shots_seconds_count{model="bees"} 1' in text
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\})? [0-9.]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in text.splitlines())


async def test_the_examples_of_a_query_are_looked_for_once(alignment: Path) -> None:
    async with both(alignment) as (client, _, running):
        for _n in range(3):
            await client.chat.completions.create(model="bees", messages=[user()])
        async with (
            aiohttp.ClientSession() as session,
            session.get(running.url.removesuffix("/v1") + "/metrics") as reply,
        ):
            assert 'drpo_shots_seconds_count{model="bees"} 1' in await reply.text()
