"""Bodies of requests, drawn: what a client may send, mostly with something wrong; some are no JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

CHAT, TEXT = "/chat/completions", "/completions"
_TEXTS = st.one_of(
    st.text(st.characters(codec=None), max_size=30),  # halves of surrogate pairs among them
    st.sampled_from(
        (
            *("", "Hello?", "a\r\nX-Injected: 1\r\n\r\n", "\x00\x1b[31m", "{{7*7}}", "# Query\n", "\ud83d"),
            *("x" * 5000, "# Answer", "🐝", "../../etc/passwd", "http://169.254.169.254/"),
        )
    ),
)
_JUNK: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=True), _TEXTS),
        st.sampled_from((10**400, -1, 0, 2**63, 1e308)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def _mostly(valid: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 24).flatmap(lambda die: _JUNK if die == 0 else valid)


_PARTS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": _TEXTS}), max_size=3)
_MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(("user", "user", "assistant", "system", "developer")),
        "content": _mostly(st.one_of(_TEXTS, _PARTS)),
    },
    optional={"name": _JUNK, "tool_calls": _mostly(st.none()), "refusal": _JUNK},
)
_MESSAGES = st.tuples(
    st.lists(_mostly(_MESSAGE), max_size=4),
    st.fixed_dictionaries({"role": st.just("user"), "content": _TEXTS}),
).map(lambda both: [*both[0], both[1]])
_OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "temperature": _mostly(st.floats(0, 2)),
    "top_p": _mostly(st.floats(0, 1)),
    "max_tokens": _mostly(st.integers(1, 5000)),
    "stop": _mostly(st.one_of(_TEXTS, st.lists(_TEXTS, max_size=5))),
    "seed": _mostly(st.integers(-(2**63), 2**63 - 1)),
    "n": _mostly(st.integers(1, 3)),
    "stream": _mostly(st.booleans()),
    "user": _JUNK,
    "presence_penalty": _mostly(st.just(0)),
    "metadata": _JUNK,
}
_MODEL = _mostly(st.sampled_from(("bees", "bees", "bees", "other")))
_WRONG_KEYS = st.sampled_from(
    ("api_base", "base_url", "api_key", "extra_headers", "tools", "logprobs", "__class__", "modèle")
)


_STREAMED = st.fixed_dictionaries(
    {"stream": st.just(True), "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()})}
)
_MAYBE_WRONG: st.SearchStrategy[dict[str, Any]] = st.integers(0, 7).flatmap(
    lambda die: {0: st.dictionaries(_WRONG_KEYS, _JUNK, max_size=1), 1: _STREAMED}.get(die, st.just({}))
)


def _body(required: dict[str, st.SearchStrategy[Any]], more: dict[str, st.SearchStrategy[Any]]) -> Any:
    whole = st.fixed_dictionaries(required, optional=more)
    return st.tuples(whole, _MAYBE_WRONG).map(lambda both: {**both[0], **both[1]})


_CHAT_BODY = _body(
    {"model": _MODEL, "messages": _mostly(_MESSAGES)},
    {**_OPTIONAL, "max_completion_tokens": st.integers(1, 9)},
)
_TEXT_BODY = _body({"model": _MODEL, "prompt": _mostly(_TEXTS)}, {**_OPTIONAL, "echo": _JUNK})
_NO_JSON = st.one_of(
    st.binary(max_size=40),
    st.integers(10, 20_000).map(lambda depth: b"[" * depth),
    st.integers(10, 20_000).map(lambda depth: b'{"a":' * depth + b"1" + b"}" * depth),
    st.just(b'{"model": "bees", "model": "bees"}'),
)
BODIES: st.SearchStrategy[tuple[str, bytes]] = st.one_of(
    *(st.tuples(st.just(CHAT), _CHAT_BODY.map(lambda body: json.dumps(body).encode())),) * 4,
    *(st.tuples(st.just(TEXT), _TEXT_BODY.map(lambda body: json.dumps(body).encode())),) * 3,
    st.tuples(st.sampled_from((CHAT, TEXT)), _JUNK.map(lambda body: json.dumps(body).encode())),
    st.tuples(st.sampled_from((CHAT, TEXT)), _NO_JSON),
)
"""Path (below /v1) and body."""


def drawn_bodies(count: int, *, seed: int) -> list[tuple[str, bytes]]:
    """So many of them, always the same ones for a seed."""
    found: list[tuple[str, bytes]] = []
    _draw(count, seed, found)
    return found


def _draw(count: int, number: int, into: list[tuple[str, bytes]]) -> None:
    @seed(number)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(BODIES)
    def draw(body: tuple[str, bytes]) -> None:
        into.append(body)

    draw()
