"""Keys: where each comes from, what is wrong with it as a text; and that none is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpo.doctor.check import Check
from drpo.doctor.keys import key_checks
from drpo.doctor.prepare import Sources, prepare
from tests.support.command import Shell, content_of, roles_at
from tests.support.doctor import KEY, in_folder
from tests.support.mock_openai import Reply, error
from tests.support.served import Served

KEYS = {f"DRPO_{role}_API_KEY": KEY for role in ("BASE", "OPTIMIZER", "EVALUATOR", "SELECTOR")}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    in_folder(tmp_path, monkeypatch)
    return Shell(tmp_path, monkeypatch, capsys)


FAILING: dict[str, Reply] = {
    "refused": error(401, f"Incorrect API key provided: {KEY}.", code="invalid_api_key"),
    "forbidden": error(403, f"key {KEY} may not use this model"),
    "unknown": error(404, f"The model does not exist for {KEY}", code="model_not_found"),
    "parameter": error(400, f"Unsupported parameter: temperature ({KEY})", code="unsupported_parameter"),
    "quota": error(429, f"{KEY}: quota exceeded", code="insufficient_quota"),
    "busy": error(503, f"busy, {KEY}"),
    "html": Reply(body=f"<html>{KEY}</html>".encode()),
    "reset": Reply(fault="reset"),
    "other name": Reply(body={"model": KEY, "choices": [{"message": {"content": KEY}}]}),
}


@pytest.mark.parametrize(
    ("how", "code"),
    [
        (("refused", "forbidden", "unknown", "parameter"), 3),
        (("busy", "html", "reset", "other name"), 5),
        (("quota", "busy", "other name", "html"), 3),
    ],
)
def test_no_output_ever_holds_a_key(shell: Shell, how: tuple[str, ...], code: int) -> None:
    failing = dict(zip(("base", "optimizer", "evaluator", "selector"), how, strict=True))
    for name, value in KEYS.items():
        shell.env.setenv(name, value)
    shell.env.setenv("DRPO_EMBEDDER_API_KEY", KEY)
    with Served(lambda model, body: FAILING[failing[model]]) as server:
        flags = [*roles_at(server.url)[:-1], f"openai/e@{server.url}"]
        for form in ((), ("--json",)):
            ran = shell.run("doctor", *flags, *form)
            assert ran.code == code
            assert KEY not in ran.out + ran.err and KEY[8:] not in ran.out + ran.err
        assert {seen.headers["authorization"] for seen in server.requests} == {f"Bearer {KEY}"}
    assert [name for name, data in content_of(shell.folder).items() if KEY.encode() in data] == []


AT_URL = {"model": "openai/m@http://127.0.0.1:9/v1", "optimizer": "demo", "embedder": "lexical"}


def keys_told(environment: dict[str, str], **settings: str) -> dict[str, Check]:
    """What is said of keys, by the name of the check."""
    return {check.name: check for check in key_checks(prepare(Sources(settings, environment)))}


@pytest.mark.parametrize(
    ("key", "status", "said"),
    [
        (KEY, "ok", "is set"),
        (f"{KEY}\n", "problem", "a line end"),
        (f"{KEY[:9]}\n{KEY[9:]}", "problem", "a line end"),
        (f"“{KEY}”", "problem", "not ASCII"),
        (f" {KEY} ", "warning", "blanks around"),
        (f'"{KEY}"', "warning", "quotation marks"),
        (f"{KEY[:9]} {KEY[9:]}", "warning", "a blank inside"),
        ("  ", "warning", "blanks around"),
    ],
)
def test_what_is_wrong_with_a_key_as_a_text_is_said_without_it(key: str, status: str, said: str) -> None:
    told = keys_told({"DRPO_BASE_API_KEY": key}, **AT_URL)["key base"]
    assert told.status == status and said in told.said and "DRPO_BASE_API_KEY" in told.said
    assert KEY[:9] not in str(told) and KEY[9:] not in str(told)


def test_a_key_that_no_header_can_hold_is_sent_nowhere(shell: Shell) -> None:
    shell.env.setenv("DRPO_BASE_API_KEY", f"{KEY}…")
    with Served() as server:
        flags = ["--model", f"openai/base@{server.url}", "--optimizer", "demo"]
        ran = shell.run("doctor", *flags, "--embedder", "lexical")
        assert (ran.code, server.requests) == (2, []) and "a bug of drpo" not in ran.out
    assert KEY not in ran.out + ran.err


def test_a_missing_key_names_its_variable_and_nothing_is_sent(shell: Shell) -> None:
    ran = shell.run(
        "doctor", "--model", "gpt-4o", "--optimizer", "gpt-4.1", "--embedder", "lexical", "--json"
    )
    told = [check for check in ran.json["checks"] if check["status"] == "problem"]
    assert [check["name"] for check in told] == ["key base, optimizer, evaluator, selector"]
    assert told[0]["said"] == "OPENAI_API_KEY is not set"
    assert (ran.code, ran.json["requests"]) == (2, 0)


def test_openais_key_that_nobody_uses_is_spoken_of() -> None:
    openai = {"OPENAI_API_KEY": KEY}
    assert keys_told(openai, model="demo")["keys"].status == "ok"
    elsewhere = keys_told(openai, **AT_URL)["keys"]
    assert elsewhere.status == "warning" and "DRPO_BASE_API_KEY" in elsewhere.remedy
    assert keys_told({**openai, "DRPO_BASE_API_KEY": KEY}, **AT_URL)["keys"].status == "ok"
    used = keys_told(openai, model="gpt-4o", optimizer="gpt-4.1", embedder="lexical")
    assert used["key base, optimizer, evaluator, selector"].status == "ok" and "keys" not in used


def test_a_key_of_ones_own_variable_is_found_and_kept_secret_too(shell: Shell) -> None:
    shell.write("drpo.toml", '[roles.base]\napi_key_env = "MY_OWN"\n')
    shell.env.setenv("MY_OWN", KEY)
    with Served(lambda model, body: FAILING["refused"]) as server:
        flags = ["--model", f"openai/base@{server.url}", "--optimizer", "demo", "--embedder", "lexical"]
        ran = shell.run("doctor", *flags, "--config", "drpo.toml")
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert ran.code == 3 and "(MY_OWN)" in ran.out and KEY not in ran.out
