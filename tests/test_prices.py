"""What is known about costs is right, and what is unknown is None."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from drpo.llm.base import Usage
from drpo.llm.catalog import entries, strong_model
from drpo.llm.prices import cost, price_per_million

MILLION = 1_000_000
SHORT = Usage(prompt_tokens=1_000, completion_tokens=500)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the price list must not be fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_known_model_has_a_price_a_million_tokens() -> None:
    price = price_per_million("gpt-4o-mini")
    assert price is not None
    assert 0 < price.input_usd < price.output_usd
    assert price.cached_input_usd is not None
    assert 0 < price.cached_input_usd < price.input_usd


def test_a_dated_snapshot_costs_what_its_model_costs() -> None:
    assert price_per_million("gpt-4o-mini-2024-07-18") == price_per_million("gpt-4o-mini")


def test_a_model_without_a_price_for_cached_tokens_says_so() -> None:
    price = price_per_million("gpt-4")
    assert price is not None
    assert price.cached_input_usd is None


@pytest.mark.parametrize("name", ["", "no-such-model", "base", "Qwen/Qwen3-32B", "text-embedding-3-small"])
def test_an_unknown_price_is_none_and_never_zero(name: str) -> None:
    assert price_per_million(name) is None
    assert cost(name, SHORT) is None


def test_an_unknown_provider_has_no_price() -> None:
    assert price_per_million("gpt-4o", provider="nobody") is None
    assert cost("gpt-4o", SHORT, provider="nobody") is None


def test_what_is_not_counted_in_tokens_has_no_cost_in_tokens() -> None:
    assert cost("whisper-1", SHORT) is None
    assert cost("omni-moderation-latest", SHORT) is None


def test_an_embedding_costs_its_input_only() -> None:
    found = cost("text-embedding-3-small", Usage(prompt_tokens=1_000))
    assert found is not None
    assert found > 0


def test_a_call_costs_its_tokens_times_their_price() -> None:
    price = price_per_million("gpt-4o")
    assert price is not None
    expected = (1_000 * price.input_usd + 500 * price.output_usd) / MILLION
    assert cost("gpt-4o", SHORT) == pytest.approx(expected)


def test_cached_tokens_are_charged_at_their_own_price() -> None:
    price = price_per_million("gpt-4o")
    assert price is not None
    assert price.cached_input_usd is not None
    assert cost("gpt-4o", SHORT) == cost("gpt-4o", Usage(1_000, 500, 0))  # not told: none
    half = Usage(prompt_tokens=1_000, completion_tokens=0, cached_tokens=400)
    expected = (600 * price.input_usd + 400 * price.cached_input_usd) / MILLION
    assert cost("gpt-4o", half) == pytest.approx(expected)


def test_no_more_tokens_are_cached_than_were_sent() -> None:
    every = cost("gpt-4o", Usage(prompt_tokens=1_000, cached_tokens=1_000))
    assert cost("gpt-4o", Usage(prompt_tokens=1_000, cached_tokens=1_500)) == every


def test_a_long_prompt_falls_into_its_tier_and_the_listed_price_is_that_of_a_short_one() -> None:
    strong = strong_model().name
    price, found = price_per_million(strong), cost(strong, Usage(prompt_tokens=MILLION))
    assert price is not None
    assert found is not None
    assert found > price.input_usd


def test_no_tokens_of_a_known_model_cost_nothing() -> None:
    assert cost("gpt-4o", Usage()) == 0.0


def test_every_openai_alias_is_priced_unless_its_note_says_otherwise() -> None:
    for entry in entries():
        if entry.provider == "openai" and "no price here yet" not in entry.note:
            assert price_per_million(entry.name) is not None, entry.alias


def test_importing_the_rooms_does_not_load_the_price_list() -> None:
    code = "import sys, drpo.llm.prices, drpo.llm.catalog; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
