"""Rewards of a reward model: one raw number per pair, from a vLLM server or from a model on this machine."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from aiohttp import web

from drpo.errors import DrpoError, InputError, ProviderDown, ProviderRefused
from drpo.llm.connections import Connections
from drpo.llm.limits import Stop
from drpo.llm.retry import Patience
from drpo.llm.reward_model import RewardModel, open_reward_model

KEY = "key-of-the-server"
PAIRS = [(f"query {number}", f"response {number * 7 % 5}") for number in range(20)]
# What vLLM 0.32 says, word for word.
NO_TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat "
    "template if the tokenizer does not define one."
)
TOO_LONG = (
    "This model's maximum context length is 256 tokens. However, your prompt contains at least 257 input "
    "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
    "prompt. (parameter=input_tokens, value=257)"
)


def reward(query: str, response: str) -> float:
    return len(response) - 2.5 * (sum(map(ord, query + response)) % 7)


def refusal(message: str, status: int = 400, kind: str = "BadRequestError", param: str | None = None) -> Any:
    return status, {"error": {"message": message, "type": kind, "param": param, "code": status}}


def classified(*values: object) -> dict[str, Any]:
    item = {"index": 0, "label": "LABEL_0", "probs": list(values), "num_classes": len(values)}
    return {"object": "list", "model": "rm", "data": [item], "usage": {"prompt_tokens": 9}}


def pair_of(path: str, body: dict[str, Any]) -> tuple[str, str]:
    if path == "/score":
        return body["text_1"], body["text_2"]
    asked, answered = body["messages"]
    assert (asked["role"], answered["role"]) == ("user", "assistant")
    return asked["content"], answered["content"]


Answer = Callable[[str, dict[str, Any], int], Any]


def answered(path: str, body: dict[str, Any], number: int) -> Any:
    value = reward(*pair_of(path, body))
    if path == "/score":
        return {"data": [{"index": 0, "object": "score", "score": value}]}
    return classified(value)


class Server:
    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0


@asynccontextmanager
async def server(answer: Answer = answered) -> AsyncIterator[Server]:
    """A server on loopback with vLLM's two paths. `answer` gives JSON, text, or (status, JSON)."""

    async def reply(request: web.Request) -> web.Response:
        here.at_once += 1
        here.most_at_once = max(here.most_at_once, here.at_once)
        body = await request.json()
        here.asked.append((request.path, body))
        here.headers.append(dict(request.headers))
        number = len(here.asked)
        await asyncio.sleep(0.005)
        here.at_once -= 1
        result = answer(request.path, body, number)
        status, content = result if isinstance(result, tuple) else (200, result)
        if isinstance(content, str):
            return web.Response(status=status, text=content, content_type="application/json")
        return web.json_response(content, status=status, headers={"Retry-After": "0"})

    app = web.Application()
    app.router.add_post("/classify", reply)
    app.router.add_post("/score", reply)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    here = Server(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    try:
        yield here
    finally:
        await runner.cleanup()


async def no_wait(seconds: float) -> bool:
    return False


def patience(deadline_s: float = 3.0) -> Patience:
    return Patience(Stop(), Random(0), deadline_s=deadline_s, sleep=no_wait)


@asynccontextmanager
async def opened(url: str, name: str = "rm", **options: Any) -> AsyncIterator[RewardModel]:
    connections = Connections()
    try:
        options = {"patience": patience(), "api_key": KEY, **options}
        yield await open_reward_model(f"vllm/{name}@{url}", connections=connections, **options)
    finally:
        await connections.aclose()


async def rewards(url: str, pairs: Sequence[tuple[str, str]], **options: Any) -> tuple[float, ...]:
    async with opened(url, **options) as model:
        return await model.rewards(pairs)


async def test_one_raw_number_comes_per_pair_in_order() -> None:
    async with server() as here:
        assert await rewards(here.url, PAIRS) == tuple(reward(*pair) for pair in PAIRS)
    assert {path for path, _ in here.asked} == {"/classify"}
    assert all(body["use_activation"] is False and body["model"] == "rm" for _, body in here.asked)
    assert len(here.asked) == len(PAIRS)
    assert 1 < here.most_at_once <= 8


async def test_no_pair_needs_no_request() -> None:
    assert await rewards("http://127.0.0.1:9/v1", []) == ()


async def test_one_request_at_a_time_is_sent_until_one_is_answered() -> None:
    def answer(path: str, body: dict[str, Any], number: int) -> Any:
        return refusal("wrong key", 401)

    async with server(answer) as here:
        with pytest.raises(ProviderRefused, match=r"wrong key\. Check the key: DRPO_REWARD_API_KEY"):
            await rewards(here.url, PAIRS)
    assert len(here.asked) == 1


async def test_a_model_without_a_chat_template_is_given_two_texts() -> None:
    def answer(path: str, body: dict[str, Any], number: int) -> Any:
        return refusal(NO_TEMPLATE) if path == "/classify" else answered(path, body, number)

    async with server(answer) as here:
        assert await rewards(here.url, PAIRS) == tuple(reward(*pair) for pair in PAIRS)
    assert [path for path, _ in here.asked] == ["/classify"] + ["/score"] * len(PAIRS)
    assert all(body["use_activation"] is False for _, body in here.asked)


async def test_all_pairs_of_a_model_are_asked_in_one_form() -> None:
    def answer(path: str, body: dict[str, Any], number: int) -> Any:
        return refusal("the chat template refuses this one") if number == 3 else answered(path, body, number)

    async with server(answer) as here:
        with pytest.raises(ProviderRefused, match="the chat template refuses this one"):
            await rewards(here.url, PAIRS[:3])
    assert {path for path, _ in here.asked} == {"/classify"}


async def test_a_pair_longer_than_the_context_is_cut_and_counted() -> None:
    def answer(path: str, body: dict[str, Any], number: int) -> Any:
        if "7" in pair_of(path, body)[0] and "truncate_prompt_tokens" not in body:
            return refusal(TOO_LONG, param="input_tokens")
        return answered(path, body, number)

    async with server(answer) as here, opened(here.url) as model:
        assert await model.rewards(PAIRS) == tuple(reward(*pair) for pair in PAIRS)
        assert model.cut == 2
    cut = [body for _, body in here.asked if "truncate_prompt_tokens" in body]
    assert [(body["truncate_prompt_tokens"], body["truncation_side"]) for body in cut] == [(-1, "right")] * 2


async def test_only_the_key_of_the_server_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-endpoint")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-endpoint")
    async with server() as here:
        await rewards(here.url, PAIRS[:1])
        await rewards(here.url, PAIRS[:1], api_key=None)
    assert here.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "Authorization" not in here.headers[1]
    assert "another" not in json.dumps(here.headers)


