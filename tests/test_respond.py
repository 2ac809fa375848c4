"""How a base model is asked: the form its server wants, and with as many shots as its context holds."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest

from drpo import testing
from drpo.compose import Composer, Sampling
from drpo.config import OptimizeConfig
from drpo.errors import InputError
from drpo.jsonl import read_lines
from drpo.live import Resources, server_facts
from drpo.llm.base import Request
from drpo.llm.limits import Stop
from drpo.llm.recorder import Record
from drpo.plan import Plan, optimize_plan
from drpo.problems import Responder, Response
from drpo.respond import ContextFit, choose_form, fit_context, form_of_tokenizer
from drpo.settings import resolve
from drpo.templates import Templates
from drpo.types import Example, Failed, Query
from tests.support import fake_vllm
from tests.support.command import content_of, the_error
from tests.support.fake_vllm_http import FrontEnd
from tests.support.managed import Managed
from tests.support.mock_openai import MockServer

TEMPLATES = Templates()
CHAT, TEXT = Composer(TEMPLATES, "chat"), Composer(TEMPLATES, "text")
SHOTS = tuple(Example(f"question {n}?", "word " * 100) for n in range(3))
SHORT = Sampling(max_tokens=100)
KEEP: Literal["drop-shots"] = "drop-shots"


def no_end() -> NoReturn:
    raise AssertionError("the server was to die")


@asynccontextmanager
async def standing_in(folder: Path, model: str = "org/m", context: int = 4096) -> AsyncIterator[FrontEnd]:
    """The stand-in's front end in this process; what it was asked stands in requests.jsonl."""
    flags = ["serve", model, "--port", "0", "--max-model-len", str(context)]
    plan = fake_vllm.planned(flags, {"FAKE_VLLM_REQUESTS": str(folder / "requests.jsonl")})
    server = FrontEnd(plan, no_end)
    async with server:
        yield server


def asked(folder: Path) -> list[str]:
    """The paths of what the stand-in was asked."""
    path = folder / "requests.jsonl"
    return [json.loads(line)["path"] for line in path.read_text().splitlines()] if path.exists() else []


def planned(url: str, model: str = "org/m", **settings: Any) -> Plan:
    given = {"model": f"vllm/{model}@{url}", "optimizer": "demo", "embedder": "lexical", **settings}
    return optimize_plan(resolve(OptimizeConfig, given, {}), {})


@asynccontextmanager
async def resources(folder: Path, plan: Plan, *, live: bool = True) -> AsyncIterator[Resources]:
    """What a run holds open; not live: as in a replay."""
    record = Record(folder / "calls.jsonl", writable=live)
    opened = Resources(record, Stop(), {}, plan.config, live=live)
    yield opened
    await opened.close()


# The form


@pytest.mark.parametrize(
    ("model", "form"), [("org/m", "chat"), ("org/m-base", "text"), ("org/nosystem", "chat-without-system")]
)
async def test_the_servers_tokenizer_decides_the_form_and_it_is_recorded(
    tmp_path: Path, model: str, form: str
) -> None:
    async with standing_in(tmp_path, model) as server:
        plan = planned(server.url, model)
        async with resources(tmp_path, plan) as open_ones:
            assert await form_of_tokenizer(server_facts(plan.models["base"], open_ones)) == form
            assert await choose_form(plan.models["base"], "auto", open_ones) == form
    assert set(asked(tmp_path)) == {"/tokenize"}
    async with resources(tmp_path, plan, live=False) as replayed:
        assert await choose_form(plan.models["base"], "auto", replayed) == form


async def test_a_form_that_is_given_is_taken(tmp_path: Path) -> None:
    async with standing_in(tmp_path) as server:
        plan = planned(server.url, prompt_form="text")
        async with resources(tmp_path, plan) as open_ones:
            assert await choose_form(plan.models["base"], "text", open_ones) == "text"
    assert asked(tmp_path) == []


async def test_where_the_server_does_not_tell_the_catalog_knows(tmp_path: Path) -> None:
    async with MockServer() as server:
        plan = planned(server.url)
        base = replace(planned("http://127.0.0.1:1/v1", "m").models["base"], urls=(server.url,))
        entry = optimize_plan(
            resolve(OptimizeConfig, {"model": f"mistral-7b@{server.url}", "optimizer": "demo"}, {}), {}
        ).models["base"]
        async with resources(tmp_path, plan) as open_ones:
            assert await form_of_tokenizer(server_facts(base, open_ones)) is None
            known = replace(plan, models={**plan.models, "base": entry})
            assert await choose_form(known.models["base"], "auto", open_ones) == "text"
        assert {seen.path for seen in server.requests} == {"/tokenize"}


