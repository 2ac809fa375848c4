"""The model that is trained: its files, its tokenizer, and what it reads and writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from drpo.errors import InputError
from drpo.llm.local_source import LocalSource, Manner, folder_identity
from drpo.rewriting.naming import FACTS_NAME
from drpo.rewriting.templates import RewriteTemplates
from drpo.training.library import training_library

FormatName = Literal["apply", "prompter"]
Text = str | list[dict[str, str]]
"""What TRL is given of a prompt or a completion: a text, or the messages of a chat."""


@dataclass(frozen=True, slots=True)
class Base:
    """A causal model before training. identity: NAME#DIGEST, or repository and commit."""

    folder: Path
    identity: str
    tokenizer: Any

    @property
    def own_format(self) -> str | None:
        """What its drpo-rewriter.json says that it reads; None where it has none."""
        try:
            facts = json.loads((self.folder / FACTS_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return str(facts.get("format")) if isinstance(facts, dict) else None


@dataclass(frozen=True, slots=True)
class RewriteFormat:
    """What a rewriter reads and writes, in training as in use: one template, one way of putting it.

    as_chat: the tokenizer has a chat template, so a model is asked by one user message and its reply is the
    rewrite. Else the model continues the page, and the rewrite begins on a line of its own, so that a query
    has the tokens there that it has above.
    """

    name: FormatName
    templates: RewriteTemplates
    as_chat: bool

    def prompt(self, query: str) -> Text:
        """What is read."""
        text = self.templates.apply(query) if self.name == "apply" else self.templates.prompter(query)
        return [{"role": "user", "content": text}] if self.as_chat else text

    def completion(self, rewrite: str) -> Text:
        """What is written; the end mark is TRL's to add."""
        return [{"role": "assistant", "content": rewrite}] if self.as_chat else f"\n{rewrite}"

    def rewrite(self, completion: Text) -> str:
        """The rewrite in what was written."""
        return completion if isinstance(completion, str) else str(completion[-1]["content"])

    @property
    def template(self) -> str:
        """The digest of the template."""
        return self.templates.digests()[f"rewrite/{self.name}.j2"]

    def tokens(self, tokenizer: Any, query: str, rewrite: str) -> int:
        """How long a pair is, end mark included."""
        read, written = self.prompt(query), self.completion(rewrite)
        if isinstance(read, str):
            assert isinstance(written, str)
            return len(tokenizer(read + written)["input_ids"]) + 1
        assert not isinstance(written, str)
        text = tokenizer.apply_chat_template([*read, *written], tokenize=False)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def open_base(name: str, flag: str) -> Base:
    """The model by folder, hub name or NAME@REVISION, fetched where it is not here. InputError where it
    cannot be used; `flag` names the setting."""
    training_library()
    source = LocalSource(name, Manner("language model", f"{flag} ", "train", "or the path of a folder"))
    transformers = source.library()
    folder = source.fetched()
    config = source.read(transformers.AutoConfig)
    kinds = list(getattr(config, "architectures", None) or [])
    if not any("CausalLM" in kind or "LMHeadModel" in kind for kind in kinds):
        raise source.refusal(f"expected a model that continues text, ...ForCausalLM, came {kinds[:1]}")
    if not any(folder.glob("*.safetensors")):
        raise source.no_safetensors()
    identity = folder_identity(folder) if source.folder else source.pinned()
    tokenizer = source.read(transformers.AutoTokenizer)
    if tokenizer.eos_token is None:
        raise source.refusal("its tokenizer has no end mark, so a rewrite would never end")
    return Base(folder, identity, tokenizer)


def format_of(
    base: Base, name: Literal["auto", "apply", "prompter"], templates: RewriteTemplates
) -> RewriteFormat:
    """The format that `name` means for this model; auto: its own, else the meta-prompt for chat models."""
    as_chat = bool(base.tokenizer.chat_template)
    if name != "auto":
        return RewriteFormat(name, templates, as_chat)
    own = base.own_format
    chosen: FormatName = "apply" if own == "apply" or (own is None and not as_chat) else "prompter"
    return RewriteFormat(chosen, templates, as_chat)


def device_precision(wanted: Literal["auto", "float32", "bfloat16"]) -> Any:
    """The torch dtype to compute in."""
    torch = import_module("torch")
    if wanted != "auto":
        return getattr(torch, wanted)
    has_it = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if has_it else torch.float32


def refuse_unreadable_chat(base: Base, format: RewriteFormat, flag: str) -> None:
    """InputError where the tokenizer's chat template takes no user message with a reply."""
    try:
        format.tokens(base.tokenizer, "Why?", "Why, step by step?")
    except Exception as error:  # what a template raises is its own
        raise InputError(f"{flag}: its chat template takes no question and reply: {error}") from error
