"""What each answer and each failure of an endpoint is said to mean."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.doctor import KEY, NOBODY, ROLES, amiss, examined, in_folder, only, told
from tests.support.mock_openai import Answer, MockServer, Reply, drpo_answers, error


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    in_folder(tmp_path, monkeypatch)
    return tmp_path


@pytest.mark.parametrize(
    ("answer", "said", "remedy", "code", "sent"),
    [
        (error(401, "wrong", code="invalid_api_key"), "HTTP 401: wrong", "(DRPO_BASE_API_KEY)", 3, 1),
        (error(403, "not yours"), "HTTP 403: not yours", "may use this model (DRPO_BASE_API_KEY)", 3, 1),
        (error(404, "no such model"), "HTTP 404: no such model", "Check the model's name", 3, 1),
        (error(429, "quota", code="insufficient_quota"), "HTTP 429", "Add credit", 3, 1),
        (error(500, "oops"), "HTTP 500: oops", "The server is in trouble", 5, 2),
        (Reply(fault="reset"), "no connection, or it broke", "Check that the server runs", 5, 2),
        (Reply(fault="hang"), "no complete answer within 0.3 s", "or raise --timeout-s", 5, 1),
        (Reply(fault="trickle"), "no complete answer within 0.3 s", "or raise --timeout-s", 5, 1),
        (Reply(body=b"<html>hello</html>"), "a reply that is not JSON", "where the API begins", 5, 2),
        (Reply(body={"ok": True}), "a reply without choices", "where the API begins", 5, 2),
    ],
)
async def test_each_failure_has_its_meaning_its_remedy_and_the_exit_code_of_a_run(
    answer: Reply, said: str, remedy: str, code: int, sent: int
) -> None:
    async with MockServer(only(answer)) as server:
        env = {"DRPO_BASE_API_KEY": KEY}
        findings = await examined(env, model=f"openai/base@{server.url}", timeout_s=0.3)
        assert len(server.requests) == findings.sent == sent
    (check,) = amiss(findings)
    assert (check.name, check.status, findings.exit_code) == ("endpoint", "problem", code)
    assert said in check.said and remedy in check.remedy


async def test_being_asked_too_much_just_now_is_no_problem() -> None:
    async with MockServer(only(error(429, "slow down", retry_after="60"))) as server:
        findings = await examined(model=f"openai/base@{server.url}")
    (check,) = amiss(findings)
    assert check.status == "warning" and findings.exit_code == 0 and "for up to 900 s" in check.remedy


async def test_a_failure_that_passes_at_once_is_none() -> None:
    async with MockServer(script=[error(503, "busy")]) as server:
        findings = await examined(model=f"openai/base@{server.url}")
        assert len(server.requests) == findings.sent == 2
    assert amiss(findings) == []


async def test_where_nobody_listens_nothing_was_sent_and_nothing_is_tried_again() -> None:
    findings = await examined(model=f"openai/base@{NOBODY}")
    (check,) = amiss(findings)
    assert (findings.exit_code, findings.sent) == (5, 0) and "127.0.0.1:9" in check.said
    assert told(findings, "requests")[0].said == "none was sent"


async def test_the_longest_wait_is_told_where_a_run_would_wait_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("drpo.doctor.endpoints.LONGEST_TIMEOUT_S", 0.2)
    async with MockServer(only(Reply(fault="hang"))) as server:
        findings = await examined(model=f"openai/base@{server.url}", timeout_s=60)
    assert "within 0.2 s (a run waits 60 s)" in amiss(findings)[0].said


async def test_one_endpoint_that_fails_hides_no_other() -> None:
    def handler(model: str, body: dict[str, Any]) -> Answer:
        return error(401, "wrong") if model == "evaluator" else drpo_answers(model, body)

    async with MockServer(handler) as server:
        findings = await examined(**{flag: f"openai/{name}@{server.url}" for flag, name in ROLES.items()})
    assert [check.said.split()[0] for check in amiss(findings)] == ["evaluator"]
    assert len([check for check in told(findings, "endpoint") if check.status == "ok"]) == 3


async def test_endpoints_are_asked_at_the_same_time() -> None:
    arrived: list[str] = []
    everybody = asyncio.Event()

    async def together(model: str) -> str:
        arrived.append(model)
        if len(arrived) == len(ROLES):
            everybody.set()
        await everybody.wait()
        return "ok"

    async with MockServer(lambda model, body: together(model)) as server:
        findings = await examined(**{flag: f"openai/{name}@{server.url}" for flag, name in ROLES.items()})
    assert sorted(arrived) == sorted(ROLES.values()) and findings.exit_code == 0


async def test_a_model_that_answers_under_another_name_is_named() -> None:
    body = {"model": f"other-2026 {KEY}", "choices": [{"message": {"content": "ok"}}]}
    async with MockServer(only(Reply(body=body))) as server:
        findings = await examined({"DRPO_BASE_API_KEY": KEY}, model=f"openai/base@{server.url}")
    assert told(findings, "endpoint")[1].said.endswith("under the name other-2026 [key]")
    body["model"] = "x" * 5000
    async with MockServer(only(Reply(body=body))) as server:
        findings = await examined(model=f"openai/base@{server.url}")
    assert len(told(findings, "endpoint")[1].said) < 500


@pytest.mark.parametrize("code", ["content_filter", "context_length_exceeded"])
async def test_a_reply_without_text_is_a_warning(code: str) -> None:
    async with MockServer(only(error(400, "no", code=code))) as server:
        findings = await examined(model=f"openai/base@{server.url}")
    assert ["gave no text" in check.said for check in amiss(findings)] == [True]


async def test_each_of_several_servers_is_asked_by_itself() -> None:
    async with MockServer() as one, MockServer() as other:
        findings = await examined(model=f"openai/base@{one.url},{other.url}")
        assert len(one.requests) == len(other.requests) == 1
        assert {one.url in check.said for check in told(findings, "endpoint")[1:]} == {True, False}
        assert amiss(findings) == []


async def test_one_of_several_servers_that_is_away_is_a_warning_and_all_of_them_a_problem() -> None:
    async with MockServer() as server:
        findings = await examined(model=f"openai/base@{server.url},{NOBODY}")
    assert [check.status for check in amiss(findings)] == ["warning"] and findings.exit_code == 0
    assert "the other servers of the model serve" in amiss(findings)[0].remedy
    findings = await examined(model=f"openai/base@http://127.0.0.1:7/v1,{NOBODY}")
    assert [check.status for check in amiss(findings)] == ["problem", "problem"] and findings.exit_code == 5


@asynccontextmanager
async def answering(
    handle: Callable[[asyncio.StreamWriter], None], context: Any = None
) -> AsyncIterator[int]:
    """A server that is none of HTTP; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        handle(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def certificate(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS with a certificate that nobody has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem"
    command = [*made.split(), "-out", "cert.pem", "-subj", "/CN=localhost"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    return context


async def test_a_certificate_that_is_not_trusted_is_named_with_the_clock(certificate: ssl.SSLContext) -> None:
    async with answering(lambda writer: None, certificate) as port:
        findings = await examined(model=f"openai/base@https://127.0.0.1:{port}/v1")
    (check,) = amiss(findings)
    assert "its certificate is not trusted" in check.said and findings.exit_code == 3
    assert "A wrong clock has this effect too; here it is 20" in check.remedy


async def test_https_where_a_server_speaks_http_is_named() -> None:
    async with answering(lambda writer: writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        findings = await examined(model=f"openai/base@https://127.0.0.1:{port}/v1")
    (check,) = amiss(findings)
    assert "write http://" in check.remedy and findings.exit_code == 5
