"""The composition root: a plan -> models, retriever, problem. The only room that names concrete clients."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from drpo.ask import Asker
from drpo.compose import PromptForm, Sampling
from drpo.config import CommonConfig, OptimizeConfig
from drpo.errors import DrpoError, InputError, ProviderRefused
from drpo.llm.adapt import Adapt
from drpo.llm.base import LLM, ROLES, Completion, Message, Request, Role
from drpo.llm.catalog import parse_model
from drpo.llm.client import Connections, Endpoint, OpenAIClient
from drpo.llm.limits import Limit, Slots, Stop
from drpo.llm.recorder import Record, Recorder
from drpo.llm.retry import Patience, Retry
from drpo.llm.reuse import Reuse, Store
from drpo.parse import Unreadable, read_selection
from drpo.plan import OPENAI_URL, ModelChoice, Plan, digest_of, openai_base_url
from drpo.retrieve import LexicalRetriever, Retriever, VectorCache, VectorRetriever
from drpo.reward import DynamicAspects, EvaluatorReward, OwnReward, Reward, StaticAspects, plain_reward
from drpo.transition import Optimizer
from drpo.types import Example, Selection

OwnCall = Callable[[str, str], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Resources:
    """What a run holds open: record, connections, slots per endpoint. `live` is False in strict replay."""

    record: Record
    stop: Stop
    environment: Mapping[str, str]
    config: CommonConfig
    live: bool = True
    connections: Connections = field(default_factory=Connections)
    slots: dict[str, Slots] = field(default_factory=dict)

    async def close(self) -> None:
        """Release connections and the record's file."""
        await self.connections.aclose()
        await self.record.close()


async def open_models(plan: Plan, resources: Resources) -> dict[Role, LLM]:
    """The model of each role behind its wrappers: Adapt(Recorder(Reuse?(Retry(Limit(client)))))."""
    return {
        role: await _open_model(role, choice, plan, resources)
        for role, choice in plan.models.items()
        if choice.provider != "reward"
    }


async def _open_model(role: Role, choice: ModelChoice, plan: Plan, resources: Resources) -> LLM:
    record, stop = resources.record, resources.stop
    inner: LLM | None = None
    if resources.live:
        inner = _live(choice, resources)
        if role == "selector" and resources.config.reuse and _lasting(choice):
            inner = Reuse(
                inner, Store(cache_folder(resources.environment) / "selections.jsonl"), _readable(plan)
            )

    async def known_refusals() -> list[str]:
        return sorted(choice.entry.refuses) if choice.entry else []

    # Recorded, so that a later catalog does not change the requests of a run that is resumed or replayed.
    refused = await record.fact(f"refused by {choice.identity} as the catalog has it", known_refusals)
    return Adapt(Recorder(record, inner, stop), record, refused)


def _live(choice: ModelChoice, resources: Resources) -> LLM:
    config, stop = resources.config, resources.stop
    slots = resources.slots.setdefault(choice.url or choice.identity, Slots(config.concurrency))
    limited = Limit(_client(choice, resources), slots, stop)
    return Retry(limited, stop=stop, deadline_s=config.deadline_s, random=random.Random())


class _OwnModel:
    """A user's own model, whose mistakes are named as theirs before anything of them is recorded."""

    def __init__(self, model: LLM, name: str) -> None:
        self._model, self._name = model, name

    async def complete(self, request: Request) -> Completion:
        try:
            completion = await self._model.complete(request)
        except DrpoError:
            raise
        except Exception as error:
            raise InputError(f"your model {self._name} raised {type(error).__name__}: {error}") from error
        given: object = completion  # whatever the protocol says
        if not isinstance(given, Completion) or not given.choices:
            raise InputError(
                f"your model {self._name}: expected a Completion with at least one choice, "
                f"came {type(completion).__name__}"
            )
        return completion


def _client(choice: ModelChoice, resources: Resources) -> LLM:
    if choice.custom is not None:
        return _OwnModel(choice.custom, choice.name)
    config = resources.config
    if choice.provider == "demo":
        from drpo.llm.simulated import Latency, SimulatedLLM, World

        latency_s = Latency(*(config.demo_latency_ms / 1000,) * len(ROLES))
        return SimulatedLLM(World(config.demo_seed, config.demo_noise, latency_s=latency_s))
    endpoint = _endpoint(choice, resources.environment)
    return OpenAIClient(resources.connections, endpoint, choice.name, timeout_s=config.timeout_s)


def _endpoint(choice: ModelChoice, environment: Mapping[str, str]) -> Endpoint:
    assert choice.url is not None
    key = next((environment[name] for name in choice.key_variables if environment.get(name)), None)
    if key is None and choice.key_variables == ("OPENAI_API_KEY",):
        raise InputError(
            f"{choice.identity}: OPENAI_API_KEY is not set; set it (or put it into .env), "
            "or name another endpoint with @URL"
        )
    return Endpoint(choice.url, key)


def _lasting(choice: ModelChoice) -> bool:
    """Whether a name means the same model tomorrow: on a loopback port anything may stand by then, and the
    simulated world changes with drpo."""
    if choice.custom is not None or choice.provider == "demo":
        return False
    host = urlsplit(choice.url or "").hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _readable(plan: Plan) -> Any:
    known = plan.inputs.templates.book.aspects
    return lambda text: not isinstance(read_selection(text, known), Unreadable)


def cache_folder(environment: Mapping[str, str]) -> Path:
    """DRPO_CACHE_DIR, or the platform's folder for caches."""
    given = environment.get("DRPO_CACHE_DIR")
    return Path(given) if given else Path(platformdirs.user_cache_dir("drpo", appauthor=False))


