"""The result: read as it was written, the same bytes for the same thing, and refused where it is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drpo.alignment import Aligned, Alignment, Found, read_alignment, template_digest
from drpo.compose import Composer, Sampling
from drpo.errors import InputError
from drpo.llm.base import Message
from drpo.templates import Templates
from drpo.types import Example

FOUND = Found({"width": 2, "protect": ["x"]}, 4.25, (4.0, 4.5), 9, 3, "depth", {"base": 9, "optimizer": 4})
ALIGNMENT = Alignment(
    system_prompt="Be kind.\n- {{7*7}} é 🦆",
    examples=(Example("a?", " A\r\n"), Example("b?", "B", "unethical")),
    shots=1,
    prompt_form="chat",
    embedder="lexical",
    models={"base": "openai/x", "optimizer": "demo/seed=0,noise=0.5"},
    sampling=Sampling(0.0, None, 2048),
    template_digest="0123456789abcdef",
    found=FOUND,
    simulated=True,
)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    ALIGNMENT.save(tmp_path / "alignment.json")
    assert read_alignment(tmp_path / "alignment.json") == ALIGNMENT
    assert read_alignment(tmp_path) == ALIGNMENT


def test_equal_alignments_are_equal_bytes(tmp_path: Path) -> None:
    ALIGNMENT.save(tmp_path / "one.json")
    read_alignment(tmp_path / "one.json").save(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert b"\r" not in (tmp_path / "one.json").read_bytes()


@given(prompt=TEXTS, query=TEXTS, response=TEXTS, score=st.none() | st.floats(1, 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_whatever_the_texts_are(
    tmp_path: Path, prompt: str, query: str, response: str, score: float | None
) -> None:
    examples = (Example(query, response),)
    found = replace(FOUND, path_score=score, path_rewards=() if score is None else (score,))
    alignment = replace(ALIGNMENT, system_prompt=prompt, examples=examples, found=found)
    alignment.save(tmp_path / "a.json")
    assert read_alignment(tmp_path / "a.json") == alignment


def test_the_fields_others_may_rely_on() -> None:
    data = json.loads(ALIGNMENT.as_json())
    assert data["schema"] == 1
    assert list(data) == [
        *("schema", "system_prompt", "examples", "shots", "prompt_form", "answer_end", "embedder"),
        *("models", "sampling", "template_digest", "simulated", "found"),
    ]
    assert set(data["found"]) == {
        *("settings", "path_score", "path_rewards", "nodes", "levels", "ended", "calls"),
    }


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda data: {key: value for key, value in data.items() if key != name}


def changed(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda data: {**data, **values}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(schema=2), "expected an alignment of schema 1, found 2"),
        (without("schema"), "schema 1, found None"),
        (lambda data: [data], "schema 1, found None"),
        *((without(name), name) for name in ("system_prompt", "examples", "found", "models", "sampling")),
        (changed(shots="many"), "many"),
        (changed(shots=3), "3 of 2 examples"),
        (changed(shots=-1), "-1 of 2 examples"),
        (changed(examples=[{"query": "a", "response": 5}]), "a query or response"),
        (changed(examples=[{"query": "a", "answer": "b"}]), "answer"),
        (changed(prompt_form="prose"), "prompt_form"),
        (changed(system_prompt=5), "system_prompt"),
        (changed(sampling={"heat": 1}), "heat"),
        (changed(found={}), "path_rewards"),
    ],
)
def test_a_damaged_alignment_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    file = tmp_path / "alignment.json"
    file.write_text(json.dumps(change(ALIGNMENT.as_dict())), encoding="utf-8")
    with pytest.raises(InputError, match=said) as caught:
        read_alignment(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"null"])
def test_what_is_no_json_of_an_alignment(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "alignment.json"
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"alignment\.json: expected"):
        read_alignment(file)


def test_an_unfinished_run_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has not finished: run its command again"):
        read_alignment(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_alignment(tmp_path / "none.json")


def test_a_digest_belongs_to_the_template_of_the_form(tmp_path: Path) -> None:
    (tmp_path / "respond_text.j2").write_text("{{ query }}", encoding="utf-8")
    shipped, own = Templates(), Templates(tmp_path)
    assert template_digest(shipped, "chat") == template_digest(own, "chat")
    assert template_digest(shipped, "text") != template_digest(own, "text")
    assert template_digest(shipped, "text") != template_digest(shipped, "chat")


class Second:
    """Finds the second example, and counts how often it is asked."""

    identity = "second"

    def __init__(self) -> None:
        self.asked = 0

    async def top_k(self, queries: Sequence[str], k: int) -> list[tuple[int, ...]]:
        self.asked += 1
        return [(1, 0)[:k] for _ in queries]


async def test_an_alignment_in_use_renders_like_the_search() -> None:
    retriever = Second()
    aligned = Aligned(ALIGNMENT, Composer(Templates(), "chat"), retriever)
    assert await aligned.render_messages("q {{1}}") == (
        Message("system", ALIGNMENT.system_prompt),
        Message("user", "b?"),
        Message("assistant", "B"),
        Message("user", "q {{1}}"),
    )
    text = await aligned.render_text("q {{1}}")
    assert (
        text
        == f"{ALIGNMENT.system_prompt}\n\n# Query\nb?\n\n# Answer\nB\n\n# Query\nq {{{{1}}}}\n\n# Answer\n"
    )
    assert retriever.asked == 1
