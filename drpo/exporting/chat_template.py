"""The targets chat-template and vllm: the model's own chat template with the alignment before the chat."""

from __future__ import annotations

import json
import shlex

from drpo.errors import InputError
from drpo.exporting.content import Content, Frame, render_own_system, unused_marker
from drpo.exporting.export import LOOPBACK, Export, Made, Target, answer_notes, refuse_text_form
from drpo.exporting.openai_script import SCRIPT, openai_script
from drpo.exporting.tokenizer import read_chat_template
from drpo.exporting.words import comment, plain_line
from drpo.llm.vllm.launch import Installation, Parallel, read_flags, server_command, server_spec

TEMPLATE, SERVE = "chat_template.jinja", "serve.sh"
_FURTHER = '"$@"'  # flags of whoever runs the script, such as --port
_CLIENT_NOTE = (
    "A client's own system messages are put behind the alignment's, a blank line between them. "
    "The examples stand before every conversation."
)


def literal(text: str) -> str:
    """`text` as a string of Jinja, whose escapes are Python's: those of JSON but for surrogate pairs."""
    return json.dumps(text, ensure_ascii=False)


def _joined(frame: Frame, variable: str) -> str:
    parts = [literal(frame.before), variable, literal(frame.after)]
    return " ~ ".join(part for part in parts if part != '""')


def _own_system(original: str) -> list[str]:
    """Takes a client's system messages off the conversation, as one text, as `drpo serve` does."""
    # vLLM turns developers into systems for a template that does not name them, and then none comes here.
    roles = "('system', 'developer')" if "developer" in original else "('system',)"
    # No loop over the parts of a content, and names for the messages instead of fields: vLLM looks for both
    # to see what contents a template takes, which is for the original to say.
    return [
        "{%- set drpo = namespace(own=[], said=[], is_first=true) -%}",
        "{%- for turn in messages -%}",
        f"{{%- if turn['role'] in {roles} -%}}",
        "{%- set text = turn['content'] if turn['content'] is string",
        "   else (turn['content'] or []) | map(attribute='text') | join -%}",
        "{%- set drpo.own = drpo.own + [text] -%}",
        "{%- else -%}{%- set drpo.said = drpo.said + [turn] -%}{%- endif -%}{%- endfor -%}",
        "{%- set drpo_own = drpo.own | join('\\n\\n') -%}",
        "{%- set drpo_own = drpo_own if drpo_own | trim else '' -%}",
        "{%- set drpo_rest = drpo.said -%}",
    ]


def _framed(before: str, after: str) -> str:
    """The turn with two texts (expressions) around its content, which is a text or a list of parts."""
    said = "turn['content']"
    first, last = (f"[{{'type': 'text', 'text': {text}}}]" for text in (before, after))
    parts = f"{first} + {said} + {last}"
    return f"dict(turn, content=({before} ~ {said} ~ {after}) if {said} is string else ({parts}))"


def _framed_turns(content: Content, lead: tuple[str, str] | None) -> list[str]:
    """Puts around what users and the model say what the templates of the search put there.

    lead: expressions for what stands around the first user message, None where it is as any other.
    """
    if lead is None and content.user.is_empty and content.assistant.is_empty:
        return []
    again = _framed(literal(content.user.before), literal(content.user.after))
    answered = _framed(literal(content.assistant.before), literal(content.assistant.after))
    first = again if lead is None else _framed(*lead)
    is_said = "(turn['content'] is string or turn['content'])"
    return [
        "{%- set drpo.said = [] -%}",
        "{%- for turn in drpo_rest -%}",
        f"{{%- if {is_said} and turn['role'] == 'user' -%}}",
        f"{{%- set drpo.said = drpo.said + [{first} if drpo.is_first else {again}] -%}}",
        "{%- set drpo.is_first = false -%}",
        f"{{%- elif {is_said} and turn['role'] == 'assistant' -%}}",
        f"{{%- set drpo.said = drpo.said + [{answered}] -%}}",
        "{%- else -%}{%- set drpo.said = drpo.said + [turn] -%}{%- endif -%}",
        "{%- endfor -%}{%- set drpo_rest = drpo.said -%}",
    ]


