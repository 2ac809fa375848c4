"""What only a model's server knows: how long its context is, and how many tokens a request has."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from drpo.errors import DrpoError, ProviderRefused
from drpo.llm.base import Request
from drpo.llm.connections import Connections, Endpoint, sdk_options
from drpo.llm.faults import one_line, read_fault
from drpo.llm.retry import Patience, Transient


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
