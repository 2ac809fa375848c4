"""The total-variation terms of Theorem 6.1 for sampled answers, by log-probabilities where they are known."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

import drpo
from drpo.align_pro.bound import total_variation
from drpo.align_pro.estimating import run_estimate
from drpo.align_pro.plan import estimate_plan
from drpo.align_pro.results import Estimation, Row
from drpo.config_align_pro import EstimateConfig
from drpo.errors import InputError
from drpo.llm.base import LLM, Choice, Message, Request, Role
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.limits import Stop
from drpo.llm.local_model import LocalModel
from drpo.llm.retry import Patience
from drpo.llm.vllm.tokens import ServerFacts
from drpo.llm.world.reading import take_apart
from drpo.run import Hooks
from drpo.settings import resolve
from drpo.testing import ScriptedLLM
from tests.support.small_models import byte_tokenizer, save_causal, skip_without, word_tokenizer
from tests.support.toy_lm import (
    BETTER,
    END,
    ToyLM,
    ToyServer,
    all_answers,
    log_probability,
)
from tests.test_align_pro_estimate import evaluation, selection

QUERIES = [f"how do rockets number {n} fly" for n in range(6)]
ANSWERS = 24
DRAWN = ("", BETTER, BETTER)


def rewrites(request: Request) -> list[str]:
    query = take_apart(request).text("query", "rewriter")
    return [query + DRAWN[n % len(DRAWN)] for n in range(request.n)]


def others() -> dict[Role, LLM]:
    return {
        "rewriter": ScriptedLLM(rewrites, "prompter"),
        "selector": ScriptedLLM(selection, "selector"),
        "evaluator": ScriptedLLM(evaluation, "evaluator"),
    }


async def estimated(folder: Path, models: dict[Role, LLM], **settings: Any) -> Estimation:
    data = folder / "queries.txt"
    data.write_text("\n".join(QUERIES), encoding="utf-8")
    settings = {"reward": "dynamic/demo", "data": str(data), "run_dir": folder / "run", **settings}
    settings = {"samples": 3, "answers": ANSWERS, "lambda_": 1, **settings}
    plan = estimate_plan(resolve(EstimateConfig, settings, {}), {}, {**others(), **models})
    return await run_estimate(plan, {}, Hooks())


def at_lambda(found: Estimation) -> Row:
    (row,) = [row for row in found.rows if row.kind == "lambda"]
    assert row.bound is not None
    return row


def exact_distance() -> float:
    """d_TV of the toy's answers to a query and to the same in better words, by all answers there are."""
    one, other = (
        [math.exp(log_probability(query, words, has_end=end)) for words, end in all_answers()]
        for query in ("", BETTER)
    )
    assert math.fsum(one) == pytest.approx(1) and math.fsum(other) == pytest.approx(1)
    return math.fsum(abs(p - q) for p, q in zip(one, other, strict=True)) / 2


def check_distances(found: Estimation) -> None:
    """Of each query exactly what its answers come to, and on average the distance of the distributions."""
    errors = []
    for one in found.weighed:
        (own, _), (better, count) = one.explored.rewrites
        assert count == 2 and own.distance is not None and own.distance.value == 0
        assert better.distance is not None and better.distance.error is not None
        errors.append(better.distance.error)
        assert 0 < better.distance.value < 1
    distances = [row[1][0].distance for row in (one.explored.rewrites for one in found.weighed)]
    values = [distance.value for distance in distances if distance is not None]
    error = math.sqrt(fmean(error**2 for error in errors) / len(errors))
    assert error < 0.06 and fmean(values) == pytest.approx(exact_distance(), abs=3.5 * error)
    bound = at_lambda(found).bound
    assert bound is not None and bound.rewriting == pytest.approx(4.0 * fmean(values) * 2 / 3)


