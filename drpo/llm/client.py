"""An OpenAI-compatible endpoint: one HTTP request per call, its misbehaviour turned into drpo's own errors.

Requests go through `AsyncOpenAI.post` rather than `chat.completions.create`, whose building and checking of
types takes more than half of the processor time of a call. The SDK is imported on first use.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from drpo.errors import DrpoError, ParameterRefused, ProviderRefused
from drpo.llm.base import Choice, Completion, Request
from drpo.llm.connections import Connections, Endpoint, sdk_options
from drpo.llm.faults import GATEWAY, Fault, one_line, read_fault
from drpo.llm.retry import Transient, Unconnected, retry_after_s
from drpo.llm.wire import Piece, body_of, choice_of, encoded, events_of, piece_of, usage_of

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import aiohttp


class _Came(Protocol):
    """An answer whose headers are read where they are needed."""

    @property
    def headers(self) -> Mapping[str, str]: ...


_CONNECT_S = 10

_REMEDIES = {
    401: "Check the API key: the variable that holds it, and that it belongs to this endpoint",
    403: "Check that the API key may use this model",
    404: "Check the model's name, and that the URL ends where the API begins (often /v1)",
}


class OpenAIClient:
    """An LLM at an OpenAI-compatible endpoint: chat completions for messages, completions for a prompt.

    `model_name` goes on the wire, `Request.model` does not. A whole request takes at most `timeout_s`. Never
    retries: failures that may pass are `Transient`. A request too long for the model and one stopped by a
    content filter are completions with an empty text and that finish_reason. lean: without the SDK, for a
    server, where a call's processor time is what limits it.
    """

    def __init__(
        self,
        connections: Connections,
        endpoint: Endpoint,
        model_name: str,
        *,
        timeout_s: float,
        lean: bool = False,
    ) -> None:
        self._lean = lean
        self._connections = connections
        self._endpoint = endpoint
        self._model_name = model_name
        self._timeout_s = timeout_s
        # Whole URLs: joining a path to a base takes the SDK a twentieth of a call.
        self._chat_url = f"{endpoint.shown.rstrip('/')}/chat/completions"
        self._text_url = f"{endpoint.shown.rstrip('/')}/completions"
        self._params = dict(parse_qsl(urlsplit(endpoint.url).query))
        self._options: Any = None
        self._heads: dict[bool, bytes] = {}

    async def complete(self, request: Request) -> Completion:
        began_s = time.monotonic()
        result = await (self._ask_leanly if self._lean else self._ask)(request)
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
            return self._transient(request, f"no complete answer within {self._timeout_s:g} s", 504)
        except openai.APIStatusError as err:
            fault = read_fault(err.body, err.status_code)
            meant = self._fault(request, body, fault, err.response.headers)
            return replace(meant, turned_away=True) if isinstance(meant, Completion) else meant
        except (openai.OpenAIError, aiohttp.ClientError, httpx2.HTTPError, httpx2.InvalidURL, OSError) as err:
            return self._unconnected(request, err)
        return self._read(request, body, response.content, response)

    async def _ask_leanly(self, request: Request) -> Completion | DrpoError:
        body = body_of(request, self._model_name)
        try:
            pool = self._connections.pool(self._endpoint)
            if pool is None:
                return await self._ask(request)
            reply = await pool.post(self._head(request), encoded(body), self._timeout_s)
        except TimeoutError:
            return self._transient(request, f"no complete answer within {self._timeout_s:g} s", 504)
        except _no_connection() as err:
            return self._unconnected(request, err)
        if reply.status == 200:
            return self._read(request, body, reply.body, reply)
        meant = self._fault(request, body, read_fault(_json_or_text(reply.body), reply.status), reply.headers)
        return replace(meant, turned_away=True) if isinstance(meant, Completion) else meant

    def _head(self, request: Request) -> bytes:
        """Of a request to the pool: the same for all of a kind."""
        chat = request.prompt is None
        if (head := self._heads.get(chat)) is None:
            import httpx2

            from drpo.llm.pool import head_of

            url = httpx2.URL(self._chat_url if chat else self._text_url, params=self._params or None)
            # Not compressed: who unpacks what a server sends must bound what comes of it.
            headers = {**self._headers("application/json"), "Accept-Encoding": "identity"}
            head = self._heads[chat] = head_of(url, headers)
        return head

    def _headers(self, accept: str) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": accept}
        if known := self._endpoint.authorization:
            headers["Authorization"] = known
        return headers

    def _post(
        self, request: Request, body: dict[str, object], timeout: aiohttp.ClientTimeout, accept: str
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The request on aiohttp alone."""
        return self._connections.session(self._endpoint).post(
            self._chat_url if request.prompt is None else self._text_url,
            data=encoded(body),
            headers=self._headers(accept),
            params=self._params or None,
            timeout=timeout,
            allow_redirects=False,
        )

    async def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        """The reply to a request for one choice, piece by piece as it comes. Failures as `complete`; one in
        the middle of the reply is `Transient` too: what came before it has been given already.

        Between two pieces at most `timeout_s` may pass.
        """
        import aiohttp
        import httpx2

        body = {**body_of(request, self._model_name), "stream": True}
        body["stream_options"] = {"include_usage": True}
        failure: Completion | DrpoError | None = None
        bound = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=self._timeout_s)
        try:
            async with self._post(request, body, bound, "text/event-stream") as reply:
                if reply.status == 200:
                    async for event in events_of(reply.content.iter_any()):
                        if isinstance(event.get("error"), dict):
                            failure = self._fault(request, body, read_fault(event["error"]), reply.headers)
                            break
                        yield piece_of(event, chat=request.prompt is None)
                else:
                    fault = read_fault(_json_or_text(await reply.read()), reply.status)
                    failure = self._fault(request, body, fault, reply.headers)
        except TimeoutError:
            failure = self._transient(request, f"nothing came for {self._timeout_s:g} s", 504)
        except (aiohttp.ClientError, httpx2.HTTPError, OSError) as err:
            failure = self._unconnected(request, err)
        except ValueError as err:
            failure = self._transient(request, f"a stream that cannot be read: {self._clean(str(err))}")
        if isinstance(failure, Completion):  # filtered, or too long: an answer of its kind
            yield Piece("", failure.choices[0].finish_reason)
        elif failure is not None:
            raise failure

    def _read(
        self, request: Request, body: Collection[str], raw: bytes, came: _Came
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
                return self._fault(request, body, read_fault(error), came.headers)
            return self._transient(request, f"a reply without choices: {self._clean(repr(data))}")
        read: list[Choice] = []
        for item in choices[: request.n]:
            if isinstance(item, dict) and isinstance(error := item.get("error"), dict):
                return self._fault(request, body, read_fault(error), came.headers)
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
            return _told(
                ProviderRefused(
                    f"{message}. Add credit or raise the account's limit, then run the same again."
                ),
                fault.status,
                said,
            )
        if (name := fault.parameter_not_taken(body)) is not None:
            return ParameterRefused(name, f"{message}. The model does not take {name!r}: leave it out.")
        if meaning == "passing":
            lost = fault.status in GATEWAY
            waits_s = retry_after_s(headers, time.time())
            return Transient(message, waits_s, charge="perhaps" if lost else "none", status=fault.status)
        return _told(ProviderRefused(f"{message}. {self._remedy(fault.status)}."), fault.status, said)

    def _remedy(self, status: int) -> str:
        if status == 401 and not self._endpoint.api_key:
            return "No key was sent: set the variable that holds this endpoint's API key"
        return _REMEDIES.get(
            status, "The endpoint does not accept this request; check the model and its settings"
        )

    def _transient(self, request: Request, problem: str, status: int | None = None) -> Transient:
        return Transient(f"{self._who(request)}: {problem}", status=status)

    def _who(self, request: Request) -> str:
        return f"{request.role} model {self._model_name} at {self._endpoint.shown}"

    def _clean(self, text: str) -> str:
        return one_line(text, self._endpoint.api_key)


def _told(refused: ProviderRefused, status: int, said: str) -> ProviderRefused:
    refused.status, refused.said = status, said
    return refused


def _json_or_text(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw[:2000].decode("utf-8", "replace")


def _no_connection() -> tuple[type[Exception], ...]:
    """What a pool raises; asked for only where it has, since an import takes its time in every request."""
    import httpx2

    return httpx2.HTTPError, httpx2.InvalidURL, OSError
