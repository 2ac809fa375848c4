"""Who plays which role: models by the names in the settings, their endpoints, where their keys stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath

from drpo.config import CommonConfig, ExamplesConfig, RunConfig, flag
from drpo.errors import InputError
from drpo.llm.base import LLM, Role
from drpo.llm.catalog import CatalogEntry, ModelSpec, normalise_url, parse_model, strong_model
from drpo.llm.local_source import local_identity
from drpo.llm.vllm.launch import Parallel, ServerSpec, read_flags, server_spec

OPENAI_URL = "https://api.openai.com/v1"
_SERVER_FLAGS = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "vllm_arg")


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Who plays a role. `identity` is what requests are keyed by; `custom` is a user's own object.

    urls: where it is served, several for several servers of one model. server: the vLLM server that drpo runs
    for it. defaulted: nobody named it, drpo chose.
    """

    identity: str
    provider: str
    name: str
    urls: tuple[str, ...] = ()
    entry: CatalogEntry | None = None
    key_variables: tuple[str, ...] = ()
    custom: LLM | None = None
    server: ServerSpec | None = None
    defaulted: bool = False

    @property
    def place(self) -> str:
        """What is told apart by where it runs: models of one place share its slots."""
        return ",".join(self.urls) or self.identity


def choose_models(
    config: CommonConfig,
    environment: Mapping[str, str],
    custom: Mapping[Role, LLM],
    own_reward: str | None = None,
) -> dict[Role, ModelChoice]:
    """Who plays which role: the user's own object, else the named model, else that of another role, else the
    default."""

    def choice(role: Role, name: str | None, other: ModelChoice | None = None) -> ModelChoice:
        if role in custom:
            return custom_choice(custom[role])
        if name is None and other is not None:
            return _as_well(role, other, config)
        chosen = named_model(role, name or _strong(environment), config, environment)
        return chosen if name else replace(chosen, defaulted=True)

    model = getattr(config, "model", None)
    choices: dict[Role, ModelChoice] = {}
    if model is not None or "base" in custom:
        choices["base"] = choice("base", model)
    for_all = isinstance(config, ExamplesConfig) or _is_demo(choices)
    choices["optimizer"] = choice("optimizer", config.optimizer, choices.get("base") if for_all else None)
    if own_reward is not None:
        own = ModelChoice(f"reward/{own_reward}", "reward", own_reward)
        return {**choices, "evaluator": own, "selector": own}
    # `--model` of optimize-examples stands for each role that is not named; else a judge is as the optimizer.
    judge = choices.get("base") if isinstance(config, ExamplesConfig) else None
    choices["evaluator"] = choice("evaluator", config.evaluator, judge or choices["optimizer"])
    choices["selector"] = choice("selector", config.selector, choices["evaluator"])
    refuse_idle_flags(config, [*choices.values(), *_of_validation(config, environment, custom)])
    return choices


def _of_validation(
    config: CommonConfig, environment: Mapping[str, str], custom: Mapping[Role, LLM]
) -> tuple[ModelChoice, ...]:
    """The base model that a validation of improved examples asks, where one is named for it alone."""
    if not isinstance(config, ExamplesConfig) or not config.validate or "base" in custom:
        return ()
    return () if config.base_model is None else (named_model("base", config.base_model, config, environment),)


def refuse_idle_flags(config: RunConfig, choices: Collection[ModelChoice]) -> None:
    """A flag meant for a server that runs already would be silently without effect."""
    running = [choice for choice in choices if choice.provider == "vllm" and choice.urls]
    given = sorted({name for name in _SERVER_FLAGS if name in config.model_fields_set})
    if given and running and not any(choice.server for choice in choices):
        raise InputError(
            f"{flag(given[-1])}: {running[0].identity} is a server that runs already; give the flag where it "
            "is started (drpo models serve has it too)"
        )


def _is_demo(choices: Mapping[Role, ModelChoice]) -> bool:
    return "base" in choices and choices["base"].provider == "demo"


def _strong(environment: Mapping[str, str]) -> str:
    if environment.get("OPENAI_API_KEY"):
        spec = strong_model()
        return f"{spec.provider}/{spec.name}"
    raise InputError(
        "no optimizer is chosen: give --optimizer and --evaluator (a model such as openai/NAME or "
        "vllm/REPO@URL), or set OPENAI_API_KEY for the default one, or try --model demo"
    )