async def test_an_object_that_scores_makes_the_terms_known_and_a_resumed_run_asks_it_nothing(
    tmp_path: Path,
) -> None:
    model = ToyLM()
    found = await estimated(tmp_path, {"base": model})
    check_distances(found)
    assert {request.temperature for request in model.requests} == {1.0}
    answers = found.sent["score"]
    assert answers == len(model.scored) <= len(QUERIES) * 4 * ANSWERS  # equal answers are scored once
    again = ToyLM()
    resumed = await estimated(tmp_path, {"base": again}, lambda_=2)
    assert (again.scored, again.requests, resumed.sent) == ([], [], {})
    assert [one.explored for one in resumed.weighed] == [one.explored for one in found.weighed]


async def test_the_distance_of_a_query_is_that_of_its_answers_under_both(tmp_path: Path) -> None:
    model = ToyLM()
    found = await estimated(tmp_path, {"base": model})
    by_query = {r.messages[-1].content: (await ToyLM().complete(r)).choices for r in model.requests}

    def side(own: str, other: str) -> list[tuple[float, float]]:
        return [
            tuple(  # type: ignore[misc]
                log_probability(q, one.text.split(), has_end=one.finish_reason == "stop")
                for q in (own, other)
            )
            for one in by_query[own]
        ]

    for one in found.weighed:
        query, better = one.explored.item.query, one.explored.item.query + BETTER
        wanted = total_variation(side(query, better), side(better, query))
        assert one.explored.rewrites[1][0].distance == wanted


async def test_an_aligned_policy_that_scores_makes_the_first_term_known(tmp_path: Path) -> None:
    """The policy answers as the frozen model answers queries in better words."""

    class Aligned(ToyLM):
        name = "aligned"

        async def complete(self, request: Request) -> Any:
            return await super().complete(_better(request))

        async def score(self, request: Request, choice: Choice) -> float | None:
            return await super().score(_better(request), choice)

    found = await estimated(tmp_path, {"base": ToyLM(), "against": Aligned()})
    bound = at_lambda(found).bound
    assert bound is not None and bound.policy is not None and bound.value is not None
    assert bound.policy / 4 == pytest.approx(exact_distance(), abs=0.15)
    assert bound.value == pytest.approx(bound.policy + (bound.rewriting or 0.0) + bound.kl)


def _better(request: Request) -> Request:
    *before, last = request.messages
    turns = (*before, Message("user", last.content + BETTER))
    return Request(request.model, turns, seed=request.seed, n=request.n)


async def test_where_some_score_is_unknown_no_number_is_given(tmp_path: Path) -> None:
    class Unsure(ToyLM):
        async def score(self, request: Request, choice: Choice) -> float | None:
            known = await super().score(request, choice)
            return None if "number 3" in request.messages[-1].content else known

    bound = at_lambda(await estimated(tmp_path, {"base": Unsure()})).bound
    assert bound is not None and bound.rewriting is None and bound.value is None


@pytest.mark.parametrize("settings", [{"answers": 1}, {"answers": ANSWERS}])
async def test_nobody_is_asked_where_answers_are_greedy_or_the_model_has_no_score(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    model = ToyLM()
    is_greedy = settings["answers"] == 1
    base = model if is_greedy else ScriptedLLM(lambda request: ["yes"] * request.n)
    found = await estimated(tmp_path, {"base": base}, **settings)
    bound = at_lambda(found).bound
    assert bound is not None and (bound.rewriting is None) != is_greedy
    assert model.scored == [] and "score" not in found.sent
    if not is_greedy:
        assert {request.top_p for request in base.requests} == {None}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda: 0.5, "toy: expected the log-probability of an answer, at most 0, came 0.5"),
        (lambda: math.nan, "came nan"),
        (lambda: 1 / 0, "your model toy raised ZeroDivisionError when asked for a score"),
    ],
)
async def test_what_is_no_log_probability_ends_the_run_with_a_sentence(
    tmp_path: Path, given: Callable[[], float], said: str
) -> None:
    class Wrong(ToyLM):
        async def score(self, request: Request, choice: Choice) -> float | None:
            return given()

    with pytest.raises(InputError, match=said):
        await estimated(tmp_path, {"base": Wrong()})


