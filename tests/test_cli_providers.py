"""Models that refuse, fail or are away: how many requests it costs, what is said, that a run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.command import SMALL, Ran, Shell, content_of, ended, process, roles_at, the_error
from tests.support.mock_openai import Answer, Reply, drpo_answers, error
from tests.support.served import Served

KEY = "sk-test-4f0b7c2e91d85a36"
Fault = Callable[[str, dict[str, Any]], Answer]


def search(shell: Shell, url: str, *more: object) -> Ran:
    return shell.run("optimize", *roles_at(url), *SMALL, "--run-dir", "run", *more)


def refuse(answer: Reply) -> Fault:
    return lambda model, body: answer


def assert_key_is_nowhere(shell: Shell, ran: Ran, key: str = KEY) -> None:
    assert key not in ran.out + ran.err
    kept = content_of(shell.folder)
    assert any(name.endswith("run.log") for name in kept)
    assert [name for name, data in kept.items() if key.encode() in data] == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error(401, f"Incorrect API key provided: {KEY}.", code="invalid_api_key"), "Check the API key"),
        (error(403, f"key {KEY} may not use this model"), "may use this model"),
        (error(404, "The model `base` does not exist", code="model_not_found"), "Check the model's name"),
        (error(429, "You exceeded your current quota", code="insufficient_quota"), "Add credit"),
        (error(402, "no money left"), "Add credit"),
    ],
    ids=["wrong key", "not allowed", "wrong model", "quota", "payment"],
)
def test_a_refusal_for_good_costs_one_request_and_shows_no_key(
    shell: Shell, answer: Reply, said: str
) -> None:
    for role in ("BASE", "OPTIMIZER", "EVALUATOR", "SELECTOR"):
        shell.env.setenv(f"DRPO_{role}_API_KEY", KEY)
    with Served(refuse(answer)) as server:
        ran = search(shell, server.url)
        assert said in the_error(ran, 3)
        assert len(server.requests) == 1
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert_key_is_nowhere(shell, ran)


@pytest.mark.parametrize("answer", [error(401, "wrong key"), error(503, "busy")], ids=["refused", "away"])
def test_a_process_that_fails_says_it_in_one_line(shell: Shell, answer: Reply) -> None:
    with Served(refuse(answer)) as server:
        flags = [*roles_at(server.url), *SMALL, "--deadline-s", "0.1", "--run-dir", "run", "--quiet"]
        ran = ended(process("optimize", *flags))
    assert ran.code in (3, 5) and ran.out == ""
    assert len(ran.err.splitlines()) == 1 and ran.err.startswith("drpo: base model base at "), ran.err


def test_a_run_goes_on_once_the_key_is_right(shell: Shell) -> None:
    with Served(refuse(error(401, "wrong key"))) as server:
        assert search(shell, server.url).code == 3
        server._handler = drpo_answers
        assert search(shell, server.url).code == 0


def test_openais_key_goes_to_its_own_address_only(shell: Shell) -> None:
    shell.env.setenv("OPENAI_API_KEY", KEY)
    with Served() as server, Served() as own:
        shell.env.setenv("OPENAI_BASE_URL", own.url)
        flags = roles_at(server.url, without=("--optimizer",))
        ran = shell.done("optimize", *flags, "--optimizer", "openai/optimizer", *SMALL, "--run-dir", "run")
        assert {seen.headers.get("authorization") for seen in server.requests} == {None}
        assert {seen.headers["authorization"] for seen in own.requests} == {f"Bearer {KEY}"}
        assert {body["model"] for body in own.bodies} == {"optimizer"}
    assert_key_is_nowhere(shell, ran)


def test_a_key_from_dotenv_is_used_and_kept_nowhere_else(shell: Shell) -> None:
    with Served() as server:
        home = shell.write(".env", f"OPENAI_API_KEY={KEY}\nOPENAI_BASE_URL={server.url}\n")
        ran = shell.done(
            *("optimize", "--model", "openai/base", "--optimizer", "openai/optimizer"),
            *("--evaluator", "openai/evaluator", "--selector", "openai/selector", "--embedder", "lexical"),
            *(*SMALL, "--run-dir", "run"),
        )
        assert {seen.headers["authorization"] for seen in server.requests} == {f"Bearer {KEY}"}
    home.unlink()
    assert_key_is_nowhere(shell, ran)


def test_a_missing_key_at_an_endpoint_that_wants_one_names_no_other_endpoints_key(shell: Shell) -> None:
    shell.env.setenv("OPENAI_API_KEY", KEY)
    with Served(refuse(error(401, "missing bearer"))) as server:
        ran = search(shell, server.url)
        assert "No key was sent" in the_error(ran, 3)
        assert [seen.headers.get("authorization") for seen in server.requests] == [None]


PASSING: dict[str, Reply] = {
    "429": error(429, "slow down", retry_after="0"),
    "500": error(500, "oops"),
    "503": error(503, "busy"),
    "reset": Reply(fault="reset"),
    "cut": Reply(fault="cut"),
    "hang": Reply(fault="hang"),
    "not json": Reply(body=b"<html>bad gateway</html>"),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_may_pass_is_tried_again_and_costs_nothing_of_the_result(shell: Shell, fault: str) -> None:
    failed: list[str] = []

    def once(model: str, body: dict[str, Any]) -> Answer:
        if model == "evaluator" and not failed:
            failed.append(model)
            return PASSING[fault]
        return drpo_answers(model, body)

    with Served(once) as server:
        ran = search(shell, server.url, "--timeout-s", "0.5", "--json")
        assert (ran.code, failed) == (0, ["evaluator"]), ran.err
        assert len(server.requests) == sum(ran.json["calls"].values()) + 1


@pytest.mark.parametrize("fault", ["503", "reset", "hang"])
def test_a_provider_that_stays_away_ends_the_run_resumably(shell: Shell, fault: str) -> None:
    away = [True]

    def handler(model: str, body: dict[str, Any]) -> Answer:
        return PASSING[fault] if model == "optimizer" and away else drpo_answers(model, body)

    with Served(handler) as server:
        ran = search(shell, server.url, "--deadline-s", "0.2", "--timeout-s", "0.2")
        said = the_error(ran, 5)
        assert "optimizer" in said and "gave up after" in said and "the same command resumes" in said
        paid = [json.dumps(b) for b in server.bodies if b["model"] != "optimizer"]
        away.clear()
        before = len(server.requests)
        assert search(shell, server.url).code == 0
        sent_again = [json.dumps(b) for b in server.bodies[before:]]
        assert not set(paid) & set(sent_again)


def test_nobody_listening_is_exit_5_and_names_the_address(shell: Shell) -> None:
    ran = search(shell, "http://127.0.0.1:9/v1", "--deadline-s", "0.1")
    assert "127.0.0.1:9" in the_error(ran, 5)


def test_a_refused_parameter_is_left_out_and_remembered(shell: Shell) -> None:
    def picky(model: str, body: dict[str, Any]) -> Answer:
        if "temperature" in body and model == "evaluator":
            return error(
                400, "Unsupported parameter: temperature", code="unsupported_parameter", param="temperature"
            )
        return drpo_answers(model, body)

    with Served(picky) as server:
        assert search(shell, server.url).code == 0
        refused = [b for b in server.bodies if b["model"] == "evaluator" and "temperature" in b]
        assert len(refused) == 1
        before = len(server.requests)
        (shell.folder / "run" / "alignment.json").unlink()
        assert search(shell, server.url).code == 0
        assert len(server.requests) == before


def test_an_embeddings_endpoint_is_asked_for_each_text_once_and_never_again(shell: Shell) -> None:
    with Served() as server:
        flags = [*roles_at(server.url)[:-1], f"openai/emb@{server.url}", "--run-dir", "run"]
        shell.done("optimize", *flags, *SMALL)
        texts = [text for body in server.bodies if "input" in body for text in body["input"]]
        assert len(texts) == len(set(texts)) == 16 + 3
        before = len(server.requests)
        (shell.folder / "run" / "alignment.json").unlink()
        shell.done("optimize", *flags, *SMALL)
        assert len(server.requests) == before
    assert shell.done("replay", "run").out.startswith("identical")
    error_line = shell.refused(4, "replay", "run", "--set", "shots=3")
    assert "cannot be known" in error_line
