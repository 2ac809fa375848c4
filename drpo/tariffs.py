"""What the calls of each role cost: as the user says, as the price list has it, nothing, or unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from drpo.choices import OPENAI_URL, ModelChoice, openai_base_url
from drpo.errors import InputError
from drpo.llm.base import ROLES, Usage
from drpo.llm.catalog import parse_model
from drpo.llm.prices import cost, input_price_per_million, price_per_million
from drpo.plan import RunPlan

Source = Literal["given", "list", "free", "unknown"]
EMBEDDER_ROLE = "embedder"
_MILLION = 1_000_000
_FIRST_TIER_TOKENS = 32_000
"""Up to here every list has one price a token (`drpo.llm.prices`); above it the list itself is asked."""


@dataclass(frozen=True, slots=True)
class RoleTariff:
    """US dollars a million tokens. source: --price, the price list of OpenAI's own models, free (what drpo
    runs itself, simulated or by vLLM: nobody sends a bill), or unknown."""

    source: Source
    input_usd: float = 0.0
    output_usd: float = 0.0
    cached_usd: float | None = None
    listed: str = ""

    @property
    def known(self) -> bool:
        return self.source != "unknown"

    def usd(self, usage: Usage) -> float | None:
        """What a call with that usage costs; None where no price is known, never 0 instead."""
        if self.source == "unknown":
            return None
        if self.listed and usage.prompt_tokens > _FIRST_TIER_TOKENS:
            return cost(self.listed, usage)
        cached = 0 if self.cached_usd is None else min(usage.cached_tokens or 0, usage.prompt_tokens)
        read_usd = cached * (self.cached_usd or 0.0) + (usage.prompt_tokens - cached) * self.input_usd
        return (read_usd + usage.completion_tokens * self.output_usd) / _MILLION

    def __str__(self) -> str:
        if self.source == "unknown":
            return "price unknown"
        if self.source == "free":
            return "no price: drpo runs it"
        return f"${self.input_usd:g} in, ${self.output_usd:g} out per million tokens"


UNKNOWN, FREE = RoleTariff("unknown"), RoleTariff("free")


def tariffs_of(plan: RunPlan, environment: Mapping[str, str]) -> dict[str, RoleTariff]:
    """Per role of the plan, and for the embedder where an endpoint has it.

    environment: tells an embedder at OpenAI from one at OPENAI_BASE_URL, whose prices nobody knows.
    """
    given = read_prices(plan.config.price)
    found: dict[str, RoleTariff] = {
        role: given.get(role) or tariff_of(choice)
        for role, choice in plan.models.items()
        if choice.provider != "reward"
    }
    if plan.embedder.startswith(("openai/", "vllm/")):
        found[EMBEDDER_ROLE] = given.get(EMBEDDER_ROLE) or _embedder_tariff(
            plan.embedder, openai_base_url(environment)
        )
    return found


def tariff_of(choice: ModelChoice) -> RoleTariff:
    """By the price list for a model at OpenAI's own address: a server elsewhere may use the same names."""
    if choice.provider in ("demo", "local") or choice.server is not None:
        return FREE
    return _listed(choice.name) if choice.urls == (OPENAI_URL,) else UNKNOWN


def _embedder_tariff(embedder: str, base_url: str) -> RoleTariff:
    """By the price list at OpenAI's own address. An embedding model writes nothing that could be charged."""
    spec = parse_model(embedder)
    if spec.provider != "openai" or (spec.urls or (base_url,)) != (OPENAI_URL,):
        return UNKNOWN
    price = input_price_per_million(spec.name)
    return UNKNOWN if price is None else RoleTariff("list", price)


def _listed(name: str) -> RoleTariff:
    price = price_per_million(name)
    if price is None:
        return UNKNOWN
    return RoleTariff("list", price.input_usd, price.output_usd, price.cached_input_usd, name)


def read_prices(given: Sequence[str]) -> dict[str, RoleTariff]:
    """`["optimizer=2.5/10"]` -> that role's tariff: US dollars a million tokens, read/written."""
    prices: dict[str, RoleTariff] = {}
    for text in given:
        role, _, amounts = text.partition("=")
        role = role.strip()
        read, slash, written = amounts.partition("/")
        if role not in (*ROLES, EMBEDDER_ROLE):
            known = ", ".join((*ROLES, EMBEDDER_ROLE))
            raise InputError(f"--price {text}: expected ROLE=IN/OUT with a role of {known}")
        if not slash:
            raise InputError(
                f"--price {text}: expected ROLE=IN/OUT, dollars a million tokens, such as {role}=2.5/10"
            )
        if role in prices:
            raise InputError(f"--price {text}: expected one price a role, the {role} has another one already")
        prices[role] = RoleTariff("given", _amount(text, read), _amount(text, written))
    return prices


def _amount(text: str, amount: str) -> float:
    try:
        usd = float(amount)
    except ValueError:
        usd = -1.0
    if not 0 <= usd < float("inf"):
        raise InputError(f"--price {text}: expected dollars a million tokens, 0 or more, came {amount!r}")
    return usd


def refuse_unpriced(plan: RunPlan, environment: Mapping[str, str]) -> None:
    """Where there is a limit on money, what each request can cost must be known before the first is sent."""
    config = plan.config
    if config.max_usd is None:
        read_prices(config.price)
        return
    unknown = unknown_prices(tariffs_of(plan, environment))
    if unknown:
        wanted = " ".join(f"--price {role}=IN/OUT" for role in unknown)
        raise InputError(
            f"--max-usd {config.max_usd:g}: no price is known for the {' and the '.join(unknown)}. Give "
            f"{wanted} (dollars a million tokens, 0/0 for a server of your own), or leave --max-usd out"
        )
    unbounded = [
        role
        for role, choice in plan.models.items()
        if choice.entry is not None and "max_tokens" in choice.entry.refuses
    ]
    if unbounded and config.max_thinking_tokens is None:
        raise InputError(
            f"--max-usd {config.max_usd:g}: {plan.models[unbounded[0]].name} takes no limit of tokens but "
            "one that counts its thinking. Give --max-thinking-tokens, such as 8192, or leave --max-usd out"
        )


def unknown_prices(tariffs: Mapping[str, RoleTariff]) -> list[str]:
    """The roles whose calls have no known price."""
    return [role for role, tariff in tariffs.items() if not tariff.known]
