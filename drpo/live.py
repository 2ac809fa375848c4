"""From who plays a role to something that answers: endpoints, keys, servers, slots; what a run holds open.

With `wiring`, the only room that names concrete clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from drpo.choices import ModelChoice
from drpo.config import RunConfig
from drpo.config_judging import JudgingConfig
from drpo.errors import DrpoError, InputError
from drpo.llm.base import LLM, ROLES, Choice, Completion, Request
from drpo.llm.client import OpenAIClient
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.ledger import Ledger
from drpo.llm.limits import Limit, Slots, Stop
from drpo.llm.local_model import LocalModel
from drpo.llm.metered import Metered
from drpo.llm.recorder import Record
from drpo.llm.retry import Patience, Retry
from drpo.llm.spread import Spread
from drpo.llm.streams import Streams, WordByWord
from drpo.llm.vllm.launch import find_vllm
from drpo.llm.vllm.server import Bounds, Managed, ManagedServer, Place, Servers
from drpo.llm.vllm.tokens import ServerFacts
from drpo.llm.wire import Piece

Notice = Callable[[str], None]


def _silent(message: str) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a run holds open: record, connections, slots per endpoint, servers.

    live: False in strict replay. folder: where servers write their logs. notice: is told what a user wants to
    know and the events do not say. ledger: the books; None where nothing is sent or nobody counts.
    """

    record: Record
    stop: Stop
    environment: Mapping[str, str]
    config: RunConfig
    live: bool = True
    folder: Path | None = None
    notice: Notice = _silent
    ledger: Ledger | None = None
    connections: Connections = field(default_factory=Connections)
    slots: dict[str, Slots] = field(default_factory=dict)
    servers: Servers = field(default_factory=Servers)
    spreads: list[Spread] = field(default_factory=list)
    local: dict[str, LocalModel] = field(default_factory=dict)

    async def close(self) -> None:
        """End servers, release connections and the record's file."""
        async with contextlib.AsyncExitStack() as stack:  # each of them, whatever another one raises
            stack.push_async_callback(self.record.close)
            if self.ledger is not None:
                stack.push_async_callback(self.ledger.close)
            stack.push_async_callback(self.servers.aclose)
            stack.push_async_callback(self.connections.aclose)
            for model in self.local.values():
                stack.callback(model.close)


def live_model(choice: ModelChoice, resources: Resources, stop: Stop | None = None) -> LLM:
    """The model itself: Retry(Limit(Metered(client))), over several servers Retry(Limit(Spread(clients)))
    with each client metered: what the books count is what goes over the wire."""
    return _patient(_client(choice, resources), choice, resources, stop or resources.stop)


def lasting_model(choice: ModelChoice, resources: Resources) -> LLM:
    """As `live_model`, for what outlives a refusal: each request ends by itself and no other."""
    return _EachByItself(_client(choice, resources), choice, resources)


class _EachByItself:
    def __init__(self, client: LLM, choice: ModelChoice, resources: Resources) -> None:
        self._client, self._choice, self._resources = client, choice, resources

    async def complete(self, request: Request) -> Completion:
        return await _patient(self._client, self._choice, self._resources, Stop()).complete(request)


def _patient(client: LLM, choice: ModelChoice, resources: Resources, stop: Stop) -> LLM:
    """Retry(Limit(client)); all models of one place share its slots."""
    config, servers = resources.config, max(1, len(choice.urls))
    slots = resources.slots.setdefault(
        choice.place, Slots(config.concurrency * servers, by_prefix=choice.provider == "vllm")
    )
    limited = Limit(client, slots, stop)
    return Retry(limited, stop=stop, deadline_s=config.deadline_s, random=random.Random())


def asked_once(choice: ModelChoice, resources: Resources) -> LLM:
    """The model itself, for whoever limits and repeats by rules of their own: no slot, no second try, and a
    refusal ends nothing."""
    return _client(choice, resources, lean=True)


def _are_texts(choices: Sequence[object]) -> bool:
    return all(isinstance(choice, Choice) and isinstance(choice.text, str) for choice in choices)


def live_stream(choice: ModelChoice, resources: Resources) -> Streams:
    """The model's replies piece by piece, straight from its server; with several, each has its turn. A
    model that gives whole replies only gives them word by word."""
    if choice.custom is not None or choice.provider in ("demo", "local"):
        return WordByWord(_client(choice, resources))

    def client(endpoint: Endpoint) -> OpenAIClient:
        timeout_s = resources.config.timeout_s
        return OpenAIClient(resources.connections, endpoint, choice.name, timeout_s=timeout_s)

    if choice.server is not None:
        server = managed_server(choice, resources)

        async def running() -> OpenAIClient:
            return client((await server.running()).address.endpoint)
    else:
        turns = itertools.cycle([client(e) for e in endpoints_of(choice, resources.environment)])

        async def running() -> OpenAIClient:
            return next(turns)

    return _Streaming(running)


class _Streaming:
    """Streams of a server that may have to be started first."""

    def __init__(self, running: Callable[[], Awaitable[OpenAIClient]]) -> None:
        self._running = running

    async def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        client = await self._running()
        async with contextlib.aclosing(client.stream(request)) as pieces:
            async for piece in pieces:
                yield piece


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
        if not isinstance(given, Completion) or not given.choices or not _are_texts(given.choices):
            raise InputError(
                f"your model {self._name}: expected a Completion of texts with at least one choice, "
                f"came {type(completion).__name__}"
            )
        return completion


