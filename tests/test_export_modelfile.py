"""The Modelfile of an export, read back by the rules of Ollama's parser."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from drpo.errors import InputError
from drpo.exporting.ollama import held
from tests.support.command import Shell
from tests.support.export_cases import PRINTED, QUERY, searched_messages, written


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """(instruction, value) of each, as Ollama reads them.

    A value ends at the first line end where what came so far is a whole one, in its quotation marks or
    without any; what is not printed is left out, but for blanks, tabs and line ends.
    """
    found: list[tuple[str, str]] = []
    rest = text
    while rest:
        line, _, after = rest.partition("\n")
        if not line.strip() or line.startswith("#"):
            rest = after
            continue
        name, _, rest = rest.partition(" ")
        if name in ("PARAMETER", "MESSAGE"):
            word, _, rest = rest.partition(" ")
            name = f"{name} {word}"
        value, rest = _value(rest)
        found.append((name, value))
    return found


def _value(text: str) -> tuple[str, str]:
    ends = [place for place, c in enumerate(text) if c in "\r\n"] + [len(text)]
    for end in ends:
        read = "".join(c for c in text[:end] if c.isprintable() or c in "\r\n\t ").strip()
        if read.startswith('"""'):
            if len(read) >= 6 and read.endswith('"""'):
                return read[3:-3], text[end:].lstrip("\r\n")
        elif read.startswith('"'):
            if len(read) >= 2 and read.endswith('"'):
                return read[1:-1], text[end:].lstrip("\r\n")
        else:
            return read, text[end:].lstrip("\r\n")
    raise ValueError("a value without an end")


def exported(shell: Shell, path: Path, *flags: object) -> list[tuple[str, str]]:
    given = ("--model", "llama3.2", "--shots-for", QUERY, "-o", "made")
    shell.done("export", path, "--to", "modelfile", *given, *flags)
    return read_modelfile((shell.folder / "made" / "Modelfile").read_bytes().decode("utf-8"))


def test_ollama_reads_the_messages_of_the_search(shell: Shell) -> None:
    path = written(shell.folder, hard=PRINTED)
    read = exported(shell, path, "--top-p", "0.9")
    assert read[:4] == [
        ("FROM", "llama3.2"),
        ("PARAMETER temperature", "0.0"),
        ("PARAMETER top_p", "0.9"),
        ("PARAMETER num_predict", "2048"),
    ]
    assert read[4][0] == "SYSTEM"
    messages = [{"role": name.removeprefix("MESSAGE ").lower(), "content": value} for name, value in read[4:]]
    assert [*messages, {"role": "user", "content": QUERY}] == searched_messages(path)


def test_without_a_system_role_the_prompt_stands_in_the_first_message(shell: Shell) -> None:
    path = written(shell.folder, "chat-without-system", hard=PRINTED)
    read = [(name, value) for name, value in exported(shell, path) if name.startswith(("MESSAGE", "SYSTEM"))]
    messages = [{"role": name.removeprefix("MESSAGE "), "content": value} for name, value in read]
    assert [*messages, {"role": "user", "content": QUERY}] == searched_messages(path)
    flags = ("export", path, "--to", "modelfile", "--model", "llama3.2", "--shots", "0")
    assert "a Modelfile has no place for that" in shell.refused(2, *flags)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('print("""x""")', "three quotation marks"),
        ("no\u00a0break", "U+00A0"),
        ("bell \x07", "U+0007"),
        ("family \U0001f468\u200d\U0001f469", "U+200D"),
        ("", "is empty"),
    ],
)
def test_what_ollama_would_not_read_back_is_refused(shell: Shell, text: str, said: str) -> None:
    path = written(shell.folder, system_prompt=text)
    line = shell.refused(2, "export", path, "--to", "modelfile", "--model", "llama3.2")
    assert "the system prompt" in line and said in line


@given(st.text(st.sampled_from('ab "\n\r\t\u00a0\x07子')))
def test_what_is_held_is_read_back(text: str) -> None:
    try:
        value = held(text, "the text")
    except InputError:
        assume(False)
    assert read_modelfile(f"SYSTEM {value}\nMESSAGE user hello\n") == [
        ("SYSTEM", text),
        ("MESSAGE user", "hello"),
    ]
