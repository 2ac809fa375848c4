"""The lean HTTP client, by the bytes that a server sends: what is an answer, what is none, what is kept."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from drpo.llm import pool as module
from drpo.llm.base import Message, Request
from drpo.llm.client import OpenAIClient
from drpo.llm.connections import Connections, Endpoint
from drpo.llm.pool import Pool, Reply, head_of
from tests.support.loops import Run
from tests.support.mock_openai import MockServer

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each request with the next of `answers` (the last one for ever), None: by its end. `requests`:
    those that came; `connections`: how many were made; `gone`: set once one was closed by the client."""

    def __init__(self, *answers: bytes | None, then_close: bool = False) -> None:
        self._answers, self._then_close = list(answers), then_close
        self.requests: list[bytes] = []
        self.connections = 0
        self.came, self.gone = asyncio.Event(), asyncio.Event()
        self.url = httpx2.URL()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r")[0])
                self.requests.append(head + await reader.readexactly(length))
                self.came.set()
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                if answer is None:
                    await reader.read()
                    break
                writer.write(answer)
                if self._then_close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone.set()
            writer.close()


@asynccontextmanager
async def asking(
    server: Server, context: ssl.SSLContext | None = None, trusted: ssl.SSLContext | None = None
) -> AsyncIterator[Callable[..., Awaitable[Reply]]]:
    """Asks a server, which listens meanwhile."""
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    server.url = httpx2.URL(f"{'https' if context else 'http'}://127.0.0.1:{port}/v1/x?a=b%20c")
    pool = Pool(server.url, trusted)

    async def ask(body: bytes = b"{}", timeout_s: float = 10.0) -> Reply:
        return await pool.post(head_of(server.url, {"Accept": "*/*"}), body, timeout_s)

    try:
        yield ask
    finally:
        pool.close()
        listening.close()
        await listening.wait_closed()
        await asyncio.sleep(0)


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = (
    HEAD + b"Transfer-Encoding: chunked\r\nX-A: 1\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: late\r\n\r\n"
)
ANSWERS = {
    "of a length": (OK, 200, b"ok"),
    "without a body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "in chunks, with a trailer": (CHUNKED, 200, b"abcde"),
    "behind interim ones": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + OK,
        200,
        b"ok",
    ),
    "a redirect, which is not followed": (
        b"HTTP/1.1 307 R\r\nLocation: http://elsewhere.test/\r\nContent-Length: 0\r\n\r\n",
        307,
        b"",
    ),
    "an error": (b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 1\r\n\r\n!", 503, b"!"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_comes_whole_and_its_connection_is_used_again(run: Run, name: str) -> None:
    sent, status, body = ANSWERS[name]

    async def main() -> None:
        server = Server(sent)
        async with asking(server) as ask:
            for _ in range(3):
                reply = await ask()
                assert (reply.status, reply.body) == (status, body)
                assert b"x-t" not in dict(reply.raw_headers) and "a" not in reply.headers
        assert server.connections == 1

    run(main())


ENDS = {
    "to the end of the connection": HEAD + b"\r\nto the end",
    "of an old server": b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nto the end",
    "whose connection is to be closed": HEAD + b"Connection: close\r\nContent-Length: 10\r\n\r\nto the end",
}


@pytest.mark.parametrize("name", ENDS)
def test_an_answer_that_ends_its_connection_is_whole_and_the_next_has_another(run: Run, name: str) -> None:
    async def main() -> None:
        server = Server(ENDS[name], then_close=True)
        async with asking(server) as ask:
            for _ in range(2):
                assert (await ask()).body == b"to the end"
        assert server.connections == 2

    run(main())


BROKEN = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "cut in the head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "cut in the body": HEAD + b"Content-Length: 100\r\n\r\nabc",
    "cut in a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\nabc",
    "of two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "of a length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "a head without end": HEAD + b"A: b\r\n" * 20_000,
    "interim answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000,
    "nothing": b"",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_whole_answer_is_a_broken_connection_and_the_next_request_has_another(
    run: Run, name: str
) -> None:
    async def main() -> None:
        server = Server(BROKEN[name], then_close=True)
        async with asking(server) as ask:
            for _ in range(2):
                with pytest.raises(ConnectionError):
                    await ask()
        assert server.connections == 2

    run(main())


def test_a_body_that_never_ends_is_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_BODY", 1000)

    async def main() -> None:
        server = Server(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"3E8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n"
        )
        async with asking(server) as ask:
            with pytest.raises(ConnectionError, match="longer than 1000 bytes"):
                await ask()
            await server.gone.wait()

    run(main())


@pytest.mark.parametrize("extra", [OK, b"\r\n\r\nx"])
def test_what_comes_behind_an_answer_is_never_the_next_answer(run: Run, extra: bytes) -> None:
    async def main() -> None:
        server = Server(OK + extra, OK)
        async with asking(server) as ask:
            assert (await ask()).body == b"ok"
            assert (await ask()).body == b"ok"
        assert server.connections == 2

    run(main())


def test_what_comes_while_nothing_is_asked_ends_the_connection(run: Run) -> None:
    async def main() -> None:
        server, writers = Server(OK), list[asyncio.StreamWriter]()
        serve = server.serve

        async def kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await serve(reader, writer)

        server.serve = kept  # type: ignore[method-assign]
        async with asking(server) as ask:
            await ask()
            writers[0].write(HEAD + b"Content-Length: 6\r\n\r\nforged")
            await server.gone.wait()
            assert (await ask()).body == b"ok" and server.connections == 2

    run(main())


def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again(run: Run) -> None:
    async def main() -> None:
        server = Server(OK, then_close=True)
        async with asking(server) as ask:
            await ask()
            await server.gone.wait()
            loop = asyncio.get_running_loop()
            seen = loop.create_future()
            loop.call_later(0.05, seen.set_result, None)  # the end of a connection is told by the kernel
            await seen
            assert (await ask()).body == b"ok"

    run(main())


@pytest.mark.parametrize(("first_s", "second_s"), [(30.0, 0.05), (0.05, 0.3)])
def test_the_time_of_a_request_is_its_own_whatever_was_asked_before(
    run: Run, first_s: float, second_s: float
) -> None:
    async def main() -> None:
        server = Server(OK, None)
        async with asking(server) as ask:
            await ask(timeout_s=first_s)
            began_s = asyncio.get_running_loop().time()
            with pytest.raises(TimeoutError):
                await ask(timeout_s=second_s)
            assert asyncio.get_running_loop().time() - began_s >= second_s - 0.02
        assert server.connections == 1

    run(main())


def test_requests_at_once_have_a_connection_each_and_later_ones_use_these(run: Run) -> None:
    async def main() -> None:
        server = Server(OK)
        async with asking(server) as ask:
            await asyncio.gather(*(ask() for _ in range(20)))
            first = server.connections
            await asyncio.gather(*(ask() for _ in range(20)))
        assert first == server.connections <= 20 and len(server.requests) == 40

    run(main())


def test_what_nobody_uses_is_closed_after_a_while(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_S", 0.05)

    async def main() -> None:
        server = Server(OK)
        async with asking(server) as ask:
            await ask()
            await asyncio.wait_for(server.gone.wait(), 5)

    run(main())


@pytest.mark.parametrize("ends_by", ["its time", "being cancelled"])
def test_a_request_that_is_given_up_is_ended_at_the_server_too(run: Run, ends_by: str) -> None:
    async def main() -> None:
        server = Server(None)
        async with asking(server) as ask:
            asked = asyncio.ensure_future(ask(timeout_s=0.05 if ends_by == "its time" else 30))
            await server.came.wait()
            if ends_by == "being cancelled":
                asked.cancel()
            with pytest.raises(TimeoutError if ends_by == "its time" else asyncio.CancelledError):
                await asked
            await asyncio.wait_for(server.gone.wait(), 5)

    run(main())


def test_a_request_has_its_path_query_host_and_length(run: Run) -> None:
    async def main() -> None:
        server = Server(OK)
        async with asking(server) as ask:
            await ask('{"ä": 1}'.encode())
        lines = server.requests[0].decode().split("\r\n")
        assert lines[0] == "POST /v1/x?a=b%20c HTTP/1.1"
        assert lines[1] == f"Host: {server.url.netloc.decode()}"
        assert lines[2:] == ["Accept: */*", "Content-Length: 9", "", '{"ä": 1}']

    run(main())


def test_no_header_can_be_written_into_another() -> None:
    with pytest.raises(ValueError, match="one line"):
        head_of(httpx2.URL("http://a.test/v1"), {"Authorization": "Bearer x\r\nHost: b.test"})


def test_a_server_that_is_not_there_is_an_error_at_once(run: Run) -> None:
    async def main() -> None:
        server = Server(OK)
        async with asking(server) as ask:
            pass
        with pytest.raises(OSError):
            await ask()

    run(main())


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 with its key, signed by nobody else."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout key.pem"
    made += " -out certificate.pem -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(made.split(), cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def test_over_tls_answers_come_as_well_and_a_stranger_is_not_told_anything(
    run: Run, certificate: Path
) -> None:
    async def main() -> None:
        theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        theirs.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")
        trusting = ssl.create_default_context(cafile=str(certificate / "certificate.pem"))
        server = Server(OK)
        async with asking(server, theirs, trusting) as ask:
            assert [(await ask(b"x" * 100_000)).body for _ in range(2)] == [b"ok", b"ok"]
        assert server.connections == 1
        stranger = Server(OK)
        async with asking(stranger, theirs, ssl.create_default_context()) as ask:
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask()
        assert stranger.requests == []

    run(main())


async def test_where_a_proxy_is_set_requests_go_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = Connections()
    async with MockServer(script=["by proxy"]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        client = OpenAIClient(connections, Endpoint("http://models.test/v1"), "m", timeout_s=5.0, lean=True)
        completion = await client.complete(Request("m", messages=(Message("user", "hi"),)))
        await connections.aclose()
    assert completion.choices[0].text == "by proxy"
    assert proxy.requests[0].headers["host"] == "models.test"


def test_an_answer_to_a_request_that_was_not_sent_to_its_end_leaves_its_connection_alone(run: Run) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        if len(writers) == 1:  # it reads no more, and does not close
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # as every transport that reads
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(OK)

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = httpx2.URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        pool = Pool(url)
        assert (await pool.post(head_of(url, {}), b"x" * 20_000_000, 5.0)).status == 413
        assert (await pool.post(head_of(url, {}), b"x", 5.0)).status == 200 and len(writers) == 2
        pool.close()
        for writer in writers:
            writer.transport.abort()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)

    run(main())


def test_a_connection_on_which_too_much_came_is_closed(run: Run) -> None:
    async def main() -> None:
        server = Server(OK + OK)
        async with asking(server) as ask:
            for _ in range(2):
                assert (await ask()).body == b"ok"
                await server.gone.wait()
                server.gone.clear()

    run(main())
