"""An OpenAI-compatible endpoint: one HTTP request per call, its misbehaviour turned into drpo's own errors.

Requests go through `AsyncOpenAI.post` rather than `chat.completions.create`, whose building and checking of
types takes more than half of the processor time of a call. The SDK is imported on first use.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from drpo.errors import DrpoError
from drpo.llm.base import Choice, Completion, Request
from drpo.llm.connections import Connections, Endpoint, sdk_options
from drpo.llm.failing import Failing
from drpo.llm.faults import read_fault
from drpo.llm.pieces import Pieces
from drpo.llm.retry import Transient
from drpo.llm.wire import Piece, body_of, choice_of, encoded, usage_of

if TYPE_CHECKING:
    import httpx2


class _Came(Protocol):
    """An answer whose headers are read where they are needed."""

    @property
    def headers(self) -> Mapping[str, str]: ...


class _Coming(_Came, Protocol):
    """An answer that is read as it comes: of a pool, or of a session."""

    @property
    def status(self) -> int: ...

    async def part(self) -> bytes: ...

    async def whole(self) -> bytes: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


_STREAMED = b', "stream": true, "stream_options": {"include_usage": true}}'


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
        self._heads: dict[tuple[bool, str], bytes] = {}
        self._failing = Failing(endpoint, model_name)

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
        content = json.dumps(body_of(request, self._model_name)).encode("ascii")
        client = self._connections.client(self._endpoint)
        url = self._chat_url if request.prompt is None else self._text_url
        try:
            # The SDK's own timeout is per read: a trickled reply would outlive it many times over.
            async with asyncio.timeout(self._timeout_s):
                response = await client.post(
                    url, cast_to=httpx2.Response, content=content, options=self._options
                )
        except TimeoutError:
            return self._failing.transient(request, f"no complete answer within {self._timeout_s:g} s", 504)
        except openai.APIStatusError as err:
            fault = read_fault(err.body, err.status_code)
            meant = self._failing.fault(request, fault, err.response.headers)
            return replace(meant, turned_away=True) if isinstance(meant, Completion) else meant
        except (openai.OpenAIError, aiohttp.ClientError, httpx2.HTTPError, httpx2.InvalidURL, OSError) as err:
            return self._failing.unconnected(request, err)
        return self._read(request, response.content, response)

    async def _ask_leanly(self, request: Request) -> Completion | DrpoError:
        try:
            pool = self._connections.pool(self._endpoint)
            if pool is None:
                return await self._ask(request)
            body = encoded(request, self._model_name)
            reply = await pool.post(self._head(request, "application/json"), body, self._timeout_s)
        except TimeoutError:
            return self._failing.transient(request, f"no complete answer within {self._timeout_s:g} s", 504)
        except _no_connection() as err:
            return self._failing.unconnected(request, err)
        if reply.status == 200:
            return self._read(request, reply.body, reply)
        fault = read_fault(_json_or_text(reply.body), reply.status)
        meant = self._failing.fault(request, fault, reply.headers)
        return replace(meant, turned_away=True) if isinstance(meant, Completion) else meant

    async def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        """The reply to a request for one choice, piece by piece as it comes. Failures as `complete`; one in
        the middle of the reply is `Transient` too: what came before it has been given already.

        Between two pieces at most `timeout_s` may pass.
        """
        pieces = Pieces(chat=request.prompt is None)
        coming: _Coming | None = None
        failure: Completion | DrpoError | None = None
        try:
            coming = await self._begun(request, encoded(request, self._model_name)[:-1] + _STREAMED)
            if coming.status != 200:
                fault = read_fault(_json_or_text(await coming.whole()), coming.status)
                failure = self._failing.fault(request, fault, coming.headers)
            while failure is None and not pieces.over and (part := await coming.part()):
                for piece in pieces.of(part):
                    yield piece
            if pieces.fault is not None:
                failure = self._failing.fault(request, read_fault(pieces.fault), coming.headers)
            if failure is None:
                coming.finish()
        except TimeoutError:
            failure = self._failing.transient(request, f"nothing came for {self._timeout_s:g} s", 504)
        except _no_connection() as err:
            failure = self._failing.unconnected(request, err)
        except ValueError as err:
            said = self._failing.clean(str(err))
            failure = self._failing.transient(request, f"a stream that cannot be read: {said}")
        finally:
            if coming is not None:
                coming.close()
        if isinstance(failure, Completion):  # filtered, or too long: an answer of its kind
            yield Piece("", failure.choices[0].finish_reason)
        elif failure is not None:
            raise failure

    async def _begun(self, request: Request, body: bytes) -> _Coming:
        """The answer to a request for a stream, whatever its status, from when its head has come."""
        pool = self._connections.pool(self._endpoint)
        if pool is not None:
            return await pool.stream(self._head(request, "text/event-stream"), body, self._timeout_s)
        from drpo.llm.session_stream import post_in_session

        session = self._connections.session(self._endpoint)
        url, headers = str(self._url(request)), self._headers("text/event-stream")
        return await post_in_session(session, url, body, headers, self._timeout_s)

    def _head(self, request: Request, accept: str) -> bytes:
        """Of a request to the pool: the same for all of a kind."""
        kind = (request.prompt is None, accept)
        if (head := self._heads.get(kind)) is None:
            from drpo.llm.pool import head_of

            head = self._heads[kind] = head_of(self._url(request), self._headers(accept))
        return head

    def _url(self, request: Request) -> httpx2.URL:
        import httpx2

        url = self._chat_url if request.prompt is None else self._text_url
        return httpx2.URL(url, params=self._params or None)

    def _headers(self, accept: str) -> dict[str, str]:
        # Not compressed: who unpacks what a server sends must bound what comes of it.
        headers = {"Content-Type": "application/json", "Accept": accept, "Accept-Encoding": "identity"}
        if known := self._endpoint.authorization:
            headers["Authorization"] = known
        return headers

    def _read(self, request: Request, raw: bytes, came: _Came) -> Completion | DrpoError:
        try:
            # JSON as nearly all send it is text in UTF-8, which json would have to find out.
            plain = raw.startswith(b'{"')
            data: object = json.loads(raw.decode("utf-8", "surrogatepass") if plain else raw)
        except (ValueError, RecursionError):
            shown = self._failing.clean(raw[:2000].decode("utf-8", "replace"))
            return self._failing.transient(request, f"a reply that is not JSON: {shown!r}")
        choices = data.get("choices") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(choices, list) or not choices:
            error = data.get("error") if isinstance(data, dict) else None
            if error:
                return self._failing.fault(request, read_fault(error), came.headers)
            return self._failing.transient(
                request, f"a reply without choices: {self._failing.clean(repr(data))}"
            )
        read: list[Choice] = []
        for item in choices[: request.n]:
            if isinstance(item, dict) and isinstance(error := item.get("error"), dict):
                return self._failing.fault(request, read_fault(error), came.headers)
            if (choice := choice_of(item, chat=request.prompt is None)) is None:
                return self._failing.transient(
                    request, f"a choice without text: {self._failing.clean(repr(item))}"
                )
            read.append(choice)
        served = data.get("model")
        return Completion(tuple(read), usage_of(data.get("usage")), served if isinstance(served, str) else "")


def _json_or_text(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw[:2000].decode("utf-8", "replace")


def _no_connection() -> tuple[type[Exception], ...]:
    """What a pool raises; asked for only where it has, since an import takes its time in every request."""
    import httpx2

    return httpx2.HTTPError, httpx2.InvalidURL, OSError
