"""Whether what finds the shots is at hand: nothing, a local model, or an endpoint."""

from __future__ import annotations

import importlib.util
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from drpo.doctor.check import Check, of_error, ok, problem, warning
from drpo.doctor.endpoints import timeout_of
from drpo.doctor.hub import Weights, cache_of, cached_weights, is_offline, read_weights
from drpo.doctor.keys import embedder_place
from drpo.errors import ProviderDown, ProviderRefused
from drpo.llm.catalog import parse_model
from drpo.llm.connections import Connections
from drpo.llm.limits import Stop
from drpo.llm.retry import Patience
from drpo.plan import Plan
from drpo.wiring import EmbeddingLimits, build_retriever

NAME = "embedder"
_LOCAL = "sentence-transformers"
_LEXICAL = "take --embedder lexical (no model at all)"


@dataclass(frozen=True, slots=True)
class Embedded:
    """What was found, and how many requests that took."""

    checks: tuple[Check, ...]
    sent: int = 0


async def embedder_checks(
    plan: Plan,
    environment: Mapping[str, str],
    connections: Connections,
    *,
    requests: bool = True,
    load: bool = False,
) -> Embedded:
    """What the embedder of the plan needs. load: a local model is loaded, which takes seconds and torch."""
    embedder, examples = plan.embedder, plan.inputs.examples.examples
    if embedder == "lexical":
        return Embedded((ok(NAME, "lexical (BM25): nothing is needed"),))
    if getattr(plan.config, "shots", 0) == 0:
        return Embedded((ok(NAME, f"{embedder}: not needed, --shots is 0"),))
    limits = EmbeddingLimits()  # what is built is not asked: only whether the name can be used
    build_retriever(embedder, examples, connections, environment, Stop(), limits)
    place = embedder_place(embedder, environment)
    if place is None:
        return Embedded(await _local(embedder.partition("/")[2], environment, load and requests))
    endpoint, variables = place
    who = f"{embedder.partition('@')[0]} at {endpoint.shown}"
    if not requests:
        return Embedded((ok(NAME, f"{who}: not asked, nothing is sent"),))
    if endpoint.api_key is None and variables == ("OPENAI_API_KEY",):
        return Embedded((ok(NAME, f"{who}: not asked, for want of its key (see there)"),))
    from drpo.llm.embed import OpenAIEmbedder

    patience = Patience(Stop(), random.Random(), deadline_s=0.0)  # no second time
    timeout_s = timeout_of(plan.config)
    name = parse_model(embedder).name
    remote = OpenAIEmbedder(
        connections, endpoint, name, patience=patience, timeout_s=timeout_s, concurrency=1
    )
    began_s = time.monotonic()
    try:
        vectors = await remote.embed(["ok"])
    except ProviderRefused as error:
        check = of_error(NAME, error, "Check the endpoint and the model's name")
        named = f"{check.remedy} ({' or '.join(variables)})"
        return Embedded((replace(check, remedy=named) if "status 401" in check.said else check,), 1)
    except ProviderDown as error:
        said = str(error).partition(" [gave up after")[0].rstrip(". ")
        remedy = "Check that the server runs there and serves embeddings"
        return Embedded((problem(NAME, said, remedy, ProviderDown),), 1)
    took_s = time.monotonic() - began_s
    said = f"{who}: a vector of {vectors.shape[1]} numbers came in {took_s:.2f} s"
    return Embedded((ok(NAME, said),), 1)


async def _local(name: str, environment: Mapping[str, str], load: bool) -> tuple[Check, ...]:
    if importlib.util.find_spec("sentence_transformers") is None:
        said = f"{_LOCAL}/{name}: sentence-transformers is not installed"
        remedy = f"pip install 'drpo[embed]', or {_LEXICAL}, or --embedder openai/NAME@URL (an endpoint)"
        return (problem(NAME, said, remedy),)
    found = tuple(_at_hand(name, environment))
    if not load or any(check.status == "problem" for check in found):
        return found
    from drpo.llm.embed import SentenceTransformerEmbedder

    began_s = time.monotonic()
    vectors = await SentenceTransformerEmbedder(name).embed(["ok"])
    took_s = time.monotonic() - began_s
    said = f"{_LOCAL}/{name}: loaded, a vector of {vectors.shape[1]} numbers came in {took_s:.1f} s"
    return (*found, ok(NAME, said))


def _at_hand(name: str, environment: Mapping[str, str]) -> Iterator[Check]:
    who = f"{_LOCAL}/{name}"
    folder = Path(name).expanduser()
    repository = name if "/" in name else f"{_LOCAL}/{name}"
    weights: Weights | None
    if folder.is_dir():
        weights = read_weights(folder)
        if not weights.complete:
            said = f"{who}: a folder without a model that {_LOCAL} has saved"
            yield problem(NAME, said, f"Save it again, or {_LEXICAL}")
            return
    else:
        home = environment.get("SENTENCE_TRANSFORMERS_HOME")
        weights = cached_weights(repository, None, Path(home) if home else cache_of(environment))
    if weights is not None and weights.complete:
        yield ok(NAME, f"{who}: at hand ({weights.gb * 1000:.0f} MB){_release()}; it was not loaded")
    elif is_offline(environment):
        said = f"{who}: not at hand, and the hub must not be asked (HF_HUB_OFFLINE)"
        yield problem(
            NAME, said, f"Fetch it where there is a network (hf download {repository}), or {_LEXICAL}"
        )
    else:
        said = f"{who}: not at hand: the first run fetches it from the Hugging Face hub, once"
        yield warning(NAME, said, f"Fetch it now (hf download {repository}), or {_LEXICAL}")


def _release() -> str:
    try:
        return f", {_LOCAL} {version(_LOCAL)}"
    except PackageNotFoundError:
        return ""