# What fits


def words_in(request: Request) -> int:
    texts = [request.prompt] if request.prompt is not None else [m.content for m in request.messages]
    return sum(len(text.split()) for text in texts)


def fitting(limit: int, count: Callable[[Request], int | None] = words_in, composer: Composer = CHAT) -> Any:
    """A fit over `count`, and the requests that were counted."""
    counted: list[Request] = []

    async def counting(request: Request) -> int | None:
        counted.append(request)
        return count(request)

    return ContextFit(composer, SHORT, limit, counting), counted


@pytest.mark.parametrize("composer", [CHAT, TEXT])
async def test_the_farthest_shots_go_first_and_no_more_than_must(composer: Composer) -> None:
    fit, counted = fitting(360, composer=composer)
    assert await fit.shots_that_fit("Be kind.", SHOTS, "Why?") == 2
    assert [words_in(request) <= 260 for request in counted] == [False, True]
    shown = composer.request("", SHORT, "Be kind.", SHOTS[:2], "Why?")
    assert counted[-1] == shown and "question 2?" not in str(shown)
    assert (fit.asked, fit.shortened, fit.refused) == (1, 1, 0)


async def test_prompt_and_answer_together_may_fill_the_context_to_its_end() -> None:
    exactly = words_in(CHAT.request("", SHORT, "Be kind.", SHOTS, "Why?")) + 100
    assert await fitting(exactly)[0].shots_that_fit("Be kind.", SHOTS, "Why?") == 3
    assert await fitting(exactly - 1)[0].shots_that_fit("Be kind.", SHOTS, "Why?") == 2


async def test_a_prompt_that_does_not_fit_even_alone_is_a_failure_in_words() -> None:
    fit, counted = fitting(150)
    failed = await fit.shots_that_fit("word " * 200, SHOTS, "Why?")
    assert isinstance(failed, Failed) and len(counted) == 4
    assert "201 tokens without any shot, 50 are left" in failed.reason and "150" in failed.reason
    assert (fit.asked, fit.shortened, fit.refused) == (1, 0, 1)


async def test_a_prompt_far_below_the_limit_is_not_counted() -> None:
    fit, counted = fitting(4096)
    assert await fit.shots_that_fit("Be kind.", SHOTS, "Why?") == 3
    assert counted == [] and fit.report() is None
    # As many bytes as there is room may be as many tokens: that is counted.
    assert await fit.shots_that_fit("é" * 2000, (), "Why?") == 0
    assert len(counted) == 1


async def test_where_it_cannot_be_counted_the_prompt_goes_as_it_is() -> None:
    fit, counted = fitting(200, lambda request: None)
    assert await fit.shots_that_fit("Be kind.", SHOTS, "Why?") == 3
    assert len(counted) == 1 and fit.report() is None


async def test_how_often_the_context_was_too_short_is_told() -> None:
    fit, _ = fitting(360)
    for prompt in ("a", "b", "word " * 300):
        await fit.shots_that_fit(prompt, SHOTS, "Why?")
    await fit.shots_that_fit("a", (), "Why?")
    assert fit.report() == ("context of 360 tokens: of 4 prompts 2 lost shots, 1 did not fit without any")


async def fit_over(
    folder: Path, plan: Plan, *, live: bool = True, prompts: Sequence[str] = ("Be kind.", "word " * 400)
) -> tuple[list[int | None], str | None]:
    """How many shots each prompt keeps (None: it does not fit), and the report."""
    async with resources(folder, plan, live=live) as open_ones:
        fit = await fit_context(plan.models["base"], KEEP, open_ones, CHAT, SHORT)
        assert fit is not None
        kept = [await fit.shots_that_fit(prompt, SHOTS, "Why?") for prompt in prompts]
        return [None if isinstance(k, Failed) else k for k in kept], fit.report()


async def test_what_the_server_counted_is_recorded_and_replays_without_it(tmp_path: Path) -> None:
    async with standing_in(tmp_path, context=330) as server:
        plan = planned(server.url, base_max_tokens=100)
        first = await fit_over(tmp_path, plan)
        requests = asked(tmp_path)
        again = await fit_over(tmp_path, plan)
        assert asked(tmp_path) == requests
    assert first[0] == [2, None] and first == again
    assert await fit_over(tmp_path, plan, live=False) == first
    names = [entry["name"] for entry in read_lines(tmp_path / "calls.jsonl").records]
    assert names[0] == f"context of vllm/org/m@{server.url}"
    assert len(names) == len(requests) == len(set(names))


