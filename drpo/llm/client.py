"""An OpenAI-compatible endpoint: one HTTP request per call, its misbehaviour turned into drpo's own errors.

Requests go through `AsyncOpenAI.post` rather than `chat.completions.create`, whose building and checking of
types takes more than half of the processor time of a call. The SDK is imported on first use.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from base64 import b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from drpo.errors import DrpoError, ParameterRefused, ProviderRefused
from drpo.llm.base import Choice, Completion, Request
from drpo.llm.faults import GATEWAY, Fault, one_line, read_fault
from drpo.llm.retry import Transient, Unconnected, retry_after_s
from drpo.llm.wire import body_of, choice_of, usage_of

if TYPE_CHECKING:
    import openai

_REMEDIES = {
    401: "Check the API key: the variable that holds it, and that it belongs to this endpoint",
    403: "Check that the API key may use this model",
    404: "Check the model's name, and that the URL ends where the API begins (often /v1)",
}
_HEADERS_LEFT_OUT = (
    *(
        f"X-Stainless-{name}"
        for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version")
    ),
    *(f"X-Stainless-{name}" for name in ("Async", "Retry-Count", "Read-Timeout")),
)


@dataclass(frozen=True)
class Endpoint:
    """Where an API begins (often ".../v1") and its key; None: none is sent, not the environment's either."""

    url: str
    api_key: str | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """The URL as it may be shown: without user name, password and query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def authorization(self) -> str | None:
        """The header's value: the key, else user name and password of the URL, else None."""
        user, at, _ = urlsplit(self.url).netloc.rpartition("@")
        if self.api_key:
            return f"Bearer {self.api_key}"
        return f"Basic {b64encode(unquote(user).encode()).decode()}" if at else None


class Connections:
    """The open connections: one SDK client per endpoint and event loop, made when first asked for."""

    def __init__(self) -> None:
        self._clients: dict[tuple[asyncio.AbstractEventLoop, Endpoint], openai.AsyncOpenAI] = {}

    def client(self, endpoint: Endpoint) -> openai.AsyncOpenAI:
        """The client of `endpoint` for the running event loop; it belongs to this object, who closes it."""
        key = (asyncio.get_running_loop(), endpoint)
        if (client := self._clients.get(key)) is None:
            client = self._clients[key] = _new_client(endpoint)
        return client

    async def aclose(self) -> None:
        """Close what was opened on the running event loop. May be called twice."""
        loop = asyncio.get_running_loop()
        for key in [key for key in self._clients if key[0] is loop or key[0].is_closed()]:
            client = self._clients.pop(key)
            if key[0] is loop:
                await client.close()


def _new_client(endpoint: Endpoint) -> openai.AsyncOpenAI:
    from drpo.llm.transport import LeanClient, LeanOpenAI

    return LeanOpenAI(
        # Without user name and password, which aiohttp refuses next to an Authorization header, and without
        # the query, to which the SDK would append the path.
        base_url=endpoint.shown,
        default_query=dict(parse_qsl(urlsplit(endpoint.url).query)),
        api_key=endpoint.api_key or "none",  # None would take the environment's
        # The key once more, because OPENAI_CUSTOM_HEADERS would override the one above.
        default_headers={"Authorization": endpoint.authorization or "Bearer none"},
        max_retries=0,
        timeout=None,
        http_client=LeanClient(),
    )


