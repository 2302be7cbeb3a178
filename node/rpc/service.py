"""What the services of the client contract share. Every answer comes from the broker; here is only the carrying."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from google.protobuf.message import Message

from quorumlog.node.broker.broker import Broker
from quorumlog.node.rpc.answers import Context, fail, unknown_fields
from quorumlog.proto import client_pb2
from quorumlog.proto.errors import make_error

log = logging.getLogger(__name__)

STREAM_QUEUE_MAX: Final = 4096
"""Answers of one stream waiting to be written; beyond it the stream is not read."""

ResponseT = TypeVar("ResponseT", bound=Message)


class ClientHost(Protocol):
    """What the services need of the node."""

    node_id: int
    version: str

    @property
    def broker(self) -> Broker | None:
        """None while the node waits to be founded."""

    def wake(self) -> None:
        """Have the broker pumped soon."""

    async def init_cluster(self, request: client_pb2.InitClusterRequest) -> client_pb2.InitClusterResponse:
        """Found a cluster."""

    async def add_node(self, request: client_pb2.AddNodeRequest) -> client_pb2.AddNodeResponse:
        """Have a node that waits admitted."""

    def status(self) -> client_pb2.StatusResponse:
        """The state of the node, founded or not."""


class ClientService:
    """What the three services share."""

    def __init__(self, host: ClientHost) -> None:
        self.host = host

    async def broker(self, context: Context) -> Broker:
        """The broker; while the node waits to be founded the call fails."""
        broker = self.host.broker
        if broker is None:
            error = make_error(client_pb2.NOT_FOUNDED, f"node {self.host.node_id} belongs to no cluster yet: it waits")
            await fail(context, error)
        return broker

    async def unary(
        self, request: Message, context: Context, ask: Callable[[Broker, Callable[[ResponseT], None]], Any]
    ) -> ResponseT:
        """Ask the broker and wait for its answer; an error of the whole call becomes its status."""
        broker = await self.broker(context)
        strange = unknown_fields(request)
        if strange is not None:
            await fail(context, strange)
        answer: asyncio.Future[ResponseT] = asyncio.get_running_loop().create_future()

        def reply(response: ResponseT) -> None:
            if not answer.done():
                answer.set_result(response)

        try:
            give_up = ask(broker, reply)
        except Exception:
            name = type(request).__name__
            log.exception("a %s brought out a bug", name)
            await fail(context, make_error(client_pb2.UNKNOWN, f"node {self.host.node_id} failed at a {name}"))
        self.host.wake()
        try:
            response = await answer
        except asyncio.CancelledError:
            if callable(give_up):
                give_up()
            raise
        return await self.checked(response, context)

    async def checked(self, response: ResponseT, context: Context) -> ResponseT:
        """The response; the call fails when it is an error as a whole."""
        names = response.DESCRIPTOR.fields_by_name
        if "error" in names and response.HasField("error"):
            await fail(context, response.error)  # type: ignore[attr-defined]  # looked up by its descriptor
        return response


class Outgoing:
    """Answers of a stream, written in order by one task; several may be gathered into one message by `take`."""

    def __init__(self) -> None:
        self._queue: deque[Any] = deque()
        self._filled = asyncio.Event()
        self._changed = asyncio.Event()
        self.closing = False

    def put(self, item: object) -> None:
        """Add an answer."""
        if not self._queue:
            self._filled.set()
        self._queue.append(item)
        self._changed.set()

    def close(self) -> None:
        """Add nothing any more."""
        self.closing = True
        self._filled.set()

    def __len__(self) -> int:
        return len(self._queue)

    async def take(self, count_max: int) -> list[Any]:
        """Wait for something; everything there is, up to `count_max`. Empty once closed and drained."""
        while not self._queue and not self.closing:
            self._filled.clear()
            await self._filled.wait()
        self._changed.set()
        return [self._queue.popleft() for _ in range(min(len(self._queue), count_max))]

    async def changed(self) -> None:
        """Wait until something is put or taken; for whoever reads no further while too much waits here."""
        self._changed.clear()
        await self._changed.wait()


async def read_and_write(reading: Coroutine[None, None, None], writing: Coroutine[None, None, None]) -> None:
    """Run both sides of a stream until the writing has ended, which it does once its answers are closed and drained.

    Whichever side breaks ends the stream with its exception: a stream with one side only would stay open, and mute.
    """
    reader, writer = asyncio.create_task(reading), asyncio.create_task(writing)
    try:
        await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        if reader.done():
            reader.result()
        await writer
    finally:
        reader.cancel()
        writer.cancel()
