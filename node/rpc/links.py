"""The streams from this node to its peers: two lanes each, opened here, opened again whenever they break."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import grpc

from quorumlog.node.broker.outbox import Lane, Packet
from quorumlog.node.rpc.convert import frame_of
from quorumlog.node.rpc.options import CHANNEL_OPTIONS
from quorumlog.proto import internal_pb2, peer_pb2
from quorumlog.proto.peer_pb2_grpc import PeerStub

log = logging.getLogger(__name__)

QUEUE_PACKETS_MAX: Final = 1024
"""Packets waiting for one lane."""

QUEUE_SIZE_BYTES_MAX: Final = 64 << 20
"""Entries waiting for one lane, beyond the last packet. Raft bounds what is in flight per group, and a node leads
hundreds: a peer that is frozen must not cost their sum."""

FRAME_PACKETS_MAX: Final = 64
RECONNECT_SECONDS_MIN: Final = 0.05
RECONNECT_SECONDS_MAX: Final = 1.0
HELLO_SECONDS: Final = 5.0


class _Lane:
    """One stream to one peer."""

    def __init__(self, link: PeerLink, lane: Lane) -> None:
        self._link = link
        self._lane = lane
        self._queue: deque[Packet] = deque()
        self._queue_bytes = 0
        self._filled = asyncio.Event()
        self._connected = False

    def send(self, packet: Packet) -> bool:
        """Queue a packet; False when it was dropped because the lane is down or full."""
        full = len(self._queue) >= QUEUE_PACKETS_MAX or self._queue_bytes >= QUEUE_SIZE_BYTES_MAX
        if full or not self._connected:
            return False
        self._queue.append(packet)
        self._queue_bytes += packet.size_bytes
        self._filled.set()
        return True

    async def run(self) -> None:
        """Keep the stream open until cancelled."""
        pause = RECONNECT_SECONDS_MIN
        while True:
            try:
                if await self._run_once():
                    pause = RECONNECT_SECONDS_MIN
            except (grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError) as error:
                log.debug("stream %s to node %d broke: %s", self._lane.value, self._link.node_id, _reason(error))
            except Exception:
                # Whatever it was, a lane that ended here for good would part this node from its peer for good.
                log.exception("stream %s to node %d broke", self._lane.value, self._link.node_id)
            finally:
                was_connected, self._connected = self._connected, False
                self._queue.clear()
                self._queue_bytes = 0
            if was_connected:
                self._link.on_disconnected()
            await asyncio.sleep(pause)
            pause = min(pause * 2, RECONNECT_SECONDS_MAX)

    async def _run_once(self) -> bool:
        """Open the stream and feed it until it breaks. Returns whether it was welcome."""
        call = PeerStub(self._link.channel()).Stream()
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                await call.write(peer_pb2.Frame(hello=self._link.hello(self._lane)))
                answer = await call.read()
            if not isinstance(answer, peer_pb2.HelloAnswer):
                return False
            if answer.HasField("refusal"):
                await self._link.on_refused(answer.refusal)
                return False
            if not self._link.on_welcome(answer.welcome):
                return False
            self._connected = True
            watch = asyncio.ensure_future(call.read())  # ends when the peer closes
            try:
                await self._feed(call, watch)
            finally:
                watch.cancel()
            return True
        finally:
            call.cancel()

    async def _feed(
        self,
        call: grpc.aio.StreamStreamCall[peer_pb2.Frame, peer_pb2.HelloAnswer],
        watch: asyncio.Future[object],
    ) -> None:
        watch.add_done_callback(lambda _: self._filled.set())
        while not watch.done():
            if not self._queue:
                self._filled.clear()
                await self._filled.wait()
                continue
            packets = [self._queue.popleft() for _ in range(min(len(self._queue), self._frame_packets()))]
            self._queue_bytes -= sum(packet.size_bytes for packet in packets)
            await call.write(frame_of(packets, self._link.incarnation))

    def _frame_packets(self) -> int:
        # Bulk packets are large already, and one frame must stay below the limit of a message.
        return FRAME_PACKETS_MAX if self._lane is Lane.CONTROL else 1


class PeerLink:
    """Both lanes to one peer, and who it has turned out to be."""

    def __init__(self, owner: PeerLinks, node: internal_pb2.NodeDescriptor) -> None:
        self.node_id = node.node_id
        self.node = node
        self.incarnation = owner.incarnation
        self._owner = owner
        self._channel: grpc.aio.Channel | None = None
        self._channel_address = ""
        self._lanes = {lane: _Lane(self, lane) for lane in Lane}
        self._tasks: list[asyncio.Task[None]] = []
        self.refusal: peer_pb2.Refusal | None = None
        """How the peer last turned this node away; None while it does not."""
        self.stranger: str | None = None
        """Why the peer is not who it is taken for: it waits and does not take the record, or serves as another."""

    def start(self) -> None:
        """Begin to connect."""
        self._tasks = [asyncio.create_task(lane.run()) for lane in self._lanes.values()]

    async def stop(self) -> None:
        """Close both lanes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    def send(self, lane: Lane, packet: Packet) -> bool:
        """Queue a packet; False when it was dropped."""
        return self._lanes[lane].send(packet)

    def channel(self) -> grpc.aio.Channel:
        """The channel to the peer's present address."""
        if self._channel is None or self._channel_address != self.node.peer_address:
            self._channel = grpc.aio.insecure_channel(self.node.peer_address, options=CHANNEL_OPTIONS)
            self._channel_address = self.node.peer_address
        return self._channel

    def hello(self, lane: Lane) -> peer_pb2.Hello:
        """The first words of a stream."""
        return self._owner.hello(self.node_id, lane)

    def on_welcome(self, welcome: peer_pb2.Welcome) -> bool:
        """The peer took the stream. False: it is another incarnation than the one to be spoken to, so nothing is sent.

        The cluster has admitted the node anew since that process began, or did so after the last of it that is known
        here; then the peer introduces itself, and there will be another link.
        """
        if welcome.incarnation != self.node.incarnation:
            self.on_record_refused(
                f"node {self.node_id} answers at {self.node.peer_address} with incarnation "
                f"{welcome.incarnation.hex()}, and is expected with {self.node.incarnation.hex()}"
            )
            return False
        self.refusal = self.stranger = None
        self._owner.on_up(self.node_id, welcome.session_id)
        return True

    async def on_refused(self, refusal: peer_pb2.Refusal) -> None:
        """The peer turned the stream away: it waits to be founded, or belongs elsewhere."""
        if self.refusal != refusal:
            # A peer that waits is about to be handed the founding record: ordinary at every founding.
            level = logging.WARNING if refusal.final else logging.INFO
            log.log(level, "node %d turns this node away: %s", self.node_id, refusal.message)
        self.refusal = refusal
        if refusal.final:
            self.stranger = None
        else:
            await self._owner.on_waiting_peer(self)

    def on_record_refused(self, reason: str) -> None:
        """The peer is not the node that it is taken for: it waits and does not take the founding record, or serves as
        another.
        """
        if reason != self.stranger:
            log.warning("node %d is not who it is taken for: %s", self.node_id, reason)
        self.stranger = reason

    def on_disconnected(self) -> None:
        """A lane broke."""
        self._owner.on_down(self.node_id)


