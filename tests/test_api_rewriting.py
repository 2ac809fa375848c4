"""drpo from Python: estimates of Align-Pro, rewrites, and BPO's data, with a user's own models."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import drpo
from drpo.errors import InputError
from drpo.llm.base import LLM, Request, Role
from drpo.llm.world.reading import take_apart
from drpo.testing import ScriptedLLM

QUERIES = ["how do rockets number 1 fly so far", "how do rockets number 2 fly so far"]
ASPECTS = ["Clarity", "Helpfulness"]


def better(request: Request) -> list[str]:
    return [f"{take_apart(request).text('query', 'rewriter')}, step by step" for _ in range(request.n)]


def answer(request: Request) -> str:
    return f"An answer to: {request.messages[-1].content}"


def selection(request: Request) -> str:
    return json.dumps({"aspects_selection": {"reasoning": "they matter", "selected_aspects": ASPECTS}})


def evaluation(request: Request) -> str:
    value = 5 if "step by step" in take_apart(request).text("response", "evaluator") else 2
    return json.dumps({name: {"rationale": "so it is", "score": str(value)} for name in ASPECTS})


def models(*roles: Role) -> dict[Role, LLM]:
    known: dict[Role, ScriptedLLM] = {
        "base": ScriptedLLM(answer, "frozen"),
        "rewriter": ScriptedLLM(better, "prompter"),
        "selector": ScriptedLLM(selection, "selector"),
        "evaluator": ScriptedLLM(evaluation, "judge"),
    }
    return {role: known[role] for role in roles or known}


def test_an_estimate_with_own_models_needs_no_names(tmp_path: Path) -> None:
    data = tmp_path / "queries.txt"
    data.write_text("\n".join(QUERIES), encoding="utf-8")
    settings: dict[str, Any] = {"data": str(data), "samples": 2, "run_dir": tmp_path / "run"}
    found = drpo.align_pro_estimate(models=models(), lambda_=(0.5, 2), **settings)
    assert type(found) is drpo.Estimation
    assert found.is_believable and not found.simulated
    assert found.own.reward.mean == 2.0 and found.rows[-1].reward.mean == 5.0
    again = asyncio.run(drpo.align_pro_estimate_async(models=models(), lambda_=7, **settings))
    assert again.sent == {} and [row.lambda_ for row in again.rows if row.kind == "lambda"] == [7.0]


def test_an_own_evaluator_alone_leaves_the_selector_to_be_named() -> None:
    some = models("base", "rewriter", "evaluator")
    with pytest.raises(InputError, match="--reward is missing"):
        drpo.align_pro_estimate(models=some)
    with pytest.raises(InputError, match="expected the roles base, rewriter, against, selector, evaluator"):
        drpo.align_pro_estimate(models={"judge": some["base"]}, reward="dynamic/demo")


def test_rewrites_come_per_query_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = models("rewriter")
    found = drpo.rewrite(QUERIES, rewriter="align-pro/demo", models=own)
    assert [[one.text for one in rewrites] for rewrites in found] == [
        [f"{query}, step by step"] for query in QUERIES
    ]
    assert {type(one) for rewrites in found for one in rewrites} == {drpo.Rewrite}
    (alone,) = asyncio.run(drpo.rewrite_async(QUERIES[0], rewriter="align-pro/demo", models=own))
    assert alone == found[0] and list(tmp_path.iterdir()) == []


def test_weighed_rewrites_come_with_the_rewards_of_own_models() -> None:
    def some(request: Request) -> list[str]:
        query = take_apart(request).text("query", "rewriter")
        return [query, *(f"{query}, step by step" for _ in range(request.n - 1))]

    own = {**models("base"), "rewriter": ScriptedLLM(some), "evaluator": ScriptedLLM(judged)}
    (found,) = drpo.rewrite(
        QUERIES[:1], rewriter="align-pro/demo", samples=4, lambda_=0.5, pick="best", models=own
    )
    assert [(one.text, one.reward) for one in found] == [
        (f"{QUERIES[0]}, step by step", 5.0),
        (QUERIES[0], 2.0),
    ]
    assert sum(one.weight for one in found) == pytest.approx(1)


def judged(request: Request) -> str:
    return selection(request) if request.role == "selector" else evaluation(request)


def test_a_named_rewriting_is_a_run_that_resumes(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"rewriter": "align-pro/demo", "run_dir": tmp_path / "run"}
    first = drpo.rewrite(QUERIES, models=models("rewriter"), **settings)
    silent = ScriptedLLM([], "prompter")  # it has no answer
    assert drpo.rewrite(QUERIES, models={"rewriter": silent}, **settings) == first
    assert silent.requests == []


def test_queries_of_a_file_and_of_the_call_are_not_mixed(tmp_path: Path) -> None:
    file = tmp_path / "queries.txt"
    file.write_text("\n".join(QUERIES), encoding="utf-8")
    settings: dict[str, Any] = {"rewriter": "align-pro/demo", "queries": str(file)}
    settings |= {"runs_dir": tmp_path / "runs", "name": "clear", "models": models("rewriter")}
    assert len(drpo.rewrite(**settings)) == 2 and (tmp_path / "runs" / "clear").is_dir()
    with pytest.raises(InputError, match="came both"):
        drpo.rewrite(QUERIES, **settings)


def test_bpo_data_is_built_by_an_own_optimizer(tmp_path: Path) -> None:
    rows = [{"prompt": query, "good_res": "By fire.", "bad_res": "Who knows."} for query in QUERIES]
    pairs = tmp_path / "feedback.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def optimize(request: Request) -> str:
        query = next(query for query in QUERIES if query in request.messages[0].content)
        return json.dumps({"analysis": "it was vague", "optimized_instruction": f"{query}, in one sentence"})

    own = ScriptedLLM(optimize, "mine")
    settings: dict[str, Any] = {"pairs": str(pairs), "run_dir": tmp_path / "run"}
    found = drpo.bpo_build(models={"optimizer": own}, **settings)
    assert type(found) is drpo.Built
    assert found.is_believable
    assert [pair.optimized for pair in found.kept] == [f"{query}, in one sentence" for query in QUERIES]
    again = asyncio.run(drpo.bpo_build_async(models={"optimizer": own}, **settings))
    assert again.sent == {} and again.pairs == found.pairs and len(own.requests) == 2
    with pytest.raises(InputError, match="expected the roles optimizer, came 'base'"):
        drpo.bpo_build(models={"base": own}, **settings)
