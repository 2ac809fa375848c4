"""The document at /openapi.json says what the server takes and answers, neither more nor less."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema_rs import Draft202012Validator, meta

from drpo.serving.door import Bounds
from drpo.serving.errors import Refusal
from drpo.serving.openapi import document
from drpo.serving.requests import Asking, read_chat, read_completion, read_object
from tests.support.alignments import written_alignment
from tests.support.bodies import CHAT, TEXT, drawn_bodies
from tests.support.mock_openai import MockServer, error
from tests.support.serving import Running, at, serving
from tests.support.streaming_upstream import StreamingUpstream
from tests.support.streams import delta, stream

DOCUMENT = document(["bees"], Bounds(2_000_000, 30.0), keyed=True, takes_system=True)
REQUESTS: dict[str, tuple[str, Callable[[dict[str, Any]], Asking]]] = {
    CHAT: ("ChatRequest", read_chat),
    TEXT: ("CompletionRequest", read_completion),
}
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 1.0, 2, 4, 5, 128, 129, 128.0, -1, 0.5, 1.5, 2.0, 2.5, 1e400, 10**400, -0.0),
    *(2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, float(2**63)),
    *("", "x", "none", "auto", "text", "bees", "\ud83d", [], [""], ["x"], ["x"] * 4, ["x"] * 5, ["text"]),
    *([0], [None], [[]], {}, {"type": "text"}, {"type": "json_object"}, {"a": 1}, {"role": "user"}),
    *({"include_usage": True}, {"include_usage": None}, {"include_usage": 1}, {"include_obfuscation": 3}),
)


def schema_of(name: str, whole: dict[str, Any] = DOCUMENT) -> Draft202012Validator:
    """What checks against one of the document's schemas."""
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": whole["components"]})


VALID = {path: schema_of(name) for path, (name, _) in REQUESTS.items()}


def outcome(path: str, body: dict[str, Any]) -> str:
    """taken, refused, or order: refused for what no schema can say."""
    try:
        taken = REQUESTS[path][1](body)
    except Refusal as refusal:
        assert refusal.status == 400
        order = ("messages", "invalid_value")
        return "order" if (refusal.param, refusal.code) == order else "refused"
    return "taken" if taken.model == "bees" else "refused"  # with 404, where models are looked up


