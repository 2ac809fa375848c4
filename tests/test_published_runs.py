"""The published GPT-4 runs, searched again over HTTP by the real client."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from drpo import testing
from drpo.config import OptimizeConfig
from drpo.plan import optimize_plan
from drpo.results import OptimizeResult
from drpo.run import Hooks, run_optimize
from drpo.settings import resolve
from tests.support.published import RUNS, needs_published_runs, replaying, tree


async def optimize(url: str, name: str, folder: Path, concurrency: int) -> OptimizeResult:
    seeds = folder / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"query": q}) + "\n" for q in tree(name)["queries"]))
    given = {
        "model": f"openai/base@{url}",
        "optimizer": f"openai/optimizer@{url}",
        "evaluator": f"openai/evaluator@{url}",
        "selector": f"openai/selector@{url}",
        "preset": "published",
        "embedder": "lexical",
        "seeds": str(seeds),
        "order": "given",
        "run_dir": folder / f"run{concurrency}",
        "concurrency": concurrency,
    }
    return await run_optimize(optimize_plan(resolve(OptimizeConfig, given, {}), {}), {}, Hooks())


@needs_published_runs
@pytest.mark.parametrize("name", RUNS)
def test_published_run_comes_out_node_for_node_at_any_concurrency(name: str, tmp_path: Path) -> None:
    published = tree(name)
    events = []
    for concurrency, latency_ms in ((1, "0"), (64, "base=9,evaluator=2,optimizer=5,selector=1")):
        with replaying(name, latency_ms=latency_ms, folder=tmp_path) as url:
            result = asyncio.run(optimize(url, name, tmp_path, concurrency))
        found = result.alignment.found
        assert result.alignment.system_prompt == published["final_system_prompt"]
        assert found.nodes == len(published["nodes"])
        assert found.path_score == pytest.approx(published["cumulative_reward"], abs=1e-9)
        assert found.levels == len(published["best_path"])
        # The servers stood on different ports: events hold no address.
        events.append((result.run_dir / "events.jsonl").read_bytes())
    assert events[0] == events[1]
    assert testing.replay(tmp_path / "run64").identical
