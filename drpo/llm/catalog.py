"""What the models that drpo knows stand for, and how a model is named on the command line."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from drpo.errors import InputError

Provider = Literal["demo", "openai", "vllm", "local"]
Form = Literal["chat", "text", "auto"]

GPU_MEMORY_GB = 24
# The rest is left to the KV cache and activations; a rule of thumb between vLLM's default of 0.9 for
# everything and the 0.75 at which an 8B model in bf16 would be said to need two cards.
WEIGHTS_SHARE_OF_MEMORY = 0.8


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One alias. `name` is what the endpoint calls the model: an API name or a Hugging Face repository.

    `form` is how a base-role request is put. `context_tokens` is the model's own limit; a server may be
    started with less. `refuses` holds the fields of `Request` that the model's API answers with an error.
    `weights_gb` is what the weights take as named (bf16 or `quantization`), None where drpo serves none;
    `gpus` counts cards of 24 GB for them, 0 where none is needed.
    """

    alias: str
    provider: Provider
    name: str
    form: Form
    context_tokens: int | None
    refuses: frozenset[str]
    quantization: str | None
    weights_gb: float | None
    gpus: int
    note: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model at one endpoint, or at several servers that are one to whoever asks.

    `urls` are normalised, sorted and without duplicates; none stands for the provider's default.
    """

    provider: Provider
    name: str
    urls: tuple[str, ...] = ()
    entry: CatalogEntry | None = None

    @property
    def url(self) -> str | None:
        """The URL, the first where there are several; None where the provider's default is meant."""
        return self.urls[0] if self.urls else None

    @property
    def identity(self) -> str:
        """The text that is equal exactly for the same model at the same endpoint."""
        if self.provider == "demo":
            return "demo"
        return f"{self.provider}/{self.name}" + (f"@{','.join(self.urls)}" if self.urls else "")


def gpus_for(weights_gb: float) -> int:
    """The smallest power of two of 24 GB cards of which the weights take at most 80 %.

    Powers of two, since tensor parallelism has to divide the number of attention heads.
    """
    count = 1
    while weights_gb > count * GPU_MEMORY_GB * WEIGHTS_SHARE_OF_MEMORY:
        count *= 2
    return count


def _api(alias: str, context: int, note: str, refuses: frozenset[str] = frozenset()) -> CatalogEntry:
    return CatalogEntry(alias, "openai", alias, "chat", context, refuses, None, None, 0, note)


def _open(
    alias: str, repo: str, form: Form, context: int, weights_gb: float, note: str, quant: str | None = None
) -> CatalogEntry:
    gpus = gpus_for(weights_gb)
    return CatalogEntry(alias, "vllm", repo, form, context, frozenset(), quant, weights_gb, gpus, note)


# Checked on 2026-11-21 against genai-prices 0.2.3, OpenAI's model and deprecation pages as they are quoted
# elsewhere, and the models' repositories. GPT-5.6 and 6 think before they answer: temperature and top_p
# other than 1 are answered with 400. max_tokens is, too: its successor max_completion_tokens counts the
# thinking, so that 2048 there would cut replies that fit well; it is left out instead. No refusal of n or
# seed is known; what is refused beyond this is noticed at the first call.
_REASONING = frozenset({"temperature", "top_p", "max_tokens"})

_GONE = "shut down at OpenAI on 2026-10-23, @URL for others"
_LEAVING = "leaves OpenAI's API on 2027-01-14"
_THINKS = "writes its thinking unless told not to"
_MISTRAL = "mistralai/Mistral-7B-Instruct"
_MISTRAL_SMALL = "mistralai/Mistral-Small-3.2-24B-Instruct-2506"
_LLAMA_3 = "meta-llama/Meta-Llama-3-8B"
_LLAMA_31 = "meta-llama/Llama-3.1-8B"
_LLAMA_33 = "kosbu/Llama-3.3-70B-Instruct-AWQ"

