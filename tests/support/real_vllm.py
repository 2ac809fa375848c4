"""A real vLLM of the small model demo-lm, drpo as processes around it, and what the model has read."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import psutil

from tests.support.processes import free_port, until

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-the-tests"
FLAGS = ("dtype=float32", "enforce-eager", "kv-cache-memory-bytes=134217728", "trust-request-chat-template")
STARTED_AFTER_S = 600.0  # 15 s on two idle cores
# One thread: on two busy cores more of them wait for each other most of the time.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_API_KEY": KEY,
}


def drpo(
    *arguments: object, log: IO[str] | int = subprocess.PIPE, cwd: Path = ROOT, **variables: str
) -> subprocess.Popen[str]:
    """drpo as a user runs it, in the project's folder where nothing else is said."""
    return subprocess.Popen(
        [sys.executable, "-m", "drpo", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **ENVIRONMENT, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )


def done(*arguments: object, cwd: Path = ROOT) -> tuple[str, str]:
    """What drpo says, on stdout and stderr, where it must succeed."""
    process = drpo(*arguments, cwd=cwd)
    out, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return out, said


def family_of(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    """Every process that it has started, and what those have."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        return []


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended."""
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@contextlib.contextmanager
def serving(said: str, *arguments: object, log: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that serves, from when it has `said` that it does; ended by Ctrl-C, with nothing left."""
    with log.open("w") as stream:
        process = drpo(*arguments, log=stream)
    try:
        until(lambda: said in log.read_text() or process.poll() is not None, STARTED_AFTER_S)
        assert process.poll() is None, log.read_text()
        family = family_of(process)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 0, log.read_text()
    assert running(family) == []


@contextlib.contextmanager
def vllm_server(log: Path) -> Iterator[str]:
    """`drpo models serve` of the small model; where its API begins."""
    port = free_port()
    flags = ("--port", port, *(part for flag in FLAGS for part in ("--vllm-arg", flag)))
    said = "runs use this server as"
    with serving(said, "models", "serve", "vllm/./demo-lm", *flags, log=log) as process:
        assert len(family_of(process)) >= 3  # guard, front end, engine
        yield f"http://127.0.0.1:{port}/v1"


@contextlib.contextmanager
def drpo_serve(*arguments: object, log: Path) -> Iterator[str]:
    """`drpo serve`; where its API begins."""
    port = free_port()
    with serving("serving at", "serve", *arguments, "--port", port, log=log):
        yield f"http://127.0.0.1:{port}/v1"


def posted(url: str, path: str, body: dict[str, Any]) -> Any:
    """What a server answers to this body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    try:
        connection.request("POST", path, json.dumps({"model": "demo-lm", **body}), headers)
        reply = connection.getresponse()
        text = reply.read()
        assert reply.status == 200, text
        return json.loads(text)
    finally:
        connection.close()


@dataclass(frozen=True)
class Read:
    """A request that a model has answered. ids: the tokens that it has read."""

    path: str
    body: dict[str, Any]
    ids: tuple[int, ...]


class Reader:
    """Stands before a vLLM while the context is open, passes everything on as it comes, and keeps which
    token ids the model has read."""

    def __init__(self, server_url: str) -> None:
        self.reads: list[Read] = []
        self.refused: list[bytes] = []
        parts = urlsplit(server_url)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, parts.netloc))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def taken(self) -> list[Read]:
        """What was read since this was asked last."""
        found, self.reads = self.reads, []
        assert self.refused == []
        return found

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def _handler(reader: Reader, target: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the log of the tests is no place for it."""

        def do_GET(self) -> None:
            self._pass_on(None)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._pass_on(body)

        def _pass_on(self, body: dict[str, Any] | None) -> None:
            asks = body is not None and self.path.endswith("/completions")
            sent = {**body, "return_token_ids": True} if asks and body is not None else body
            kept = {name: self.headers[name] for name in ("Authorization",) if name in self.headers}
            connection = http.client.HTTPConnection(target, timeout=120)
            payload = None if sent is None else json.dumps(sent)
            connection.request(self.command, self.path, payload, {**kept, "Content-Type": "application/json"})
            reply = connection.getresponse()
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.headers.get("Content-Type", "application/json"))
            self.end_headers()
            text = b""
            while piece := reply.read1():
                # Before it is passed on: who has read the end looks at what was read at once.
                text += piece
                if b"prompt_token_ids" in text and asks and body is not None and not _is_open(text):
                    reader.reads.append(Read(self.path, body, _ids(text)))
                    asks = False
                self.wfile.write(piece)
                self.wfile.flush()
            if asks:
                reader.refused.append(text)
            connection.close()

    return Handler


def _is_open(text: bytes) -> bool:
    """Whether the document, or the first event of a stream, has not come as a whole."""
    if text.startswith(b"data: "):
        return b"\n\n" not in text
    try:
        json.loads(text)
    except ValueError:
        return True
    return False


def _ids(text: bytes) -> tuple[int, ...]:
    first = text.removeprefix(b"data: ").partition(b"\n\n")[0] if text.startswith(b"data: ") else text
    data = json.loads(first)
    found = data.get("prompt_token_ids") or data["choices"][0]["prompt_token_ids"]
    return tuple(found)


@contextlib.contextmanager
def exported_server(script: Path, folder: Path) -> Iterator[str]:
    """What the script of `drpo export --to vllm` starts, with a port of its own; where its API begins.

    The `vllm` that it calls is vLLM's own module, since the console command of a build for CPUs fails.
    """
    program = folder / "bin" / "vllm"
    program.parent.mkdir()
    module = "vllm.entrypoints.openai.api_server"
    program.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" -m {module} --model "$@"\n')
    program.chmod(0o755)
    port, log = free_port(), folder / "vllm.log"
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("w") as stream:
        process = subprocess.Popen(
            ["sh", str(script), "--port", str(port), "--kv-cache-memory-bytes", "134217728"],
            env={**os.environ, **ENVIRONMENT, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        until(lambda: "startup complete" in log.read_text() or process.poll() is not None, STARTED_AFTER_S)
        assert process.poll() is None, log.read_text()[-3000:]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        family = family_of(process)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        until(lambda: not running(family))