def sdk_options(endpoint: Endpoint) -> Any:
    """What the SDK need not work out anew for each request (its defaults are copied deeply every time).

    OPENAI_ORG_ID and OPENAI_PROJECT_ID are meant for OpenAI alone.
    """
    import openai

    headers: dict[str, str | openai.Omit] = dict.fromkeys(_HEADERS_LEFT_OUT, openai.Omit())
    if not endpoint.authorization:
        headers["Authorization"] = openai.Omit()
    if not (urlsplit(endpoint.url).hostname or "").endswith("openai.com"):
        headers |= {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
    return {
        "headers": headers,
        "params": {},
        "max_retries": 0,
        "timeout": None,  # each request is bounded as a whole
        "idempotency_key": "unused",
        "security": {"bearer_auth": True},
    }


class OpenAIClient:
    """An LLM at an OpenAI-compatible endpoint: chat completions for messages, completions for a prompt.

    `model_name` goes on the wire, `Request.model` does not. A whole request takes at most `timeout_s`. Never
    retries: failures that may pass are `Transient`. A request too long for the model and one stopped by a
    content filter are completions with an empty text and that finish_reason.
    """

    def __init__(
        self,
        connections: Connections,
        endpoint: Endpoint,
        model_name: str,
        *,
        timeout_s: float,
    ) -> None:
        self._connections = connections
        self._endpoint = endpoint
        self._model_name = model_name
        self._timeout_s = timeout_s
        # Whole URLs: joining a path to a base takes the SDK a twentieth of a call.
        self._chat_url = f"{endpoint.shown.rstrip('/')}/chat/completions"
        self._text_url = f"{endpoint.shown.rstrip('/')}/completions"
        self._options: Any = None

    async def complete(self, request: Request) -> Completion:
        began_s = time.monotonic()
        result = await self._ask(request)
        if isinstance(result, Completion):
            return result
        if isinstance(result, Transient):
            result.took_s = time.monotonic() - began_s
        # Raised outside of any except block: no SDK exception, whose request holds the key, is chained.
        raise result

    async def _ask(self, request: Request) -> Completion | DrpoError:
        import aiohttp
        import httpx2
        import openai

        if self._options is None:
            self._options = sdk_options(self._endpoint)
        body = body_of(request, self._model_name)
        content = json.dumps(body).encode("ascii")
        client = self._connections.client(self._endpoint)
        url = self._chat_url if request.prompt is None else self._text_url
        try:
            # The SDK's own timeout is per read: a trickled reply would outlive it many times over.
            async with asyncio.timeout(self._timeout_s):
                response = await client.post(
                    url, cast_to=httpx2.Response, content=content, options=self._options
                )
        except TimeoutError:
            return self._transient(request, f"no complete answer within {self._timeout_s:g} s")
        except openai.APIStatusError as err:
            fault = read_fault(err.body, err.status_code)
            meant = self._fault(request, body, fault, err.response.headers)
            return replace(meant, turned_away=True) if isinstance(meant, Completion) else meant
        except (openai.OpenAIError, aiohttp.ClientError, httpx2.HTTPError, httpx2.InvalidURL, OSError) as err:
            return self._unconnected(request, err)
        return self._read(request, body, response.content, response.headers)

    def _read(
        self, request: Request, body: Collection[str], raw: bytes, headers: Mapping[str, str]
    ) -> Completion | DrpoError:
        try:
            data: object = json.loads(raw)
        except (ValueError, RecursionError):
            shown = self._clean(raw[:2000].decode("utf-8", "replace"))
            return self._transient(request, f"a reply that is not JSON: {shown!r}")
        choices = data.get("choices") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(choices, list) or not choices:
            error = data.get("error") if isinstance(data, dict) else None
            if error:
                return self._fault(request, body, read_fault(error), headers)
            return self._transient(request, f"a reply without choices: {self._clean(repr(data))}")
        read: list[Choice] = []
        for item in choices[: request.n]:
            if isinstance(item, dict) and isinstance(error := item.get("error"), dict):
                return self._fault(request, body, read_fault(error), headers)
            if (choice := choice_of(item, chat=request.prompt is None)) is None:
                return self._transient(request, f"a choice without text: {self._clean(repr(item))}")
            read.append(choice)
        served = data.get("model")
        return Completion(tuple(read), usage_of(data.get("usage")), served if isinstance(served, str) else "")

    def _unconnected(self, request: Request, err: Exception) -> DrpoError:
        import httpx2

        causes: list[BaseException] = [err]
        while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and len(causes) < 9:
            causes.append(cause)
        said = self._clean(next((str(c) for c in reversed(causes) if str(c)), type(err).__name__))
        if any(isinstance(c, ssl.SSLCertVerificationError) for c in causes):
            remedy = "Check the address; a private authority's certificate belongs into the system's store"
            return ProviderRefused(f"{self._who(request)}: its certificate is not trusted: {said}. {remedy}.")
        if any(isinstance(c, (httpx2.UnsupportedProtocol, httpx2.InvalidURL)) for c in causes):
            return ProviderRefused(
                f"{self._who(request)}: not a usable URL: {said}. Expected http(s)://HOST/v1."
            )
        never = any(isinstance(c, (httpx2.ConnectError, httpx2.ConnectTimeout)) for c in causes)
        message = f"{self._who(request)}: no connection, or it broke: {said}"
        return Unconnected(message, charge="unsent" if never else "perhaps")

    def _fault(
        self, request: Request, body: Collection[str], fault: Fault, headers: Mapping[str, str]
    ) -> Completion | DrpoError:
        """What an error of the server means: a completion, or the exception to raise."""
        said = self._clean(fault.said).rstrip(". ") or "no message"
        message = f"{self._who(request)}: HTTP {fault.status}: {said}"
        meaning = fault.meaning()
        if meaning == "filtered":
            return Completion((Choice("", "content_filter"),))
        if meaning == "too_long":
            return Completion((Choice("", "context_length"),))
        if meaning == "no_credit":
            return ProviderRefused(
                f"{message}. Add credit or raise the account's limit, then run the same again."
            )
        if (name := fault.parameter_not_taken(body)) is not None:
            return ParameterRefused(name, f"{message}. The model does not take {name!r}: leave it out.")
        if meaning == "passing":
            lost = fault.status in GATEWAY
            waits_s = retry_after_s(headers, time.time())
            return Transient(message, waits_s, charge="perhaps" if lost else "none")
        return ProviderRefused(f"{message}. {self._remedy(fault.status)}.")

    def _remedy(self, status: int) -> str:
        if status == 401 and not self._endpoint.api_key:
            return "No key was sent: set the variable that holds this endpoint's API key"
        return _REMEDIES.get(
            status, "The endpoint does not accept this request; check the model and its settings"
        )

    def _transient(self, request: Request, problem: str) -> Transient:
        return Transient(f"{self._who(request)}: {problem}")

    def _who(self, request: Request) -> str:
        return f"{request.role} model {self._model_name} at {self._endpoint.shown}"

    def _clean(self, text: str) -> str:
        return one_line(text, self._endpoint.api_key)
