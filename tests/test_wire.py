"""What goes over the wire, by the quick way and the plain one."""

from __future__ import annotations

import json
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from drpo.llm.base import Message, Request
from drpo.llm.wire import _SETTINGS, body_of, encoded

TEXT = st.text(max_size=40) | st.just("x" * 9000)
ROLE = st.sampled_from(("system", "user", "assistant"))
NUMBER = st.sampled_from([None, 0, 1, 0.0, 1.0, True, 0.7])
WHOLE = st.sampled_from([None, 1, 2, 2**40])
REQUESTS = st.builds(
    Request,
    st.just("m"),
    messages=st.lists(st.builds(Message, ROLE, TEXT), max_size=4).map(tuple),
    prompt=st.none() | TEXT,
    temperature=NUMBER,
    top_p=NUMBER,
    max_tokens=WHOLE,
    max_completion_tokens=WHOLE,
    stop=st.lists(TEXT, max_size=2).map(tuple),
    seed=WHOLE,
    n=st.integers(1, 3),
    reply_schema=st.sampled_from([None, '{"type": "object"}']),
    role=st.sampled_from(("base", "judge")),
    priority=st.integers(0, 3),
)


def test_each_field_of_a_request_is_sent_or_known_not_to_be() -> None:
    not_sent = {"model", "sample", "role", "priority", "again"}
    assert {field.name for field in fields(Request)} == {*_SETTINGS, "messages", "prompt", *not_sent}


@given(REQUESTS, TEXT)
def test_a_request_is_encoded_as_its_body_says(request: Request, model_name: str) -> None:
    body = body_of(request, model_name)
    sent = encoded(request, model_name)
    assert sent.isascii() and sent.endswith(b"}")
    told = json.loads(sent)
    assert told == body
    assert {name: type(told[name]) for name in body} == {name: type(body[name]) for name in body}
