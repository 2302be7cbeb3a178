"""The first words between peers: who a node is, and whom it turns away."""

from __future__ import annotations

from quorumlog.node.broker.broker import Broker
from quorumlog.node.broker.outbox import Lane
from quorumlog.node.rpc.peer_service import PROTOCOL_VERSION
from quorumlog.proto import internal_pb2, peer_pb2


class Greeting:
    """What a process of a node says of itself and asks of others.

    Args:
        descriptor: this node as it wants to be known.
        session_id: of this process; no other process of this node has had it.
    """

    def __init__(self, descriptor: internal_pb2.NodeDescriptor, session_id: int) -> None:
        self.descriptor = descriptor
        self.session_id = session_id

    def hello(self, cluster_id: bytes, peer: int, lane: Lane) -> peer_pb2.Hello:
        """The first frame of a stream to a peer."""
        return peer_pb2.Hello(
            protocol_version=PROTOCOL_VERSION,
            cluster_id=cluster_id,
            node_id=self.descriptor.node_id,
            incarnation=self.descriptor.incarnation,
            session_id=self.session_id,
            lane=peer_pb2.BULK if lane is Lane.BULK else peer_pb2.CONTROL,
            to_node_id=peer,
            address=self.descriptor.client_address,
        )

    def welcome(self) -> peer_pb2.Welcome:
        """The answer to a hello that is welcome."""
        return peer_pb2.Welcome(
            node_id=self.descriptor.node_id, incarnation=self.descriptor.incarnation, session_id=self.session_id
        )

    def identify(self, cluster_id: bytes) -> peer_pb2.IdentifyResponse:
        """Who this node is, for founding; `cluster_id` is empty while it waits."""
        return peer_pb2.IdentifyResponse(
            node_id=self.descriptor.node_id,
            incarnation=self.descriptor.incarnation,
            cluster_id=cluster_id,
            peer_address=self.descriptor.peer_address,
            client_address=self.descriptor.client_address,
            host=self.descriptor.host,
            rack=self.descriptor.rack,
        )

    def refuse(self, hello: peer_pb2.Hello, broker: Broker | None) -> peer_pb2.Refusal | None:
        """Why a peer's stream is turned away; None when it is welcome. `broker` is None while this node waits."""
        me = f"node {self.descriptor.node_id}"
        if hello.protocol_version != PROTOCOL_VERSION:
            message = f"{me} speaks peer protocol {PROTOCOL_VERSION}, not {hello.protocol_version}: upgrade the older"
            return peer_pb2.Refusal(message=message, final=True)
        if hello.to_node_id != self.descriptor.node_id:
            message = f"{me} answers where node {hello.to_node_id} was expected: check the peer addresses"
            return peer_pb2.Refusal(message=message, final=True)
        if broker is None:
            return peer_pb2.Refusal(message=f"{me} waits: it belongs to no cluster yet")
        if hello.cluster_id != broker.founding.cluster_id:
            message = (
                f"{me} belongs to cluster {broker.founding.cluster_id.hex()}, node {hello.node_id} to "
                f"{hello.cluster_id.hex()}: check the peer addresses"
            )
            return peer_pb2.Refusal(message=message, final=True)
        for node in broker.peers():
            if node.node_id == hello.node_id and node.incarnation == hello.incarnation:
                return None
        message = (
            f"node {hello.node_id} with incarnation {hello.incarnation.hex()} is not a member: its "
            "data folder was wiped or is another node's; give it its own folder back"
        )
        return peer_pb2.Refusal(message=message, final=True)
