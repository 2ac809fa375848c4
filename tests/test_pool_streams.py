"""Streamed answers of the pool, by the bytes that a server sends and by the pace of who reads them."""

from __future__ import annotations

import asyncio

import pytest

from drpo.llm import pool_stream as module
from tests.support.loops import Run
from tests.support.stream_peer import CHUNKED, HEAD, WHOLE, Watched, pass_by, rest_of, say, streaming

BODIES = {
    "in chunks, with a trailer": (WHOLE, True),
    "of a length": (HEAD + b"Content-Length: 5\r\n\r\nabcde", True),
    "to the end of the connection": (HEAD + b"\r\nabcde", False),
    "behind interim answers": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 H\r\nA: b\r\n\r\n" + WHOLE, True),
}


@pytest.mark.parametrize("name", BODIES)
def test_the_parts_are_the_body_wherever_it_is_cut(run: Run, name: str) -> None:
    sent, kept = BODIES[name]

    async def main() -> None:
        async with streaming() as peer:
            for place in range(1, len(sent)):
                coming = asyncio.ensure_future(peer.ask())
                writer = await peer.asked()
                await say(writer, sent[:place])
                writer.write(sent[place:])
                if not kept:
                    writer.close()
                stream = await coming
                assert stream.status == 200 and "a" not in stream.headers and "x-t" not in stream.headers
                assert await rest_of(stream) == b"abcde"
            assert peer.connections == (1 if kept else len(sent) - 1)

    run(main())


def test_an_answer_byte_by_byte_is_the_same(run: Run) -> None:
    async def main() -> None:
        async with streaming() as peer:
            coming = asyncio.ensure_future(peer.ask())
            writer = await peer.asked()
            for number in range(len(WHOLE)):
                await say(writer, WHOLE[number : number + 1])
            assert await rest_of(await coming) == b"abcde"

    run(main())


def test_a_part_comes_when_it_was_sent_and_parts_that_came_together_are_one(run: Run) -> None:
    async def main() -> None:
        async with streaming() as peer:
            stream, writer = await peer.begin()
            await say(writer, b"1\r\na\r\n")
            assert await stream.part() == b"a"
            reading = asyncio.ensure_future(stream.part())
            await say(writer, b"1\r\nb\r\n1\r\nc\r\n")
            assert await reading == b"bc"
            await say(writer, b"1\r\nd\r\n")
            await say(writer, b"1\r\ne\r\n0\r\n\r\n")
            assert [await stream.part() for _ in range(3)] == [b"de", b"", b""]

    run(main())


ENDS_TOO_EARLY = {
    "in a chunk": (CHUNKED + b"3\r\nabc\r\n9\r\nde", b"abcde"),
    "between chunks": (CHUNKED + b"3\r\nabc\r\n", b"abc"),
    "before its length": (HEAD + b"Content-Length: 9\r\n\r\nabcde", b"abcde"),
    "with what is no chunk": (CHUNKED + b"3\r\nabc\r\nxyz\r\n", b"abc"),
}


@pytest.mark.parametrize("name", ENDS_TOO_EARLY)
def test_an_answer_that_breaks_gives_what_came_and_then_the_error(run: Run, name: str) -> None:
    sent, came = ENDS_TOO_EARLY[name]

    async def main() -> None:
        async with streaming() as peer:
            stream, writer = await peer.begin(sent)
            writer.close()
            found = b""
            with pytest.raises(ConnectionError):
                while part := await stream.part():
                    found += part
            assert found == came
            stream.close()
            again, _ = await peer.begin(WHOLE)
            assert await rest_of(again) == b"abcde" and peer.connections == 2

    run(main())


@pytest.mark.parametrize(
    "head", [HEAD + b"A: b\r\n" * 20_000, b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000, b"SSH-2.0-x\r\n"]
)
def test_what_is_no_head_or_has_no_end_is_an_error(run: Run, head: bytes) -> None:
    async def main() -> None:
        async with streaming() as peer:
            with pytest.raises(ConnectionError):
                await peer.begin(head)
            await peer.gone.wait()

    run(main())


def test_a_slow_reader_makes_the_server_wait_and_loses_nothing(run: Run) -> None:
    chunk, chunks = b"10000\r\n" + b"x" * 65536 + b"\r\n", 320

    async def main() -> None:
        async with streaming() as peer:
            stream, writer = await peer.begin(timeout_s=0.3)
            written = 0

            async def send() -> None:
                nonlocal written
                for _ in range(chunks):
                    writer.write(chunk)
                    await writer.drain()
                    written += 65536
                writer.write(b"0\r\n\r\n")

            sending = asyncio.ensure_future(send())
            while not stream._paused:
                Watched.changed.clear()
                await Watched.changed.wait()
            await pass_by(0.4)  # longer than the bound, which is not for the reader's own time
            assert not sending.done() and written < chunks * 65536 // 2
            length = most = 0
            while part := await stream.part():
                length, most = length + len(part), max(most, len(part))
            await sending
            assert length == chunks * 65536
            assert most <= module.LONGEST_HELD + 256 * 1024  # what one reading of a socket may add
            again, _ = await peer.begin(WHOLE)
            assert await rest_of(again) == b"abcde" and peer.connections == 1

    run(main())