def _client(choice: ModelChoice, resources: Resources, *, lean: bool = False) -> LLM:
    def metered(client: LLM) -> LLM:
        return client if resources.ledger is None else Metered(client, resources.ledger)

    if choice.custom is not None:
        return metered(_OwnModel(choice.custom, choice.name))
    config = resources.config
    if choice.provider == "demo":
        from drpo.llm.simulated import Latency, SimulatedLLM, World

        latency_s = Latency(*(config.demo_latency_ms / 1000,) * len(ROLES))
        judge = config.demo_judge if isinstance(config, JudgingConfig) else "fair"
        world = World(config.demo_seed, config.demo_noise, judge=judge, latency_s=latency_s)
        return metered(SimulatedLLM(world))

    if choice.provider == "local":
        return metered(local_model(choice, resources))

    def at(endpoint: Endpoint) -> LLM:
        connections, timeout_s = resources.connections, config.timeout_s
        return metered(OpenAIClient(connections, endpoint, choice.name, timeout_s=timeout_s, lean=lean))

    if choice.server is not None:
        return Managed(managed_server(choice, resources), lambda process: at(process.address.endpoint))
    endpoints = endpoints_of(choice, resources.environment)
    if len(endpoints) == 1:
        return at(endpoints[0])
    spread = Spread([(e.shown, at(e)) for e in endpoints], notice=resources.notice)
    resources.spreads.append(spread)
    return spread


def endpoints_of(choice: ModelChoice, environment: Mapping[str, str]) -> tuple[Endpoint, ...]:
    """Where the model is served and with which key. Raises InputError where OpenAI's is missing, or where
    no header can hold one."""
    key = key_in(choice.key_variables, environment)
    if key is None and choice.key_variables == ("OPENAI_API_KEY",):
        raise InputError(
            f"{choice.identity}: OPENAI_API_KEY is not set; set it (or put it into .env), "
            "or name another endpoint with @URL"
        )
    return tuple(Endpoint(url, key) for url in choice.urls)


def key_in(variables: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """The key in the first of these variables that is set. Raises InputError, without the key, where it
    cannot be sent."""
    name = next((name for name in variables if environment.get(name)), None)
    if name is None:
        return None
    if cannot_be_sent(environment[name]):
        raise InputError(
            f"{name}: expected a key of ASCII characters in one line, came one that no request can carry; "
            "copy the key once more, nothing around it"
        )
    return environment[name]


def cannot_be_sent(key: str) -> bool:
    """Whether no HTTP header can hold the key: line ends, other control characters, not ASCII."""
    return not key.isascii() or not key.isprintable()


def managed_server(choice: ModelChoice, resources: Resources) -> ManagedServer:
    """The vLLM server that drpo runs for this model, one for all roles that it plays. Not started here."""
    assert choice.server is not None
    spec, config = choice.server, resources.config
    installation = find_vllm(config.vllm_command, resources.environment, spec.label)

    def make(number: int, turn: asyncio.Lock) -> ManagedServer:
        folder = resources.folder or Path()
        name = "vllm.log" if number == 0 else f"vllm-{number + 1}.log"
        place = Place(api_key=secrets.token_urlsafe(24), log=folder / name)
        bounds = Bounds(config.vllm_ready_s, config.vllm_restarts)
        return ManagedServer(
            spec,
            installation,
            place,
            without_keys(resources.environment, config),
            resources.stop,
            resources.notice,
            bounds,
            turn,
        )

    return resources.servers.of(spec, make)


def without_keys(environment: Mapping[str, str], config: RunConfig) -> dict[str, str]:
    """What a server may see: the keys of other endpoints are no business of its."""
    own = {role.api_key_env for role in config.roles.values()}
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("OPENAI_", "DRPO_")) and name not in own
    }


def local_model(choice: ModelChoice, resources: Resources) -> LocalModel:
    """The model in this process, loaded once for all roles that it plays."""
    if choice.name not in resources.local:
        resources.local[choice.name] = LocalModel(choice.name)
    return resources.local[choice.name]


def server_facts(choice: ModelChoice, resources: Resources) -> ServerFacts | LocalModel:
    """What the model's own server knows about it, or the model itself in this process. Of several servers,
    one that answers is asked."""
    if choice.provider == "local":
        return local_model(choice, resources)
    config = resources.config
    patience = Patience(resources.stop, random.Random(), deadline_s=config.deadline_s)
    endpoint: Callable[[], Awaitable[Endpoint]]
    if choice.server is not None:
        server = managed_server(choice, resources)

        async def endpoint() -> Endpoint:
            return (await server.running()).address.endpoint
    else:
        turns = itertools.cycle(endpoints_of(choice, resources.environment))

        async def endpoint() -> Endpoint:
            return next(turns)

    return ServerFacts(endpoint, resources.connections, choice.name, patience, config.timeout_s)


def is_lasting(choice: ModelChoice) -> bool:
    """Whether a name means the same model tomorrow: on a loopback port anything may stand by then, and the
    simulated world changes with drpo."""
    if choice.custom is not None or choice.provider == "demo":
        return False
    return not any(_is_loopback(urlsplit(url).hostname or "") for url in choice.urls)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def cache_folder(environment: Mapping[str, str]) -> Path:
    """DRPO_CACHE_DIR, or the platform's folder for caches."""
    given = environment.get("DRPO_CACHE_DIR")
    return Path(given) if given else Path(platformdirs.user_cache_dir("drpo", appauthor=False))
