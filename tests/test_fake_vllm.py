"""The stand-in for a vLLM server does what it says, so that tests of drpo's own servers can rely on it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_vllm_http import OPENINGS
from tests.support.processes import alive, free_port, kill, until

ROOT = Path(__file__).parents[1]
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello there, how are you?"}]}


class Servers:
    """Starts stand-ins and knows every process that came of them."""

    def __init__(self, folder: Path) -> None:
        self.state, self.requests = folder / "state", folder / "requests.jsonl"
        self.port = 0
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, faults: str = "", *flags: str, model: str = "org/m", **variables: str) -> Any:
        """A server's process, on a port of its own; it need not be ready."""
        self.port = free_port()
        arguments = ["serve", model, "--port", str(self.port), "--served-model-name", "m", "alias", *flags]
        own = {"FAKE_VLLM": faults, "FAKE_VLLM_STATE": str(self.state), **variables}
        with (self._folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fake_vllm", *arguments],
                cwd=ROOT,
                env={**os.environ, **own, "FAKE_VLLM_REQUESTS": str(self.requests)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._started.append(process)
        return process

    def ready(self, faults: str = "", *flags: str, **named: str) -> Any:
        """A server's process that answers."""
        process = self.start(faults, *flags, **named)
        until(lambda: self.health() == 200 or process.poll() is not None)
        assert process.poll() is None, self.log
        return process

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    @property
    def pids(self) -> list[dict[str, Any]]:
        """The lines of `pids`."""
        path = self.state / "pids"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Status and body, which is text where it is not JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request("POST" if sent else "GET", path, sent, headers)
            reply = connection.getresponse()
            text = reply.read().decode()
        finally:
            connection.close()
        return reply.status, json.loads(text) if text.startswith("{") else text

    def health(self) -> int:
        """The status of /health, 0 where nobody listens."""
        try:
            return self.ask("/health")[0]
        except OSError:
            return 0

    def chat(self) -> Any:
        """The answer to `HELLO`."""
        status, body = self.ask("/v1/chat/completions", HELLO)
        assert status == 200, body
        return body

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
        for line in self.pids:
            if line["engine"]:
                kill(line["engine"])


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    servers.end()


def test_it_answers_like_a_server_and_says_what_it_was_asked(servers: Servers) -> None:
    process = servers.ready("", "--max-model-len=100", "--enable-prompt-tokens-details", "--dtype", "auto")
    assert [(c["id"], c["max_model_len"]) for c in servers.ask("/v1/models")[1]["data"]] == [
        ("m", 100),
        ("alias", 100),
    ]
    _, counted = servers.ask("/tokenize", HELLO)
    long = {**HELLO, "model": "alias", "n": 2, "return_token_ids": True}
    long["messages"] = [{"role": "user", "content": "word " * 40}]
    first, second = (servers.ask("/v1/chat/completions", long)[1] for _ in range(2))
    assert first["model"] == "m" and len({c["message"]["content"] for c in first["choices"]}) == 2
    assert servers.chat()["usage"]["prompt_tokens"] == counted["count"]
    assert first["prompt_token_ids"] == second["prompt_token_ids"]
    assert [reply["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in (first, second)] == [0, 32]
    assert 'vllm:prefix_cache_hits_total{engine="0",model_name="m"} 32.0' in servers.ask("/metrics")[1]
    status, body = servers.ask("/v1/chat/completions", {**HELLO, "model": "x"})
    assert (status, body["error"]["type"]) == (404, "NotFoundError")
    status, body = servers.ask("/v1/completions", {"model": "m", "prompt": "word " * 200})
    assert (status, body["error"]["param"]) == (400, "input_tokens")
    lines = [json.loads(line) for line in servers.requests.read_text().splitlines()]
    assert {"path": "/tokenize", "body": HELLO, "generation": 1} in lines
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not alive(servers.pids[0]["engine"])
    assert "Application startup complete." in servers.log


def test_the_key_guards_what_vllm_guards(servers: Servers) -> None:
    servers.ready(VLLM_API_KEY="secret")
    assert servers.ask("/v1/models") == (401, {"error": "Unauthorized"})
    assert servers.ask("/v1/models", Authorization="Bearer secret")[0] == 200
    assert (
        servers.ask("/tokenize", {"model": "m", "prompt": "a b", "add_special_tokens": False})[1]["count"]
        == 2
    )


def test_models_without_a_chat_template_or_a_system_role_refuse(servers: Servers) -> None:
    servers.ready(model="folder/tiny-base")
    assert "default chat template" in str(servers.ask("/v1/chat/completions", HELLO))
    status, body = servers.ask("/v1/completions", {"model": "m", "prompt": "# Query\nWhy?\n\n# Answer\n"})
    assert status == 200 and body["choices"][0]["text"].startswith("Here is an answer")
    servers.ready(model="nosystem")
    assert servers.ask("/v1/chat/completions", HELLO)[0] == 200
    with_system = {**HELLO, "messages": [{"role": "system", "content": "Be kind."}, *HELLO["messages"]]}
    assert servers.ask("/tokenize", with_system)[1]["error"]["message"] == "System role not supported"


def test_it_knows_the_roles_by_the_shipped_prompts(servers: Servers) -> None:
    servers.ready()
    shipped = {path.stem: path.read_text() for path in (ROOT / "prompts").glob("*.j2")}
    told = {}
    for name, text in shipped.items():
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        told[name] = servers.ask("/v1/chat/completions", body)[1]["choices"][0]["message"]["content"]
    assert all(any(text.startswith(opening) for text in shipped.values()) for opening in OPENINGS)
    assert "selected_aspects" in told["choose_aspects"] and "rationale" in told["evaluate"]
    assert "new_response" in told["improve_response"] and "new_system_prompt" in told["improve_system_prompt"]


def test_the_first_start_dies_and_the_second_answers_the_same(servers: Servers) -> None:
    process = servers.ready("die-after=2")
    before = servers.chat()["choices"]
    with pytest.raises(OSError):
        servers.chat()
    assert process.wait(30) == 0
    assert not alive(servers.pids[0]["engine"])
    servers.ready("die-after=2")
    assert [servers.chat()["choices"] for _ in range(3)] == [before] * 3
    assert [line["generation"] for line in servers.pids] == [1, 2]
    assert (servers.state / "starts").read_text() == "org/m\norg/m\n"


def test_an_orphan_outlives_its_front_end_and_ignores_term(servers: Servers) -> None:
    process = servers.ready("die-after=1,orphan")
    with pytest.raises(OSError):
        servers.chat()
    assert process.wait(30) == 0
    engine = servers.pids[0]["engine"]
    assert os.getsid(engine) == engine
    os.kill(engine, signal.SIGTERM)
    assert alive(engine)
    kill(engine)
    assert not alive(engine)


def test_a_killed_front_end_leaves_its_engine_behind(servers: Servers) -> None:
    process = servers.ready()
    process.kill()
    process.wait(30)
    engine = servers.pids[0]["engine"]
    assert alive(engine)
    os.kill(engine, signal.SIGTERM)
    until(lambda: not alive(engine))


def test_a_dead_engine_is_answered_with_500_and_ends_the_server(servers: Servers) -> None:
    process = servers.ready("oom-later=1")
    status, body = servers.ask("/v1/chat/completions", HELLO)
    assert status == 500 and body["error"]["message"].startswith("EngineCore encountered an issue.")
    assert process.wait(30) == 0
    assert "OutOfMemoryError: CUDA out of memory" in servers.log
    process = servers.ready()
    os.kill(servers.pids[-1]["engine"], signal.SIGKILL)
    assert process.wait(30) == 0


def test_an_unhealthy_server_says_so_and_stays(servers: Servers) -> None:
    process = servers.ready("unhealthy-after=1,stubborn")
    connection = http.client.HTTPConnection("127.0.0.1", servers.port, timeout=30)
    connection.request("POST", "/v1/chat/completions", json.dumps(HELLO))
    until(lambda: servers.health() == 503)
    process.send_signal(signal.SIGTERM)
    assert servers.health() == 503 and process.poll() is None
    connection.close()


def test_a_server_that_waits_ends_when_its_client_leaves(servers: Servers) -> None:
    process = servers.ready("unhealthy-after=1,waits")
    connection = http.client.HTTPConnection("127.0.0.1", servers.port, timeout=30)
    connection.request("POST", "/v1/chat/completions", json.dumps(HELLO))
    until(lambda: servers.health() == 503)
    process.send_signal(signal.SIGTERM)
    until(lambda: "Waiting for connections to close." in servers.log)
    assert process.poll() is None
    connection.close()
    assert process.wait(30) == 0


def test_one_is_never_ready_and_another_serves_somebody_elses_model(servers: Servers) -> None:
    process = servers.start("never-ready=503")
    until(lambda: servers.health() == 503)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    process = servers.start("never-ready")
    until(lambda: len(servers.pids) == 2)
    assert servers.health() == 0 and process.poll() is None
    servers.ready("other-model,only=org/")
    assert servers.ask("/v1/models")[1]["data"][0]["id"] == "somebody/elses-model"


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("oom-weights", 1, "torch.OutOfMemoryError: CUDA out of memory."),
        ("oom-kv", 1, "ValueError: No available memory for the cache blocks."),
        ("oom-kv=small", 1, "which is larger than the available KV cache memory (1.52 GiB)"),
        ("oom-busy", 1, "is less than desired GPU memory utilization (0.92, 21.75 GiB)"),
        ("gated", 1, "OSError: You are trying to access a gated repo."),
        ("no-such-model", 1, "OSError: org/m is not a local folder and is not a valid model identifier"),
        ("no-gpu", 1, "RuntimeError: Failed to infer device type"),
        ("bad-flag=--new", 2, "api_server.py: error: unrecognized arguments: --new"),
        ("port-in-use", 1, "OSError: [Errno 98] Address already in use"),
    ],
)
def test_a_start_that_fails_says_why(servers: Servers, fault: str, code: int, said: str) -> None:
    process = servers.start(fault)
    assert process.wait(30) == code
    assert said in servers.log
    assert servers.log.count("RuntimeError: Engine core initialization failed.") == fault.startswith("oom")
    assert [line["engine"] for line in servers.pids] == [None]
