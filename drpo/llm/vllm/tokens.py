"""What only a model's server knows: how long its context is, how many tokens a request has, and how likely
an answer to it is."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from drpo.errors import DrpoError, ProviderRefused
from drpo.llm.base import Choice, Request
from drpo.llm.connections import Connections, Endpoint, sdk_options
from drpo.llm.faults import one_line, read_fault
from drpo.llm.retry import Patience, Transient

_TELLING = {"temperature": 0, "prompt_logprobs": 0}
_ROUNDED = 1e-3
"""A log-probability of a sure token may be above 0 by so much."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server did not take the question; `said` are its words, `status` its HTTP status."""

    status: int
    said: str


class ServerFacts:
    """Asks a vLLM server (or what speaks like one) about its model, with patience.

    endpoint: where the server is now; one that drpo runs is started by asking.
    """

    def __init__(
        self,
        endpoint: Callable[[], Awaitable[Endpoint]],
        connections: Connections,
        model_name: str,
        patience: Patience,
        timeout_s: float,
    ) -> None:
        self._endpoint, self._connections, self._model_name = endpoint, connections, model_name
        self._patience, self._timeout_s = patience, timeout_s
        self._options: dict[Endpoint, Any] = {}
        self._end: int | None = None
        self._end_is_known = asyncio.Lock()
        self._has_asked_for_end = False

    async def context_tokens(self) -> int | None:
        """The longest prompt and answer together, None where the server does not say."""
        data = await self._ask("GET", "/v1/models", None)
        models = data.get("data") if isinstance(data, dict) else None
        for model in models if isinstance(models, list) else ():
            if isinstance(model, dict) and model.get("id") == self._model_name:
                limit = model.get("max_model_len")
                return limit if isinstance(limit, int) and limit > 0 else None
        return None

    async def tokens(self, request: Request) -> tuple[int, ...] | Refusal:
        """The ids that the model reads for `request`: its chat template applied, special tokens added."""
        body: dict[str, Any] = {"model": self._model_name}
        if request.prompt is None:
            body["messages"] = [{"role": m.role, "content": m.content} for m in request.messages]
            body["add_generation_prompt"] = True
        else:
            body["prompt"] = request.prompt
            body["add_special_tokens"] = True
        return await self._tokenized(body)

    async def score(self, request: Request, choice: Choice) -> float | None:
        """The log-probability that `request`, a chat, is answered by `choice`, its end included where it has
        one. None where the server does not tell, and where answers are no plain samples: a temperature or a
        top_p other than 1. (A top_k of the server's own settings is not seen.)
        """
        if request.prompt is not None or (request.temperature, request.top_p) != (1, 1):
            return None
        if (end := await self._end_mark()) is None:
            return None
        prompt, text = await self.tokens(request), await self._text_tokens(choice.text)
        if isinstance(prompt, Refusal) or isinstance(text, Refusal) or not prompt:
            return None
        if choice.finish_reason == "stop":
            text = (*text, end)
        ids = (*prompt, *text)
        told = await self._continued(ids, {"max_tokens": 1, **_TELLING})
        return _summed(told.get("prompt_logprobs"), ids, len(prompt))

    async def _end_mark(self) -> int | None:
        """The token behind an answer in the model's chats; None where it does not end what the model writes,
        or the server tells no log-probabilities."""
        async with self._end_is_known:
            if not self._has_asked_for_end:
                self._end = await self._asked_end_mark()
                self._has_asked_for_end = True
        return self._end

    async def _asked_end_mark(self) -> int | None:
        hello, answer = {"role": "user", "content": "Hello"}, "Hi"
        body: dict[str, Any] = {"model": self._model_name}
        begun = await self._tokenized({**body, "messages": [hello], "add_generation_prompt": True})
        turns = [hello, {"role": "assistant", "content": answer}]
        whole = await self._tokenized({**body, "messages": turns, "add_generation_prompt": False})
        text = await self._text_tokens(answer)
        if isinstance(begun, Refusal) or isinstance(whole, Refusal) or isinstance(text, Refusal):
            return None
        before = (*begun, *text)
        if whole[: len(before)] != before or len(whole) == len(before):
            return None
        end = whole[len(before)]
        # Whether the model ends by it: two tokens are asked for, and it can write no other.
        told = await self._continued(before, {"max_tokens": 2, "allowed_token_ids": [end], **_TELLING})
        is_told = _summed(told.get("prompt_logprobs"), before, len(begun)) is not None
        return end if is_told and told.get("finish_reason") == "stop" else None

    async def _continued(self, ids: tuple[int, ...], asked: dict[str, Any]) -> dict[str, Any]:
        """The choice that continues these tokens; empty where the server refuses."""
        data = await self._ask(
            "POST", "/v1/completions", {"model": self._model_name, "prompt": list(ids), **asked}
        )
        choices = data.get("choices") if isinstance(data, dict) else None
        first = choices[0] if isinstance(choices, list) and choices else None
        return first if isinstance(first, dict) else {}

    async def _text_tokens(self, text: str) -> tuple[int, ...] | Refusal:
        """The ids of a text as it stands, nothing added."""
        if not text:
            return ()
        return await self._tokenized({"model": self._model_name, "prompt": text, "add_special_tokens": False})

    async def _tokenized(self, body: dict[str, Any]) -> tuple[int, ...] | Refusal:
        data = await self._ask("POST", "/tokenize", body)
        if isinstance(data, Refusal):
            return data
        ids = data.get("tokens") if isinstance(data, dict) else None
        if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
            return Refusal(200, "no list of token ids came")
        return tuple(ids)

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """The JSON that came, or how it was refused. Raises ProviderRefused for a wrong key."""
        try:
            return await self._once(method, path, body)
        except Transient as first:
            failure = first
        return await self._patience.insist(failure, lambda: self._once(method, path, body))

    async def _once(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        endpoint = await self._endpoint()
        began_s = time.monotonic()  # not before: a server that is started may take longer than patience
        result = await self._send(endpoint, method, path, body)
        if isinstance(result, Transient):
            result.took_s = time.monotonic() - began_s
        if isinstance(result, DrpoError):
            raise result  # outside of any except block: nothing that holds the key is chained
        return result

    async def _send(self, endpoint: Endpoint, method: str, path: str, body: dict[str, Any] | None) -> Any:
        import aiohttp
        import httpx2
        import openai

        url = endpoint.shown.rstrip("/").removesuffix("/v1") + path
        client = self._connections.client(endpoint)
        who = f"{self._model_name} at {url}"
        if endpoint not in self._options:
            self._options[endpoint] = sdk_options(endpoint)
        options = self._options[endpoint]
        try:
            async with asyncio.timeout(self._timeout_s):
                if method == "GET":
                    reply = await client.get(url, cast_to=httpx2.Response, options=options)
                else:
                    reply = await client.post(url, cast_to=httpx2.Response, body=body, options=options)
        except openai.APIStatusError as error:
            said = one_line(read_fault(error.body, error.status_code).said, endpoint.api_key)
            status = error.status_code
            if status in (401, 403):
                remedy = "Check this endpoint's API key" if endpoint.api_key else "No key was sent: set one"
                return ProviderRefused(f"{who}: HTTP {status}: {said}. {remedy} (VLLM_API_KEY)")
            if read_fault(error.body, status).meaning() == "passing":  # 500: a server that is dying says so
                return Transient(f"{who}: HTTP {status}: {said}")
            return Refusal(status, said)
        except TimeoutError:
            return Transient(f"{who}: no complete answer within {self._timeout_s:g} s")
        except (openai.OpenAIError, aiohttp.ClientError, httpx2.HTTPError, OSError) as error:
            return Transient(f"{who}: no connection, or it broke: {one_line(str(error), endpoint.api_key)}")
        try:
            return json.loads(reply.content)
        except ValueError:
            return Refusal(200, "a reply that is not JSON")


def _summed(rows: Any, ids: Sequence[int], start: int) -> float | None:
    """The sum of the log-probabilities of `ids` from `start` on, as a server tells them; None where it does
    not, or where they are none."""
    if not isinstance(rows, list) or len(rows) < len(ids):
        return None
    found = []
    for place in range(start, len(ids)):
        told = rows[place].get(str(ids[place])) if isinstance(rows[place], dict) else None
        value = told.get("logprob") if isinstance(told, dict) else None
        if not isinstance(value, int | float) or not value <= _ROUNDED:
            return None
        found.append(min(0.0, float(value)))
    return math.fsum(found)
