"""What is asked of each endpoint and model: one tiny request, put as a run would put its own."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from drpo.choices import ModelChoice
from drpo.compose import Composer, PromptForm, Sampling
from drpo.config import INITIAL_PROMPT, OptimizeConfig
from drpo.errors import DrpoError
from drpo.live import endpoints_of
from drpo.llm.base import Message, Request, Role
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.limits import Stop
from drpo.llm.retry import Patience
from drpo.llm.vllm.tokens import Refusal, ServerFacts
from drpo.plan import Plan
from drpo.reply_schemas import rewrite_schema
from drpo.respond import form_of_tokenizer
from drpo.wiring import structured_for

LONGEST_REPLY_TOKENS = 16
FACTS_TIMEOUT_S = 5.0
"""What a server is asked about itself is quick, or it does not answer at all; the request says the rest."""
_QUESTION = "Reply with the word ok."
_REPEATED_TEMPERATURE = 1.0  # at which an evaluator samples where it is asked several times


@dataclass(frozen=True, slots=True)
class Question:
    """One request to one model at one endpoint. roles: whose requests it stands for.

    known: parameters of theirs that are left out, since the catalog has the model refuse them.
    """

    endpoint: Endpoint
    model_name: str
    roles: tuple[Role, ...]
    request: Request
    known: tuple[str, ...] = ()

    @property
    def who(self) -> str:
        """Roles, model and address, fit to be shown."""
        return f"{', '.join(self.roles)}: {self.model_name} at {self.endpoint.shown}"


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What the base model's server says of itself. context: the longest prompt and answer, in tokens."""

    form: PromptForm
    context_tokens: int | None = None
    asked: int = 0


def questions_of(
    plan: Plan, roles: Collection[Role], environment: Mapping[str, str], form: PromptForm
) -> list[Question]:
    """One question per endpoint, model and way to ask. Roles without a key that they need have none, nor do
    those whose key cannot be sent: their key's own check says so."""
    places: dict[tuple[Endpoint, str, bool], list[Role]] = {}
    for role in roles:
        choice = plan.models[role]
        for endpoint in _endpoints(choice, environment):
            as_text = role == "base" and form == "text"
            places.setdefault((endpoint, choice.name, as_text), []).append(role)
    found: list[Question] = []
    for (endpoint, name, _), same in places.items():
        request, entry = _request(plan, same, form), plan.models[same[0]].entry
        known = sorted(entry.refuses) if entry is not None else []
        sent = [parameter for parameter in known if without(request, parameter) != request]
        for parameter in sent:
            request = without(request, parameter, plan.config.max_thinking_tokens)
        found.append(Question(endpoint, name, tuple(same), request, tuple(sent)))
    return found


def _endpoints(choice: ModelChoice, environment: Mapping[str, str]) -> tuple[Endpoint, ...]:
    if not choice.urls:
        return ()
    try:
        return endpoints_of(choice, environment)
    except DrpoError:
        return ()


def without(request: Request, parameter: str, thinking_tokens: int | None = None) -> Request:
    """The request without a parameter; as a run, with max_completion_tokens where max_tokens is not taken
    and the settings bound the thinking."""
    if parameter == "max_tokens" and thinking_tokens is not None and request.max_tokens is not None:
        longest = request.max_tokens + thinking_tokens
        return replace(request, max_tokens=None, max_completion_tokens=longest)
    unset: dict[str, Any] = {field.name: field.default for field in fields(Request)}
    return replace(request, **{parameter: unset[parameter]})


def _request(plan: Plan, roles: Collection[Role], form: PromptForm) -> Request:
    """Everything at once that these roles would send: what is refused is found out one by one."""
    config = plan.config
    assert isinstance(config, OptimizeConfig)
    first = next(iter(roles))
    model, seed = plan.models[first].identity, config.random_seed
    if "base" in roles:
        sampling = Sampling(temperature=0.0, max_tokens=LONGEST_REPLY_TOKENS)
        composer = Composer(plan.inputs.templates, form)
        request = composer.request(model, sampling, INITIAL_PROMPT, (), _QUESTION)
    else:
        message = Message("user", _QUESTION)
        request = Request(model, (message,), temperature=0.0, max_tokens=LONGEST_REPLY_TOKENS, role=first)
    if "optimizer" in roles:
        temperature, top_p = config.optimizer_temperature, config.optimizer_top_p
        greedy = temperature == 0 and config.samples == 1
        request = replace(request, temperature=temperature, top_p=top_p, n=config.samples)
        request = request if greedy else replace(request, seed=seed)
    elif "evaluator" in roles and config.evaluations > 1:
        request = replace(request, temperature=_REPEATED_TEMPERATURE, seed=seed)
    if any(role != "base" and structured_for(plan, role) for role in roles):
        request = replace(request, reply_schema=rewrite_schema("new_system_prompt"))
    return request


async def base_facts(plan: Plan, environment: Mapping[str, str], connections: Connections) -> BaseFacts:
    """How the base model would be asked (see `drpo.respond`), and its server's context, as far as it tells.
    Nothing is raised: a server that does not answer is found out by the request."""
    config, base = plan.config, plan.models["base"]
    assert isinstance(config, OptimizeConfig)
    known: PromptForm | None = None if config.prompt_form == "auto" else config.prompt_form
    in_catalog = None if base.entry is None or base.entry.form == "auto" else base.entry.form
    endpoints = _endpoints(base, environment)
    if base.provider != "vllm" or not endpoints:
        return BaseFacts(known or in_catalog or "chat")
    patience = Patience(Stop(), random.Random(), deadline_s=0.0)  # no second time

    async def first() -> Endpoint:
        return endpoints[0]

    facts = ServerFacts(first, connections, base.name, patience, FACTS_TIMEOUT_S)
    context_tokens: int | None = None
    try:
        context_tokens = await facts.context_tokens()
    except DrpoError:
        return BaseFacts(known or in_catalog or "chat", asked=1)
    if known is not None or in_catalog == "text":
        return BaseFacts(known or "text", context_tokens, asked=1)
    counted = _Counted(facts)
    try:
        told = await form_of_tokenizer(counted)
    except DrpoError:
        told = None
    return BaseFacts(told or in_catalog or "chat", context_tokens, asked=1 + counted.asked)


class _Counted:
    """A tokenizer, and how often it was asked."""

    def __init__(self, facts: ServerFacts) -> None:
        self.asked = 0
        self._facts = facts

    async def tokens(self, request: Request) -> tuple[int, ...] | Refusal:
        self.asked += 1
        return await self._facts.tokens(request)
