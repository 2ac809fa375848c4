"""The chat template of an export: what the model's own one makes of the search's messages, to the token."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.alignment import read_alignment, template_digest
from drpo.compose import Composer, PromptForm
from drpo.errors import InputError
from drpo.exporting.chat_template import literal
from drpo.exporting.content import frame_of
from drpo.exporting.tokenizer import read_chat_template
from drpo.templates import Templates
from drpo.types import Example
from tests.support.command import Shell
from tests.support.export_cases import QUERY, examples, searched_messages, written

Chat = list[dict[str, Any]]
CHATML = (
    "{%- for message in messages -%}\n"
    "    {%- if loop.first and message['role'] != 'system' -%}<|im_start|>system\nDefault.<|im_end|>\n"
    "    {%- endif -%}\n"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}\n"
)
LLAMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "<<{{ system }}>>{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
)
MACRO = (
    "\n  {% macro said(n) %}({{ n }} of {{ messages | length }}: {{ messages[n]['content'] | tojson }})"
    "{% endmacro %}"
    "{% for m in messages %}{{ said(loop.index0) }}{% endfor %}\n"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)
IN_PARTS = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{% endfor %}"
)
FRAMES = (
    "{% macro system(s) %}S[{{ s }}]{% endmacro %}{% macro user(q) %}Q: {{ q }} {# #}?{% endmacro %}"
    "{% macro assistant(r) %}{ {{ r }} }{% endmacro %}"
)


def render(template: str, messages: Chat, **values: Any) -> str:
    """A chat template rendered as transformers does it."""

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    env.globals["raise_exception"] = raise_exception
    return env.from_string(template).render(
        messages=messages, **{"add_generation_prompt": True, "bos_token": "<s>", **values}
    )


def tokenizer(folder: Path, template: Any) -> Path:
    """A folder with the files of a tokenizer that carry its chat template."""
    folder.mkdir()
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}), "utf-8")
    return folder


def made(shell: Shell, path: Path, template: Any, *flags: object) -> str:
    """The exported template, as transformers and vLLM read it."""
    given = ("--tokenizer", tokenizer(shell.folder / "tokenizer", template), "--shots-for", QUERY)
    shell.done("export", path, "--to", "chat-template", "-o", "made", *given, *flags)
    return (shell.folder / "made" / "chat_template.jinja").read_bytes().decode("utf-8")


def searched(
    path: Path,
    form: PromptForm = "chat",
    *,
    own: str = "",
    before: Sequence[tuple[str, str]] = (),
    shots: int = 2,
    templates: Templates | None = None,
) -> Chat:
    """What the search's composer renders, with the examples nearest to QUERY (4 and 2)."""
    alignment = read_alignment(path)
    shown = [alignment.examples[3], alignment.examples[1]][:shots]
    system = f"{alignment.system_prompt}\n\n{own}" if own else alignment.system_prompt
    composer = Composer(templates or Templates(), form)
    rendered = composer.messages(system, [*shown, *(Example(*turn) for turn in before)], QUERY)
    return [{"role": message.role, "content": message.content} for message in rendered]


def asked(content: str = QUERY) -> Chat:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("template", [CHATML, LLAMA, MACRO])
def test_one_query_is_rendered_as_the_own_template_renders_the_chat_of_the_search(
    shell: Shell, template: str
) -> None:
    path = written(shell.folder)
    assert searched(path) == searched_messages(path)
    text = made(shell, path, template)
    for values in ({}, {"add_generation_prompt": False}):
        assert render(text, asked(), **values) == render(template, searched_messages(path), **values)


@pytest.mark.parametrize(
    "content", ["Answer in French {{ x }}", [{"type": "text", "text": "In French"}], " \n", None]
)
@pytest.mark.parametrize("template", [CHATML, "{# no 'developer' here #}" + CHATML])
def test_a_clients_system_message_stands_behind_that_of_the_alignment(
    shell: Shell, template: str, content: Any
) -> None:
    path = written(shell.folder)
    text = made(shell, path, template)
    own = content[0]["text"] if isinstance(content, list) else (content or "").strip()
    # vLLM turns developers into systems where a template does not name the role; nor may its beginning then.
    assert ("'developer'" in text) == ("'developer'" in template)
    role = "developer" if "'developer'" in template else "system"
    chat = [{"role": role, "content": content}, *asked()]
    assert render(text, chat) == render(template, searched(path, own=own))