def agree(path: str, body: dict[str, Any]) -> str:
    """What becomes of a body; its schema must say the same."""
    # The validator cannot look at halves of surrogate pairs; no schema here tells them from other characters.
    whole = json.loads(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
    found, valid = outcome(path, body), VALID[path].is_valid(whole)
    assert found == "order" or valid == (found == "taken"), (path, body, found, valid)
    return found


def basis(path: str, stream: object) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": "Hello?"}]} if path == CHAT else {"prompt": "Hello?"}
    return {"model": "bees", **asked, **({} if stream is None else {"stream": stream})}


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_whatever_value_a_field_has_the_schema_takes_it_where_the_reader_does(path: str) -> None:
    properties = DOCUMENT["components"]["schemas"][REQUESTS[path][0]]["properties"]
    outcomes = {name: set[str]() for name in (*properties, "api_base", "modèle")}
    for name, found in outcomes.items():
        for streamed in (None, True):
            for value in VALUES:
                found.add(agree(path, basis(path, streamed) | {name: value}))
            bare = {field: value for field, value in basis(path, streamed).items() if field != name}
            found.add(agree(path, bare))
    never_refused = {name for name, found in outcomes.items() if found == {"taken"}}
    assert never_refused == {
        *("user", "metadata", "store", "service_tier", "safety_identifier", "parallel_tool_calls"),
        *("prompt_cache_key", "prompt_cache_retention"),
    }
    assert all("refused" in outcomes[name] for name in outcomes.keys() - never_refused)


def test_whatever_a_message_holds_the_schema_takes_it_where_the_reader_does() -> None:
    outcomes: list[str] = []
    for name in ("role", "content", "tool_calls", "function_call", "name", "refusal"):
        for value in (*VALUES, "system", "developer", "user", "assistant", "tool", "function"):
            said = {"role": "user", "content": "Hello?", name: value}
            for messages in ([said], [{"role": "user", "content": "Hi"}, said]):
                outcomes.append(agree(CHAT, {"model": "bees", "messages": messages}))
    for part in (
        *VALUES,
        *({"type": kind, "text": "x", "refusal": "y"} for kind in ("text", "refusal", "x")),
    ):
        content = [{"type": "text", "text": ""}, part]
        outcomes.append(agree(CHAT, {"model": "bees", "messages": [{"role": "user", "content": content}]}))
    for count in (0, 1, 2048, 2049):
        message = {"role": "user", "content": "Hello?"}
        outcomes.append(agree(CHAT, {"model": "bees", "messages": [message] * count}))
    assert min(outcomes.count(one) for one in ("taken", "refused")) > 50 and "order" in outcomes


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"stream": True, "n": 2}, "refused"),
        ({"stream": True, "n": 1.0}, "taken"),
        ({"stream": False, "n": 2}, "taken"),
        ({"stream": True, "stream_options": {"include_usage": True}}, "taken"),
        ({"stream": False, "stream_options": {}}, "refused"),
        ({"stream_options": None}, "taken"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "refused"),
        ({"max_tokens": None, "max_completion_tokens": 5}, "taken"),
        ({"presence_penalty": False}, "refused"),
        ({"logprobs": 0}, "refused"),
    ],
)
def test_what_fields_mean_to_each_other_stands_in_the_schema(more: dict[str, Any], expected: str) -> None:
    assert agree(CHAT, basis(CHAT, None) | more) == expected


def test_for_any_body_that_can_be_drawn_the_schema_says_what_the_reader_does() -> None:
    outcomes: list[str] = []
    for path, raw in drawn_bodies(250, seed=1):
        try:
            body = read_object(raw)
        except Refusal:
            continue
        outcomes.append(agree(path, body))
    assert min(outcomes.count("taken"), outcomes.count("refused")) > 25 and "order" in outcomes


def test_a_server_that_refuses_system_messages_says_so() -> None:
    strict = document(["bees"], Bounds(1000, 1.0), keyed=False, takes_system=False)
    message = schema_of("Message", strict)
    assert message.is_valid({"role": "user", "content": "x"})
    for role in ("system", "developer"):
        said = {"role": role, "content": "x"}
        assert not message.is_valid(said) and schema_of("Message").is_valid(said)
    assert "security" not in strict and "securitySchemes" not in strict["components"]


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in references(inner)]
    return [found for inner in value for found in references(inner)] if isinstance(value, list) else []


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    components = DOCUMENT["components"]
    for schema in components["schemas"].values():
        assert meta.is_valid(schema)
    used = set(references(DOCUMENT))
    every = {f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in components[kind]}
    assert used <= every and every - used == {"#/components/responses/421"}  # of a server without a key
    assert DOCUMENT["security"] == [{"key": []}] and components["securitySchemes"].keys() == {"key"}


# What a running server answers


@pytest.fixture
def alignment(tmp_path: Path) -> Path:
    return written_alignment(tmp_path / "bees.json")