_ENTRIES: tuple[CatalogEntry, ...] = (
    CatalogEntry(
        "demo", "demo", "demo", "chat", None, frozenset(), None, None, 0, "simulated; no key, no network"
    ),
    _api("gpt-3.5-turbo", 16_385, f"base model of the paper; {_GONE}"),
    _api("gpt-4", 8_192, f"baseline of the paper; {_GONE}"),
    _api("gpt-4-turbo", 128_000, f"the paper's optimizer was a preview of it; {_GONE}"),
    _api("gpt-4o", 128_000, _LEAVING),
    _api("gpt-4o-mini", 128_000, _LEAVING),
    _api("gpt-4.1", 1_000_000, _LEAVING),
    _api("gpt-4.1-mini", 1_000_000, _LEAVING),
    _api("gpt-5.6-luna", 1_050_000, "reasoning, cheapest tier", _REASONING),
    _api("gpt-5.6-sol", 1_050_000, "reasoning", _REASONING),
    _api("gpt-5.6-terra", 1_050_000, "reasoning", _REASONING),
    _api("gpt-6-astra", 1_050_000, "reasoning, dearest tier", _REASONING),
    _api("gpt-6-luna", 1_050_000, "reasoning, cheapest tier", _REASONING),
    _api("gpt-6.1-sol", 1_050_000, "reasoning; default optimizer and evaluator", _REASONING),
    _api("gpt-6.1-terra", 1_050_000, "reasoning", _REASONING),
    _api("gpt-6.2-astra", 1_050_000, "reasoning, dearest tier; of 2026-11-17, no price here yet", _REASONING),
    _api("gpt-6.2-sol", 1_050_000, "reasoning; of 2026-11-17, no price here yet", _REASONING),
    _open("mistral-7b", "mistralai/Mistral-7B-v0.1", "text", 32_768, 14.5, "base model of the paper"),
    # The paper says "Instruct" and cites the report on Mistral 7B of 2023, which is about v0.1.
    _open("mistral-7b-instruct", f"{_MISTRAL}-v0.1", "chat", 32_768, 14.5, "paper; knows no system role"),
    _open("mistral-7b-instruct-v0.3", f"{_MISTRAL}-v0.3", "chat", 32_768, 14.5, "the newest of its size"),
    _open("llama-2-7b", "meta-llama/Llama-2-7b-hf", "text", 4_096, 13.5, "base; licence to accept"),
    _open("llama-2-7b-chat", "meta-llama/Llama-2-7b-chat-hf", "chat", 4_096, 13.5, "licence to accept"),
    _open("llama-2-70b", "TheBloke/Llama-2-70B-AWQ", "text", 4_096, 36.6, "paper, 4-bit as there", "awq"),
    _open("llama-2-70b-chat", "TheBloke/Llama-2-70B-Chat-AWQ", "chat", 4_096, 36.6, "paper, 4-bit", "awq"),
    _open("llama-3-8b", _LLAMA_3, "text", 8_192, 16.1, "base model of the paper; licence to accept"),
    _open("llama-3-8b-instruct", f"{_LLAMA_3}-Instruct", "chat", 8_192, 16.1, "paper; licence to accept"),
    _open("llama-3.1-8b", _LLAMA_31, "text", 131_072, 16.1, "base; licence to accept"),
    _open("llama-3.1-8b-instruct", f"{_LLAMA_31}-Instruct", "chat", 131_072, 16.1, "licence to accept"),
    _open("llama-3.3-70b-instruct", _LLAMA_33, "chat", 131_072, 39.8, "4-bit by a third party", "awq"),
    _open("qwen3-8b-base", "Qwen/Qwen3-8B-Base", "text", 32_768, 16.4, "base"),
    _open("qwen3-8b", "Qwen/Qwen3-8B", "chat", 32_768, 16.4, _THINKS),
    _open("qwen3-32b", "Qwen/Qwen3-32B", "chat", 32_768, 65.5, _THINKS),
    _open("qwen3.8-27b", "Qwen/Qwen3.8-27B", "chat", 262_144, 55.6, _THINKS),
    _open("gemma-3-12b", "google/gemma-3-12b-it", "chat", 131_072, 24.4, "licence to accept"),
    _open("gemma-3-27b", "google/gemma-3-27b-it", "chat", 131_072, 54.9, "licence to accept"),
    _open("gemma-4-31b", "google/gemma-4-31B-it", "chat", 262_144, 62.0, "April 2026"),
    _open("mistral-small", _MISTRAL_SMALL, "chat", 131_072, 48.0, "version 3.2"),
    _open("gpt-oss-20b", "openai/gpt-oss-20b", "chat", 131_072, 13.8, "reasoning", "mxfp4"),
    _open("gpt-oss-120b", "openai/gpt-oss-120b", "chat", 131_072, 65.0, "reasoning", "mxfp4"),
)

