"""Limits on calls and money hold against a real server, at any concurrency, whatever the server does."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drpo.alignment import read_alignment
from drpo.config import ExamplesConfig, OptimizeConfig
from drpo.errors import BudgetSpent, InputError
from drpo.llm.ledger import read_ledger
from drpo.plan import examples_plan, optimize_plan
from drpo.progress import read_progress
from drpo.results import read_examples_result
from drpo.run import Hooks, run_examples, run_optimize
from drpo.run_dir import read_run
from drpo.tariffs import refuse_unpriced
from tests.support.command import Shell, process, the_error
from tests.support.mock_openai import MockServer, Reply, drpo_answers
from tests.support.served import Served

ROLES = ("base", "optimizer", "evaluator", "selector")
PRICES = {"base": (0.5, 1.5), "optimizer": (2.5, 10.0), "evaluator": (2.0, 8.0), "selector": (1.0, 4.0)}
ENV: dict[str, str] = {}


class Till:
    """Answers like a provider that counts for itself what it was asked and what it charges.

    Usage is drawn at random up to what the request allows. With `faults`, every eighth request fails: some
    are turned away, which costs nothing; of others the answer is lost after it has been charged.
    """

    def __init__(self, seed: int, *, faults: bool = False) -> None:
        self.calls: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.usd = 0.0
        self._random, self._faults = random.Random(seed), faults

    def __call__(self, model: str, body: dict[str, Any]) -> Reply:
        self.calls[model] += 1
        dice = self._random
        kind = dice.choice(("429", "500", "502", "reset", "garbage")) if self._fails() else ""
        if kind in ("429", "500"):
            busy = {"error": {"message": "busy"}}
            return Reply(status=int(kind), body=busy, headers={"retry-after-ms": "1"})
        size = len(json.dumps(body.get("messages"), ensure_ascii=False).encode())
        read = dice.randint(1, size)
        written = dice.randint(1, (body.get("n") or 1) * body["max_tokens"])
        self.usd += (read * PRICES[model][0] + written * PRICES[model][1]) / 1_000_000
        if kind == "502":
            return Reply(status=502, body=b"<html>bad gateway</html>", headers={"retry-after-ms": "1"})
        if kind == "reset":
            return Reply(fault="reset")
        if kind == "garbage":
            return Reply(body=b"{half an answ")
        self.tokens[model] += read + written
        texts = drpo_answers(model, body).texts
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for i, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": read, "completion_tokens": written}
        return Reply(body={"model": model, "choices": choices, "usage": usage})

    def _fails(self) -> bool:
        return self._faults and self._random.random() < 1 / 8


def settings(url: str, run: Path, **more: Any) -> dict[str, Any]:
    chosen = {role: f"openai/{role}@{url}" for role in ROLES}
    models = {"model" if role == "base" else role: name for role, name in chosen.items()}
    prices = tuple(f"{role}={read}/{written}" for role, (read, written) in PRICES.items())
    return {
        **models,
        "embedder": "lexical",
        "depth": 4,
        "max_extra_depth": 0,
        "max_tokens": 600,
        "base_max_tokens": 300,
        "price": prices,
        "run_dir": run,
        "report": False,
        "reuse": False,
        **more,
    }


async def optimize(url: str, run: Path, **more: Any) -> None:
    config = OptimizeConfig.model_validate(settings(url, run, **more))
    await run_optimize(optimize_plan(config, ENV), ENV, Hooks())


@pytest.mark.parametrize("concurrency", [1, 8, 64])
@pytest.mark.parametrize("faults", [False, True], ids=["sound", "faulty"])
async def test_money_is_never_overshot_and_a_raised_budget_resumes(
    tmp_path: Path, concurrency: int, faults: bool
) -> None:
    till = Till(concurrency, faults=faults)
    run = tmp_path / "run"
    budgets = [0.02, 0.05, 0.11]
    async with MockServer(till, keep_log=False) as server:
        for budget in budgets:
            with pytest.raises(BudgetSpent, match=r"Raise --max-usd"):
                await optimize(server.url, run, max_usd=budget, concurrency=concurrency, width=3)
            assert till.usd <= budget
            spent = read_ledger(run / "ledger.jsonl")
            held = sum(role.held_usd for role in spent.values())
            assert sum(role.usd for role in spent.values()) + held <= budget
        best = read_alignment(run)
        assert best.found.ended == "budget" and best.found.levels >= 1
        await optimize(server.url, run, concurrency=concurrency, width=3)
    finished = read_alignment(run)
    assert finished.found.ended == "depth"
    spent = read_ledger(run / "ledger.jsonl")
    assert {role: spent[role].calls for role in ROLES} == dict(till.calls)
    if not faults:
        used = {role: spent[role].prompt_tokens + spent[role].completion_tokens for role in ROLES}
        assert used == dict(till.tokens)
        assert sum(role.usd for role in spent.values()) == pytest.approx(till.usd)
        assert till.calls == Counter(finished.found.calls)  # none was paid twice over four processes
    else:
        assert sum(role.usd + role.held_usd for role in spent.values()) >= till.usd
        assert any(role.unknown for role in spent.values()) and any(role.retried for role in spent.values())


@pytest.mark.parametrize("concurrency", [1, 8, 64])
async def test_calls_are_never_overshot_retries_included(tmp_path: Path, concurrency: int) -> None:
    till = Till(7 * concurrency, faults=True)
    run = tmp_path / "run"
    async with MockServer(till, keep_log=False) as server:
        for limit in (1, 23, 40):
            with pytest.raises(BudgetSpent, match=f"limit of {limit} calls"):
                await optimize(server.url, run, max_calls=limit, concurrency=concurrency)
            assert till.calls.total() == limit
    progress = read_progress(run / "progress.json")
    assert progress is not None and (progress.state, progress.calls, progress.max_calls) == ("budget", 40, 40)
    assert sum(role["answered"] + role["failed"] + role["unknown"] for role in _noted(run)) == 40


def _noted(run: Path) -> list[dict[str, Any]]:
    return list(read_run(run)["ledger"].values())


async def test_the_result_after_budgets_is_that_of_one_run(tmp_path: Path) -> None:
    async with MockServer(Till(1), keep_log=False) as server:
        for limit in (12, 30):
            with pytest.raises(BudgetSpent):
                await optimize(server.url, tmp_path / "parts", max_calls=limit)
        await optimize(server.url, tmp_path / "parts")
        await optimize(server.url, tmp_path / "whole")
    for name in ("alignment.json", "events.jsonl"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


async def test_examples_keep_the_best_so_far_and_go_on(tmp_path: Path) -> None:
    out = tmp_path / "better.jsonl"

    async def improve(**more: Any) -> None:
        async with MockServer(Till(5), keep_log=False) as server:
            given = settings(server.url, tmp_path / "run", out=out, depth=2, **more)
            known = {name: value for name, value in given.items() if name in ExamplesConfig.model_fields}
            plan = examples_plan(ExamplesConfig.model_validate({**known, "model": None}), ENV)
            identity = {**plan.identity, "models": {"optimizer": "o", "evaluator": "e", "selector": "s"}}
            await run_examples(_with_identity(plan, identity), ENV, Hooks())

    with pytest.raises(BudgetSpent):
        await improve(max_calls=40)
    kept = read_examples_result(tmp_path / "run")
    assert {item.ended for item in kept.examples} >= {"budget"} and not out.exists()
    assert any(item.reward_before is not None for item in kept.examples)
    await improve()
    assert out.exists()
    assert all(item.ended != "budget" for item in read_examples_result(tmp_path / "run").examples)


def _with_identity(plan: Any, identity: dict[str, Any]) -> Any:
    """The same run although the server stands at another port."""
    models = {role: replace(choice, identity=f"m/{role}") for role, choice in plan.models.items()}
    return replace(plan, models=models, identity=identity)


def test_a_process_killed_with_requests_in_the_air_cannot_make_the_next_overshoot(
    shell: Shell,
) -> None:
    with Served(Till(3), hold=lambda model: model == "evaluator") as server:
        flags = [*_flags(server.url), "--max-calls", "30", "--run-dir", "run"]
        running = process("optimize", *flags)
        server.wait_for(lambda: server.held() > 0)
        running.kill()
        running.communicate(timeout=30)
        before = len(server.requests)
        unknown = sum(role.unknown for role in read_ledger(shell.folder / "run" / "ledger.jsonl").values())
        assert 1 <= unknown <= before
        server.release()
        said = the_error(shell.run("optimize", *flags), 9)
        assert len(server.requests) <= 30
        assert "limit of 30 calls" in said and "Raise --max-calls" in said
        assert "budget" in shell.done("show", "run").out


def _flags(url: str) -> list[str]:
    flags = ["--embedder", "lexical", "--depth", "4", "--max-extra-depth", "0", "--no-reuse", "--quiet"]
    flags += ["--max-tokens", "600", "--base-max-tokens", "300", "--no-report"]
    for role in ROLES:
        flags += [f"--{'model' if role == 'base' else role}", f"openai/{role}@{url}"]
    return flags


def test_a_limit_on_money_is_refused_where_a_price_is_unknown(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/v1"
    config = OptimizeConfig.model_validate({**settings(url, tmp_path / "run"), "price": (), "max_usd": 5})
    plan = optimize_plan(config, ENV)
    with pytest.raises(InputError, match="--price base=IN/OUT --price optimizer=IN/OUT"):
        refuse_unpriced(plan)
    thinking = OptimizeConfig.model_validate(
        {"model": "demo", "optimizer": "gpt-6.1-sol", "max_usd": 5, "run_dir": tmp_path / "run"}
    )
    with pytest.raises(InputError, match="--max-thinking-tokens"):
        refuse_unpriced(optimize_plan(thinking, {"OPENAI_API_KEY": "x"}))
    assert not (tmp_path / "run").exists()
