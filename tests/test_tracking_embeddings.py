"""A request for embeddings is a span of its own, by the GenAI conventions, however it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpo.errors import ProviderRefused
from drpo.llm.ledger import CallDone, Ledger, Limits
from drpo.llm.limits import Stop
from drpo.tariffs import RoleTariff
from drpo.tracking.otel_tracker import ModelParts, call_attributes
from tests.test_embed import Answer, embed, hasty, served, server

PRICES = {"embedder": RoleTariff("given", 2.0)}


async def heard(tmp_path: Path, answer: Answer, texts: list[str]) -> list[CallDone]:
    told: list[CallDone] = []
    ledger = Ledger(tmp_path / "ledger.jsonl", PRICES, Limits(), Stop(), told.append)
    try:
        async with server(answer) as here:
            await embed(here.url, texts, ledger=ledger, patience=hasty())
    finally:
        await ledger.close()
    return told


async def test_each_request_that_was_answered_is_told_with_its_tokens_and_cost(tmp_path: Path) -> None:
    def answer(texts: list[str], number: int) -> object:
        return {**served(texts, number), "usage": {"prompt_tokens": 500}}

    told = await heard(tmp_path, answer, [str(n) for n in range(300)])
    assert len(told) == 2
    for call in told:
        assert call.began_s > 0 and call.took_s > 0 and ModelParts.of(call.model).model == "small"
        assert call_attributes(call) == {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.usage.input_tokens": 500,
            "drpo.role": "embedder",
            "drpo.usd": 0.001,
        }


async def test_one_that_was_refused_is_told_as_that(tmp_path: Path) -> None:
    told: list[CallDone] = []
    ledger = Ledger(tmp_path / "ledger.jsonl", PRICES, Limits(), Stop(), told.append)
    async with server(lambda texts, number: (401, {"error": {"message": "no"}})) as here:
        with pytest.raises(ProviderRefused):
            await embed(here.url, ["1"], ledger=ledger, patience=hasty())
    await ledger.close()
    (call,) = told
    assert call_attributes(call)["error.type"] == "ProviderRefused" and call.usage is None


async def test_a_server_that_tells_no_tokens_leaves_tokens_and_cost_unknown(tmp_path: Path) -> None:
    (call,) = await heard(tmp_path, served, ["1"])
    assert call.ending == "answered" and (call.usage, call.usd) == (None, None)
