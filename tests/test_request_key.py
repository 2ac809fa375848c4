"""The identity of a request holds what changes the reply, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.llm.base import Message, Request, identity, request_key

BASE = Request("openai/m@http://h/v1", messages=(Message("system", "s"), Message("user", "u")))

# Every field with other values than BASE has; a new field of Request must be added to one of the two.
CHANGES_THE_REPLY: dict[str, list[Any]] = {
    "model": ["openai/m", "openai/m@http://other/v1"],
    "messages": [
        (),
        (Message("user", "u"),),
        (Message("user", "u"), Message("system", "s")),
        (Message("system", "s"), Message("assistant", "u")),
        (Message("system", "su"), Message("user", "")),
    ],
    "prompt": ["", "su"],
    "temperature": [0.0, 0.2, 1.0],
    "top_p": [0.95, 1.0],
    "max_tokens": [1, 2048],
    "max_completion_tokens": [1, 2048],
    "stop": [("\n",), ("a", "b"), ("ab",)],
    "seed": [0, 7],
    "sample": [0, 7],
    "n": [2, 3],
    "reply_schema": ["{}", '{"type":"object"}'],
}
STEERS_DRPO_ONLY: dict[str, list[Any]] = {
    "role": ["optimizer", "evaluator", "selector"],
    "priority": [1, -1],
    "again": [True],
}

VARIANTS = [replace(BASE, **{name: value}) for name, values in CHANGES_THE_REPLY.items() for value in values]
REQUESTS = st.builds(
    Request,
    model=st.sampled_from(["m", "m@u"]),
    messages=st.lists(
        st.builds(
            Message, st.sampled_from(["system", "user", "assistant"]), st.sampled_from(["", "a", "ü", "ab"])
        ),
        max_size=2,
    ).map(tuple),
    prompt=st.sampled_from([None, "", "a"]),
    temperature=st.sampled_from([None, 0, 0.0, 0.2]),
    top_p=st.sampled_from([None, 1, 1.0, 0.95]),
    max_tokens=st.sampled_from([None, 5]),
    stop=st.sampled_from([(), ("a",), ("a", "b")]),
    seed=st.sampled_from([None, 0, 1]),
    sample=st.sampled_from([None, 0, 1]),
    n=st.sampled_from([1, 2]),
    reply_schema=st.sampled_from([None, "", "{}"]),
)


def test_every_field_is_held_to_one_of_the_two_sides() -> None:
    names = [field.name for field in fields(Request)]
    assert sorted([*CHANGES_THE_REPLY, *STEERS_DRPO_ONLY]) == sorted(names)


def test_whatever_changes_the_reply_changes_the_key() -> None:
    keys = [request_key(request) for request in [BASE, *VARIANTS]]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", STEERS_DRPO_ONLY)
def test_what_steers_drpo_only_does_not(name: str) -> None:
    for value in STEERS_DRPO_ONLY[name]:
        assert request_key(replace(BASE, **{name: value})) == request_key(BASE)


@given(REQUESTS, REQUESTS)
def test_keys_are_equal_exactly_when_identities_are(one: Request, other: Request) -> None:
    assert (request_key(one) == request_key(other)) == (identity(one) == identity(other))


@given(REQUESTS)
def test_two_requests_with_one_identity_are_sent_alike(request: Request) -> None:
    again = replace(request, role="selector", priority=9)
    assert identity(again) == identity(request)
    sent = [name for name in identity(request) if name != "messages"]
    assert all(getattr(request, name) not in (None, ()) for name in sent)


def test_a_whole_number_is_one_question_however_it_is_written() -> None:
    assert request_key(replace(BASE, temperature=0)) == request_key(replace(BASE, temperature=0.0))


def test_nought_is_not_the_same_as_unset() -> None:
    assert request_key(replace(BASE, temperature=0.0)) != request_key(BASE)
    assert request_key(replace(BASE, seed=0)) != request_key(BASE)


def test_any_text_has_a_key() -> None:
    assert len(request_key(replace(BASE, prompt="\ud800 \u2028 \x00"))) == 64


GOLDEN = Request(
    "openai/m@http://h/v1",
    messages=(Message("system", "s ü"), Message("user", "u\n")),
    temperature=0.2,
    top_p=0.95,
    max_tokens=2048,
    stop=("\n# Query",),
    seed=7,
    n=3,
    role="optimizer",
)
GOLDEN_KEY = "f9246f04c6432bf90e420f90b1aa062966ee527b962d2ad0890d54c3882ca81e"


def test_the_key_of_a_known_request_never_changes() -> None:
    """Recorded runs are found by their keys: another value here makes every record useless."""
    assert request_key(GOLDEN) == GOLDEN_KEY


def test_keys_are_the_same_in_another_process() -> None:
    code = "import tests.test_request_key as t; print(t.request_key(t.GOLDEN))"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == GOLDEN_KEY
