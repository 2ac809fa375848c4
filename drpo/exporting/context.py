"""How many of the fixed shots fit the context of the model that an export names.

A server that the user names is asked, as in the search. Without one the context is what the flags, the
model's folder or the catalog say, and tokens are estimated by length.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from drpo.choices import ModelChoice
from drpo.choices import named_model as chosen_model
from drpo.compose import Composer, Sampling
from drpo.config_use import UseConfig
from drpo.errors import DrpoError, InputError, Interrupted, ProviderRefused
from drpo.exporting.named import NamedModel
from drpo.exporting.words import quoted
from drpo.live import endpoints_of
from drpo.llm.base import Request
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.limits import Stop
from drpo.llm.retry import Patience
from drpo.llm.vllm.tokens import Refusal, ServerFacts
from drpo.measuring.subject import Subject
from drpo.respond import ContextFit
from drpo.types import Example, Failed

CHARACTERS_PER_TOKEN = 4.0
"""For estimates; common tokenizers came to 4.0 to 4.3 in the texts of searches."""
_ASK_S, _PATIENCE_S = 5.0, 2.0
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)([kKmMgG]?)")
_UNITS = {"": 1, "k": 1000, "K": 1024, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30}
_SHOWN = 60  # characters of a query in a note


@dataclass(frozen=True, slots=True)
class Context:
    """tokens: of prompt and answer together. known: who says so. count: tokens of a request, None where they
    cannot be told; estimates: whether they are no exact ones."""

    tokens: int
    known: str
    count: Callable[[Request], Awaitable[int | None]]
    estimates: bool = True


@dataclass(frozen=True, slots=True)
class Kept:
    """The shots that an export can hold, nearest first, and what there is to be said of it."""

    shots: tuple[Example, ...]
    notes: tuple[str, ...] = ()


async def keep_what_fits(
    subject: Subject,
    composer: Composer,
    shots: tuple[Example, ...],
    query: str | None,
    config: UseConfig,
    model: NamedModel | None,
    environment: Mapping[str, str],
) -> Kept:
    """As many of `shots` as fit beside `query` and an answer; of no query, beside the longest of an example.

    All of them where no context is known, and with --long-prompts as-is. Raises InputError where none would
    be enough.
    """
    if config.long_prompts == "as-is" or model is None:
        return Kept(shots)
    connections = Connections()
    try:
        asked = await _asked(subject, config, model, connections, environment)
        context = asked if isinstance(asked, Context) else _written(config, model)
        failed = (asked,) if isinstance(asked, str) else ()
        if context is None:
            return Kept(shots, failed)
        asked_with = max((e.query for e in subject.examples), key=len, default="") if query is None else query
        kept = await _fitting(subject, composer, shots, asked_with, config, model.name, context)
        return Kept(kept.shots, (*failed, *kept.notes))
    finally:
        await connections.aclose()


async def _fitting(
    subject: Subject,
    composer: Composer,
    shots: tuple[Example, ...],
    query: str,
    config: UseConfig,
    name: str,
    context: Context,
) -> Kept:
    limit, longest = context.tokens, config.base_max_tokens
    of = f"the context of {name} ({limit} tokens, {context.known})"
    if longest >= limit:
        raise InputError(
            f"--base-max-tokens {longest}: {of} leaves none for a prompt. Give --base-max-tokens "
            f"{max(1, limit // 4)}, for example"
        )
    sampling = Sampling(config.temperature, config.top_p, longest)
    count = await ContextFit(composer, sampling, limit, context.count).shots_that_fit(
        subject.system_prompt, shots, query
    )
    how = f", counted as {CHARACTERS_PER_TOKEN:g} characters a token" if context.estimates else ""
    shown = quoted(query if len(query) <= _SHOWN else f"{query[:_SHOWN]}...")
    beside = f"does not fit into {of} beside the query {shown} and an answer of {longest}{how}"
    if isinstance(count, Failed):
        raise InputError(
            f"{subject.name}: the system prompt alone, without any example, {beside}. Name a model of a "
            "longer context, or give a shorter answer (--base-max-tokens) or --long-prompts as-is"
        )
    if count == len(shots):
        return Kept(shots)
    lost = len(shots) - count
    note = (
        f"Left out: the last {lost} of {len(shots)} examples, since the prompt with more {beside}. "
        "--long-prompts as-is keeps all."
    )
    return Kept(shots[:count], (note,))


async def _asked(
    subject: Subject,
    config: UseConfig,
    model: NamedModel,
    connections: Connections,
    environment: Mapping[str, str],
) -> Context | str | None:
    """What the model's server says; a note where it should but did not; None where there is none to ask."""
    if model.provider != "vllm" or model.url is None:
        return None
    if config.model is None and not subject.is_own:
        return None  # a file does not decide which endpoint is asked
    choice = chosen_model("base", config.model or subject.found_for or "", config, environment)
    facts = _facts(choice, connections, environment)

    async def count(request: Request) -> int | None:
        ids = await facts.tokens(request)
        return None if isinstance(ids, Refusal) else len(ids)

    try:
        limit = await facts.context_tokens()
        return None if limit is None else Context(limit, "as its server says", count, estimates=False)
    except (InputError, Interrupted):
        raise
    except DrpoError as error:
        why = f" ({error})" if isinstance(error, ProviderRefused) else ""
        return f"The server at {model.url} did not say how long the context of {model.name} is{why}."


def _facts(choice: ModelChoice, connections: Connections, environment: Mapping[str, str]) -> ServerFacts:
    endpoint = endpoints_of(choice, environment)[0]

    async def where() -> Endpoint:
        return endpoint

    # An export is written at once: nobody waits for a server that is still to come.
    patience = Patience(Stop(), random.Random(), deadline_s=_PATIENCE_S)
    return ServerFacts(where, connections, choice.name, patience, _ASK_S)


def _written(config: UseConfig, model: NamedModel) -> Context | None:
    """What flags, the model's own folder or the catalog say."""
    found = [
        (_of_flags(config.vllm_arg), "as --vllm-arg says"),
        (_of_folder(model.name), "as its config.json says"),
        (model.context_tokens, "as the catalog says"),
    ]
    return next((Context(tokens, known, _estimated) for tokens, known in found if tokens), None)


async def _estimated(request: Request) -> int:
    texts = [request.prompt] if request.prompt is not None else [m.content for m in request.messages]
    return round(sum(len(text) for text in texts) / CHARACTERS_PER_TOKEN)


def _of_flags(flags: tuple[str, ...]) -> int | None:
    for flag in reversed(flags):
        name, _, value = flag.partition("=")
        if name.strip().lstrip("-").replace("_", "-").lower() == "max-model-len":
            number = _LENGTH.fullmatch(value.strip())
            return int(float(number[1]) * _UNITS[number[2]]) if number else None
    return None


def _of_folder(name: str) -> int | None:
    """The longest context that the settings of a model in a folder allow, which vLLM takes."""
    try:
        settings = json.loads((Path(name).expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return None
    if not isinstance(settings, dict):
        return None
    limit = settings.get("max_position_embeddings")
    return limit if isinstance(limit, int) and limit > 0 else None
