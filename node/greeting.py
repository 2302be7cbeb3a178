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
            admitted_at_index=self.descriptor.admitted_at_index,
            peer_address=self.descriptor.peer_address,
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
        known = next((node for node in broker.peers() if node.node_id == hello.node_id), None)
        if known is not None and known.incarnation == hello.incarnation:
            return None
        if hello.admitted_at_index > broker.cluster.applied:
            return None  # it was admitted later than what is known here
        if known is None:
            message = (
                f"node {hello.node_id} is not a member any more: it was removed; to have it back, start it with an "
                "empty data folder and add it anew"
            )
            return peer_pb2.Refusal(message=message, final=True)
        message = (
            f"node {hello.node_id} comes with incarnation {hello.incarnation.hex()}, but the cluster has admitted node "
            f"{hello.node_id} as {known.incarnation.hex()} since, so what the former promised and holds counts for "
            "nothing; start it with the data folder of the latter, or with an empty one"
        )
        return peer_pb2.Refusal(message=message, final=True)


class Acquaintances:
    """The peers of a member: those that its catalogue names, and those that have come by and are newer than that.

    Without the latter a node that was down while others were admitted could be cut off for good: it would neither hear
    the leader of `__cluster`, if that is one of them, nor be able to answer it.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._met: dict[int, internal_pb2.NodeDescriptor] = {}

    def meet(self, hello: peer_pb2.Hello) -> bool:
        """A peer was welcomed. Returns whether it is not, or not there, where it was known."""
        node = internal_pb2.NodeDescriptor(
            node_id=hello.node_id,
            incarnation=hello.incarnation,
            client_address=hello.address,
            peer_address=hello.peer_address,
            admitted_at_index=hello.admitted_at_index,
        )
        known = next((peer for peer in self.peers() if peer.node_id == node.node_id), None)
        if known is not None and (known.incarnation, known.peer_address) == (node.incarnation, node.peer_address):
            return False
        self._met[node.node_id] = node
        return any(peer == node for peer in self.peers())

    def peers(self) -> list[internal_pb2.NodeDescriptor]:
        """The other nodes, each as it is known last."""
        broker = self._broker
        # What the catalogue here has caught up with is its own word again, also that a node was removed.
        self._met = {
            node_id: node
            for node_id, node in self._met.items()
            if node.admitted_at_index > broker.cluster.applied or not broker.catalogue.nodes
        }
        return list(({node.node_id: node for node in broker.peers()} | self._met).values())
