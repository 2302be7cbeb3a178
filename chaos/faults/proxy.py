"""A TCP proxy in front of every node, which knows who dials: each direction between two nodes has troubles of its own.

What is held back is not lost, as TCP sends again what a network swallows: after the trouble it goes on, late, or its
connection is reset. A connection whose bytes are held stays half-open when one side is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

from quorumlog.clock import monotonic

CHUNK_BYTES = 1 << 16
CHUNKS_WAITING_MAX = 64
_ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset."""


@dataclass(slots=True)
class Way:
    """One direction between two nodes, and what is done to its bytes.

    `delay_seconds` and `jitter_seconds` are per chunk, in order; `rates` are limits in bytes per second;
    `stall_in_frame` lets half of the next chunk pass and holds the rest.
    """

    delay_seconds: float = 0.0
    jitter_seconds: float = 0.0
    rates: list[float] = field(default_factory=list)
    stall_in_frame: bool = False
    bytes_passed: int = 0
    chunks_held: int = 0
    chunks_waiting: int = 0
    chunks_delayed: int = 0
    chunks_split: int = 0
    _holds: int = 0
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._open.set()

    @property
    def held(self) -> bool:
        """Whether nothing passes."""
        return self._holds > 0

    def hold(self) -> None:
        """Let nothing pass; each hold is released once."""
        self._holds += 1
        self._open.clear()

    def release(self) -> None:
        """Take a hold back; with the last one what waits goes on."""
        assert self._holds > 0, "the way is not held"
        self._holds -= 1
        if not self._holds:
            self._open.set()

    async def until_open(self) -> None:
        """Wait while it is held."""
        if not self._open.is_set():
            self.chunks_held += 1
            self.chunks_waiting += 1
            try:
                await self._open.wait()
            finally:
                self.chunks_waiting -= 1

    def due(self, now: float, rng: random.Random) -> float:
        """When a chunk that comes now may pass."""
        if self.delay_seconds or self.jitter_seconds:
            self.chunks_delayed += 1
            return now + self.delay_seconds + rng.random() * self.jitter_seconds
        return now


class Proxy:
    """Listens once for each node, and passes on what other nodes send there; a context manager.

    Args:
        who: the number of the node whose process dialled (own port, remote port); None when it is not known.
        rng: of the jitter.
    """

    def __init__(self, who: Callable[[int, int], int | None], rng: random.Random) -> None:
        self._who = who
        self._rng = rng
        self._ways: dict[tuple[int, int], Way] = {}
        self._connections: set[_Connection] = set()
        self._servers: list[asyncio.Server] = []
        self.resets = 0
        self.strangers = 0

    def way(self, source: int, target: int) -> Way:
        """The direction from one node to another."""
        return self._ways.setdefault((source, target), Way())

    async def listen(self, target: int, address: tuple[str, int]) -> int:
        """Listen for those who dial node `target`, and return the port. `address` is where the node itself listens."""

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(target, address, reader, writer)

        # Not given a port: it stays bound for the whole run, so it need not be found again.
        server = await asyncio.start_server(accepted, "127.0.0.1", 0)
        self._servers.append(server)
        port = server.sockets[0].getsockname()[1]
        assert isinstance(port, int)
        return port

    async def _serve(
        self, target: int, address: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        own, remote = writer.get_extra_info("sockname")[1], writer.get_extra_info("peername")[1]
        source = self._who(own, remote)
        if source is None:
            self.strangers += 1
            _abort(writer)
            return
        # As the first packet of a connection would, it waits for its way.
        await self.way(source, target).until_open()
        try:
            onward = await asyncio.open_connection(*address)
        except OSError:
            _abort(writer)  # nothing listens there, and the dialler shall see that
            return
        connection = _Connection(source, target, (reader, writer), onward)
        self._connections.add(connection)
        try:
            await connection.run(self.way(source, target), self.way(target, source), self._rng)
        finally:
            self._connections.discard(connection)

    def reset(self, pairs: Iterable[tuple[int, int]]) -> int:
        """Reset every connection between these nodes, whoever dialled; returns how many there were."""
        wanted = {frozenset(pair) for pair in pairs}
        found = [one for one in self._connections if frozenset((one.source, one.target)) in wanted]
        for connection in found:
            connection.reset()
        self.resets += len(found)
        return len(found)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.reset()
        await asyncio.gather(*(connection.ended.wait() for connection in list(self._connections)))


class _Connection:
    """A connection of one node to another, in two halves."""

    def __init__(
        self,
        source: int,
        target: int,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.source = source
        self.target = target
        self._near = near
        self._far = far
        self._tasks: list[asyncio.Task[None]] = []
        self.ended = asyncio.Event()

    async def run(self, there: Way, back: Way, rng: random.Random) -> None:
        """Pass everything on until both sides have ended, or one is broken."""
        self._tasks = [
            asyncio.create_task(_pump(self._near[0], self._far[1], there, rng)),
            asyncio.create_task(_pump(self._far[0], self._near[1], back, rng)),
        ]
        try:
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
            broken = any(task.cancelled() or task.exception() is not None for task in done)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self.ended.set()
        for writer in (self._near[1], self._far[1]):
            if broken:
                _abort(writer)
            else:
                writer.close()

    def reset(self) -> None:
        """Break it, so that both sides hear of a reset."""
        for task in self._tasks:
            task.cancel()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way, rng: random.Random) -> None:
    """Pass on what is read, as the way allows, until the end of the stream, which is passed on as well."""
    waiting: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(CHUNKS_WAITING_MAX)

    async def read() -> None:
        chunk: bytes | None = None
        while chunk != b"":
            try:
                chunk = await reader.read(CHUNK_BYTES)
            except OSError:
                chunk = None
            await waiting.put((way.due(monotonic(), rng), chunk))
            if chunk is None:
                return

    reading = asyncio.create_task(read())
    try:
        while True:
            due, chunk = await waiting.get()
            await asyncio.sleep(max(0.0, due - monotonic()))
            if not chunk:
                await way.until_open()  # the end of a stream and a reset are packets like any other
                break
            await _pass(chunk, writer, way)
        if chunk is None:
            raise ConnectionResetError
        with contextlib.suppress(OSError):
            writer.write_eof()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _pass(chunk: bytes, writer: asyncio.StreamWriter, way: Way) -> None:
    if way.stall_in_frame and len(chunk) > 1:
        way.stall_in_frame = False
        way.chunks_split += 1
        half = len(chunk) // 2
        await way.until_open()
        writer.write(chunk[:half])
        way.bytes_passed += half
        chunk = chunk[half:]
        way.hold()
    if way.rates:
        await asyncio.sleep(len(chunk) / min(way.rates))
    await way.until_open()
    writer.write(chunk)
    way.bytes_passed += len(chunk)
    await writer.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    taken = writer.get_extra_info("socket")
    if taken is not None:
        with contextlib.suppress(OSError):
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    writer.transport.abort()