async def test_a_vllm_server_is_asked_for_the_tokens_of_each_answer_and_its_end(tmp_path: Path) -> None:
    server = ToyServer()
    async with server:
        settings = {"model": f"vllm/toy@{server.url}", "answers": 10}
        found = await estimated(tmp_path, {}, **settings)
        check_distances(found)
        assert {body["top_p"] for body in server.asked("/v1/chat/completions")} == {1.0}
        scored = server.asked("/v1/completions")
        assert len([body for body in scored if "allowed_token_ids" in body]) == 1  # the end is asked for once
        assert len(scored) == 1 + found.sent["score"]
        asked = len(server.requests)
        resumed = await estimated(tmp_path, {}, **settings)
        assert len(server.requests) == asked and resumed.rows == found.rows


@pytest.mark.parametrize(
    ("server", "settings", "most"),
    [
        (ToyServer(tells=False), {}, 1),
        (ToyServer(ends=False), {}, 1),
        (ToyServer(), {"answer_temperature": 0.7}, 0),
        (ToyServer(), {"prompt_form": "text"}, None),
    ],
)
async def test_a_server_that_cannot_tell_is_asked_at_most_once_and_the_term_is_not_known(
    tmp_path: Path, server: ToyServer, settings: dict[str, Any], most: int | None
) -> None:
    async with server:
        found = await estimated(tmp_path, {}, model=f"vllm/toy@{server.url}", answers=2, **settings)
    bound = at_lambda(found).bound
    assert bound is not None and bound.rewriting is None
    told = [body for body in server.asked("/v1/completions") if "prompt_logprobs" in body]
    assert len(told) == (most or 0)
    assert ("score" in found.sent) == bool(most)


async def test_a_servers_score_is_the_sum_over_the_answer_with_its_end_where_it_has_one() -> None:
    connections = Connections()
    server = ToyServer()
    async with server:

        async def where() -> Endpoint:
            return Endpoint(server.url, None)

        facts = ServerFacts(where, connections, "toy", Patience(Stop(), random.Random(0), deadline_s=5), 5.0)
        request = Request("toy", (Message("user", "how" + BETTER),), temperature=1.0, top_p=1.0)
        for text, reason in (("rockets fly", "stop"), ("by fire rockets", "length"), ("fire", "stop")):
            found = await facts.score(request, Choice(text, reason))
            wanted = log_probability("how" + BETTER, text.split(), has_end=reason == "stop")
            assert found == pytest.approx(wanted, abs=1e-12)
            assert (server.requests[-1].body["prompt"][-1] == END) == (reason == "stop")
        asked = len(server.requests)
        page = Request("toy", prompt="how", temperature=1.0, top_p=1.0)
        cut = Request("toy", request.messages, temperature=1.0)
        for other in (page, cut):
            assert await facts.score(other, Choice("fire")) is None
        assert len(server.requests) == asked
    await connections.aclose()


@pytest.mark.parametrize("odd", [None, {}, [], "x", {"logprob": "-1"}, {"logprob": None}, {"logprob": 0.5}])
async def test_what_a_server_tells_amiss_is_not_known(odd: Any) -> None:
    """Only of the last token of an answer: the server has told what its answers end by before."""

    class Odd(ToyServer):
        def told(self, ids: Sequence[int]) -> list[dict[str, Any] | None]:
            rows = super().told(ids)
            if "fire" in self.words_of(ids):
                rows[-1] = odd if isinstance(odd, dict) and not odd else {str(ids[-1]): odd}
            return rows

    connections = Connections()
    server = Odd()
    async with server:

        async def where() -> Endpoint:
            return Endpoint(server.url, None)

        facts = ServerFacts(where, connections, "toy", Patience(Stop(), random.Random(0), deadline_s=5), 5.0)
        request = Request("toy", (Message("user", "how"),), temperature=1.0, top_p=1.0)
        assert await facts.score(request, Choice("by", "stop")) is not None
        assert await facts.score(request, Choice("fire", "stop")) is None
    await connections.aclose()


def real(test: Any) -> Any:
    # The warnings of torch and its kin are not ours to mend.
    return pytest.mark.train(pytest.mark.filterwarnings("default")(test))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without("transformers", "torch")
    folder = tmp_path_factory.mktemp("words")
    tokenizer = word_tokenizer(["why", "so", "it", "is", "end"])
    save_causal(folder / "all", tokenizer)
    save_causal(folder / "three", tokenizer, do_sample=True, top_k=3)
    save_causal(folder / "bytes", byte_tokenizer())
    return folder


