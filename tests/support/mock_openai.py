"""A loopback server that speaks OpenAI's chat completions, completions, embeddings and models.

Hand-written on `asyncio.Protocol`: with `aiohttp.web` the server, not the client under test, is what a
benchmark on two cores would measure. One request at a time per connection, bodies by Content-Length only.

    async with MockServer(lambda model, body: "four") as server:
        ...                        # server.url, server.requests, server.most_in_air

    python -m tests.support.mock_openai --port 0 --latency-ms optimizer=100,evaluator=50

The second form prints its URL and answers by model name, see `drpo_answers`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import inspect
import json
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ASPECTS = ("Helpfulness", "Clarity", "Depth")
Fault = Literal["reset", "hang", "trickle", "cut"]


@dataclass(frozen=True)
class Reply:
    """What the server sends. `texts` make a well-formed answer, one choice each; the rest replaces parts.

    `body` is sent instead of that answer: bytes as they are, anything else as JSON. Faults: "reset" sends RST
    instead of an answer, "hang" sends nothing at all, "trickle" one byte every 10 ms, "cut" half of the body
    and then the end of the connection.
    """

    texts: tuple[str, ...] = ("ok",)
    finish_reason: str | None = "stop"
    body: object = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Fault | None = None


def error(
    status: int, message: str, *, code: object = None, param: str | None = None, **headers: str
) -> Reply:
    """An error in OpenAI's shape; `retry_after="2"` becomes the header Retry-After."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    return Reply(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


Answer = Reply | str
Handler = Callable[[str, dict[str, Any]], Answer | Awaitable[Answer]]


@dataclass(frozen=True)
class Seen:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    query: str = ""


class MockServer:
    """Listens on 127.0.0.1 while the context is open. Scripted replies go first, then `handler` decides.

    `latency_s` by model name delays the answer; `keep_log=False` keeps `requests` empty for long benchmarks.
    """

    def __init__(
        self,
        handler: Handler = lambda model, body: "ok",
        *,
        script: Iterable[Answer] = (),
        latency_s: Mapping[str, float] | None = None,
        port: int = 0,
        keep_log: bool = True,
    ) -> None:
        self.script = deque(script)
        self.requests: list[Seen] = []
        self.in_air = 0
        self.most_in_air = 0
        self.url = ""
        self.handler = handler
        self._latency_s = dict(latency_s or {})
        self._port = port
        self._keep_log = keep_log
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> MockServer:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self, self._connections), "127.0.0.1", self._port, backlog=1024
        )
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.abort()
        await self._server.wait_closed()

    def bodies(self) -> list[dict[str, Any]]:
        """The JSON bodies of all requests so far, in the order of arrival."""
        return [seen.body for seen in self.requests]

    def decide(self, seen: Seen) -> tuple[float, Answer | Awaitable[Answer]]:
        """How long to wait before answering, in seconds, and with what."""
        if self._keep_log:
            self.requests.append(seen)
        model = seen.body.get("model", "")
        delay_s = self._latency_s.get(model, 0.0)
        if seen.path.endswith("/models"):
            return delay_s, Reply(body={"object": "list", "data": [{"id": "mock", "object": "model"}]})
        if seen.path.endswith("/embeddings"):
            return delay_s, Reply(body=_embeddings(seen.body))
        if not seen.path.endswith("/completions"):
            return delay_s, error(404, f"no such path: {seen.path}")
        if self.script:
            return delay_s, self.script.popleft()
        return delay_s, self.handler(model, seen.body)


