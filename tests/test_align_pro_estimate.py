"""`drpo align-pro estimate`: who is asked what, the figures, resuming, and what is not believed."""

from __future__ import annotations

import asyncio
import json
import math
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import pytest

import drpo
from drpo.align_pro.closed_form import optimal
from drpo.align_pro.estimating import run_estimate
from drpo.align_pro.plan import estimate_plan
from drpo.align_pro.results import Estimation, Row, doubt
from drpo.config_align_pro import EstimateConfig
from drpo.errors import BudgetSpent, ProviderRefused, RunConflict
from drpo.llm.base import LLM, ROLES, Choice, Completion, Request, Role
from drpo.llm.world.reading import take_apart
from drpo.plan import digest_of
from drpo.run import Hooks
from drpo.settings import resolve
from drpo.testing import ScriptedLLM
from tests.support.alignments import written_alignment
from tests.support.served import Served

QUERIES = [f"how do rockets number {n} fly so far" for n in range(8)]
ASPECTS = ("Helpfulness", "Clarity")
WRITTEN = ("", " in better words", " in better words", " in the best words", "answer", " in worse words")
"""What the prompter adds to a query; "answer" stands for a reply that is none, "" for the query itself."""
WORTH = {"better": 4.0, "best": 5.0, "worse": 1.0}
OWN = 2.0


def rewrites(request: Request) -> list[str]:
    query = take_apart(request).text("query", "rewriter")
    texts = [query + added if added != "answer" else "Sure, here is how they fly." for added in WRITTEN]
    return [texts[n % len(texts)] for n in range(request.n)]


def answers(request: Request) -> list[str]:
    return [f"An answer to: {request.messages[-1].content}" for _ in range(request.n)]


def selection(request: Request) -> str:
    return json.dumps({"aspects_selection": {"reasoning": "they matter", "selected_aspects": list(ASPECTS)}})


def score(value: float) -> str:
    return json.dumps({name: {"rationale": "so it is", "score": f"{value:g}"} for name in ASPECTS})


def worth(answer: str) -> float:
    return next((value for word, value in WORTH.items() if word in answer), OWN)


def evaluation(request: Request) -> str:
    return score(worth(take_apart(request).text("response", "evaluator")))


class Models:
    """A frozen model, a prompter and a judge by rules that a test can foresee."""

    def __init__(self, **scripts: Callable[[Request], Any]) -> None:
        used: dict[str, Callable[[Request], Any]]
        used = {"base": answers, "rewriter": rewrites, "selector": selection, "evaluator": evaluation}
        used |= scripts
        self.by_role = {role: ScriptedLLM(used[role], role) for role in ROLES if role in used}

    @property
    def custom(self) -> dict[Role, LLM]:
        return {**self.by_role}

    def asked(self, role: Role) -> list[Request]:
        return self.by_role[role].requests


def estimated(folder: Path, models: Models, **settings: Any) -> Estimation:
    data = folder / "queries.txt"
    data.write_text("\n".join(QUERIES), encoding="utf-8")
    settings = {"reward": "dynamic/demo", "data": str(data), "run_dir": folder / "run", **settings}
    settings = {"samples": 6, "lambda_": "0.5,2", **settings}
    plan = estimate_plan(resolve(EstimateConfig, settings, {}), {}, models.custom)
    return asyncio.run(run_estimate(plan, {}, Hooks()))


@dataclass(frozen=True)
class Done:
    """One run with the models that it asked, which tests may read."""

    folder: Path
    models: Models
    found: Estimation


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder, models = tmp_path_factory.mktemp("done"), Models()
    return Done(folder / "run", models, estimated(folder, models))


def row_of(found: Estimation, kind: str, lambda_: float = 0.0) -> Row:
    (row,) = [row for row in found.rows if row.kind == kind and (kind != "lambda" or row.lambda_ == lambda_)]
    return row


