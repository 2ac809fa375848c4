"""The target modelfile: a model for Ollama with the alignment in it."""

from __future__ import annotations

import shlex

from drpo.errors import InputError
from drpo.exporting.export import Export, Made, Target, refuse_text_form
from drpo.exporting.words import comment

FILE = "Modelfile"
_KEPT = "\n\r\t "
_WORDS = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "num_predict"}
_NOTES = (
    "Ollama uses its own chat template for the model; the messages are those of the search, the tokens are "
    "if its template is the model's.",
    "A client's own system message replaces the alignment's and stands behind the examples.",
    "Ollama cuts what is longer than its context: set num_ctx where the examples are long.",
)


def held(text: str, place: str) -> str:
    """`text` as a value that Ollama reads back as it is. Raises InputError for what it would not.

    Its parser ends a value at three quotation marks that end a line, and leaves out every character that is
    not printed, but for blanks, tabs and line ends.
    """
    if not text:
        raise InputError(f"--to modelfile: {place} is empty, which a Modelfile cannot hold; use --to openai")
    if '"""' in text:
        raise InputError(
            f'--to modelfile: {place} has three quotation marks in a row ("""), with which a value of a '
            "Modelfile ends; use --to chat-template or --to openai"
        )
    lost = next((c for c in text if not c.isprintable() and c not in _KEPT), None)
    if lost is not None:
        raise InputError(
            f"--to modelfile: {place} has the character U+{ord(lost):04X}, which Ollama leaves out since it "
            "cannot be printed; use --to chat-template or --to openai"
        )
    return f'"""{text}"""'


def make_modelfile(export: Export) -> Made:
    """A Modelfile with system prompt, shots and sampling."""
    refuse_text_form(export, "modelfile", "openai or text")
    content, model = export.content, export.named()
    if not content.query.is_empty or not content.user.is_empty or not content.assistant.is_empty:
        raise InputError(
            "--to modelfile: the templates of the search put text around a query, or the system prompt "
            "into its message; a Modelfile has no place for that; use --to chat-template or --to openai"
        )
    lines = [
        f"# Written by drpo export --to modelfile.\n{comment((*export.notes, *_NOTES))}",
        f"FROM {model.name}\n",
    ]
    given = export.parameters()
    lines += [f"PARAMETER {word} {given[name]}\n" for name, word in _WORDS.items() if name in given]
    for number, turn in enumerate(content.turns):
        if turn.role == "system":
            lines.append(f"SYSTEM {held(turn.content, 'the system prompt')}\n")
            continue
        place = f"message {number} ({turn.role})"
        lines.append(f"MESSAGE {turn.role} {held(turn.content, place)}\n")
    name = shlex.quote(f"{export.folder.name.lower()}")
    use = (f"ollama create {name} -f {export.path(FILE)}", f"ollama run {name}")
    return Made(((FILE, "".join(lines)),), use, _NOTES)


MODELFILE_TARGET = Target("modelfile", "chats of any length, fixed shots; a model of Ollama", make_modelfile)