def wrapped_template(export: Export, original: str, notes: tuple[str, ...]) -> str:
    """The model's own template behind a beginning that puts the alignment before the conversation.

    For chats of one query it renders exactly what `original` makes of the search's messages.
    """
    content, subject = export.content, export.subject
    told = "".join(f"   {plain_line(note)}\n" for note in notes).replace("#}", "# }")
    lines = ["{#- Written by drpo export --to chat-template.\n" + told + "-#}", *_own_system(original)]
    lead: tuple[str, str] | None = None
    turns: list[str] = []
    if content.turns:
        own = render_own_system(export.composer, subject.system_prompt, export.shots, "")
        first, *others = content.turns
        head = f"({_joined(own, 'drpo_own')}) if drpo_own else {literal(first.content)}"
        turns = [f"{{'role': {literal(first.role)}, 'content': {head}}}"]
        turns += [f"{{'role': {literal(m.role)}, 'content': {literal(m.content)}}}" for m in others]
    else:
        lead = _lead(export)
    lines += _framed_turns(content, lead)
    lines.append("{%- set messages = [\n" + ",\n".join(turns) + "\n] + drpo_rest %}")
    # One line end behind the last block: trim_blocks, which chat templates are rendered with, takes it away.
    return "".join(f"{line}\n" for line in lines) + original


def _lead(export: Export) -> tuple[str, str]:
    """What stands around the first user message where it begins with the system prompt: no system role, no
    shots."""
    query, subject = export.content.query, export.subject
    marker = unused_marker(query.before, query.after, subject.system_prompt)
    own = render_own_system(export.composer, subject.system_prompt, (), marker)
    behind, _, after = own.after.partition(marker)
    led = _joined(Frame(own.before, behind), "drpo_own")
    return f"(({led}) if drpo_own else {literal(query.before)})", literal(after)


def _template(export: Export, target: str) -> tuple[str, tuple[str, ...]]:
    if export.tokenizer is None:
        raise InputError(
            f"--to {target}: the model's own chat template is needed, to put the alignment before it; give "
            "--tokenizer, a folder with it or a repository in the Hugging Face cache"
        )
    found = read_chat_template(export.tokenizer, export.environment)
    notes = [_CLIENT_NOTE]
    if found.others:
        others = ", ".join(map(plain_line, found.others))
        notes.append(f"The tokenizer has further templates ({others}), which are not in this one.")
    return wrapped_template(export, found.text, (*export.notes, *notes)), tuple(notes)


def make_chat_template(export: Export) -> Made:
    """A template for `vllm serve --chat-template` and for tokenizers of transformers."""
    refuse_text_form(export, "chat-template", "vllm, text or openai")
    text, notes = _template(export, "chat-template")
    model = export.model.name if export.model else "MODEL"
    use = (
        f"vllm serve {shlex.quote(model)} --chat-template {export.path(TEMPLATE)}",
        f"in Python: tokenizer.chat_template = open({str(export.folder / TEMPLATE)!r}, newline='').read()",
    )
    return Made(((TEMPLATE, text),), use, notes)


def make_vllm(export: Export) -> Made:
    """The command that serves the model with the alignment before every chat; or, for a page, the plain
    server and a script that asks it."""
    model = export.named()
    if model.provider == "openai" and model.url is None:
        raise InputError(
            f"--to vllm: {model.name} is served by OpenAI; name a repository or a folder: --model"
        )
    spec = server_spec(model.name, read_flags(export.vllm_args), Parallel())
    command = server_command(spec, Installation(("vllm", "serve")), "127.0.0.1", 8000, [model.name], 1)
    notes: tuple[str, ...] = ()
    files: list[tuple[str, str]] = []
    script = 'here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)\n'
    shown = shlex.join(command)
    if export.content.form == "text":
        notes = answer_notes(export)
        files.append((SCRIPT, openai_script(export, (*export.notes, *notes))))
        script, use = "", (f"python {export.path(SCRIPT)} 'your question'",)
    else:
        text, notes = _template(export, "vllm")
        files.append((TEMPLATE, text))
        shown += f' --chat-template "$here/{TEMPLATE}"'
        body = {
            "model": model.name,
            "messages": [{"role": "user", "content": "your question"}],
            **export.parameters(),
        }
        sent = shlex.quote(json.dumps(body))
        use = (f"curl -s {LOOPBACK}/chat/completions -H 'Content-Type: application/json' -d {sent}",)
    told = comment((*export.notes, *notes))
    begin = f"#!/bin/sh\n# Written by drpo export --to vllm.\n{told}{script}"
    files.insert(0, (SERVE, f"{begin}exec {shown} {_FURTHER}\n"))
    return Made(tuple(files), (f"sh {export.path(SERVE)}", *use), notes)


CHAT_TEMPLATE_TARGET = Target(
    "chat-template",
    "chats of any length, fixed shots, in the model's own chat template (--tokenizer)",
    make_chat_template,
)
VLLM_TARGET = Target(
    "vllm", "the vllm serve command with that template; for a page the server and a script", make_vllm
)