def test_system_messages_are_joined_wherever_they_stand_as_serve_does(shell: Shell) -> None:
    path = written(shell.folder)
    text = made(shell, path, CHATML)
    chat = [{"role": "system", "content": "One"}, *asked(), {"role": "system", "content": "Two"}]
    assert render(text, chat) == render(CHATML, searched(path, own="One\n\nTwo"))


@pytest.mark.parametrize("shots", [0, 1, 2])
@pytest.mark.parametrize("own", ["", "Answer in French"])
def test_without_a_system_role_the_prompt_begins_the_first_user_message(
    shell: Shell, shots: int, own: str
) -> None:
    path = written(shell.folder, "chat-without-system")
    given = ("--tokenizer", tokenizer(shell.folder / "tokenizer", NO_SYSTEM), "--shots", shots)
    near = ("--shots-for", QUERY) if shots else ()
    shell.done("export", path, "--to", "chat-template", "-o", "made", *given, *near)
    text = (shell.folder / "made" / "chat_template.jinja").read_bytes().decode("utf-8")
    turns = [("A first question", "Its answer")]
    system = [{"role": "system", "content": own}] if own else []
    later = [*system, *asked("A first question"), {"role": "assistant", "content": "Its answer"}, *asked()]
    for chat, before in (([*system, *asked()], []), (later, turns)):
        wanted = searched(path, "chat-without-system", own=own, before=before, shots=shots)
        assert render(text, chat) == render(NO_SYSTEM, wanted)


def test_what_own_templates_put_around_texts_stands_around_them_in_every_turn(shell: Shell) -> None:
    folder = shell.folder / "prompts"
    folder.mkdir()
    (folder / "respond_chat.j2").write_text(FRAMES)
    templates = Templates(folder)
    path = written(shell.folder, template_digest=template_digest(templates, "chat"))
    text = made(shell, path, CHATML, "--prompts", folder)
    turns = [("A first question", "Its answer")]
    chat = [*asked("A first question"), {"role": "assistant", "content": "Its answer"}, *asked()]
    wanted = searched(path, before=turns, templates=templates)
    assert wanted[-1]["content"] == f"Q: {QUERY} ?"
    assert render(text, chat) == render(CHATML, wanted)
    own = [{"role": "system", "content": "In French"}, *asked()]
    assert render(text, own) == render(CHATML, searched(path, own="In French", templates=templates))


def test_a_content_in_parts_is_given_its_surroundings_as_parts(shell: Shell) -> None:
    folder = shell.folder / "prompts"
    folder.mkdir()
    (folder / "respond_chat.j2").write_text(FRAMES)
    templates = Templates(folder)
    path = written(shell.folder, template_digest=template_digest(templates, "chat"))
    text = made(shell, path, MACRO, "--prompts", folder)
    before, said, after = ({"type": "text", "text": part} for part in ("Q: ", QUERY, " ?"))
    wanted = searched(path, templates=templates)
    called: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": []}
    wanted = [*wanted[:-1], {"role": "user", "content": [before, said, after]}, called]
    chat: Chat = [{"role": "user", "content": [said]}, called]
    assert render(text, chat) == render(MACRO, wanted)


@pytest.mark.parametrize("macro", ["{{ q | upper }}", "{{ q | trim }}", "{{ q }} {{ q }}", "always the same"])
def test_a_template_that_does_more_with_a_query_is_refused(shell: Shell, macro: str) -> None:
    folder = shell.folder / "prompts"
    folder.mkdir()
    (folder / "respond_chat.j2").write_text(FRAMES.replace("Q: {{ q }}", macro))
    path = written(shell.folder, template_digest=template_digest(Templates(folder), "chat"))
    said = shell.refused(2, "export", path, "--to", "messages", "--prompts", folder)
    assert "expected it to stand there once, as it is" in said


