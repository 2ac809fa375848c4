"""Reward models: one number for one response to a query, from a model trained to tell better from worse.

As Align-Pro (arXiv 2501.03486, section 7) measures: a sequence-classification model with one label, whose raw
output is the reward. It runs here through transformers (`reward_local.py`) or behind a vLLM server.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Protocol

from drpo.errors import DrpoError, InputError, ProviderRefused
from drpo.llm.catalog import parse_model
from drpo.llm.connections import Connections, Endpoint, sdk_options
from drpo.llm.faults import GATEWAY, one_line, read_fault
from drpo.llm.retry import Charge, Patience, Transient, Unconnected, retry_after_s
from drpo.llm.reward_local import LocalRewardModel

KEY_VARIABLES = ("DRPO_REWARD_API_KEY", "VLLM_API_KEY")
"""Where the key of a served reward model stands, first come first served."""

Pair = tuple[str, str]
_NO_TEMPLATE = re.compile(r"chat[ _]template")
_CUT = {"truncate_prompt_tokens": -1, "truncation_side": "right"}  # -1: the model's whole context
_SERVE = "vllm serve REPO --runner pooling"
_REMEDIES = {
    401: f"Check the key: {' or '.join(KEY_VARIABLES)}",
    403: f"Check what the key may do: {' or '.join(KEY_VARIABLES)}",
    404: f"Check the model's name, and that the server classifies: {_SERVE}",
}


class RewardModel(Protocol):
    """Rewards of responses. `name` tells it apart in records, wherever it runs; `cut`: how many pairs so far
    were longer than its context, so that their ends were not read."""

    @property
    def name(self) -> str: ...

    @property
    def cut(self) -> int: ...

    async def rewards(self, pairs: Sequence[Pair]) -> tuple[float, ...]:
        """One finite number per (query, response), same order; higher is better, the scale is the model's."""
        ...


async def open_reward_model(
    name: str,
    *,
    connections: Connections,
    patience: Patience,
    api_key: str | None = None,
    timeout_s: float = 120.0,
    concurrency: int = 8,
) -> RewardModel:
    """What `name` means: REPO, REPO@REVISION or a folder, run here; vllm/NAME@URL, asked there.

    A model that runs here is known to be a reward model when this returns, its weights are loaded at the
    first pair; a server is asked nothing yet. InputError for a name that means neither, for want of a
    package, and for a model with other than one label, code of its own or weights other than safetensors.
    """
    if name.startswith("vllm/"):
        endpoint, served_name = _served(name, api_key)
        return ServedRewardModel(
            connections,
            endpoint,
            served_name,
            patience=patience,
            timeout_s=timeout_s,
            concurrency=concurrency,
        )
    check_reward_model(name)
    model = LocalRewardModel(name)
    await model.open()
    return model


def check_reward_model(name: str) -> None:
    """Raises InputError for a name that means no reward model, before anybody is asked; a secret in it is
    refused and not repeated."""
    if not name.strip():
        raise InputError("reward model: expected REPO, a folder or vllm/NAME@URL, came nothing")
    if name.startswith("vllm/"):
        _served(name, None)
    elif "://" in name:
        raise InputError(f"reward model {name.partition('@')[0]}: with a URL expected vllm/NAME@URL")


def _served(name: str, api_key: str | None) -> tuple[Endpoint, str]:
    spec = parse_model(name)
    if not spec.urls:
        raise InputError(
            f"reward model vllm/{spec.name}: expected @URL, drpo starts no reward servers. Start one "
            f"(vllm serve {spec.name} --runner pooling) and name it: "
            f"vllm/{spec.name}@http://127.0.0.1:8000/v1"
        )
    if len(spec.urls) > 1:
        raise InputError(f"reward model vllm/{spec.name}: expected one URL, came {len(spec.urls)}")
    return Endpoint(spec.urls[0], api_key), spec.name


