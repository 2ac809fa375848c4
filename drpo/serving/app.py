"""The routes, and what is told where there is none."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from drpo.serving.answering import Completions, Desk
from drpo.serving.door import App, Door, Receive, Scope, Send, refuse
from drpo.serving.errors import Refusal
from drpo.serving.metrics import CONTENT_TYPE, Metrics
from drpo.serving.models import served_by_name
from drpo.serving.openapi import PATH, document
from drpo.serving.replies import model_json, models_json
from drpo.serving.requests import read_chat, read_completion

_JSON = "application/json"


def application(desk: Desk, door: Door, total: Callable[[], Awaitable[Metrics]] | None = None) -> App:
    """The whole server as an ASGI application. total: what /metrics tells, None: the counts of `desk`."""
    created = int(time.time())
    takes_system = any(served.client_system != "refuse" for served in desk.models.values())
    described = document(list(desk.models), desk.bounds, keyed=door.keyed, takes_system=takes_system)
    openapi_json = json.dumps(described).encode("ascii")

    async def health(request: Request) -> Response:
        return Response(b'{"status": "ok"}', media_type=_JSON)

    async def metrics(request: Request) -> Response:
        counts = desk.metrics if total is None else await total()
        return Response(counts.text(), headers={"content-type": CONTENT_TYPE})

    async def models(request: Request) -> Response:
        return Response(models_json(list(desk.models), created), media_type=_JSON)

    async def model(request: Request) -> Response:
        served = served_by_name(desk.models, request.path_params["name"])
        return Response(model_json(served.name, created), media_type=_JSON)

    async def openapi(request: Request) -> Response:
        return Response(openapi_json, media_type=_JSON)

    chat = Completions("chat", read_chat, desk)
    completion = Completions("completions", read_completion, desk)
    inner = Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", completion, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/health", health),
            Route("/metrics", metrics),
            Route(PATH, openapi),
        ],
        exception_handlers={HTTPException: _told, Refusal: _told},
    )
    inner.router.redirect_slashes = False
    # Nearly all requests are of these two: looked up, they need not go through the routes.
    frequent: dict[str, App] = {"/v1/chat/completions": chat, "/v1/completions": completion}

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            door.check(scope)
        except Refusal as refusal:
            await refuse(send, refusal)
            return
        app = frequent.get(scope["path"]) if scope["method"] == "POST" else None
        await (app or inner)(scope, receive, send)

    return guarded


async def _told(request: Request, error: Exception) -> Response:
    """What a route could not do, in OpenAI's shape."""
    refusal = error if isinstance(error, Refusal) else _of_route(error)
    headers: dict[str, Any] = {n.decode("latin-1"): v.decode("latin-1") for n, v in refusal.all_headers()}
    return Response(refusal.as_json(), refusal.status, headers, _JSON)


def _of_route(error: Exception) -> Refusal:
    assert isinstance(error, HTTPException)
    headers = tuple((error.headers or {}).items())
    if error.status_code == 405:
        return Refusal(405, "this address takes another method", code="method_not_allowed", headers=headers)
    message = "there is nothing at this address; see " + PATH
    return Refusal(error.status_code, message, code="unknown_url", headers=headers)