def test_the_figures_are_those_of_the_closed_form_over_what_was_drawn(done: Done) -> None:
    """Of six rewrites two are one text, and two more are the query itself: once so written, once kept."""
    found = done.found
    shares, rewards = (2 / 6, 2 / 6, 1 / 6, 1 / 6), (OWN, 4.0, 5.0, 1.0)
    for lambda_ in (0.5, 2.0):
        exact, row = optimal(shares, rewards, lambda_), row_of(found, "lambda", lambda_)
        assert row.reward.mean == pytest.approx(exact.mean)
        assert row.gain.mean == pytest.approx(exact.mean - OWN)
        assert row.kl.mean == pytest.approx(exact.kl)
        assert row.log_z is not None and row.log_z.mean == pytest.approx(exact.log_z)
        weights = exact.probabilities
        assert row.win_rate.mean == pytest.approx(weights[1] + weights[2] + weights[0] / 2)
        assert row.kl.interval is not None and row.kl.interval.low == pytest.approx(exact.kl)
        assert row.kl_bias is not None and row.log_z_bias is not None
    reference, best = row_of(found, "reference"), row_of(found, "best")
    assert reference.reward.mean == pytest.approx(fmean((2, 2, 4, 4, 5, 1))) and reference.kl.mean == 0
    assert reference.win_rate.mean == pytest.approx((3 + 1) / 6) and reference.effective == pytest.approx(6)
    assert (best.reward.mean, best.win_rate.mean, best.effective) == (5.0, 1.0, 1.0)
    assert found.own.reward.mean == OWN and found.own.variance == 0
    assert [row.kind for row in found.rows] == ["reference", "lambda", "lambda", "best"]
    assert [row.lambda_ for row in found.rows[1:3]] == [2.0, 0.5]
    assert found.missing == 0 and doubt(found) is None


TOY = {"": 0.5, " in better words": 0.3, " in the best words": 0.05, " in worse words": 0.15}


def test_on_a_prompter_that_can_be_enumerated_the_estimate_agrees_with_the_exact_one(tmp_path: Path) -> None:
    def toy(request: Request) -> list[str]:
        query = take_apart(request).text("query", "rewriter")
        dice = random.Random(f"{request.seed} {query}")
        return [query + added for added in dice.choices(list(TOY), list(TOY.values()), k=request.n)]

    found = estimated(tmp_path, Models(rewriter=toy), samples=256, lambda_=(0.7, 3))
    for lambda_ in (0.7, 3.0):
        exact = optimal(list(TOY.values()), [worth(added) for added in TOY], lambda_)
        row = row_of(found, "lambda", lambda_)
        assert row.log_z is not None and row.kl.mean is not None and row.reward.mean is not None
        offs = [one.tilts[(0.7, 3.0).index(lambda_)] for one in found.weighed]
        for name, mean in (("kl", row.kl.mean), ("log_z", row.log_z.mean)):
            told = [off for one in offs if (off := getattr(one, f"{name}_off")) is not None]
            error = math.sqrt(fmean(off.error**2 for off in told) / len(QUERIES))
            assert error < 0.06 and mean == pytest.approx(getattr(exact, name), abs=3 * error)
        assert row.reward.mean == pytest.approx(exact.mean, abs=0.15)


def test_variance_is_of_single_rewards_over_queries_and_rewrites(done: Done) -> None:
    rewards = [2.0, 2.0, 4.0, 4.0, 5.0, 1.0]
    spread = sum((reward - fmean(rewards)) ** 2 for reward in rewards) / 6
    assert row_of(done.found, "reference").variance == pytest.approx(spread * 8 / 7)


def test_the_model_reads_the_rewrite_and_the_judge_the_users_own_query(done: Done) -> None:
    models = done.models
    assert len(models.asked("base")) == 4 * len(QUERIES)  # each different text once, the query among them
    read = {request.messages[-1].content for request in models.asked("base")}
    assert {query + added for query in QUERIES for added in WRITTEN if added != "answer"} == read
    assert {request.temperature for request in models.asked("base")} == {0.0}
    judged = [take_apart(request).text("query", "evaluator") for request in models.asked("evaluator")]
    assert set(judged) == set(QUERIES) and len(judged) == 4 * len(QUERIES)


