"""The streams from peers to this node, and how it is taken into a cluster."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from typing import Final, Protocol

import grpc
from google.protobuf.message import DecodeError

from quorumlog.node.broker.outbox import Packet
from quorumlog.node.errors import EntryCorrupt, UnknownEntryKind
from quorumlog.node.rpc.convert import packet_of
from quorumlog.proto import internal_pb2, peer_pb2
from quorumlog.proto.peer_pb2_grpc import PeerServicer

log = logging.getLogger(__name__)

PROTOCOL_VERSION: Final = 1


class PeerHost(Protocol):
    """What the service needs of the node."""

    def refuse(self, hello: peer_pb2.Hello) -> peer_pb2.Refusal | None:
        """Why a stream that begins like this is turned away; None when it is welcome."""

    def welcome(self) -> peer_pb2.Welcome:
        """Who this node is."""

    def on_connected(self, peer: int, session_id: int) -> None:
        """A stream of the peer's process was welcomed."""

    def on_packet(self, peer: int, session_id: int, packet: Packet) -> None:
        """Take a packet."""

    def on_disconnected(self, peer: int) -> None:
        """A stream of the peer's present process ended."""

    def identify(self) -> peer_pb2.IdentifyResponse:
        """Who this node is, for founding."""

    async def found(
        self, founding: internal_pb2.Founding, admitted: internal_pb2.NodeDescriptor | None
    ) -> peer_pb2.FoundResponse:
        """Take the founding record, if it names this node, or if the cluster has admitted it later."""


class PeerService(PeerServicer):
    """Serves `quorumlog.peer.v1.Peer`."""

    def __init__(self, host: PeerHost, node_id: int) -> None:
        self._host = host
        self._node_id = node_id
        self._sessions: dict[int, int] = {}
        self._incarnations: dict[int, bytes] = {}

    def end_strangers(self, members: Mapping[int, bytes]) -> None:
        """Take nothing more from streams of nodes that are not members any more under the incarnation they came with.

        `members`: their incarnations by node id.
        """
        for peer, incarnation in list(self._incarnations.items()):
            if members.get(peer) != incarnation:
                del self._incarnations[peer], self._sessions[peer]  # the streams end at their next frame
                self._host.on_disconnected(peer)

    async def Stream(  # type: ignore[override]  # noqa: N802 # the name in the contract; it writes through `context`
        self,
        request_iterator: AsyncIterator[peer_pb2.Frame],
        context: grpc.aio.ServicerContext[peer_pb2.Frame, peer_pb2.HelloAnswer],
    ) -> None:
        """One lane of one peer, until it ends."""
        first: object = await context.read()
        if not isinstance(first, peer_pb2.Frame) or not first.HasField("hello"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first frame of a peer stream must be `hello`")
        hello = first.hello
        refusal = self._host.refuse(hello)
        if refusal is not None:
            await context.write(peer_pb2.HelloAnswer(refusal=refusal))
            return
        peer, session_id = hello.node_id, hello.session_id
        # The latest process of a peer counts; streams of an earlier one end at their next frame.
        self._sessions[peer] = session_id
        self._incarnations[peer] = hello.incarnation
        self._host.on_connected(peer, session_id)
        await context.write(peer_pb2.HelloAnswer(welcome=self._host.welcome()))
        try:
            await self._receive(context, hello)
        finally:
            if self._sessions.get(peer) == session_id:
                self._host.on_disconnected(peer)

    async def _receive(
        self,
        context: grpc.aio.ServicerContext[peer_pb2.Frame, peer_pb2.HelloAnswer],
        hello: peer_pb2.Hello,
    ) -> None:
        peer, session_id = hello.node_id, hello.session_id
        while True:
            frame: object = await context.read()
            if not isinstance(frame, peer_pb2.Frame) or self._sessions.get(peer) != session_id:
                return
            if frame.incarnation != hello.incarnation:
                log.warning("dropping the stream of node %d: a frame names another incarnation", peer)
                return
            try:
                packet = packet_of(frame, peer, self._node_id)
            except (EntryCorrupt, UnknownEntryKind, ValueError) as error:
                log.warning("dropping the stream of node %d: %s", peer, error)
                return
            self._host.on_packet(peer, session_id, packet)

    async def Identify(  # noqa: N802 # the name in the contract
        self,
        request: peer_pb2.IdentifyRequest,
        context: grpc.aio.ServicerContext[peer_pb2.IdentifyRequest, peer_pb2.IdentifyResponse],
    ) -> peer_pb2.IdentifyResponse:
        """Who this node is."""
        return self._host.identify()

    async def Found(  # noqa: N802 # the name in the contract
        self,
        request: peer_pb2.FoundRequest,
        context: grpc.aio.ServicerContext[peer_pb2.FoundRequest, peer_pb2.FoundResponse],
    ) -> peer_pb2.FoundResponse:
        """Take the founding record."""
        try:
            founding = internal_pb2.Founding.FromString(request.founding)
            admitted = internal_pb2.NodeDescriptor.FromString(request.admitted) if request.admitted else None
        except DecodeError as error:
            return peer_pb2.FoundResponse(message=f"the founding record cannot be read: {error}")
        if not founding.voters or not {node.node_id for node in founding.nodes}.issuperset(founding.voters):
            return peer_pb2.FoundResponse(message="the founding record names no voters, or some that are not its nodes")
        return await self._host.found(founding, admitted)
