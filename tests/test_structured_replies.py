"""Replies by JSON schema in whole searches: who is asked so, and what happens where a server will not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from drpo.config import OptimizeConfig
from drpo.plan import optimize_plan
from drpo.settings import resolve
from drpo.wiring import structured_for
from tests.support.command import ROLES, SMALL, Shell
from tests.support.mock_openai import ASPECTS, Answer, drpo_answers, error
from tests.support.served import Served

FIELD_OF = {"optimizer": "new_system_prompt", "selector": "aspects_selection", "evaluator": ASPECTS[0]}


def search(shell: Shell, url: str, *more: object, provider: str = "vllm") -> None:
    models = [part for flag, name in ROLES.items() for part in (flag, f"{provider}/{name}@{url}")]
    shell.done("optimize", *models, "--embedder", "lexical", *SMALL, "--run-dir", "run", "--quiet", *more)


def calls(server: Served) -> list[dict[str, Any]]:
    """The bodies of what was asked of a model; a vLLM server is asked about itself too."""
    return [seen.body for seen in server.requests if seen.path.endswith("/completions")]


def asked_by_schema(bodies: list[dict[str, Any]]) -> dict[str, set[bool]]:
    found: dict[str, set[bool]] = {}
    for body in bodies:
        found.setdefault(body["model"], set()).add("response_format" in body)
    return found


def test_a_vllm_server_is_asked_by_schema_for_all_but_responses(shell: Shell) -> None:
    with Served() as server:
        search(shell, server.url)
        bodies = calls(server)
    assert asked_by_schema(bodies) == {"base": {False}, **{role: {True} for role in FIELD_OF}}
    for body in bodies:
        if body["model"] in FIELD_OF:
            sent = body["response_format"]
            assert (sent["type"], sent["json_schema"]["name"]) == ("json_schema", "reply")
            assert FIELD_OF[body["model"]] in sent["json_schema"]["schema"]["required"]


def test_other_servers_are_asked_so_only_when_wanted(shell: Shell) -> None:
    with Served() as server:
        search(shell, server.url, provider="openai")
        assert {kind for kinds in asked_by_schema(calls(server)).values() for kind in kinds} == {False}
        before = len(calls(server))
        search(shell, server.url, "--structured", "on", "--run-dir", "other", provider="openai")
        assert asked_by_schema(calls(server)[before:])["evaluator"] == {True}


@pytest.mark.parametrize("given", [("--preset", "published"), ("--structured", "off")])
def test_the_published_preset_and_off_send_no_schema(shell: Shell, given: tuple[str, ...]) -> None:
    with Served() as server:
        search(shell, server.url, *given)
        assert set.union(*asked_by_schema(calls(server)).values()) == {False}


@pytest.mark.parametrize(
    ("status", "said"),
    [(400, "This model does not support response format `json_schema`."), (500, "failed to parse grammar")],
)
def test_a_server_that_takes_no_schema_is_asked_again_without_and_remembered(
    shell: Shell, status: int, said: str
) -> None:
    def picky(model: str, body: dict[str, Any]) -> Answer:
        if "response_format" in body and model in ("evaluator", "optimizer"):
            return error(status, said)
        return drpo_answers(model, body)

    with Served(picky) as server:
        search(shell, server.url)
        refused = [body["model"] for body in calls(server) if "response_format" in body]
        assert sorted(refused).count("evaluator") == 1 and "optimizer" in refused
        assert asked_by_schema(calls(server))["evaluator"] == {True, False}
        before, result = len(server.requests), shell.folder / "run" / "alignment.json"
        first = result.read_bytes()
        result.unlink()
        search(shell, server.url)
        assert len(server.requests) == before and result.read_bytes() == first
    lines = (shell.folder / "run" / "calls.jsonl").read_text(encoding="utf-8").splitlines()
    assert any('"parameter":"reply_schema"' in line.replace(" ", "") for line in lines)
    assert shell.done("replay", "run").out.startswith("identical")


def test_the_record_tells_schemas_apart_by_a_digest(shell: Shell) -> None:
    with Served() as server:
        search(shell, server.url)
    text = (shell.folder / "run" / "calls.jsonl").read_text(encoding="utf-8")
    assert "reply_schema" in text and "minItems" not in text
    assert shell.done("replay", "run").out.startswith("identical")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (False, True, False)),
        ({"structured": "on"}, (True, True, True)),
        ({"structured": "off"}, (False, False, False)),
        ({"preset": "published"}, (False, False, False)),
    ],
)
def test_auto_looks_at_who_plays_the_role(given: dict[str, Any], expected: tuple[bool, ...]) -> None:
    url = "http://127.0.0.1:1/v1"
    models = {"optimizer": f"openai/o@{url}", "evaluator": f"vllm/e@{url}", "selector": "demo"}
    plan = optimize_plan(resolve(OptimizeConfig, {"model": "demo", **models, **given}, {}), {})
    assert tuple(structured_for(plan, role) for role in ("optimizer", "evaluator", "selector")) == expected
    assert json.dumps(plan.identity).count('"structured"') == 1
