"""The OpenAPI document of a server: what it takes and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from drpo.serving.door import Bounds
from drpo.serving.metrics import CONTENT_TYPE
from drpo.serving.reading import LONGEST_HEAD
from drpo.serving.schemas import Schema, answer_schemas, request_schemas

PATH = "/openapi.json"
JSON = "application/json"
EVENTS = "text/event-stream"
_ANYWHERE = (400, 408, 431, 503)
_OF_A_REQUEST = (404, 413, 415, 429, 500, 502, 504)
_SHOTS: Schema = {
    "description": "The indices of the examples that were shown to the model.",
    "required": True,
    "schema": {"type": "string", "pattern": "^([0-9]+(,[0-9]+)*)?$"},
}
_RETRY: Schema = {"description": "Seconds.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}


def document(models: Sequence[str], bounds: Bounds, *, keyed: bool, takes_system: bool) -> dict[str, Any]:
    """An OpenAPI 3.1 document. models: what is served, by name; keyed: whether clients need a key;
    takes_system: whether a chat may have system messages."""
    own = "401" if keyed else "421"
    said = _said(bounds)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "drpo serve", "version": "v1", "description": _ABOUT},
        "paths": {
            "/v1/chat/completions": {
                "post": _asking("ChatRequest", "ChatCompletion", "Answer the last turn of a chat.", own)
            },
            "/v1/completions": {"post": _asking("CompletionRequest", "Completion", "Answer one query.", own)},
            "/v1/models": {"get": _looking("listModels", "Models", "The models.", [own])},
            "/v1/models/{name}": {
                "parameters": [_name(models)],
                "get": _looking("getModel", "Model", "One model.", [own, "404"]),
            },
            "/health": {"get": {**_looking("health", "Health", "Whether the server runs."), "security": []}},
            "/metrics": {"get": _metrics(own)},
        },
        "components": {
            "schemas": {**request_schemas(models, takes_system=takes_system), **answer_schemas()},
            "responses": {status: _refused(status, text) for status, text in said.items()},
        },
    }
    if keyed:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    return found


_ABOUT = (
    "OpenAI's interface in front of models that are asked by their alignments. A field that is not known is "
    "refused; no field says where a request goes."
)


def _said(bounds: Bounds) -> dict[str, str]:
    """What each status of an error means."""
    return {
        "400": "The request is malformed, or the model does not take it.",
        "401": "The key is missing or wrong.",
        "404": "No such model.",
        "408": f"The request did not come within {bounds.request_s:g} s.",
        "413": f"The body is longer than {bounds.body_bytes} bytes.",
        "415": "The body is not announced as JSON in UTF-8, or is compressed.",
        "421": "Without a key the server is asked at an address or at localhost only.",
        "429": "The model is asked too much at the moment, or has no credit left.",
        "431": f"The head of the request is longer than {LONGEST_HEAD} bytes.",
        "500": "A bug of the server.",
        "502": "The model cannot be reached, or gives no answer that can be read.",
        "503": "The server or the model has too much to do, or is ending.",
        "504": "The model gave no answer in time.",
    }


def _refused(status: str, text: str) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    headers: dict[str, Schema] = {}
    if status in ("429", "503"):
        headers = {"Retry-After": _RETRY}
    if status == "401":
        headers = {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}}
    content = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": text, "content": content, **({"headers": headers} if headers else {})}


def _answers(well: Mapping[str, Any], statuses: Iterable[object]) -> dict[str, Any]:
    wrong = sorted({str(status) for status in (*_ANYWHERE, *statuses)})
    return {"200": dict(well), **{one: {"$ref": f"#/components/responses/{one}"} for one in wrong}}


def _asking(request: str, answer: str, summary: str, own: str) -> dict[str, Any]:
    content = {
        JSON: {"schema": {"$ref": f"#/components/schemas/{answer}"}},
        EVENTS: {"schema": {"$ref": f"#/components/schemas/{answer}Event"}},
    }
    well = {"description": summary, "headers": {"X-Drpo-Shots": _SHOTS}, "content": content}
    body = {"required": True, "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{request}"}}}}
    return {
        "operationId": f"create{answer}",
        "summary": summary,
        "requestBody": body,
        "responses": _answers(well, (*_OF_A_REQUEST, own)),
    }


def _looking(operation: str, answer: str, summary: str, statuses: Iterable[str] = ()) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": f"#/components/schemas/{answer}"}}}
    well = {"description": summary, "content": content}
    return {"operationId": operation, "summary": summary, "responses": _answers(well, statuses)}


def _metrics(own: str) -> dict[str, Any]:
    summary = "Counts in Prometheus' text format."
    well = {"description": summary, "content": {CONTENT_TYPE: {"schema": {"type": "string"}}}}
    return {"operationId": "metrics", "summary": summary, "responses": _answers(well, [own])}


def _name(models: Sequence[str]) -> dict[str, Any]:
    schema = {"type": "string", "enum": list(models)}
    return {"name": "name", "in": "path", "required": True, "schema": schema}