def build_reward(
    plan: Plan, models: Mapping[Role, LLM], record: Record, own: OwnCall | None = None
) -> Reward:
    """The reward of the settings, or the user's own, whose values are recorded as facts."""
    if own is not None:
        return OwnReward(_recorded(own, record))
    config, templates = plan.config, plan.inputs.templates
    greedy = Sampling(temperature=0.0, max_tokens=config.max_tokens)
    selector: Any
    if config.reward == "static":
        selector = StaticAspects(Selection(templates.book.static))
    else:
        asker = Asker(models["selector"], templates, config.repairs)
        published = config.evaluation_aspects == "returned"
        selector = DynamicAspects(asker, plan.models["selector"].identity, greedy, any_number=published)
    return EvaluatorReward(
        Asker(models["evaluator"], templates, config.repairs),
        plan.models["evaluator"].identity,
        greedy,
        selector,
        repeats=config.evaluations,
        random_seed=config.random_seed,
        names=config.evaluation_aspects,
    )


def _recorded(own: OwnCall, record: Record) -> OwnCall:
    async def call(query: str, response: str) -> Any:
        async def compute() -> Any:
            try:
                value = await own(query, response)
            except Exception as error:
                raise InputError(f"your reward raised {type(error).__name__}: {error}") from error
            return plain_reward(value)

        return await record.fact(f"own reward {digest_of([query, response])}", compute)

    return call


def build_optimizer(plan: Plan, models: Mapping[Role, LLM]) -> Optimizer:
    """The optimizer of the settings."""
    config = plan.config
    sampling = Sampling(config.optimizer_temperature, config.optimizer_top_p, config.max_tokens)
    protected = config.protect if isinstance(config, OptimizeConfig) else ()
    asker = Asker(models["optimizer"], plan.inputs.templates, config.repairs)
    return Optimizer(asker, plan.models["optimizer"].identity, sampling, config.random_seed, protected)


async def find_shots(plan: Plan, resources: Resources, shots: int, reach: int) -> tuple[tuple[int, ...], ...]:
    """Per query, the indices of its shots: retrieved in one batch, each recorded as a fact."""
    queries = [query.text for query in plan.inputs.queries[:reach]]
    examples = plan.inputs.examples

    async def retrieve(wanted: list[int]) -> list[list[int]]:
        config = plan.config
        retriever = build_retriever(
            plan.embedder,
            examples.examples,
            resources.connections,
            resources.environment,
            resources.stop,
            EmbeddingLimits(config.timeout_s, config.deadline_s, config.concurrency),
        )
        found = await retriever.top_k([queries[position] for position in wanted], shots)
        return [list(indices) for indices in found]

    names = [f"shots {digest_of([plan.embedder, examples.digest, shots, query])}" for query in queries]
    found = await resources.record.facts(names, retrieve, offline=plan.embedder == "lexical")
    return tuple(tuple(indices) for indices in found)


@dataclass(frozen=True, slots=True)
class EmbeddingLimits:
    """How long and how much an embedding endpoint is asked: those of the settings, or these."""

    timeout_s: float = 120.0
    deadline_s: float = 300.0
    concurrency: int = 8


def build_retriever(
    embedder: str,
    examples: tuple[Example, ...],
    connections: Connections,
    environment: Mapping[str, str],
    stop: Stop,
    limits: EmbeddingLimits,
) -> Retriever:
    """The retriever that `embedder` names: lexical, sentence-transformers/NAME or openai/NAME[@URL]."""
    if embedder == "lexical":
        return LexicalRetriever(examples)
    from drpo.llm.embed import OpenAIEmbedder, SentenceTransformerEmbedder

    cache = VectorCache(cache_folder(environment) / "vectors")
    provider, _, name = embedder.partition("/")
    if provider == "sentence-transformers" and name:
        return VectorRetriever(examples, SentenceTransformerEmbedder(name), cache)
    if provider == "openai" and name:
        spec = parse_model(embedder)
        base_url = openai_base_url(environment)
        url = spec.url or base_url
        ours = url in (OPENAI_URL, base_url)  # OpenAI's key goes to OpenAI's address only
        endpoint = Endpoint(url, environment.get("OPENAI_API_KEY" if ours else "DRPO_EMBEDDER_API_KEY"))
        patience = Patience(stop, random.Random(), deadline_s=limits.deadline_s)
        remote = OpenAIEmbedder(
            connections,
            endpoint,
            spec.name,
            patience=patience,
            timeout_s=limits.timeout_s,
            concurrency=limits.concurrency,
        )
        return VectorRetriever(examples, remote, cache)
    raise InputError(
        f"--embedder {embedder}: expected lexical, sentence-transformers/NAME or openai/NAME@URL"
    )


async def choose_form(plan: Plan, resources: Resources) -> PromptForm:
    """How the base model is asked. `auto`: the catalog knows, else a chat is tried once on a vLLM server."""
    config = plan.config
    assert isinstance(config, OptimizeConfig)
    base = plan.models["base"]
    if config.prompt_form != "auto":
        return config.prompt_form

    async def probe() -> str:
        if base.entry is not None and base.entry.form != "auto":
            return base.entry.form
        if base.provider != "vllm":
            return "chat"
        request = Request(base.identity, messages=(Message("user", "Hello"),), max_tokens=1)
        try:
            # With an end of its own: that a chat is refused is an answer here, and not the end of the run.
            await _live(base, replace(resources, stop=Stop())).complete(request)
        except ProviderRefused as refused:
            if "chat template" in str(refused).lower():
                return "text"
            raise
        return "chat"

    found = await resources.record.fact(f"prompt form of {base.identity}", probe)
    return "text" if found == "text" else "chat"
