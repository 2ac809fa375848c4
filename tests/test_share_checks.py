"""What of an alignment is given away, and what is taken from a stranger: bounded, known, and a value."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from drpo.alignment import Alignment, Found, read_alignment, template_digest
from drpo.compose import Sampling
from drpo.errors import InputError
from drpo.sharing.folder import MOST_BYTES, Files, check_files, shared_files, write_folder
from drpo.sharing.hub import Hub
from drpo.sharing.private import without_private
from drpo.sharing.rendering import refuse_active
from drpo.templates import Templates
from drpo.types import Example
from tests.support.hub import HubServer

SETTINGS = {
    "command": "optimize",
    "models": {"base": "demo"},
    "embedder": "lexical",
    "settings": {"depth": 3},
}


def an_alignment(**changed: Any) -> Alignment:
    alignment = Alignment(
        system_prompt="Be kind.",
        examples=(Example("a query", "a response"), Example("another", "one more", "math")),
        shots=1,
        prompt_form="chat",
        embedder="lexical",
        models={"base": "vllm/org/model", "evaluator": "openai/judge"},
        sampling=Sampling(),
        template_digest=template_digest(Templates(), "chat"),
        found=Found(SETTINGS, 4.0, (4.0,), 3, 2, "depth", {"base": 7}),
    )
    return replace(alignment, **changed)


def files_of(alignment: Alignment | None = None) -> Files:
    return shared_files(alignment or an_alignment(), Templates(), "# A card\n", "run")


def changed(**fields: Any) -> Files:
    """The files with other fields in alignment.json."""
    files = files_of()
    data = json.loads(files["alignment.json"]) | fields
    return {**files, "alignment.json": json.dumps(data).encode()}


def test_addresses_and_folders_are_left_out_and_texts_are_not() -> None:
    models = {
        "base": "openai/big@http://10.0.0.7:8000/v1,http://10.0.0.8/v1",
        "evaluator": "vllm//home/me/judge@http://gpu7/v1",
        "optimizer": "vllm/org/model@main[dtype=half]",
        "selector": "openai/gpt",
    }
    own = {
        "reward": "/home/me/reward-model",
        "initial_prompt": "See http://10.0.0.7/x or /home/me.",
        "depth": 3,
    }
    found = replace(an_alignment().found, settings={**SETTINGS, "models": models, "settings": own})
    shared = without_private(an_alignment(models=models, found=found))
    assert shared.models == {
        "base": "openai/big (at an address of its own)",
        "evaluator": "vllm/judge (at an address of its own)",
        "optimizer": "vllm/org/model@main[dtype=half]",
        "selector": "openai/gpt",
    }
    assert shared.found.settings["models"] == shared.models
    assert shared.found.settings["settings"] == {**own, "reward": "reward-model"}
    assert without_private(shared) == shared


@pytest.mark.parametrize(
    "embedder",
    [
        "openai/e5@http://gpu7:8000/v1",
        "vllm/org/e5@https://example.org/v1",
        "sentence-transformers//home/me/mini",
        "sentence-transformers/../mini",
        "openai/e5@https://api.openai.com/v1@evil.example",
    ],
)
def test_an_embedder_that_others_do_not_have_cannot_be_shared(embedder: str) -> None:
    with pytest.raises(InputError, match="its shots are found by"):
        without_private(an_alignment(embedder=embedder))


@pytest.mark.parametrize(
    "embedder",
    [
        "lexical",
        "sentence-transformers/all-mpnet-base-v2",
        "sentence-transformers/org/name",
        "openai/text-3",
        "openai/text-3@https://api.openai.com/v1",
    ],
)
def test_an_embedder_that_anybody_can_name_can_be_shared(embedder: str) -> None:
    assert without_private(an_alignment(embedder=embedder)).embedder == embedder


def test_what_was_pushed_is_what_is_read() -> None:
    assert check_files(files_of(), "hub") == an_alignment()


HOSTILE: list[tuple[Callable[[], Files], str]] = [
    (lambda: changed(schema=2), "schema"),
    (lambda: changed(shots=3), "shots = 3"),
    (lambda: changed(shots="1"), "shots"),
    (lambda: changed(system_prompt=None), "system_prompt"),
    (lambda: changed(models={"base": 1}), "models.base"),
    (lambda: changed(models={"base": "openai/gpt@http://evil.example/v1"}), "names an address"),
    (lambda: changed(models={"base": "vllm/../../weights"}), "names an address or a folder"),
    (lambda: changed(embedder="openai/e5@http://evil.example/v1"), "its shots are found by"),
    (lambda: changed(template_digest="0" * 16), "was searched with another"),
    (lambda: changed(found={"settings": {}}), "settings"),
    (
        lambda: changed(examples=[{"query": "q", "response": ["\x1b[2J"], "kind": None}]),
        "examples.0.response",
    ),
    (lambda: {**files_of(), "alignment.json": b'{"schema": NaN}'}, "NaN"),
    (lambda: {**files_of(), "alignment.json": b"[" * 200_000}, "alignment.json"),
    (lambda: {**files_of(), "alignment.json": b"\xff\xfe"}, "UTF-8"),
    (lambda: {**files_of(), "alignment.json": b"[]"}, "alignment.json"),
    (lambda: {"README.md": b"# A card"}, "there is no alignment.json"),
    (lambda: {**files_of(), "README.md": b"\xff"}, "UTF-8"),
    (lambda: {**files_of(), "README.md": b"x" * 1_000_001}, "more bytes"),
    (lambda: {**files_of(), "model.bin": b""}, "no file of a shared alignment"),
]


@pytest.mark.parametrize(("hostile", "said"), HOSTILE, ids=[said for _, said in HOSTILE])
def test_what_is_no_shared_alignment_is_refused_in_one_harmless_line(
    hostile: Callable[[], Files], said: str
) -> None:
    with pytest.raises(InputError, match=r"^hub: ") as refused:
        check_files(hostile(), "hub")
    assert said in str(refused.value)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 500


PROGRAMS = [
    "{{ ''.__class__.__mro__ }}",
    "{{ query.__init__.__globals__ }}",
    "{{ query['__class__'] }}",
    "{{ query | attr('__class__') }}",
    "{{ range(9) }}",
    "{{ cycler.__init__ }}",
    "{{ lipsum() }}",
    "{% for a in shots %}{% for b in shots %}{{ b.query }}{% endfor %}{% endfor %}",
    "{% for a in query %}x{% endfor %}",
    "{% for a in shots recursive %}{{ loop(shots) }}{% endfor %}",
    "{% set a = query ~ query %}{% set a = a ~ a %}{{ a }}",
    "{{ query * 1000000 }}",
    "{{ 9 ** 99999999 }}",
    "{{ query | indent(999999999) }}",
    "{{ query | center(999999999) }}",
    "{{ query | replace('a', 'aaaaaaaa') }}",
    "{{ '%1000000000d' % 1 }}",
    "{% include 'x' %}",
    "{% macro a(b=query.x) %}{% endmacro %}",
    "{% call query() %}{% endcall %}",
    "{{ [query] }}",
    "{{ query if query else query.format }}",
    "{{",
    "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}",
]


@pytest.mark.parametrize("source", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_template_that_could_do_more_than_render_is_refused(source: str) -> None:
    with pytest.raises(InputError, match=r"prompts/respond_text.j2"):
        refuse_active("prompts/respond_text.j2", source)
    with pytest.raises(InputError, match=r"^hub: prompts/respond_text.j2"):
        check_files({**files_of(), "prompts/respond_text.j2": source.encode()}, "hub")


def test_a_template_that_only_renders_may_come() -> None:
    source = (
        "{% for shot in shots %}{% if not loop.last and loop.index > 1 %}--{% endif %}"
        "Q: {{ shot.query | trim }}{% endfor %}{{ system_prompt ~ query }}"
    )
    refuse_active("respond_text.j2", source)
    assert check_files({**files_of(), "prompts/respond_text.j2": source.encode()}, "hub") == an_alignment()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server
    huggingface_hub.close_session()


def test_only_known_names_are_fetched_and_none_of_a_stranger_is_a_path(
    hub: HubServer, tmp_path: Path
) -> None:
    strange = ["../evil.j2", "prompts/../../evil", "/etc/evil", "prompts/evaluate.j2", "run.json", "a\nb"]
    hub.holds("me/first", {**files_of(), **dict.fromkeys(strange, b"evil")})
    pulled = Hub({"HF_ENDPOINT": hub.url}).pull("me/first", None)
    assert pulled.files == files_of() and pulled.left == len(strange)
    fetched = [asked.path for asked in hub.asked if "/resolve/" in asked.path]
    assert len(fetched) == len(MOST_BYTES) and not any("evil" in path for path in fetched)
    assert write_folder(pulled.files, tmp_path / "out")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        f"out/{name}" for name in MOST_BYTES
    }
    assert read_alignment(tmp_path / "out") == an_alignment()


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_that_is_too_large_is_not_read_to_its_end(hub: HubServer, announced: bool) -> None:
    repository = hub.holds("me/first", {**files_of(), "README.md": b"x" * 3_000_000})
    if not announced:
        repository.announced["README.md"] = 10
    with pytest.raises(InputError, match=r"me/first: README.md has more bytes.*nothing was written"):
        Hub({"HF_ENDPOINT": hub.url}).pull("me/first", None)
    assert any("/resolve/" in asked.path for asked in hub.asked) == (not announced)
