"""The same run, whatever the concurrency and the latencies: events and result are the same to the byte."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.support.command import Shell, roles_at
from tests.support.mock_openai import Reply, drpo_answers, error
from tests.support.served import Served

SEARCH = ("--depth", "4", "--width", "2", "--samples", "3", "--max-extra-depth", "1", "--quiet")
RESULTS = {"optimize": "alignment.json", "optimize-examples": "result.json"}


def outcomes(shell: Shell, command: str, *arguments: str) -> set[tuple[bytes, bytes]]:
    """What three runs at different concurrencies came to."""
    found = set()
    for concurrency in (1, 3, 64):
        folder = shell.folder / f"run-{concurrency}"
        shell.done(command, *arguments, "--concurrency", str(concurrency), "--run-dir", folder)
        found.add(((folder / "events.jsonl").read_bytes(), (folder / RESULTS[command]).read_bytes()))
    return found


@pytest.mark.parametrize("more", [[], ["--search", "monte-carlo"], ["--evaluations", "2"]])
def test_concurrency_and_latency_change_no_byte(shell: Shell, more: list[str]) -> None:
    dice = random.Random(7)

    async def slowly(model: str, body: dict[str, Any]) -> Reply:
        await asyncio.sleep(dice.uniform(0, 0.01))
        return drpo_answers(model, body)

    with Served(slowly) as server:
        assert len(outcomes(shell, "optimize", *roles_at(server.url), *SEARCH, *more)) == 1


def test_concurrency_changes_no_byte_of_improved_examples(shell: Shell) -> None:
    assert len(outcomes(shell, "optimize-examples", "--model", "demo", "--depth", "2", "--quiet")) == 1


@pytest.mark.parametrize("quirk", ["refuses n", "ignores n", "refuses n and seed"])
def test_an_endpoint_that_gives_one_choice_a_request_changes_no_byte_either(shell: Shell, quirk: str) -> None:
    dice = random.Random(11)

    async def one_choice(model: str, body: dict[str, Any]) -> Reply:
        await asyncio.sleep(dice.uniform(0, 0.01))
        if "seed" in body and quirk == "refuses n and seed":
            return error(400, "seed is not supported", param="seed", code="unsupported_parameter")
        if body.get("n", 1) > 1 and quirk != "ignores n":
            return error(400, "n > 1 is not supported", param="n", code="unsupported_value")
        return drpo_answers(model, {**body, "n": 1})

    with Served(one_choice) as server:
        arguments = ["--optimizer", f"openai/optimizer@{server.url}", "--model", "demo", "--depth", "1"]
        arguments += ["--demo-latency-ms", "4"]  # so that the optimizer is asked at once or one by one
        assert len(outcomes(shell, "optimize-examples", *arguments, "--samples", "3", "--quiet")) == 1
