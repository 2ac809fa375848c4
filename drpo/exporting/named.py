"""The model of an export, as other tools call it."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

from drpo.errors import InputError
from drpo.llm.catalog import parse_model

_NAME = re.compile(r"[A-Za-z0-9.~/][A-Za-z0-9._:/@+~-]*")


@dataclass(frozen=True, slots=True)
class NamedModel:
    """What a server calls the model. url: where it is served, None: at the default of whoever asks. refuses:
    fields of a request that it does not take. provider: openai, vllm, or empty where drpo knows none.
    context_tokens: the model's own limit, where the catalog knows it."""

    name: str
    url: str | None = None
    refuses: frozenset[str] = frozenset()
    provider: str = ""
    context_tokens: int | None = None


def named_model(given: str | None, found_for: str | None) -> NamedModel | None:
    """The model of --model, in drpo's way of naming models or any other tool's; else the one that the
    alignment was found for. None where that has no name outside of drpo: a simulated one, a folder's digest.

    Raises InputError for what is no name of a model.
    """
    if given is None:
        if (
            found_for is None
            or found_for.startswith("demo")
            or not found_for.startswith(("openai/", "vllm/"))
        ):
            return None
        if "#" in found_for or "[" in found_for:
            return None
        return _parsed(found_for)
    if given == "demo":
        raise InputError("--model demo: a simulated model exists nowhere else; name a real one")
    with contextlib.suppress(InputError):
        return _parsed(given)
    if given.startswith(("openai/", "vllm/")) or not _NAME.fullmatch(given):
        return _parsed(given)
    return NamedModel(given)


def _parsed(text: str) -> NamedModel:
    spec = parse_model(text)
    if len(spec.urls) > 1:
        raise InputError(f"--model {text}: expected one URL, came {len(spec.urls)}")
    if spec.entry is None:
        return NamedModel(spec.name, spec.url, provider=spec.provider)
    return NamedModel(spec.name, spec.url, spec.entry.refuses, spec.provider, spec.entry.context_tokens)
