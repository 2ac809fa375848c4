"""The sockets at which a server is asked."""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import Any, cast

from drpo.errors import InputError

_SPREADS = sys.platform == "linux"
"""Whether the system spreads connections over the sockets that share a port: elsewhere the name
SO_REUSEPORT means other things."""


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address, not listening yet. Raises InputError where it cannot be had."""
    found, address = _socket(host)
    try:
        if os.name == "posix":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((address[0], port, *address[2:]))
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"--port {port}: is in use; name another, or 0 for any that is free") from None
        raise InputError(f"{host}:{port}: cannot be listened at: {error.strerror}") from None
    return found


class SharedPort:
    """One address for `count` processes. Raises InputError as `listen` does.

    Where the system spreads connections there is a socket for each, and each process gets its share;
    elsewhere they are one, from which whoever is free takes the next connection.
    """

    def __init__(self, host: str, port: int, count: int) -> None:
        self._host = host
        first = listen(host, port)  # that nobody else has the port only a socket that does not share can tell
        self._address, self.url = first.getsockname(), url_of(first)
        self._sockets = [first, *(first.dup() for _ in range(count - 1))]
        if _SPREADS:
            self.close()
            try:
                for number in range(count):
                    self.of(number)
            except InputError:
                self.close()
                raise

    def __len__(self) -> int:
        return len(self._sockets)

    def of(self, number: int) -> socket.socket:
        """That of one process, opened again where it was left."""
        if self._sockets[number].fileno() < 0:
            self._sockets[number] = self._opened()
        return self._sockets[number]

    def leave(self, number: int) -> None:
        """Let the others have the connections of a process that is gone: they would wait at its socket."""
        if _SPREADS:
            self._sockets[number].close()

    def close(self) -> None:
        """Let go of all of them. May be called twice."""
        for one in self._sockets:
            one.close()

    def _opened(self) -> socket.socket:
        found, _ = _socket(self._host)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            found.bind(self._address)
        except OSError as error:
            found.close()
            port = self._address[1]
            raise InputError(f"{self._host}:{port}: cannot be shared: {error.strerror}") from None
        return found


def url_of(listening: socket.socket) -> str:
    """Where the API begins."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def _socket(host: str) -> tuple[socket.socket, tuple[Any, ...]]:
    """A socket of the family of `host`, and its address there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # The protocol is named, or asyncio would leave small packets waiting.
        return socket.socket(family, kind, protocol), cast("tuple[Any, ...]", address)
    except OSError as error:
        raise InputError(f"--host {host}: expected an address of this machine: {error.strerror}") from None
