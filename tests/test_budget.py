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
from drpo.llm.base import Message, Request
from drpo.llm.client import OpenAIClient
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.ledger import Ledger, Limits, Spent, read_ledger
from drpo.llm.limits import Stop
from drpo.llm.metered import Metered
from drpo.plan import examples_plan, optimize_plan
from drpo.progress import read_progress
from drpo.results import read_examples_result
from drpo.run import Hooks, run_examples, run_optimize
from drpo.run_dir import read_run
from drpo.tariffs import RoleTariff, refuse_unpriced
from tests.support.command import Shell, process, the_error
from tests.support.mock_openai import MockServer, Reply, drpo_answers, error
from tests.support.served import Served

ROLES = ("base", "optimizer", "evaluator", "selector")
PRICES = {"base": (0.5, 1.5), "optimizer": (2.5, 10.0), "evaluator": (2.0, 8.0), "selector": (1.0, 4.0)}
ENV: dict[str, str] = {}


@pytest.fixture(autouse=True)
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted does not depend on how long a lost answer is waited for."""
    monkeypatch.setattr("drpo.llm.retry.FIRST_BACKOFF_S", 0.01)


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
        refuse_unpriced(plan, ENV)
    thinking = OptimizeConfig.model_validate(
        {"model": "demo", "optimizer": "gpt-6.1-sol", "max_usd": 5, "run_dir": tmp_path / "run"}
    )
    with pytest.raises(InputError, match="--max-thinking-tokens"):
        refuse_unpriced(optimize_plan(thinking, {"OPENAI_API_KEY": "x"}), {"OPENAI_API_KEY": "x"})
    assert not (tmp_path / "run").exists()


async def test_money_spent_before_there_was_a_price_counts(tmp_path: Path) -> None:
    till, run = Till(11), tmp_path / "run"
    async with MockServer(till, keep_log=False) as server:
        with pytest.raises(BudgetSpent):
            await optimize(server.url, run, max_calls=30, price=())
        before = till.usd
        with pytest.raises(BudgetSpent, match=rf"\${before:.4f} was"):
            await optimize(server.url, run, max_usd=before + 0.0005)
        assert till.usd <= before + 0.0005
        with pytest.raises(BudgetSpent):
            await optimize(server.url, run, max_usd=before + 0.02)
        assert before < till.usd <= before + 0.02


@pytest.mark.parametrize("lost", ["removed", "emptied"])
async def test_limits_hold_although_the_ledger_was_lost(tmp_path: Path, lost: str) -> None:
    till, run = Till(12), tmp_path / "run"
    async with MockServer(till, keep_log=False) as server:
        with pytest.raises(BudgetSpent):
            await optimize(server.url, run, max_calls=30)
        spent = till.usd
        _lose(run / "ledger.jsonl", lost)
        with pytest.raises(BudgetSpent, match="limit of 30 calls"):
            await optimize(server.url, run, max_calls=30)
        assert till.calls.total() == 30
        _lose(run / "ledger.jsonl", lost)
        with pytest.raises(BudgetSpent, match=rf"\${spent:.4f} was"):
            await optimize(server.url, run, max_usd=spent)
        assert till.usd == spent
        await optimize(server.url, run)
    whole = read_ledger(run / "ledger.jsonl")
    assert sum(role.calls for role in whole.values()) == till.calls.total() - 30


def _lose(ledger: Path, how: str) -> None:
    ledger.unlink()
    if how == "emptied":
        ledger.touch()


async def test_a_server_that_ignores_max_tokens_is_noticed_and_bounded_from_then_on(tmp_path: Path) -> None:
    said: list[str] = []
    bill: list[float] = []

    def gushes(model: str, body: dict[str, Any]) -> Reply:
        used = {"prompt_tokens": 10, "completion_tokens": 4 * (body.get("n") or 1) * body["max_tokens"]}
        bill.append((10 * PRICES[model][0] + used["completion_tokens"] * PRICES[model][1]) / 1_000_000)
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for i, text in enumerate(drpo_answers(model, body).texts)
        ]
        return Reply(body={"model": model, "choices": choices, "usage": used})

    async with MockServer(gushes, keep_log=False) as server:
        config = OptimizeConfig.model_validate(
            settings(server.url, tmp_path / "run", max_usd=0.3, concurrency=1)
        )
        with pytest.raises(BudgetSpent, match="Raise --max-usd"):
            await run_optimize(optimize_plan(config, ENV), ENV, Hooks(notice=said.append))
    assert len([text for text in said if "does not keep max_tokens" in text]) == 1
    assert sum(bill) <= 0.3 + max(bill)
    assert sum(role.usd for role in read_ledger(tmp_path / "run" / "ledger.jsonl").values()) == (
        pytest.approx(sum(bill))
    )


async def test_a_reply_that_was_filtered_midway_is_held_at_its_most(tmp_path: Path) -> None:
    def filtered(model: str, body: dict[str, Any]) -> Reply:
        message = {"role": "assistant", "content": "half a reply"}
        choice = {"index": 0, "finish_reason": "content_filter", "message": message}
        return Reply(body={"choices": [choice]})

    async with MockServer(filtered, keep_log=False) as server:
        with pytest.raises(BudgetSpent, match=r"told no whole usage"):
            await optimize(server.url, tmp_path / "run", max_usd=0.02)
    spent = sum(read_ledger(tmp_path / "run" / "ledger.jsonl").values(), Spent())
    assert spent.failed == 0 and spent.unpriced == spent.answered > 0 and 0 < spent.held_usd <= 0.02


@pytest.mark.parametrize(
    ("reply", "failed"),
    [
        (error(400, "the prompt violates our policy", code="content_filter"), 1),
        (error(400, "too many tokens", code="context_length_exceeded"), 1),
        (Reply(texts=("half",), finish_reason="content_filter"), 0),
        (Reply(body={"choices": [{"finish_reason": "content_filter", "message": {"content": ""}}]}), 0),
        (Reply(body={"error": {"code": "context_length_exceeded", "message": "x"}}), 0),
    ],
)
async def test_only_an_http_error_is_free_of_charge(tmp_path: Path, reply: Reply, failed: int) -> None:
    prices, connections = {"base": RoleTariff("given", 1.0, 1.0)}, Connections()
    async with MockServer(script=[reply]) as server:
        ledger = Ledger(tmp_path / "ledger.jsonl", prices, Limits(max_usd=1), Stop())
        client = OpenAIClient(connections, Endpoint(server.url), "m", timeout_s=30)
        request = Request("m", messages=(Message("user", "q"),), max_tokens=5)
        await Metered(client, ledger).complete(request)
        spent = ledger.total
        await ledger.close()
        await connections.aclose()
    assert (spent.failed, spent.answered) == (failed, 1 - failed)
    assert (spent.usd + spent.held_usd == 0) == bool(failed)


def test_a_server_that_takes_no_max_tokens_says_which_flag_bounds_it(shell: Shell) -> None:
    def thinks(model: str, body: dict[str, Any]) -> Reply:
        if "max_tokens" in body:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return error(400, message, code="unsupported_parameter", param="max_tokens")
        return drpo_answers(model, body)

    prices = [part for role in ROLES for part in ("--price", f"{role}=1/1")]
    with Served(thinks) as server:
        flags = [*_flags(server.url), *prices, "--max-usd", "5"]
        said = shell.refused(2, "optimize", *flags, "--run-dir", "run")
        assert "--max-thinking-tokens, such as 8192" in said and "a new --run-dir" in said
        assert "--price" not in said
        bounded = ("--max-thinking-tokens", "8192", "--run-dir", "other")
        assert shell.run("optimize", *flags, *bounded).code in (0, 9)
        assert (shell.folder / "other" / "alignment.json").exists()


def test_a_budget_that_is_spent_before_the_first_level_says_so(shell: Shell) -> None:
    with Served() as server:
        flags = [*_flags(server.url), "--max-calls", "1"]
        said = shell.refused(9, "optimize", *flags, "--run-dir", "run")
        assert "No level was done, so there is no result yet" in said
        assert not (shell.folder / "run" / "alignment.json").exists()
        assert "No level was done" not in shell.refused(9, "optimize", *flags[:-1], "20", "--run-dir", "run")
    said = shell.refused(
        9, "optimize-examples", "--model", "demo", "--max-calls", "1", "--quiet", "--run-dir", "examples"
    )
    assert "No level was done, so there is no result yet" in said
    assert not (shell.folder / "examples" / "result.json").exists()


async def test_an_embedder_elsewhere_is_not_taken_for_that_of_openai(tmp_path: Path) -> None:
    """OPENAI_BASE_URL is another's: what it charges, nobody knows, and nothing is sent under a limit."""
    async with MockServer(Till(1)) as server:
        environment = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "x"}
        given = settings(server.url, tmp_path / "run", max_usd=5, embedder="openai/text-embedding-3-small")
        plan = optimize_plan(OptimizeConfig.model_validate(given), environment)
        with pytest.raises(InputError, match="--price embedder=IN/OUT"):
            await run_optimize(plan, environment, Hooks())
        assert server.requests == []