def test_the_prompter_is_asked_once_a_query_for_all_samples_as_published(tmp_path: Path, done: Done) -> None:
    asked = done.models.asked("rewriter")
    assert [(r.n, r.temperature, r.top_p) for r in asked] == [(6, 1.5, 0.6)] * len(QUERIES)
    assert all(request.seed is not None for request in asked)
    estimated(tmp_path, own := Models(), run_dir=tmp_path / "own", rewriter_temperature=0.7, rewriter_top_p=1)
    assert {(r.temperature, r.top_p) for r in own.asked("rewriter")} == {(0.7, 1.0)}


def test_a_prompter_that_gives_one_choice_is_asked_for_the_others(tmp_path: Path) -> None:
    def one(request: Request) -> Completion:
        query = take_apart(request).text("query", "rewriter")
        return Completion((Choice(f"{query} in better words, way {request.seed}"),))

    models = Models(rewriter=one)
    found = estimated(tmp_path, models, samples=3)
    assert len(models.asked("rewriter")) == 3 * len(QUERIES)
    assert found.as_dict()["rewrites"]["different"] == 3 * len(QUERIES)
    assert row_of(found, "reference").reward.mean == 4.0


def test_what_cannot_stand_counts_as_the_query_and_is_counted(tmp_path: Path, done: Done) -> None:
    assert done.found.as_dict()["rewrites"] == {
        "drawn": 48,
        "different": 32,
        "unrewarded": 0,
        "kept": {"answered": 8},
    }
    failing = Models(rewriter=lambda request: "")
    none = estimated(tmp_path, failing, run_dir=tmp_path / "none")
    assert none.as_dict()["rewrites"]["kept"] == {"empty": 48}
    assert {row.reward.mean for row in none.rows} == {OWN} and none.rows[0].win_rate.mean == 0.5


def test_shots_are_found_for_the_rewritten_query(tmp_path: Path) -> None:
    def about(request: Request) -> str:
        return f"{take_apart(request).text('query', 'rewriter')} {far[0].query}"

    from drpo.data import read_examples
    from drpo.resources import resource_folder

    far = read_examples(resource_folder("icl_examples") / "base.jsonl").examples
    models = Models(rewriter=about)
    alignment = written_alignment(tmp_path / "alignment.json")
    estimated(tmp_path, models, alignment=str(alignment), samples=1, shots=1)
    shown = {r.messages[-1].content: r.messages[1].content for r in models.asked("base")}
    assert all(shown[f"{query} {far[0].query}"] == far[0].query for query in QUERIES)
    assert any(shown[query] != far[0].query for query in QUERIES)


def test_several_answers_are_samples_and_credited_apart_from_their_weights(tmp_path: Path) -> None:
    """Every answer is worth 1 or 5, whatever was read: what a small lambda gains by its weights is luck."""

    def sampled(request: Request) -> list[str]:
        base = sum(map(ord, request.messages[-1].content))
        return [f"{'best' if (base + n * n) % 3 else 'worse'} {base} {n}" for n in range(request.n)]

    models = Models(base=sampled)
    found = estimated(tmp_path, models, answers=4, lambda_=0.05)
    assert {(r.n, r.temperature) for r in models.asked("base")} == {(4, 1.0)}
    assert len({r.seed for r in models.asked("base")}) == len(models.asked("base"))
    tilts = [one.tilts[0] for one in found.weighed]
    honest = [tilt.honest for tilt in tilts if tilt.honest is not None]
    row = row_of(found, "lambda", 0.05)
    assert row.reward.mean == pytest.approx(fmean(honest)) and len(honest) == len(QUERIES)
    assert fmean(honest) < fmean(tilt.mean for tilt in tilts)
    assert row.bound is not None and row.bound.rewriting is None  # a sampler's distances: nobody knows


