"""What goes out of `drpo serve` in one piece."""

from __future__ import annotations

import asyncio
from typing import cast

from drpo.serving.protocol import _Joining


class Recording:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def joining() -> tuple[Recording, _Joining]:
    below = Recording()
    return below, _Joining(cast("asyncio.Transport", below))


def test_the_head_of_an_answer_goes_out_with_the_first_of_its_body_and_the_rest_as_it_comes() -> None:
    below, transport = joining()
    for part in (b"HTTP/1.1 200 OK\r\n\r\n", b"one", b"two"):
        transport.write(part)
    assert below.written == [b"HTTP/1.1 200 OK\r\n\r\none", b"two"]


def test_a_client_that_asks_whether_to_send_its_body_hears_at_once() -> None:
    below, transport = joining()
    transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert below.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
    transport.write(b"")
    assert below.written[1:] == [b"HTTP/1.1 200 OK\r\n\r\n"]


def test_a_head_whose_body_never_comes_goes_out_before_the_end() -> None:
    below, transport = joining()
    transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
    transport.close()
    assert below.written == [b"HTTP/1.1 200 OK\r\n\r\n"] and transport.is_closing()