async def test_without_a_context_there_is_nothing_to_keep(tmp_path: Path) -> None:
    async with MockServer() as server:
        plan = planned(server.url)
        async with resources(tmp_path, plan) as open_ones:
            assert await fit_context(plan.models["base"], KEEP, open_ones, CHAT, SHORT) is None
    async with resources(tmp_path, plan, live=False) as replayed:
        assert await fit_context(plan.models["base"], KEEP, replayed, CHAT, SHORT) is None


async def test_sent_as_they_are_asks_nothing(tmp_path: Path) -> None:
    async with standing_in(tmp_path) as server:
        for plan in (planned(server.url, long_prompts="as-is"), planned(server.url, preset="published")):
            assert isinstance(plan.config, OptimizeConfig)
            async with resources(tmp_path, plan) as open_ones:
                assert (
                    await fit_context(plan.models["base"], plan.config.long_prompts, open_ones, CHAT, SHORT)
                    is None
                )
    assert asked(tmp_path) == []


async def test_an_answer_that_leaves_no_room_for_a_prompt_is_the_users_mistake(tmp_path: Path) -> None:
    async with standing_in(tmp_path, context=512) as server:
        plan = planned(server.url, base_max_tokens=512)
        async with resources(tmp_path, plan) as open_ones:
            with pytest.raises(InputError, match=r"--base-max-tokens 512.*context of 512.*tokens 128, for"):
                await fit_context(plan.models["base"], KEEP, open_ones, CHAT, replace(SHORT, max_tokens=512))


# Whole runs


def states(run: Path) -> list[dict[str, Any]]:
    """What was tried in a run."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event["state"] for event in events if "state" in event]


JUDGED = ("--optimizer", "demo", "--evaluator", "demo", "--vllm-arg")


def test_a_run_in_a_short_context_says_so_and_replays_without_a_server(managed: Managed) -> None:
    ran = managed.run("", *JUDGED, "max-model-len=600")
    assert ran.code == 0, ran.err
    assert re.search(r"context of 600 tokens: of \d+ prompts [1-9]\d* lost shots", ran.err)
    assert managed.starts == ["org/m"]
    assert {len(state["shots"]) for state in states(managed.shell.folder / "run")} & {0, 1}
    before = content_of(managed.shell.folder / "run")
    with testing.closed_sockets():
        assert managed.shell.done("replay", "run").out.startswith("identical")
    assert content_of(managed.shell.folder / "run") == before


def test_a_run_goes_on_in_a_context_no_smaller_than_it_began_with(managed: Managed) -> None:
    managed.run("", *JUDGED, "max-model-len=600", run="whole")
    for faults in ("die-always=4", "die-always=1"):  # the second time it goes on in the very same context
        the_error(managed.run(faults, *JUDGED, "max-model-len=600", "--vllm-restarts", 0), 5)
    said = the_error(managed.run("", *JUDGED, "max-model-len=599"), 2)
    assert "context of 599 tokens" in said and "begun with 600" in said and "max-model-len=600" in said
    ran = managed.run("", *JUDGED, "max-model-len=8000")
    assert ran.code == 0, ran.err
    for name in ("alignment.json", "events.jsonl"):
        one, other = (managed.shell.folder / run / name for run in ("run", "whole"))
        assert one.read_bytes() == other.read_bytes()
    assert managed.left() == []


# Asked and answered


@pytest.mark.parametrize(("cut", "text"), [(True, "Four."), (False, "Four.\n# Answer\nFive.")])
async def test_what_is_judged_is_the_answer_beside_the_shots_that_fit(cut: bool, text: str) -> None:
    llm = testing.ScriptedLLM(["Four.\n# Answer\nFive."])
    composer = Composer(TEMPLATES, "text", cut=cut)
    fit, _ = fitting(360, composer=composer)
    responder = Responder(llm, "m", composer, SHORT, SHOTS, ((2, 0, 1),), fit)
    assert await responder.respond("Be kind.", Query("Why?"), 0) == Response(text, "stop", (2, 0))
    (request,) = llm.requests
    assert request == composer.request("m", SHORT, "Be kind.", [SHOTS[2], SHOTS[0]], "Why?")


async def test_what_does_not_fit_is_not_sent() -> None:
    llm = testing.ScriptedLLM([])
    responder = Responder(llm, "m", CHAT, SHORT, SHOTS, ((0,),), fitting(110)[0])
    assert isinstance(await responder.respond("word " * 200, Query("Why?"), 0), Failed)
    assert llm.requests == []