def test_the_bound_is_a_number_only_with_an_aligned_policy_and_greedy_answers(
    tmp_path: Path, done: Done
) -> None:
    alone = row_of(done.found, "lambda", 0.5)
    assert alone.bound is not None and alone.bound.policy is None and alone.bound.value is None
    assert alone.bound.rewriting == pytest.approx(4.0 * 4 / 6)  # 4 of 6 rewrites are answered otherwise
    assert alone.bound.kl == pytest.approx(-0.5 * (alone.kl.mean or 0.0)) and alone.gap is None
    models = Models(against=lambda request: f"The best answer to {request.messages[-1].content}")
    found = estimated(tmp_path, models, run_dir=tmp_path / "both")
    row = row_of(found, "lambda", 0.5)
    assert {r.messages[-1].content for r in models.asked("against")} == set(QUERIES)
    assert found.policy is not None and found.policy.reward.mean == 5.0
    assert row.bound is not None and row.bound.policy == 4.0 and row.gap is not None
    assert row.bound.value == pytest.approx(4.0 + 4.0 * 4 / 6 + row.bound.kl)
    assert row.gap.mean == pytest.approx(5.0 - (row.reward.mean or 0.0))
    assert row.gap.mean is not None and row.bound.value is not None
    assert row.gap.mean <= row.bound.value


def test_the_same_call_sends_nothing_and_neither_does_another_lambda(tmp_path: Path) -> None:
    first = estimated(tmp_path, Models())
    files = {name: (tmp_path / "run" / name).read_bytes() for name in ("summary.json", "items.jsonl")}
    models = Models()
    again = estimated(tmp_path, models)
    assert again.sent == {} and again.rows == first.rows
    assert files == {name: (tmp_path / "run" / name).read_bytes() for name in files}
    other = estimated(tmp_path, models, lambda_=(0.1, 30), level=0.9)
    assert other.sent == {} and [row.lambda_ for row in other.rows[1:3]] == [30.0, 0.1]
    assert all(not asked.requests for asked in models.by_role.values())


@pytest.mark.parametrize("changed", [{"samples": 7}, {"answers": 2}, {"rewriter_top_p": 0.9}, {"limit": 7}])
def test_what_changes_a_request_is_another_run(done: Done, changed: dict[str, Any]) -> None:
    with pytest.raises(RunConflict, match=next(iter(changed)) if "limit" not in changed else "items"):
        estimated(done.folder.parent, Models(), **changed)


def test_a_run_stopped_by_its_budget_ends_with_the_same_figures(tmp_path: Path) -> None:
    with pytest.raises(BudgetSpent):
        estimated(tmp_path, Models(), max_calls=30)
    resumed = estimated(tmp_path, models := Models(), max_calls=1000)
    assert sum(len(one.requests) for one in models.by_role.values()) < 10 * len(QUERIES)
    whole = estimated(tmp_path, Models(), run_dir=tmp_path / "whole")
    assert resumed.rows == whole.rows and resumed.weighed == whole.weighed


def test_a_rewrite_without_a_reward_is_left_out_and_a_query_without_any_is_missing(tmp_path: Path) -> None:
    def mute(request: Request) -> str:
        return "no"

    def unreadable(request: Request) -> str:
        parts = take_apart(request)
        silent = "best" in parts.text("response", "evaluator") or "number 3" in parts.text(
            "query", "evaluator"
        )
        return "I would rather not say." if silent else evaluation(request)

    found = estimated(tmp_path, Models(evaluator=unreadable), repairs=0)
    assert found.missing == 1 and len(found.weighed) == 8
    assert row_of(found, "best").reward.mean == 4.0
    assert found.as_dict()["rewrites"]["unrewarded"] == 7 + 6
    said = doubt(found)
    assert said is not None and "1 of 8 queries have no reward" in said
    lines = [json.loads(line) for line in (tmp_path / "run" / "items.jsonl").read_text().splitlines()]
    assert [line["reference"] is None for line in lines].index(True) == 3 and lines[3]["lambdas"] == []
    nothing = estimated(tmp_path, Models(evaluator=mute), run_dir=tmp_path / "mute", repairs=0)
    assert nothing.rows == () and nothing.missing == 8 and nothing.as_dict()["own"]["reward"]["mean"] is None