class PeerLinks:
    """All streams out of this node.

    Args:
        hello: makes the first frame for (peer, lane).
        on_up, on_down: hear of lanes coming and going, with the session of the peer's process.
        on_waiting_peer: a peer is not founded yet; whoever holds the founding record hands it over.
        on_dropped: a packet for this peer was dropped.
    """

    def __init__(
        self,
        *,
        incarnation: bytes,
        hello: Callable[[int, Lane], peer_pb2.Hello],
        on_up: Callable[[int, int], None],
        on_down: Callable[[int], None],
        on_waiting_peer: Callable[[PeerLink], Awaitable[None]],
        on_dropped: Callable[[int], None],
    ) -> None:
        self.incarnation = incarnation
        self.hello = hello
        self.on_up = on_up
        self.on_down = on_down
        self.on_waiting_peer = on_waiting_peer
        self._on_dropped = on_dropped
        self._links: dict[int, PeerLink] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    def set_peers(self, nodes: list[internal_pb2.NodeDescriptor]) -> None:
        """Connect to these nodes, under these incarnations, at these addresses, and to no others."""
        incarnations = {node.node_id: node.incarnation for node in nodes}
        for known in list(self._links.values()):
            if incarnations.get(known.node_id) != known.node.incarnation:
                del self._links[known.node_id]
                self._end(known)
        for node in nodes:
            link = self._links.get(node.node_id)
            if link is None:
                link = self._links[node.node_id] = PeerLink(self, node)
                link.start()
            else:
                link.node = node

    def _end(self, link: PeerLink) -> None:
        stopping = asyncio.create_task(link.stop())
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)
        self.on_down(link.node_id)

    def send(self, peer: int, lane: Lane, packet: Packet) -> None:
        """Send a packet, or drop it: the groups are told and probe again."""
        link = self._links.get(peer)
        if link is not None and not link.send(lane, packet) and lane is Lane.BULK:
            self._on_dropped(peer)

    @property
    def all(self) -> Iterable[PeerLink]:
        """One for each peer."""
        return self._links.values()

    async def stop(self) -> None:
        """Close all streams."""
        await asyncio.gather(*(link.stop() for link in self._links.values()), *self._stopping)


def _reason(error: BaseException) -> str:
    return (error.details() or error.code().name) if isinstance(error, grpc.aio.AioRpcError) else repr(error)
