"""The proxy between nodes, over real sockets of this machine."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Awaitable, Callable

import pytest

from quorumlog.chaos.faults.diallers import dialler
from quorumlog.chaos.faults.proxy import Proxy
from quorumlog.clock import monotonic

WAIT_SECONDS = 10.0
DIALLER, TARGET = 1, 2


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - nothing else tells it
            await asyncio.sleep(0.001)


class Line:
    """A connection through a proxy to somebody who repeats what is said."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.there = proxy.way(DIALLER, TARGET)
        self.back = proxy.way(TARGET, DIALLER)
        self.reader = reader
        self.writer = writer

    async def says(self, text: bytes) -> bytes:
        self.writer.write(text)
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.reader.readexactly(len(text))


def on_a_line(play: Callable[[Line], Awaitable[None]]) -> None:
    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                writer.write(chunk)
        except ConnectionResetError:
            pass
        finally:
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(repeat, "127.0.0.1", 0)
        async with Proxy(lambda own, remote: DIALLER, random.Random(1)) as proxy:
            port = await proxy.listen(TARGET, server.sockets[0].getsockname()[:2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            line = Line(proxy, reader, writer)
            assert await line.says(b"hello") == b"hello"
            await play(line)
            writer.close()
        server.close()

    asyncio.run(run())


def test_it_passes_everything_on() -> None:
    async def play(line: Line) -> None:
        text = os.urandom(3 << 20)
        line.writer.write(text)
        async with asyncio.timeout(WAIT_SECONDS):
            assert await line.reader.readexactly(len(text)) == text
        line.writer.write_eof()
        async with asyncio.timeout(WAIT_SECONDS):
            assert await line.reader.read() == b""
        assert line.there.bytes_passed == line.back.bytes_passed == len(text) + 5

    on_a_line(play)


def test_what_is_held_comes_late_and_is_not_lost() -> None:
    async def play(line: Line) -> None:
        line.there.hold()
        line.back.hold()
        line.writer.write(b"first")
        await eventually(lambda: line.there.chunks_held == 1)
        line.there.release()
        await eventually(lambda: line.back.chunks_held == 1)
        line.back.release()
        async with asyncio.timeout(WAIT_SECONDS):
            assert await line.reader.readexactly(5) == b"first"

    on_a_line(play)


def test_one_way_is_cut_and_the_other_is_not() -> None:
    async def play(line: Line) -> None:
        line.back.hold()
        passed = line.there.bytes_passed
        line.writer.write(b"heard")
        await eventually(lambda: line.there.bytes_passed == passed + 5 and line.back.chunks_held == 1)
        assert line.there.chunks_held == 0
        line.back.release()

    on_a_line(play)


def test_two_faults_hold_a_way_until_both_are_over() -> None:
    async def play(line: Line) -> None:
        line.there.hold()
        line.there.hold()
        line.there.release()
        assert line.there.held
        line.there.release()
        assert await line.says(b"again") == b"again"

    on_a_line(play)


def test_a_new_connection_is_held_as_well() -> None:
    async def play(line: Line) -> None:
        line.there.hold()
        reader, writer = await asyncio.open_connection(*line.writer.get_extra_info("peername"))
        writer.write(b"new")
        await eventually(lambda: line.there.chunks_held == 1)
        assert not line.back.chunks_held, "it has not even been dialled"
        line.there.release()
        async with asyncio.timeout(WAIT_SECONDS):
            assert await reader.readexactly(3) == b"new"
        writer.close()

    on_a_line(play)


def test_a_delay_lets_nothing_come_early_and_keeps_the_order() -> None:
    async def play(line: Line) -> None:
        line.there.delay_seconds, line.there.jitter_seconds = 0.05, 0.05
        began = monotonic()
        for number in range(5):
            line.writer.write(bytes([number]))
            await line.writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(WAIT_SECONDS):
            assert await line.reader.readexactly(5) == bytes(range(5))
        assert monotonic() - began >= 0.05
        assert line.there.chunks_delayed >= 1

    on_a_line(play)


def test_a_rate_lets_no_more_through() -> None:
    async def play(line: Line) -> None:
        line.there.rates.append(50_000.0)
        began = monotonic()
        assert await line.says(b"x" * 10_000) == b"x" * 10_000
        assert monotonic() - began >= 0.19

    on_a_line(play)


def test_a_stall_comes_in_the_middle_and_goes_on_where_it_was() -> None:
    async def play(line: Line) -> None:
        passed = line.there.bytes_passed
        line.there.stall_in_frame = True
        line.writer.write(b"abcdef")
        await eventually(lambda: line.there.chunks_split == 1)
        async with asyncio.timeout(WAIT_SECONDS):
            assert await line.reader.readexactly(3) == b"abc"
        assert line.there.bytes_passed == passed + 3
        line.there.release()
        async with asyncio.timeout(WAIT_SECONDS):
            assert await line.reader.readexactly(3) == b"def"

    on_a_line(play)


@pytest.mark.parametrize("pair", [(DIALLER, TARGET), (TARGET, DIALLER)])
def test_a_reset_reaches_who_dialled(pair: tuple[int, int]) -> None:
    async def play(line: Line) -> None:
        assert line.proxy.reset([(1, 3)]) == 0
        assert line.proxy.reset([pair]) == 1
        async with asyncio.timeout(WAIT_SECONDS):
            with pytest.raises(ConnectionResetError):
                await line.reader.readexactly(1)

    on_a_line(play)


def test_a_stranger_is_sent_away() -> None:
    async def run() -> None:
        async with Proxy(lambda own, remote: None, random.Random(1)) as proxy:
            port = await proxy.listen(TARGET, ("127.0.0.1", 1))
            reader, _ = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.timeout(WAIT_SECONDS):
                with pytest.raises(ConnectionResetError):
                    await reader.readexactly(1)
            assert proxy.strangers == 1

    asyncio.run(run())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv4 from a socket of ipv6"])
def test_a_dialler_is_found_by_its_process(family: socket.AddressFamily) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(family) as caller:
        own = server.getsockname()[1]
        caller.connect(("127.0.0.1" if family is socket.AF_INET else "::ffff:127.0.0.1", own))
        remote = caller.getsockname()[1]
        assert dialler(own, remote, [1 << 30, os.getpid()]) == os.getpid()
        assert dialler(own, remote, [1 << 30]) is None