def test_items_tell_each_rewrite_with_its_rewards_weights_and_the_one_that_was_drawn(done: Done) -> None:
    line = json.loads((done.folder / "items.jsonl").read_text("utf-8").splitlines()[0])
    assert [(one["text"].removeprefix(QUERIES[0]), one["count"]) for one in line["rewrites"]] == [
        *[("", 2), (" in better words", 2), (" in the best words", 1), (" in worse words", 1)]
    ]
    assert [one["rewards"] for one in line["rewrites"]] == [[2.0], [4.0], [5.0], [1.0]]
    assert line["best"] == 2 and line["kept"] == {"answered": 1} and line["own"]["rewards"] == [2.0]
    for found in line["lambdas"]:
        assert sum(found["weights"]) == pytest.approx(1) and 0 <= found["chosen"] < 4
        assert found["kl"]["error"] > 0 and found["honest"] is None


class _Rewards(BaseHTTPRequestHandler):
    """A reward model behind a server, as vLLM has it. `seen` are the pairs so far."""

    seen: ClassVar[list[tuple[str, str]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        query, answer = (message["content"] for message in body["messages"])
        self.seen.append((query, answer))
        reply = json.dumps({"data": [{"index": 0, "probs": [10 * worth(answer) - 100]}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def reward_url() -> Iterator[str]:
    _Rewards.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Rewards) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def test_a_reward_model_is_given_the_users_own_query_and_its_range_is_unknown(
    tmp_path: Path, reward_url: str
) -> None:
    settings: dict[str, Any] = {"reward": f"vllm/rm@{reward_url}", "lambda_": 5}
    models = Models()
    found = estimated(tmp_path, models, **settings)
    assert found.sent["reward"] == 4 * len(QUERIES) == len(set(_Rewards.seen))
    ranged = estimated(tmp_path, models, reward_range=40, **settings)
    assert ranged.sent == {} and len(_Rewards.seen) == 4 * len(QUERIES)
    assert {query for query, _ in _Rewards.seen} == set(QUERIES)
    assert models.asked("evaluator") == [] and found.own.reward.mean == -80
    unknown, known = row_of(found, "lambda", 5).bound, row_of(ranged, "lambda", 5).bound
    assert unknown is not None and unknown.rewriting is None
    assert known is not None and known.rewriting == pytest.approx(40 * 4 / 6)


def test_an_evaluation_records_each_reward_under_the_name_that_it_always_had(
    tmp_path: Path, reward_url: str
) -> None:
    data = tmp_path / "queries.txt"
    data.write_text("\n".join(QUERIES), encoding="utf-8")
    name, run = f"vllm/rm@{reward_url}", tmp_path / "run"
    settings: dict[str, Any] = {"reward_model": name, "data": str(data), "alignment": "none", "run_dir": run}
    settings["models"] = {"base": ScriptedLLM(answers, "frozen")}
    first = drpo.evaluate(**settings)
    lines = [json.loads(line) for line in (run / "calls.jsonl").read_text("utf-8").splitlines()]
    facts = {line["name"]: line["value"] for line in lines if line["kind"] == "fact"}
    known = [facts[f"reward of {digest_of([name, *pair])}"] for pair in _Rewards.seen]
    assert known == [one.reward for one in first.items] and len(known) == first.sent["reward"] == len(QUERIES)
    assert drpo.evaluate(**settings).sent == {} and len(_Rewards.seen) == len(QUERIES)


def test_a_reward_model_that_refuses_is_not_asked_by_each_query_again(tmp_path: Path) -> None:
    with Served(lambda model, body: "ok") as server:  # which has no such path
        with pytest.raises(ProviderRefused, match="404"):
            estimated(tmp_path, Models(), reward=f"vllm/rm@{server.url}")
        assert len(server.requests) <= 2