def test_the_default_one_of_several_templates_is_taken_and_the_others_are_told(shell: Shell) -> None:
    path = written(shell.folder)
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHATML}]
    text = made(shell, path, several)
    assert text.endswith(CHATML)
    assert "further templates (tool_use)" in text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template"),
        ([{"name": "x", "template": "y"}], "named default"),
        (3, "named default"),
    ],
)
def test_a_tokenizer_without_a_usable_template_is_refused(tmp_path: Path, template: Any, said: str) -> None:
    folder = tokenizer(tmp_path / "tokenizer", template)
    with pytest.raises(InputError, match=said):
        read_chat_template(str(folder), {})


def test_a_repository_is_read_from_the_hugging_face_cache(tmp_path: Path) -> None:
    cached = tmp_path / "hub" / "models--some--model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc\n")
    (cached / "snapshots").mkdir()
    folder = tokenizer(cached / "snapshots" / "abc", CHATML)
    (folder / "chat_template.jinja").write_bytes(b"newer\r\n")  # which stands above the one in the settings
    for name, value in (("HF_HOME", tmp_path), ("HF_HUB_CACHE", tmp_path / "hub")):
        assert read_chat_template("some/model", {name: str(value)}).text == "newer\r\n"
    assert read_chat_template("some/model@abc", {"HF_HOME": str(tmp_path)}).text == "newer\r\n"
    with pytest.raises(InputError, match="some/other"):
        read_chat_template("some/other", {"HF_HOME": str(tmp_path)})


@pytest.mark.vllm
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("template", [CHATML, LLAMA, MACRO, NO_SYSTEM, IN_PARTS])
def test_vllm_sees_the_same_form_of_contents(shell: Shell, template: str) -> None:
    if find_spec("vllm") is None:
        pytest.skip("the package vllm is not installed")
    see = import_module("vllm.renderers.hf")._detect_content_format
    text = made(shell, written(shell.folder), template)
    assert see(text, default="string") == see(template, default="string")
    assert see(IN_PARTS, default="string") == "openai"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_out_of_a_jinja_string_as_it_went_in(text: str) -> None:
    assert render(f"{{{{ {literal(text)} }}}}", []) == text


@given(st.text(), st.text())
def test_a_frame_is_what_stands_around(before: str, after: str) -> None:
    around: Callable[[str], str] = lambda text: before + text + after  # noqa: E731
    frame = frame_of(around, "the place")
    assert frame.around("x") == around("x")


@pytest.mark.embed
@pytest.mark.filterwarnings("default")  # the warnings of transformers and its kin are not ours to mend
@pytest.mark.parametrize("template", [CHATML, LLAMA, MACRO])
def test_transformers_gives_the_same_token_ids(shell: Shell, template: str) -> None:
    if find_spec("transformers") is None:
        pytest.skip("the package transformers is not installed")
    path = written(shell.folder)
    text = made(shell, path, template)
    known = byte_tokenizer()

    def ids(chat_template: str, messages: Chat) -> list[int]:
        return list(
            known.apply_chat_template(
                messages, chat_template=chat_template, add_generation_prompt=True, return_dict=False
            )
        )

    wanted = ids(template, searched_messages(path))
    assert ids(text, asked()) == wanted
    assert len(wanted) > sum(len(example.response) for example in examples()[1:2])
    known.chat_template = text
    known.save_pretrained(shell.folder / "saved")
    again = import_module("transformers").AutoTokenizer.from_pretrained(shell.folder / "saved")
    assert list(again.apply_chat_template(asked(), add_generation_prompt=True, return_dict=False)) == wanted


def byte_tokenizer() -> Any:
    """A byte-level tokenizer made on the spot; it knows every text."""
    tokenizers, transformers = import_module("tokenizers"), import_module("transformers")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    marks = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=marks,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(["Why is the sky blue? Once upon a time."] * 5, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>")