@pytest.mark.parametrize("ends_by", ["closing", "cancelling", "never having had a head"])
def test_who_leaves_a_stream_ends_it_at_the_server(run: Run, ends_by: str) -> None:
    async def main() -> None:
        async with streaming() as peer:
            if ends_by == "never having had a head":
                asking = asyncio.ensure_future(peer.ask())
                await peer.asked()
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
            else:
                stream, writer = await peer.begin()
                if ends_by == "closing":
                    await say(writer, b"1\r\na\r\n")
                    stream.close()
                    stream.close()
                else:
                    reading = asyncio.ensure_future(stream.part())
                    await asyncio.sleep(0)
                    reading.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await reading
            await peer.gone.wait()
            again, _ = await peer.begin(WHOLE)
            assert await rest_of(again) == b"abcde" and peer.connections == 2

    run(main())


def test_nothing_between_two_parts_is_an_error_behind_what_came(run: Run) -> None:
    async def main() -> None:
        async with streaming() as peer:
            stream, _ = await peer.begin(CHUNKED + b"1\r\na\r\n", timeout_s=0.1)
            await peer.gone.wait()
            assert await stream.part() == b"a"
            with pytest.raises(TimeoutError):
                await stream.part()
            with pytest.raises(TimeoutError):
                await peer.begin(b"HTTP/1.1 100 Continue\r\n\r\n", timeout_s=0.1)

    run(main())


def test_parts_that_each_come_in_time_may_take_longer_than_the_bound_together(run: Run) -> None:
    async def main() -> None:
        async with streaming() as peer:
            loop = asyncio.get_running_loop()
            stream, writer = await peer.begin(timeout_s=0.4)
            until_s = loop.time() + 0.6
            while loop.time() < until_s:
                await pass_by(0.04)
                await say(writer, b"1\r\na\r\n")
                assert set(await stream.part()) == {ord("a")}
            await say(writer, b"0\r\n\r\n")
            assert await stream.part() == b""

    run(main())


def test_bytes_that_are_no_part_do_not_make_the_bound_longer(run: Run) -> None:
    """Or a server could send the extension of a chunk for ever."""

    async def main() -> None:
        async with streaming() as peer:
            stream, writer = await peer.begin(CHUNKED + b"1;", timeout_s=0.2)
            reading = asyncio.ensure_future(stream.part())
            while not reading.done():
                writer.write(b"x")
                await pass_by(0.01)
            with pytest.raises(TimeoutError):
                await reading

    run(main())


@pytest.mark.parametrize("late", [True, False])
def test_a_stream_that_is_finished_keeps_its_connection_once_its_end_has_come(run: Run, late: bool) -> None:
    async def main() -> None:
        async with streaming() as peer:
            stream, writer = await peer.begin(CHUNKED + b"1\r\na\r\n")
            assert await stream.part() == b"a"
            if late:
                stream.finish()
            await say(writer, b"1\r\nb\r\n0\r\n\r\n")
            if not late:
                stream.finish()
            stream.close()
            again, _ = await peer.begin(WHOLE)
            assert await rest_of(again) == b"abcde" and peer.connections == 1

    run(main())


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_stream_that_is_finished_and_has_no_end_is_left(run: Run, goes_on: bool) -> None:
    async def main() -> None:
        async with streaming() as peer:
            stream, writer = await peer.begin(timeout_s=30.0 if goes_on else 0.1)
            stream.finish()
            if goes_on:
                writer.write(b"2000\r\n" + b"x" * 8192)
            await peer.gone.wait()

    run(main())


def test_an_error_is_read_whole_within_its_bounds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_ERROR", 1000)
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def main() -> None:
        async with streaming() as peer:
            stream, writer = await peer.begin(busy + b"2\r\nno\r\n")
            reading = asyncio.ensure_future(stream.whole())
            await say(writer, b"1\r\nt\r\n0\r\n\r\n")
            assert (stream.status, stream.headers["retry-after"], await reading) == (503, "2", b"not")
            stream, _ = await peer.begin(busy + b"3E9\r\n" + b"x" * 1001)
            assert peer.connections == 1
            with pytest.raises(ConnectionError, match="longer than 1000"):
                await stream.whole()
            stream.close()
            await peer.gone.wait()
            stream, writer = await peer.begin(busy, timeout_s=0.2)
            reading = asyncio.ensure_future(stream.whole())
            while not reading.done():
                writer.write(b"1\r\nx\r\n")
                await pass_by(0.01)
            with pytest.raises(TimeoutError):
                await reading

    run(main())


def test_a_pool_that_is_closed_ends_its_streams(run: Run) -> None:
    async def main() -> None:
        async with streaming() as peer:
            stream, _ = await peer.begin()
            reading = asyncio.ensure_future(stream.part())
            await asyncio.sleep(0)
            peer.pool.close()
            with pytest.raises(ConnectionError):
                await reading
            await peer.gone.wait()

    run(main())


def test_a_connection_on_which_more_than_the_stream_came_is_closed(run: Run) -> None:
    async def main() -> None:
        async with streaming() as peer:
            for number in (1, 2):
                stream, _ = await peer.begin(WHOLE + WHOLE)
                assert await rest_of(stream) == b"abcde" and peer.connections == number
            await peer.gone.wait()

    run(main())
