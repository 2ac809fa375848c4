"""What a run holds open for its models, and what it says of their servers when it is over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from drpo.config import OptimizeConfig
from drpo.live import Resources, live_model
from drpo.llm.base import Usage
from drpo.llm.limits import Slots, Stop
from drpo.llm.recorder import Record
from drpo.plan import Plan, optimize_plan
from drpo.run import _tell_servers
from drpo.settings import resolve

KEYS = {"OPENAI_API_KEY": "sk-none"}
VLLM = "vllm/org/m@http://127.0.0.1:1/v1"


def planned(**settings: Any) -> Plan:
    given = {"model": VLLM, "optimizer": "demo", "embedder": "lexical", **settings}
    return optimize_plan(resolve(OptimizeConfig, given, {}), {})


class Told(list[str]):
    """What a run said to its user."""


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def resources(tmp_path: Path, told: Told) -> AsyncIterator[Resources]:
    opened = Resources(Record(tmp_path / "calls.jsonl"), Stop(), KEYS, planned().config, notice=told.append)
    yield opened
    await opened.close()


@pytest.mark.parametrize("model", [VLLM, "vllm/org/a@http://127.0.0.1:1/v1,http://127.0.0.1:2/v1"])
async def test_who_waits_for_a_vllm_server_goes_in_order_of_the_text(
    resources: Resources, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    made = slots_of(monkeypatch)
    live_model(planned(model=model).models["base"], resources)
    assert made == [(64 * (1 + model.count(",")), True)]


@pytest.mark.parametrize("model", ["demo", "openai/m@http://127.0.0.1:1/v1", "gpt-4o"])
async def test_who_waits_for_any_other_endpoint_goes_in_order_of_arrival(
    resources: Resources, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    made = slots_of(monkeypatch)
    live_model(planned(model=model).models["base"], resources)
    assert made == [(64, False)]


def slots_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """The slots that are made from now on: how many, and whether what is shared decides who is next."""
    made: list[tuple[int, bool]] = []

    def slots(count: int, *, by_prefix: bool = False) -> Slots:
        made.append((count, by_prefix))
        return Slots(count, by_prefix=by_prefix)

    monkeypatch.setattr("drpo.live.Slots", slots)
    return made


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        (
            Usage(2000, 10, 500),
            [f"prefix cache of {VLLM}: 500 of 2,000 prompt tokens (25%) had been computed before"],
        ),
        (
            Usage(2000, 10, 0),
            [f"prefix cache of {VLLM}: 0 of 2,000 prompt tokens (0%) had been computed before"],
        ),
        (Usage(2000, 10), []),
        (Usage(), []),
        (None, []),
    ],
)
async def test_of_a_prefix_cache_is_said_what_its_server_told(
    resources: Resources, told: Told, usage: Usage | None, said: list[str]
) -> None:
    if usage is not None:
        resources.record.usage[VLLM] = usage
    _tell_servers(planned(), resources)
    assert told == said