class ServedRewardModel:
    """A sequence-classification model behind a vLLM server: one request a pair, `concurrency` at once.

    Pairs go to POST /classify as a chat of two messages; where the server's tokenizer has no chat template,
    to POST /score as two texts. Both are asked for the raw output. Until one pair is answered, one is sent at
    a time. What may pass is tried again as `patience` says and is then ProviderDown; any other status is
    ProviderRefused, a model with other than one label an InputError.
    """

    def __init__(
        self,
        connections: Connections,
        endpoint: Endpoint,
        model_name: str,
        *,
        patience: Patience,
        timeout_s: float,
        concurrency: int,
    ) -> None:
        self._connections, self._endpoint, self._model_name = connections, endpoint, model_name
        self._patience, self._timeout_s, self._concurrency = patience, timeout_s, concurrency
        # A model in a folder of the server's machine is known by the folder's name, not by where it stands.
        is_path = model_name.startswith(("/", ".", "~"))
        shown_name = PurePath(model_name).name if is_path else model_name
        self.name = f"vllm/{shown_name}@{endpoint.shown.rstrip('/')}"
        self._base = endpoint.shown.rstrip("/").removesuffix("/v1")  # neither path stands under /v1
        self._as_chat = True
        self._cut = 0
        self._answered = False
        self._options: Any = None

    @property
    def cut(self) -> int:
        return self._cut

    async def rewards(self, pairs: Sequence[Pair]) -> tuple[float, ...]:
        """One request per pair, two where it is cut."""
        slots = asyncio.Semaphore(self._concurrency)

        async def one(pair: Pair) -> float:
            async with slots:
                return await self._reward(pair)

        first: list[float] = []
        if pairs and not self._answered:
            first.append(await self._reward(pairs[0]))
            self._answered = True
        try:
            async with asyncio.TaskGroup() as group:  # the first failure calls the others off
                tasks = [group.create_task(one(pair)) for pair in pairs[len(first) :]]
        except BaseExceptionGroup as failures:
            failure = failures.exceptions[0]
        else:
            return (*first, *(task.result() for task in tasks))
        raise failure

    async def _reward(self, pair: Pair) -> float:
        try:
            return await self._once(pair)
        except Transient as failure:
            first = failure
        return await self._patience.insist(first, lambda: self._once(pair))

    async def _once(self, pair: Pair) -> float:
        result = await self._ask(pair, {})
        if result == "no template":
            self._as_chat = False
            result = await self._ask(pair, {})
        if result == "too long":
            result = await self._ask(pair, _CUT)
            self._cut += isinstance(result, float)
        if isinstance(result, str):
            result = ProviderRefused(f"{self.name}: it says of what it was sent: {result}. Check the server")
        if isinstance(result, DrpoError):
            raise result  # outside of any except block: an SDK exception, chained, would carry the key
        return result

    async def _ask(self, pair: Pair, extra: dict[str, object]) -> float | str | DrpoError:
        """The reward; or "no template" or "too long"; or what went wrong."""
        import aiohttp
        import httpx2
        import openai

        if self._options is None:
            self._options = sdk_options(self._endpoint)
        as_chat = self._as_chat
        path, body = ("/classify", _chat(pair)) if as_chat else ("/score", _texts(pair))
        body = {"model": self._model_name, **body, "use_activation": False, **extra}
        client = self._connections.client(self._endpoint)
        try:
            async with asyncio.timeout(self._timeout_s):
                reply: object = await client.post(
                    f"{self._base}{path}", body=body, cast_to=object, options=self._options
                )
        except TimeoutError:
            return Transient(f"{self.name}: no reply within {self._timeout_s:g} s. Try again later")
        except openai.APIStatusError as error:
            return self._fault(error, as_chat)
        except (openai.OpenAIError, aiohttp.ClientError, httpx2.HTTPError, httpx2.InvalidURL, OSError) as err:
            said = self._clean(str(err.__cause__ or err) or type(err).__name__)
            return Unconnected(f"{self.name}: no connection, or it broke: {said}")
        except (ValueError, RecursionError) as error:
            return Transient(f"{self.name}: a reply that is not JSON: {self._clean(str(error))}")
        return self._read(reply)

    def _read(self, reply: object) -> float | DrpoError:
        """The number in a reply of /classify (its "probs", raw as they were asked for) or of /score."""
        data = reply.get("data") if isinstance(reply, dict) else None
        item = data[0] if isinstance(data, list) and len(data) == 1 else None
        if not isinstance(item, dict):
            return Transient(f"{self.name}: expected one reward, came {self._clean(repr(reply))}")
        values = item["probs"] if "probs" in item else [item.get("score")]
        if isinstance(values, list) and len(values) > 1:
            return InputError(
                f"{self.name}: expected a reward model, with one label; it has {len(values)}. Serve another"
            )
        value = values[0] if isinstance(values, list) and values else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return Transient(f"{self.name}: expected one finite number, came {self._clean(repr(item))}")
        return float(value)

    def _fault(self, error: Any, as_chat: bool) -> str | DrpoError:
        fault = read_fault(error.body, error.status_code)
        # Not once a pair was answered: all of them are asked in one form.
        can_change = as_chat and not self._answered
        if can_change and fault.status in (400, 422) and _NO_TEMPLATE.search(fault.said.lower()):
            return "no template"
        meaning = fault.meaning()
        if meaning == "too_long":
            return "too long"
        said = f"{self.name}: HTTP {fault.status}: {self._clean(fault.said).rstrip('. ') or 'no message'}"
        if meaning == "passing":
            charge: Charge = "perhaps" if fault.status in GATEWAY else "none"
            return Transient(said, retry_after_s(error.response.headers, time.time()), charge=charge)
        remedy = _REMEDIES.get(fault.status, f"Check that it serves a reward model: {_SERVE}")
        return ProviderRefused(f"{said}. {remedy}")

    def _clean(self, text: str) -> str:
        return one_line(text, self._endpoint.api_key)


def _chat(pair: Pair) -> dict[str, object]:
    query, response = pair
    return {
        "messages": [{"role": "user", "content": query}, {"role": "assistant", "content": response}],
    }


def _texts(pair: Pair) -> dict[str, object]:
    query, response = pair
    return {"text_1": query, "text_2": response}