class Checked:
    """A client that holds every answer against the served document."""

    def __init__(self, running: Running, session: aiohttp.ClientSession, whole: dict[str, Any]) -> None:
        self.root, self.session, self.whole = running.url.removesuffix("/v1"), session, whole
        self.seen = set[tuple[str, str, int]]()

    async def __call__(self, method: str, path: str, place: str = "", **named: Any) -> int:
        """The status. place: the path as the document has it."""
        operation = self.whole["paths"][place or path][method.lower()]
        async with self.session.request(method, self.root + path, **named) as reply:
            raw = await reply.read()
        answer = operation["responses"][str(reply.status)]
        if "$ref" in answer:
            answer = self.whole["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        for name, header in answer.get("headers", {}).items():
            if header.get("required") or name in reply.headers:
                assert Draft202012Validator(header["schema"]).is_valid(reply.headers[name]), name
        kinds = {kind.partition(";")[0]: content for kind, content in answer["content"].items()}
        self._hold(raw, kinds[reply.content_type]["schema"])
        self.seen.add((method, place or path, reply.status))
        return reply.status

    def _hold(self, raw: bytes, schema: dict[str, Any]) -> None:
        name = schema.get("$ref", "").rpartition("/")[2]
        if name.endswith("Event"):
            events = [event.removeprefix("data: ") for event in raw.decode().strip().split("\n\n")]
            content = self.whole["components"]["schemas"][name]["properties"]["data"]["else"]["contentSchema"]
            check = Draft202012Validator({**content, "components": self.whole["components"]})
            for event in events[:-1]:
                check.validate(json.loads(event))
            assert events[-1] == "[DONE]" or "error" in json.loads(events[-1])
        elif name:
            schema_of(name, self.whole).validate(json.loads(raw))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def checked(running: Running, session: aiohttp.ClientSession, **named: Any) -> Checked:
    async with session.get(running.url.removesuffix("/v1") + "/openapi.json", **named) as reply:
        assert reply.status == 200 and reply.content_type == "application/json"
        return Checked(running, session, await reply.json())


async def test_every_answer_is_one_of_those_that_the_document_names(
    alignment: Path, session: aiohttp.ClientSession
) -> None:
    async with (
        StreamingUpstream(tokens=3) as upstream,
        serving(**at(upstream.url, alignment, max_body_bytes=4000)) as running,
    ):
        ask = await checked(running, session)
        for path in (CHAT, TEXT):
            place = "/v1" + path
            for streamed in (False, True):
                assert await ask("POST", place, json=basis(path, streamed)) == 200
            options = {"stream_options": {"include_usage": True}}
            assert await ask("POST", place, json=basis(path, True) | options) == 200
            assert await ask("POST", place, json=basis(path, None) | {"model": "other"}) == 404
            assert await ask("POST", place, json=[]) == 400
            assert await ask("POST", place, data=b"{}") == 415
            assert await ask("POST", place, json="x" * 5000) == 413
        for name, status in (("bees", 200), ("%2e%2e", 404)):
            assert await ask("GET", f"/v1/models/{name}", "/v1/models/{name}") == status
        for place in ("/v1/models", "/health", "/metrics"):
            assert await ask("GET", place) == 200
            elsewhere = await ask("GET", place, headers={"Host": "elsewhere.example"})
            assert elsewhere == (200 if place == "/health" else 421)
        assert {place for _, place, _ in ask.seen} == ask.whole["paths"].keys()


async def test_failures_behind_the_server_are_in_the_document_too(
    alignment: Path, session: aiohttp.ClientSession
) -> None:
    broken = stream(delta("Go"), {"error": {"message": "engine died", "code": 500}})
    async with MockServer(lambda model, body: broken if body.get("stream") else "") as upstream:
        key = {"Authorization": "Bearer k"}
        given = at(upstream.url, alignment, api_key_env="KEY", timeout_s=0.3)
        async with serving(**given, environment={"KEY": "k"}) as running:
            ask = await checked(running, session, headers=key)
            assert await ask("POST", "/v1" + CHAT, json=basis(CHAT, True), headers=key) == 200
            assert await ask("POST", "/v1" + CHAT, json=basis(CHAT, None)) == 401
            assert await ask("GET", "/health") == 200
            for status, expected in ((429, 429), (503, 503), (500, 502), (504, 504), (400, 400)):
                upstream.script.append(error(status, "no"))
                assert await ask("POST", "/v1" + CHAT, json=basis(CHAT, None), headers=key) == expected
