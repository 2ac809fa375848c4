"""One request from its body to the end of its answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from drpo.errors import DrpoError
from drpo.serving.door import Bounds, Receive, Scope, Send, read_body, refuse, require_json, respond
from drpo.serving.errors import BUSY_RETRY_S, ClientLeft, Refusal, refusal_of
from drpo.serving.exchange import ON_LEFT
from drpo.serving.metrics import Metrics
from drpo.serving.models import Served, refuse_if_too_long, served_by_name
from drpo.serving.replies import DONE, Envelope, Events, failure_event
from drpo.serving.requests import Asking, read_object
from drpo.use.asking import Asked

Read = Callable[[dict[str, Any]], Asking]
_EVENT_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # or a proxy would keep the stream until it ends
]


@dataclass(frozen=True, slots=True)
class Desk:
    """What all requests share. most: how many may be in work. ask_s: longest until a request to the model is
    ready. tell: hears of what fails."""

    models: Mapping[str, Served]
    metrics: Metrics
    bounds: Bounds
    most: int
    ask_s: float
    tell: Callable[[str], None]


class Completions:
    """An ASGI application: POST to one of the two routes. read: what makes sense of its body."""

    def __init__(self, route: str, read: Read, desk: Desk) -> None:
        self._route, self._read, self._desk = route, read, desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        desk, metrics = self._desk, self._desk.metrics
        answer = _Answer(desk, send)
        scope[ON_LEFT] = answer.leave
        if metrics.in_work >= desk.most:
            message = f"{desk.most} requests are in work; come again"
            await self._refuse(answer, Refusal(503, message, None, "overloaded", BUSY_RETRY_S))
            return
        metrics.in_work += 1
        try:
            require_json(scope)
            asking = self._read(read_object(await read_body(scope, receive, desk.bounds)))
            served = served_by_name(desk.models, asking.model)
            answer.model = served.name
            await (answer.stream if asking.wanted.stream else answer.whole)(served, asking)
            metrics.answered(self._route, answer.model, 200, answer.took_s)
        except Refusal as refusal:
            await self._refuse(answer, refusal)
        except (DrpoError, TimeoutError) as error:
            await self._fail(answer, error)
        except ClientLeft:
            metrics.left()
        except asyncio.CancelledError:
            if not answer.left:
                await self._refuse(
                    answer, Refusal(503, "this server is ending", None, "ending", BUSY_RETRY_S)
                )
                raise
            metrics.left()
        except Exception as error:  # noqa: BLE001 a bug: told here in full, and to the client as a 500
            desk.tell(f"a bug of drpo: {type(error).__name__}: {error} (please report it)")
            await self._refuse(answer, Refusal(500, "a bug of this server", code="internal_error"))
        finally:
            metrics.in_work -= 1
            answer.over = True

    async def _fail(self, answer: _Answer, error: DrpoError | TimeoutError) -> None:
        served = self._desk.models.get(answer.model)
        refusal = refusal_of(error, served.hosts if served else ())
        self._desk.metrics.failed(refusal.status)
        if refusal.status >= 429:
            self._desk.tell(str(error) or refusal.message)
        await self._refuse(answer, refusal)

    async def _refuse(self, answer: _Answer, refusal: Refusal) -> None:
        """As an answer of its own, or as the event that ends the stream."""
        answer.over = True
        self._desk.metrics.answered(self._route, answer.model, refusal.status, answer.took_s)
        if answer.begun:
            await answer.send(failure_event(refusal.as_dict()), more=False)
        else:
            await refuse(answer.sender, refusal)


class _Answer:
    """One answer on its way. begun: its status was sent; over: nothing is waited for any more; left: nobody
    is there to read it."""

    def __init__(self, desk: Desk, send: Send) -> None:
        self.desk, self.sender = desk, send
        self.model = ""
        self.begun = self.over = self.left = False
        self.began_s = time.perf_counter()

    @property
    def took_s(self) -> float:
        return time.perf_counter() - self.began_s

    def leave(self) -> bool:
        """The client is gone. Returns whether there is work on its answer to end."""
        self.left = not self.over
        return self.left

    async def send(self, body: bytes, *, more: bool = True) -> None:
        await self.sender({"type": "http.response.body", "body": body, "more_body": more})

    async def asked(self, served: Served, asking: Asking) -> Asked:
        """The request to the model."""
        if not served.waits:
            return await served.asked(asking)
        async with asyncio.timeout(self.desk.ask_s):
            return await served.asked(asking)

    async def whole(self, served: Served, asking: Asking) -> None:
        """The answer at once."""
        asked = await self.asked(served, asking)
        choices, usage = await served.complete(asked)
        self.desk.metrics.used(served.name, usage.prompt_tokens, usage.completion_tokens)
        body = Envelope.new(served.name, chat=asking.chat).whole(choices, usage)
        self.over = True
        await respond(self.sender, 200, body, b"application/json", _shots(asked))

    async def stream(self, served: Served, asking: Asking) -> None:
        """The answer as it comes; its status is sent with the first text, so that what fails before that is
        an error by its status too."""
        asked = await self.asked(served, asking)
        tells = asking.wanted.include_usage
        events = Events(Envelope.new(served.name, chat=asking.chat), tells_usage=tells)
        reason, usage = "stop", None
        coming = served.using.stream(asked)
        async with contextlib.aclosing(coming):
            async for piece in coming:
                refuse_if_too_long(piece.finish_reason)
                reason, usage = piece.finish_reason or reason, piece.usage or usage
                if not self.begun:
                    self.desk.metrics.first_text(served.name, self.took_s)
                    await self._begin(
                        asked, events.first() + (events.text(piece.text) if piece.text else b"")
                    )
                elif piece.text:
                    await self.send(events.text(piece.text))
        if not self.begun:
            await self._begin(asked, events.first())
        last = events.last(reason)
        if usage is not None:
            self.desk.metrics.used(served.name, usage.prompt_tokens, usage.completion_tokens)
            last += events.usage(usage) if tells else b""
        self.over = True
        await self.send(last + DONE, more=False)

    async def _begin(self, asked: Asked, body: bytes) -> None:
        self.begun = True
        headers = [*_EVENT_HEADERS, *_shots(asked)]
        await self.sender({"type": "http.response.start", "status": 200, "headers": headers})
        await self.send(body)


def _shots(asked: Asked) -> list[tuple[bytes, bytes]]:
    """Which examples were shown, as a header."""
    return [(b"x-drpo-shots", _numbers(asked.shots))]


@lru_cache(maxsize=256)
def _numbers(shots: tuple[int, ...]) -> bytes:
    return ",".join(map(str, shots)).encode()