def named_model(role: Role, name: str, config: RunConfig, environment: Mapping[str, str]) -> ModelChoice:
    """Who plays `role` by the name of a model. Raises InputError for a name that is none."""
    spec = parse_model(name)
    if spec.provider == "demo":
        identity = f"demo/seed={config.demo_seed},noise={config.demo_noise:g}"
        return ModelChoice(identity, "demo", "demo", entry=spec.entry)
    if spec.provider == "local":
        return ModelChoice(f"local/{local_identity(spec.name)}", "local", spec.name, entry=spec.entry)
    if spec.provider == "vllm" and not spec.urls:
        server = managed_server(spec, config)
        return ModelChoice(f"vllm/{server.identity}", "vllm", server.label, entry=spec.entry, server=server)
    base_url = openai_base_url(environment)
    urls = spec.urls or (base_url,)
    # The same model at the same endpoint, however the endpoint was named, is one identity; and a model in a
    # folder of the server's machine is known by the folder's name, not by where that stands.
    own = spec.provider == "openai" and urls == (OPENAI_URL,)
    shown = replace(spec, name=PurePath(spec.name).name) if spec.name.startswith(("/", ".", "~")) else spec
    identity = replace(shown, urls=() if own else urls).identity
    variables = _key_variables(role, spec, urls, base_url, config)
    return ModelChoice(identity, spec.provider, spec.name, urls, spec.entry, variables)


def managed_server(spec: ModelSpec, config: RunConfig, nodes: int = 1) -> ServerSpec:
    """The vLLM server that drpo runs for `spec`, as the settings want it.

    Its layers are split over the machines (`nodes`) where the settings do not say over how many parts.
    """
    is_given = "pipeline_parallel_size" in config.model_fields_set
    pipeline = config.pipeline_parallel_size if is_given else nodes
    parallel = Parallel(config.tensor_parallel_size, pipeline, config.data_parallel_size, nodes)
    weights_gb = spec.entry.weights_gb if spec.entry else None
    return server_spec(spec.name, read_flags(config.vllm_arg), parallel, weights_gb)


def openai_base_url(environment: Mapping[str, str]) -> str:
    """OPENAI_BASE_URL, normalised, or OpenAI's own address."""
    given = environment.get("OPENAI_BASE_URL")
    if not given:
        return OPENAI_URL
    try:
        return normalise_url(given)
    except InputError as error:
        raise InputError(f"OPENAI_BASE_URL: {error}") from None


def _key_variables(
    role: Role, spec: ModelSpec, urls: tuple[str, ...], base_url: str, config: RunConfig
) -> tuple[str, ...]:
    """Which variables may hold the key, first come first served. OpenAI's goes to OpenAI's address only."""
    own = _own_variable(role, config)
    if own:
        return (own,)
    if set(urls) <= {OPENAI_URL, base_url} and spec.provider == "openai":
        return ("OPENAI_API_KEY",)
    by_role = f"DRPO_{role.upper()}_API_KEY"
    return (by_role, "VLLM_API_KEY") if spec.provider == "vllm" else (by_role,)


def _own_variable(role: Role, config: RunConfig) -> str | None:
    return config.roles[role].api_key_env if role in config.roles else None


def _as_well(role: Role, other: ModelChoice, config: RunConfig) -> ModelChoice:
    """The model of another role at the same endpoint: with its key, unless this role has one of its own."""
    own = _own_variable(role, config)
    if own and other.urls:
        return replace(other, key_variables=(own,))
    if other.key_variables in ((), ("OPENAI_API_KEY",)):
        return other
    return replace(other, key_variables=(f"DRPO_{role.upper()}_API_KEY", *other.key_variables))


def custom_choice(model: LLM) -> ModelChoice:
    """A user's own object as the model of a role. Raises InputError where it is none."""
    if not callable(getattr(model, "complete", None)):
        raise InputError(f"expected an object with `async complete(request)`, came {type(model).__name__}")
    name = str(getattr(model, "name", None) or f"{type(model).__module__}.{type(model).__qualname__}")
    return ModelChoice(f"custom/{name}", "custom", name, custom=model)