async def scores(folder: Path, *asked: tuple[Request, Choice]) -> list[float | None]:
    model = LocalModel(str(folder))
    try:
        return list(await asyncio.gather(*(model.score(*one) for one in asked)))
    finally:
        model.close()


TOKENS = ("<|unknown|>", "why", "so", "it", "is", "end")


@real
@pytest.mark.parametrize(("name", "temperature"), [("all", 0.5), ("three", 2.0)])
async def test_the_probabilities_of_all_answers_sum_to_one(
    words: Path, monkeypatch: pytest.MonkeyPatch, name: str, temperature: float
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    request = Request("local/x", prompt="why is it", temperature=temperature, top_p=1.0, max_tokens=2)
    ended = [Choice(text, "stop") for text in ("", *TOKENS)]
    cut = [Choice(f"{one} {other}", "length") for one in TOKENS for other in TOKENS]
    found = await scores(words / name, *((request, choice) for choice in (*ended, *cut)))
    known = [value for value in found if value is not None]
    assert len(known) == 1 + 6 + 36
    assert math.fsum(math.exp(value) for value in known) == pytest.approx(1, abs=1e-5)
    assert (known.count(-math.inf) > 0) == (name == "three")


@real
async def test_answers_come_as_often_as_their_scores_say(
    words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    request = Request("local/x", prompt="why", temperature=2.0, top_p=1.0, max_tokens=1, n=1500, seed=4)
    model = LocalModel(str(words / "all"))
    try:
        choices = (await model.complete(request)).choices
        for text in ("so", "it", "is"):
            share = sum(choice.text == text for choice in choices) / len(choices)
            score = await model.score(request, Choice(text, "length"))
            assert score is not None
            error = math.sqrt(share * (1 - share) / len(choices))
            assert share == pytest.approx(math.exp(score), abs=4 * error + 0.002)
        greedy = Request("local/x", prompt="why", temperature=0.0, top_p=1.0)
        cut = Request("local/x", prompt="why", temperature=1.0, top_p=0.9)
        assert [await model.score(one, Choice("so")) for one in (greedy, cut)] == [None, None]
    finally:
        model.close()


@real
async def test_a_page_ends_by_the_models_mark_or_by_the_stop_sequence(
    words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def page(*stop: str) -> Request:
        return Request("local/x", prompt="why", temperature=1.0, top_p=1.0, stop=stop)

    by_mark, by_both, by_stop = await scores(
        words / "all",
        (page(), Choice("so it")),
        (page(" end"), Choice("so it")),
        (page(), Choice("so it end", "length")),
    )
    assert by_mark is not None and by_both is not None and by_stop is not None
    assert math.exp(by_both) == pytest.approx(math.exp(by_mark) + math.exp(by_stop), rel=1e-6)


@real
async def test_a_local_model_feeds_the_terms_of_an_estimate(
    tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = {"model": f"local/{words / 'bytes'}", "answers": 2, "base_max_tokens": 4, "limit": 2}
    settings |= {"long_prompts": "as-is", "prompt_form": "text"}
    found = await estimated(tmp_path, {}, **settings)
    bound = at_lambda(found).bound
    assert bound is not None and bound.rewriting is not None and 0 <= bound.rewriting <= 4
    again = await estimated(tmp_path, {}, **settings)
    assert again.sent == {} and again.rows == found.rows


def test_the_command_names_what_the_terms_need(tmp_path: Path) -> None:
    found = drpo.align_pro_estimate(
        model="demo", prompter="demo", reward="dynamic/demo", limit=1, samples=1, answers=2, run_dir=tmp_path
    )
    assert isinstance(found, drpo.Estimation)
    from drpo.commands.align_pro_text import estimate_lines

    said = "\n".join(estimate_lines(found.as_dict()))
    assert "rewriting  not known: needs the range of the reward, and greedy answers or log-probab" in said
