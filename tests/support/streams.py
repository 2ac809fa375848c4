"""Streams of server-sent events for the mock server."""

from __future__ import annotations

import json
from typing import Any

from tests.support.mock_openai import Reply


def delta(text: str | None = None, reason: str | None = None) -> dict[str, Any]:
    """One event of a streamed chat."""
    added = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": added, "finish_reason": reason}]}


def stream(*events: object, end: bytes = b"data: [DONE]\n\n", line: bytes = b"\n") -> Reply:
    """The events as a server sends them."""
    lines = b"".join(b"data: " + json.dumps(event).encode() + line * 2 for event in events)
    return Reply(body=b": keep alive\n\n" + lines + end, headers={"Content-Type": "text/event-stream"})


def said(text: str, reason: str = "stop") -> Reply:
    """A whole answer, word by word."""
    words = [delta(word + " ") for word in text.split()]
    return stream(*words, delta(None, reason))