@pytest.mark.parametrize(
    "hiccup",
    [(503, {}), refusal("slow down", 429), "<html>", "null", {"data": []}, '{"data": [{"probs": [NaN]}]}'],
)
async def test_what_may_pass_is_asked_again(hiccup: Any) -> None:
    async with server(lambda *asked: hiccup if asked[-1] == 1 else answered(*asked)) as here:
        assert await rewards(here.url, PAIRS[:1]) == (reward(*PAIRS[0]),)
    assert len(here.asked) == 2


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (classified(0.25, 0.75), InputError, "expected a reward model, with one label; it has 2"),
        (classified(), ProviderDown, "expected one finite number"),
        (classified("3"), ProviderDown, "expected one finite number"),
        (classified(True), ProviderDown, "expected one finite number"),
        ('{"data": [{"probs": [Infinity]}]}', ProviderDown, "expected one finite number"),
        ({"data": [{"score": 1}, {"score": 1}]}, ProviderDown, "expected one reward"),
        (
            (404, {"detail": "Not Found"}),
            ProviderRefused,
            "Check the model's name, and that the ser",
        ),
        (refusal("The model `rm` does not exist.", 404), ProviderRefused, "The model `rm` does not exist"),
        (refusal("The model does not support it"), ProviderRefused, "serves a reward model: vllm serve"),
        (refusal(f"no:\nkey {KEY}", 403), ProviderRefused, "no: key [key]. Check what the key may do"),
        (refusal("down", 500), ProviderDown, "HTTP 500: down"),
        (refusal(TOO_LONG), ProviderRefused, "too long"),
    ],
)
async def test_what_is_no_reward_is_told_in_one_line_without_the_key(
    answer: Any, kind: type[DrpoError], said: str
) -> None:
    async with server(lambda *asked: answer) as here:
        with pytest.raises(kind) as caught:
            await rewards(here.url, PAIRS, patience=patience(0.0))
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert KEY not in told
    assert str(caught.value).startswith(f"vllm/rm@{here.url}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_server_that_is_not_there_or_too_slow_is_down() -> None:
    with pytest.raises(ProviderDown, match=r"vllm/rm@http://127\.0\.0\.1:9/v1: no connection"):
        await rewards("http://127.0.0.1:9/v1", PAIRS, patience=patience(0.0))
    async with server() as here:
        with pytest.raises(ProviderDown, match=r"no reply within 0\.001 s"):
            await rewards(here.url, PAIRS, timeout_s=0.001, patience=patience(0.0))


@pytest.mark.parametrize(
    ("named", "name"),
    [("org/RM-2B", "vllm/org/RM-2B@http://host:8000/v1"), ("/srv/models/rm", "vllm/rm@http://host:8000/v1")],
)
async def test_the_name_of_a_served_model_holds_no_path_of_a_machine(named: str, name: str) -> None:
    async with opened("http://host:8000/v1/", named) as model:
        assert model.name == name


async def test_the_url_may_end_before_v1() -> None:
    async with server() as here:
        assert await rewards(here.url.removesuffix("/v1"), PAIRS[:1]) == (reward(*PAIRS[0]),)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vllm/org/rm", "vllm/org/rm@http://127.0.0.1:8000/v1"),
        ("vllm/rm@http://a/v1,http://b/v1", "expected one URL, came 2"),
        ("org/rm@http://host/v1", "with a URL expected vllm/NAME@URL"),
        ("/no/such/folder", "expected a folder, there is none"),
        ("./no", "expected a folder, there is none"),
        ("a/b/c", "expected a folder, there is none"),
    ],
)
async def test_a_name_that_means_no_reward_model_is_refused(name: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        await open_reward_model(name, connections=Connections(), patience=patience())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_without_the_packages_the_way_to_install_them_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'drpo\[reward\]', or a server's: vllm/NAME@URL"):
        await open_reward_model("org/rm", connections=Connections(), patience=patience())
