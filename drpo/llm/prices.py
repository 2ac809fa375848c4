"""What a call costs, from the price list that `genai-prices` carries. Nothing is fetched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drpo.llm.base import Usage

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation

# Small enough to stay in the first tier of every price list (the lowest second tier starts above 32,000
# input tokens), and a divisor of a million, so that scaling up is exact.
_SAMPLE_TOKENS = 1_000
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a million tokens below the long-context tier; None: no own price for cached ones."""

    input_usd: float
    output_usd: float
    cached_input_usd: float | None


def price_per_million(model_name: str, provider: str = "openai") -> Price | None:
    """Today's price of a language model, None where it is unknown or not counted in tokens.

    The list is the provider's own: ask it only for models at that provider's address, since a server of
    one's own may use the same names.
    """
    one = _calculated(
        model_name, provider, Usage(prompt_tokens=_SAMPLE_TOKENS, completion_tokens=_SAMPLE_TOKENS)
    )
    if one is None or one.model_price.input_mtok is None or one.model_price.output_mtok is None:
        return None
    scale = _MILLION // _SAMPLE_TOKENS
    cached = None
    if one.model_price.cache_read_mtok is not None:
        read = _calculated(
            model_name, provider, Usage(prompt_tokens=_SAMPLE_TOKENS, cached_tokens=_SAMPLE_TOKENS)
        )
        cached = None if read is None else float(read.input_price * scale)
    return Price(float(one.input_price * scale), float(one.output_price * scale), cached)


def input_price_per_million(model_name: str, provider: str = "openai") -> float | None:
    """Today's price of what a model reads, such as an embedding model that writes nothing; None: unknown."""
    usd = cost(model_name, Usage(prompt_tokens=_SAMPLE_TOKENS), provider)
    return None if usd is None else usd * (_MILLION // _SAMPLE_TOKENS)


def cost(model_name: str, usage: Usage, provider: str = "openai") -> float | None:
    """US dollars of one call with that usage, in the tier its prompt falls into; None where unknown, never 0.

    Writing to a provider's prompt cache is not counted: `Usage` does not know of it.
    """
    found = _calculated(model_name, provider, usage)
    if found is None:
        return None
    if (usage.prompt_tokens > 0 and found.model_price.input_mtok is None) or (
        usage.completion_tokens > 0 and found.model_price.output_mtok is None
    ):
        return None
    return float(found.total_price)


def _calculated(model_name: str, provider: str, usage: Usage) -> PriceCalculation | None:
    # Here and not above: the list takes 0.4 s to load.
    import genai_prices

    tokens = genai_prices.Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        # Some servers count cached tokens that they do not count as the prompt's; the library refuses that.
        cache_read_tokens=min(usage.cached_tokens or 0, usage.prompt_tokens),
    )
    try:
        return genai_prices.calc_price(tokens, model_name, provider_id=provider)
    except LookupError:
        return None
