"""What of an alignment belongs to the machine it was found on, and is not given away: addresses, folders."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from drpo.alignment import Alignment
from drpo.choices import OPENAI_URL
from drpo.errors import InputError

ELSEWHERE = " (at an address of its own)"
"""Instead of an address. With blanks, so that it names no model: whoever pulls an alignment has to say
where his own is, and nothing is sent to another one of that name."""

_AT_ADDRESS = re.compile(r"(?P<name>(?:openai|vllm)/[^\s@]+)@\w+://\S*")
_IN_FOLDER = re.compile(
    r"(?P<provider>(?:openai/|vllm/|sentence-transformers/)?)(?P<path>(?:/|~|\.{1,2}/|[A-Za-z]:[\\/])\S*)"
)
_NAMED_EMBEDDER = re.compile(
    r"lexical|sentence-transformers/[\w-][\w.-]*(?:/[\w-][\w.-]*)?|openai/[\w-][\w./-]*"
)


def without_private(alignment: Alignment) -> Alignment:
    """The alignment as it may be given away: servers without their addresses, folders by their last name.

    Texts (prompts, examples) stay as they are. InputError where its shots are found by an embedding model
    that nobody else can name.
    """
    _refuse_private_embedder(alignment.embedder)
    found = replace(alignment.found, settings=_public(alignment.found.settings))
    return replace(alignment, models=_public(alignment.models), found=found)


def _public(value: Any) -> Any:
    """The value with each name in it made public; what is longer than a name is a text and stays."""
    if isinstance(value, dict):
        return {key: _public(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if (server := _AT_ADDRESS.fullmatch(value)) is not None:
        return f"{_public(server['name'])}{ELSEWHERE}"
    if (folder := _IN_FOLDER.fullmatch(value)) is not None:
        path = folder["path"]
        shorter = folder["provider"] + (PurePosixPath(path) if "/" in path else PureWindowsPath(path)).name
        return _public(shorter) if len(shorter) < len(value) else value
    return value


def _refuse_private_embedder(embedder: str) -> None:
    """Nothing, where anybody can find the shots as the search did, without sending a query to a stranger."""
    if _NAMED_EMBEDDER.fullmatch(embedder.removesuffix(f"@{OPENAI_URL}")):
        return
    raise InputError(
        f"its shots are found by {embedder[:200]}, a folder or a server that others do not have: an "
        "alignment that is shared needs lexical, sentence-transformers/NAME of the hub or openai/NAME; "
        "search with one of these (--embedder)"
    )