_EXPECTED = (
    "expected demo, an alias, openai/NAME or vllm/REPO-OR-PATH, each with @URL where it is served, or "
    "local/REPO-OR-PATH"
)
_URL_FORM = "http(s)://HOST[:PORT][/PATH]"
_LISTED = "`drpo models` lists the aliases"
_KEY_REMEDY = "a key goes into DRPO_BASE_API_KEY (or _OPTIMIZER_, _EVALUATOR_, _SELECTOR_ for those roles)"
_DEFAULT_PORTS = {"http": 80, "https": 443}
# The first "@" before a scheme, so that the password of `openai/x@http://user:password@host` is never taken
# for a part of the name.
_URL_START = re.compile(r"@(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_NEXT_URL = re.compile(r",(?=[A-Za-z][A-Za-z0-9+.-]*://)")
# After the last "@" stands a revision, unless it looks like a URL that lacks its scheme: git allows no ":" in
# the name of a revision.
_BARE_URL = re.compile(r"//|.*:|localhost(/|$)|.*/v1/?$|.*[,?]")


def entries() -> tuple[CatalogEntry, ...]:
    """Every alias, by provider and then by name."""
    return tuple(sorted(_ENTRIES, key=lambda entry: (entry.provider, entry.alias)))


def strong_model() -> ModelSpec:
    """The default optimizer and evaluator where an OpenAI key is set.

    Chosen on 2026-11-21: OpenAI places GPT-6.1 Sol near its strongest model, GPT-6 Astra, at a fifth of the
    price (2 and 10 dollars a million tokens; the paper's gpt-4-0125-preview cost 10 and 30). GPT-6.2 Sol is
    four days newer than the price list and costs as much; it takes this place once its price is known here,
    since a default has to be priced before the first call.
    """
    return parse_model("gpt-6.1-sol")


def parse_model(text: str) -> ModelSpec:
    """The model that `text` names. `InputError` in one line where it names none."""
    name, urls_text = _split_url(text.strip())
    urls = () if urls_text is None else _several(urls_text)
    provider, slash, rest = name.partition("/")
    if not slash:
        return _aliased(name, urls)
    if provider not in ("openai", "vllm", "local"):
        raise InputError(
            f"model {_shown(name)}: {_EXPECTED}; {_shown(provider)} is no provider "
            f"(a repository or path is written {_shown('vllm/' + name)}); {_LISTED}"
        )
    if not rest or any(character.isspace() for character in rest):
        raise InputError(
            f"model {_shown(name)}: expected a name without blanks behind {provider}/; {_LISTED}"
        )
    if provider == "local":
        if urls:
            raise InputError(
                f"model {_shown(name)}: expected no URL, it runs inside drpo; came @{_cut(urls[0])}"
            )
        return ModelSpec("local", rest, (), _entry_named("local", rest))
    known: Provider = "openai" if provider == "openai" else "vllm"
    return ModelSpec(known, rest, urls, _entry_named(known, rest))


def normalise_url(text: str) -> str:
    """`text` with scheme and host in lower case, without the default port and trailing slashes.

    `InputError` for anything but one http(s)://HOST[:PORT][/PATH]; its message never repeats a secret.
    """
    shown = _without_secrets(text)
    _refuse_secrets(text, shown)
    if "," in text:
        raise InputError(f"model URL {_shown(shown)}: expected a single {_URL_FORM}, there is a comma in it")
    parts = _parsed(text)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise _not_a_url(shown)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = "" if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def _several(text: str) -> tuple[str, ...]:
    """The URLs of the servers of one model, in one order however they were named."""
    shown = _without_secrets(text)
    _refuse_secrets(text, shown)  # before it is split, since a password may hold a comma
    urls = _NEXT_URL.split(text)
    if any("," in url for url in urls):
        raise InputError(
            f"model URLs {_shown(shown)}: expected {_URL_FORM} right behind each comma, "
            f"as several servers of one model are named; {_LISTED}"
        )
    return tuple(sorted({normalise_url(url) for url in urls}))


def _refuse_secrets(text: str, shown: str) -> None:
    if "@" in text:
        raise InputError(f"model URL at {_shown(shown)}: expected no user or password in it; {_KEY_REMEDY}")
    for mark, what in (("?", "query"), ("#", "fragment")):
        if mark in text:
            raise InputError(f"model URL {_shown(shown)}: expected no {what} behind it; {_KEY_REMEDY}")


def _split_url(text: str) -> tuple[str, str | None]:
    """The name and the text of the URLs behind it, None where there is none."""
    if not text:
        raise InputError(f"model: {_EXPECTED}; nothing came; {_LISTED}")
    start = _URL_START.search(text)
    if start is not None:
        return text[: start.start()], text[start.end() :]
    name, at, last = text.rpartition("@")
    if not at:
        return text, None
    if "@" in name or not last or "/" not in name or _BARE_URL.match(last):
        raise _not_a_url(_without_secrets(last))
    return text, None


def _aliased(alias: str, urls: tuple[str, ...]) -> ModelSpec:
    entry = next((entry for entry in _ENTRIES if entry.alias == alias), None)
    if entry is None:
        near = difflib.get_close_matches(alias.lower(), [entry.alias for entry in _ENTRIES], n=1, cutoff=0.4)
        closest = f"; the closest alias is {near[0]!r}" if near else ""
        raise InputError(f"model {_shown(alias)}: {_EXPECTED}{closest}; {_LISTED}")
    if entry.provider == "demo" and urls:
        raise InputError(f"model demo: expected no URL, it runs inside drpo; came @{_cut(','.join(urls))}")
    return ModelSpec(entry.provider, entry.name, urls, entry)


def _entry_named(provider: Provider, name: str) -> CatalogEntry | None:
    """The entry of an API name, or of a repository whichever kind of endpoint serves it; at any revision."""
    repository = name.rpartition("@")[0] or name
    found = (e for e in _ENTRIES if e.name == repository and e.provider in (provider, "vllm"))
    return next(found, None)


def _parsed(text: str) -> SplitResult:
    # urlsplit drops tabs and line ends in silence, and finds a bad port only when asked for it.
    if any(character.isspace() or not character.isprintable() for character in text):
        raise _not_a_url(text)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise _not_a_url(text) from None
    return parts


def _not_a_url(shown: str) -> InputError:
    return InputError(f"model URL: expected {_URL_FORM} behind @, came {_shown(shown)}; {_LISTED}")


def _without_secrets(text: str) -> str:
    """`text` without what stands before an "@" or behind a "?" or "#"."""
    return re.split(r"[?#]", text.rpartition("@")[2])[0]


def _shown(text: str) -> str:
    return repr(_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
