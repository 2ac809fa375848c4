"""For tests of drpo and of whoever uses it: scripted models, closed sockets, replay of a recorded run.

def test_my_run_still_replays(tmp_path):
    with drpo.testing.closed_sockets():
        report = drpo.testing.replay("tests/data/my_run")
    assert report.identical
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drpo.llm.base import Choice, Completion, Request

if TYPE_CHECKING:
    from drpo.replaying import ReplayReport

Answer = str | Sequence[str] | Completion | BaseException
Script = Callable[[Request], Answer]
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost", b"127.0.0.1", b"::1", b"localhost")


class ScriptedLLM:
    """A model that answers by a function of the request, or with the next of a list of answers.

    An answer is a text (given for every choice), a sequence of texts (one per choice), a `Completion`, or an
    exception to raise. `requests` holds what was asked, in order.
    """

    def __init__(self, script: Script | Sequence[Answer], name: str = "scripted") -> None:
        self.name = name
        self.requests: list[Request] = []
        self._script = script if callable(script) else _one_by_one(list(script))

    async def complete(self, request: Request) -> Completion:
        """The scripted answer."""
        self.requests.append(request)
        answer = self._script(request)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Completion):
            return answer
        texts = [answer] * request.n if isinstance(answer, str) else list(answer)
        return Completion(tuple(Choice(text) for text in texts))


def _one_by_one(answers: list[Answer]) -> Script:
    def script(request: Request) -> Answer:
        if not answers:
            raise AssertionError(f"the script has no answer left for: {request}")
        return answers.pop(0)

    return script


@contextlib.contextmanager
def closed_sockets(*, loopback: bool = False) -> Iterator[None]:
    """No connection can be opened inside; with `loopback`, those to this machine can."""
    original, original_ex = socket.socket.connect, socket.socket.connect_ex
    original_lookup = socket.getaddrinfo

    def check(address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        inside = isinstance(address, (str, bytes)) or host in _THIS_MACHINE
        if not (loopback and inside):
            raise AssertionError(f"a socket to {address!r} was opened where none may be")

    def connect(self: socket.socket, address: Any) -> None:
        check(address)
        original(self, address)

    def connect_ex(self: socket.socket, address: Any) -> int:
        check(address)
        return original_ex(self, address)

    def lookup(host: Any, *arguments: Any, **named: Any) -> Any:
        check((host,))  # a name server would be asked through a socket that is not Python's
        return original_lookup(host, *arguments, **named)

    socket.getaddrinfo = lookup
    socket.socket.connect = connect  # type: ignore[method-assign, assignment]
    socket.socket.connect_ex = connect_ex  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        socket.getaddrinfo = original_lookup
        socket.socket.connect = original  # type: ignore[method-assign]
        socket.socket.connect_ex = original_ex  # type: ignore[method-assign]


def replay(run_dir: str | Path, **overrides: Any) -> ReplayReport:
    """`drpo.replay` with all sockets closed."""
    from drpo.api import replay as run_again  # a test with a scripted model alone needs none of it

    with closed_sockets():
        return run_again(run_dir, **overrides)
