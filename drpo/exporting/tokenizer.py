"""A tokenizer's chat template, read as text: no code of a repository is run and nothing is fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo.errors import InputError

_JINJA, _CONFIG = "chat_template.jinja", "tokenizer_config.json"


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A chat template. others: names of the tokenizer's further ones, such as one for tools."""

    text: str
    others: tuple[str, ...] = ()


def read_chat_template(given: str, environment: Mapping[str, str]) -> ChatTemplate:
    """The chat template of a folder, or of a repository (perhaps @REVISION) in the Hugging Face cache.

    Raises InputError where there is no such tokenizer here, or where it has no chat template.
    """
    folder = _folder_of(given, environment)
    try:
        if (folder / _JINJA).is_file():
            more = sorted(path.stem for path in (folder / "additional_chat_templates").glob("*.jinja"))
            return ChatTemplate(_decoded(folder / _JINJA), tuple(more))
        found = _in_config(json.loads(_decoded(folder / _CONFIG)), given)
    except FileNotFoundError:
        raise InputError(
            f"--tokenizer {given}: expected {_JINJA} or {_CONFIG} in {folder}, there is none of them"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"--tokenizer {given}: cannot be read: {error}") from None
    if found is None:
        raise InputError(
            f"--tokenizer {given}: has no chat template; it is a base model's, which is asked in the form "
            "text (--prompt-form text, and --to vllm or --to openai)"
        )
    return found


def _decoded(path: Path) -> str:
    # Bytes, since reading as text would turn \r\n into \n, and the template is to stay as it is.
    return path.read_bytes().decode("utf-8")


def _in_config(config: Any, given: str) -> ChatTemplate | None:
    template = config.get("chat_template") if isinstance(config, dict) else None
    if isinstance(template, str):
        return ChatTemplate(template)
    if template is None:
        return None
    try:
        named = {str(one["name"]): str(one["template"]) for one in template}
        return ChatTemplate(named.pop("default"), tuple(sorted(named)))
    except (TypeError, KeyError):
        raise InputError(
            f"--tokenizer {given}: expected chat_template in {_CONFIG} to be a text, or a list of templates "
            "one of which is named default"
        ) from None


def _folder_of(given: str, environment: Mapping[str, str]) -> Path:
    local = Path(given).expanduser()
    if local.is_dir():
        return local
    if local.is_file():
        return local.parent
    repository, _, revision = given.partition("@")
    if given.startswith((".", "/", "~")) or repository.count("/") > 1 or not repository:
        raise InputError(f"--tokenizer {given}: expected a folder with a tokenizer, there is none")
    cached = _hub_cache(environment) / f"models--{repository.replace('/', '--')}"
    try:
        commit = (cached / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = revision
    snapshot = cached / "snapshots" / commit
    if not commit or not snapshot.is_dir():
        raise InputError(
            f"--tokenizer {given}: is no folder, and no repository in the Hugging Face cache. "
            f"Fetch it: hf download {repository} --include '*.json' '*.jinja'"
        )
    return snapshot


def _hub_cache(environment: Mapping[str, str]) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(name):
            return Path(environment[name]).expanduser()
    if environment.get("HF_HOME"):
        return Path(environment["HF_HOME"]).expanduser() / "hub"
    caches = environment.get("XDG_CACHE_HOME")
    return (Path(caches).expanduser() if caches else Path.home() / ".cache") / "huggingface" / "hub"
