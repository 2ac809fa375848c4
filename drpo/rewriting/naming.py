"""What `--rewriter` names: a kind of rewriter and the model behind it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from drpo.errors import InputError
from drpo.rewriting.asking import Format
from drpo.rewriting.templates import RewriteTemplates

Kind = Literal["bpo", "bpo-prompt", "align-pro"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FACTS_NAME = "drpo-rewriter.json"
"""In the folder of a trained rewriter: its kind, its format, the digest of the template of its training."""
_PROVIDERS = ("demo", "openai", "vllm", "local")
_EXPECTED = "bpo/PATH, bpo/REPO@URL, bpo-prompt/MODEL, align-pro/MODEL or none"


@dataclass(frozen=True, slots=True)
class RewriterName:
    """model: a model as it is named everywhere, such as openai/NAME or local/PATH. is_trained: it says itself
    that it was trained for this, and so how it is sampled."""

    kind: Kind
    model: str
    format: Format
    is_trained: bool = False


def read_rewriter_name(name: str, templates: RewriteTemplates, flag: str = "--rewriter") -> RewriterName:
    """What `name` means. Raises InputError where it is no rewriter, or one that was trained on another
    template than `templates` has."""
    kind, slash, model = name.partition("/")
    if kind not in KINDS or not slash or not model:
        raise InputError(f"{flag} {name}: expected {_EXPECTED}")
    if kind == "bpo" and model == "demo":
        raise InputError(f"{flag} {name}: demo was not trained; write bpo-prompt/demo, or train a model")
    model = _as_model(model)
    facts = _facts(model, flag, name)
    if facts is None:
        formats: dict[Kind, Format] = {"bpo": "apply", "bpo-prompt": "improve", "align-pro": "prompter"}
        return RewriterName(kind, model, formats[kind])
    if kind != "bpo-prompt" and facts.get("kind") != kind:
        raise InputError(
            f"{flag} {name}: {FACTS_NAME} says that this is a rewriter of kind {facts.get('kind')!r}; write "
            f"{facts.get('kind')}/..."
        )
    found = facts.get("format")
    format: Format = "improve" if kind == "bpo-prompt" else "apply" if found == "apply" else "prompter"
    digest = templates.digests()[f"rewrite/{format}.j2"]
    if kind != "bpo-prompt" and facts.get("template") not in (None, digest):
        raise InputError(
            f"{flag} {name}: was trained on another rewrite/{format}.j2 ({facts['template']}) than is used "
            f"now ({digest}); give the folder with that one by --prompts"
        )
    return RewriterName(kind, model, format, kind != "bpo-prompt")


def _as_model(model: str) -> str:
    """A model's name with its provider: what runs at a URL is served by vLLM, all else is on this machine."""
    provider = model.partition("/")[0]
    if model == "demo" or (provider in _PROVIDERS and "/" in model):
        return model
    return f"vllm/{model}" if "@http://" in model or "@https://" in model else f"local/{model}"


def _facts(model: str, flag: str, name: str) -> dict[str, Any] | None:
    """What stands beside a trained model on this machine; None where nothing does."""
    provider, _, place = model.partition("/")
    if provider not in ("local", "vllm") or "@http" in place:
        return None
    try:
        path = Path(place).expanduser() / FACTS_NAME
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError, RuntimeError):  # the last: the home of a user whom nobody knows
        return None
    try:
        facts = json.loads(text)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise InputError(f"{flag} {name}: {path}: expected a JSON object, as training writes it")
    return facts
