"""The composition root: a plan -> models behind their wrappers, reward, optimizer, retriever."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drpo.ask import Asker
from drpo.choices import OPENAI_URL, ModelChoice, openai_base_url
from drpo.compose import Sampling
from drpo.config import OptimizeConfig
from drpo.data import ExampleSet
from drpo.errors import InputError
from drpo.live import Resources, cache_folder, is_lasting, key_in, live_model
from drpo.llm.adapt import Adapt
from drpo.llm.base import LLM, Role
from drpo.llm.catalog import ModelSpec, parse_model
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.ledger import Ledger
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record, Recorder
from drpo.llm.retry import Patience
from drpo.llm.reuse import Reuse, Store
from drpo.parse import Unreadable, read_selection
from drpo.plan import Plan, RunPlan, digest_of
from drpo.retrieve import Embedder, LexicalRetriever, Retriever, VectorCache, VectorRetriever
from drpo.reward import DynamicAspects, EvaluatorReward, OwnReward, Reward, StaticAspects, plain_reward
from drpo.transition import Optimizer
from drpo.types import Example, Query, Selection

OwnCall = Callable[[str, str], Awaitable[Any]]


async def open_models(plan: Plan, resources: Resources) -> dict[Role, LLM]:
    """The model of each role behind its wrappers: Adapt(Recorder(Reuse?(Retry(Limit(Metered(client))))))."""

    def reusing(model: LLM) -> LLM:
        return Reuse(model, Store(cache_folder(resources.environment) / "selections.jsonl"), _readable(plan))

    opened: dict[Role, LLM] = {}
    for role, choice in plan.models.items():
        if choice.provider != "reward":
            reuses = role == "selector" and plan.config.reuse and is_lasting(choice)
            opened[role] = await open_model(choice, resources, reusing if reuses else _bare)
    return opened


def _bare(model: LLM) -> LLM:
    return model


async def open_model(choice: ModelChoice, resources: Resources, around: Callable[[LLM], LLM] = _bare) -> LLM:
    """One model behind its wrappers; `around` wraps what is live, inside of the recorder."""
    record, stop = resources.record, resources.stop
    inner = around(live_model(choice, resources)) if resources.live else None

    async def known_refusals() -> list[str]:
        return sorted(choice.entry.refuses) if choice.entry else []

    # Recorded, so that a later catalog does not change the requests of a run that is resumed or replayed.
    refused = await record.fact(f"refused by {choice.identity} as the catalog has it", known_refusals)
    thinking_tokens = resources.config.max_thinking_tokens
    return Adapt(Recorder(record, inner, stop), record, refused, thinking_tokens)


def _readable(plan: Plan) -> Any:
    known = plan.inputs.templates.book.aspects
    return lambda text: not isinstance(read_selection(text, known), Unreadable)


def structured_for(plan: RunPlan, role: Role) -> bool:
    """Whether a role's replies are asked for by JSON schema; `auto`: at vLLM servers, which hold to it."""
    chosen = plan.config.structured
    return chosen == "on" or (chosen == "auto" and plan.models[role].provider == "vllm")


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
        asker = Asker(models["selector"], templates, config.repairs, structured_for(plan, "selector"))
        published = config.evaluation_aspects == "returned"
        selector = DynamicAspects(asker, plan.models["selector"].identity, greedy, any_number=published)
    return EvaluatorReward(
        Asker(models["evaluator"], templates, config.repairs, structured_for(plan, "evaluator")),
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
    structured = structured_for(plan, "optimizer")
    asker = Asker(models["optimizer"], plan.inputs.templates, config.repairs, structured)
    return Optimizer(asker, plan.models["optimizer"].identity, sampling, config.random_seed, protected)


async def find_shots(
    plan: Plan, resources: Resources, shots: int, asked: Sequence[Query]
) -> tuple[tuple[int, ...], ...]:
    """Per query, the indices of its shots among the plan's examples."""
    return await shots_of(plan.inputs.examples, plan.embedder, resources, shots, asked)


async def shots_of(
    examples: ExampleSet, embedder: str, resources: Resources, shots: int, asked: Sequence[Query]
) -> tuple[tuple[int, ...], ...]:
    """Per query, the indices of its shots: retrieved in one batch, each recorded as a fact."""
    queries = [query.text for query in asked]

    async def retrieve(wanted: list[int]) -> list[list[int]]:
        config = resources.config
        retriever = build_retriever(
            embedder,
            examples.examples,
            resources.connections,
            resources.environment,
            resources.stop,
            EmbeddingLimits(config.timeout_s, config.deadline_s, config.concurrency),
            resources.ledger,
        )
        found = await retriever.top_k([queries[position] for position in wanted], shots)
        return [list(indices) for indices in found]

    names = [f"shots {digest_of([embedder, examples.digest, shots, query])}" for query in queries]
    found = await resources.record.facts(names, retrieve, offline=embedder == "lexical")
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
    ledger: Ledger | None = None,
) -> Retriever:
    """What `embedder` names: lexical, sentence-transformers/NAME, openai/NAME or vllm/NAME@URL; requests to
    an endpoint go through the books of `ledger`."""
    if embedder == "lexical":
        return LexicalRetriever(examples)
    cache = VectorCache(cache_folder(environment) / "vectors")
    model = build_embedder(embedder, connections, environment, stop, limits, ledger)
    return VectorRetriever(examples, model, cache)


def build_embedder(
    embedder: str,
    connections: Connections,
    environment: Mapping[str, str],
    stop: Stop,
    limits: EmbeddingLimits,
    ledger: Ledger | None = None,
) -> Embedder:
    """The embedding model that `embedder` names. Raises InputError where it names none."""
    from drpo.llm.embed import OpenAIEmbedder, SentenceTransformerEmbedder

    provider, _, name = embedder.partition("/")
    if provider == "sentence-transformers" and name:
        return SentenceTransformerEmbedder(name)
    if provider in ("openai", "vllm") and name:
        spec = parse_model(embedder)
        return OpenAIEmbedder(
            connections,
            _embedding_endpoint(spec, environment),
            spec.name,
            patience=Patience(stop, random.Random(), deadline_s=limits.deadline_s),
            timeout_s=limits.timeout_s,
            concurrency=limits.concurrency,
            ledger=ledger,
        )
    raise InputError(
        f"--embedder {embedder}: expected lexical, sentence-transformers/NAME, openai/NAME@URL or "
        "vllm/NAME@URL"
    )


def _embedding_endpoint(spec: ModelSpec, environment: Mapping[str, str]) -> Endpoint:
    """Where an embedding model is served. OpenAI's key goes to OpenAI's address only."""
    base_url = openai_base_url(environment)
    if spec.provider == "vllm" and not spec.url:
        raise InputError(
            f"--embedder vllm/{spec.name}: expected @URL, drpo starts no embedding servers. Start one (vllm "
            f"serve {spec.name} --runner pooling) and name it: vllm/{spec.name}@http://127.0.0.1:8000/v1"
        )
    if len(spec.urls) > 1:
        raise InputError(f"--embedder {spec.identity}: expected one URL, came {len(spec.urls)}")
    url = spec.url or base_url
    if spec.provider == "openai" and url in (OPENAI_URL, base_url):
        return Endpoint(url, key_in(("OPENAI_API_KEY",), environment))
    own = ("DRPO_EMBEDDER_API_KEY",)
    return Endpoint(url, key_in((*own, "VLLM_API_KEY") if spec.provider == "vllm" else own, environment))
