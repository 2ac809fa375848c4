"""The target openai: a script that asks any OpenAI-compatible server, to run or to import."""

from __future__ import annotations

import shlex

from drpo.exporting.export import LOOPBACK, Export, Made, Target, answer_notes, chat_messages
from drpo.exporting.words import comment

SCRIPT = "ask.py"
_CHAT = '''

def messages(query):
    """The chat for one query."""
    return [*MESSAGES, {"role": "user", "content": BEFORE + query + AFTER}]


def answer(query, client=None):
    """What the model says; the key is read from OPENAI_API_KEY."""
    client = client or OpenAI(base_url=BASE_URL)
    reply = client.chat.completions.create(model=MODEL, messages=messages(query), **PARAMETERS)
    return reply.choices[0].message.content
'''
_PAGE = '''

def prompt(query):
    """The page for one query; the model continues it."""
    return BEFORE + query + AFTER


def answer(query, client=None):
    """What the model writes up to the next question; the key is read from OPENAI_API_KEY."""
    client = client or OpenAI(base_url=BASE_URL)
    reply = client.completions.create(model=MODEL, prompt=prompt(query), **PARAMETERS)
    return reply.choices[0].text.rstrip()
'''
_MAIN = """

if __name__ == "__main__":
    print(answer(" ".join(sys.argv[1:]) or sys.stdin.read()))
"""


def messages_literal(messages: list[dict[str, str]]) -> str:
    """Messages as Python: the text of each on one line, as `repr` writes it."""
    return "[\n" + "".join(f"    {message!r},\n" for message in messages) + "]"


def openai_script(export: Export, notes: tuple[str, ...]) -> str:
    """The text of the script."""
    model, content = export.named(), export.content
    url = repr(model.url) if model.url else 'os.environ.get("OPENAI_BASE_URL")'
    if model.url is None and model.provider == "vllm":
        url = f'os.environ.get("OPENAI_BASE_URL", {LOOPBACK!r})'
    lines = [
        "# Written by drpo export. Needs the package openai.\n" + comment(notes),
        "import os\n" * ("os." in url) + "import sys\n\nfrom openai import OpenAI\n\n",
        f"MODEL = {model.name!r}\nBASE_URL = {url}\nPARAMETERS = {export.parameters()!r}\n",
    ]
    if content.form != "text":
        lines.append(f"MESSAGES = {messages_literal(chat_messages(export))}\n")
    lines.append(f"BEFORE, AFTER = {content.query.before!r}, {content.query.after!r}\n")
    return "".join([*lines, _PAGE if content.form == "text" else _CHAT, _MAIN])


def make_openai(export: Export) -> Made:
    """A script for chats, or for pages where the alignment is asked in the form text."""
    notes = answer_notes(export)
    key = (
        ""
        if export.named().provider == "openai" and not export.named().url
        else " (any key will do where none is asked for)"
    )
    use = (
        f"export OPENAI_API_KEY=...{key}",
        f"python {export.path(SCRIPT)} {shlex.quote('your question')}",
    )
    return Made(((SCRIPT, openai_script(export, (*export.notes, *notes))),), use, notes)


OPENAI_TARGET = Target(
    "openai",
    "one query at a time, fixed shots, as a chat or a page; a script for the OpenAI SDK",
    make_openai,
)