class _Connection(asyncio.Protocol):
    """One client connection: reads a request, answers it, reads the next."""

    def __init__(self, server: MockServer, peers: set[_Connection]) -> None:
        self._server = server
        self._peers = peers
        self._buffer = b""
        self._busy = False
        self._tasks: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.discard(self)
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._leave()

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found or self._busy:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        method, path, _ = first.split(" ", 2)
        body = json.loads(rest[:length]) if length else {}
        path, _, query = path.partition("?")
        self._enter(Seen(method, path, headers, body, query))

    def _enter(self, seen: Seen) -> None:
        server = self._server
        self._busy = True
        server.in_air += 1
        server.most_in_air = max(server.most_in_air, server.in_air)
        delay_s, answer = server.decide(seen)
        if not isinstance(answer, (Reply, str)) or (isinstance(answer, Reply) and answer.fault == "trickle"):
            task = asyncio.ensure_future(self._answer_slowly(seen, delay_s, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif delay_s:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay_s, self._answer, seen, answer)
        else:
            self._answer(seen, answer)

    def _leave(self) -> None:
        if self._busy:
            self._busy = False
            self._server.in_air -= 1

    async def _answer_slowly(self, seen: Seen, delay_s: float, answer: Answer | Awaitable[Answer]) -> None:
        if inspect.isawaitable(answer):
            answer = await answer
        assert isinstance(answer, (Reply, str))
        if delay_s:
            await asyncio.sleep(delay_s)
        if isinstance(answer, Reply) and answer.fault == "trickle":
            for byte in _wire(seen, answer):
                self._transport.write(bytes([byte]))
                await asyncio.sleep(0.01)
            self._leave()
        else:
            self._answer(seen, answer)

    def _answer(self, seen: Seen, answer: Answer) -> None:
        reply = Reply(texts=(answer,)) if isinstance(answer, str) else answer
        if reply.fault == "hang":
            return
        if reply.fault == "reset":
            # linger of zero: close() then sends RST, not FIN
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
            return
        wire = _wire(seen, reply)
        if reply.fault == "cut":
            self._transport.write(wire[: -len(wire) // 4])
            self._transport.close()
            return
        self._leave()
        self._transport.write(wire)
        if self._buffer:
            self.data_received(b"")


def _wire(seen: Seen, reply: Reply) -> bytes:
    if isinstance(reply.body, bytes):
        body = reply.body
    else:
        value = _completion(seen, reply) if reply.body is None else reply.body
        body = json.dumps(value).encode("ascii")
    lines = [f"HTTP/1.1 {reply.status} Mock", f"Content-Length: {len(body)}"]
    if not any(name.lower() == "content-type" for name in reply.headers):
        lines.append("Content-Type: application/json")
    lines.extend(f"{name}: {value}" for name, value in reply.headers.items())
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _completion(seen: Seen, reply: Reply) -> dict[str, Any]:
    chat = seen.path.endswith("/chat/completions")
    choices: list[dict[str, Any]] = []
    for index, text in enumerate(reply.texts):
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choices.append({"index": index, "finish_reason": reply.finish_reason, **said})
    asked = len(str(seen.body.get("messages", seen.body.get("prompt", "")))) // 4
    told = sum(len(text) for text in reply.texts) // 4
    return {
        "id": "mock",
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": seen.body.get("model", ""),
        "choices": choices,
        "usage": {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told},
    }


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    given = body.get("input", [])
    texts = [given] if isinstance(given, str) else list(given)
    data = []
    for index, text in enumerate(texts):
        digest = hashlib.sha256(str(text).encode()).digest()[:8]
        data.append({"object": "embedding", "index": index, "embedding": [b / 255 for b in digest]})
    return {"object": "list", "model": body.get("model", ""), "data": data, "usage": {"prompt_tokens": 1}}


def drpo_answers(model: str, body: dict[str, Any]) -> Reply:
    """The answer of a model named base, selector, evaluator or optimizer, decided by a digest of `body`.

    The evaluator scores 3 or 4 on each of `ASPECTS` (the ones that the selector always chooses); the
    optimizer sends `n` proposals that differ. Any other name answers like base.
    """
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    if model == "selector":
        facts = ("main_topic", "user_intent", "ambiguities", "response_format", "challenges")
        selection = {"reasoning": f"these matter ({digest[:8]})", "selected_aspects": list(ASPECTS)}
        value = {"query_analysis": dict.fromkeys(facts, "plain"), "aspects_selection": selection}
        return Reply(texts=(json.dumps(value),))
    if model == "evaluator":
        scores = {
            aspect: {"rationale": f"{aspect} could be better.", "score": str(3 + int(digit, 16) % 2)}
            for aspect, digit in zip(ASPECTS, digest, strict=False)
        }
        return Reply(texts=(json.dumps(scores),))
    if model == "optimizer":
        wanted = "new_response" if "new_response" in str(body.get("messages")) else "new_system_prompt"
        return Reply(texts=tuple(_proposal(wanted, f"{digest[:12]}-{i}") for i in range(body.get("n") or 1)))
    return Reply(texts=(f"Here is an answer ({digest[:16]}). It goes into the question step by step.",))


def _proposal(wanted: str, mark: str) -> str:
    text = f"You are a careful assistant ({mark}).\n- Answer plainly.\n- Say what you do not know."
    return json.dumps({"analysis": f"weak on depth ({mark})", "thought": "ask for reasons", wanted: text})


async def _serve(port: int, latency_s: Mapping[str, float]) -> None:
    async with MockServer(drpo_answers, port=port, latency_s=latency_s, keep_log=False) as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serve `drpo_answers` until killed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", default="", help="model=milliseconds, separated by commas")
    given = parser.parse_args()
    pairs = (item.partition("=") for item in given.latency_ms.split(",") if item)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(given.port, {model: float(ms) / 1000 for model, _, ms in pairs}))


if __name__ == "__main__":
    main()
