"""How a node that waits becomes a member of a cluster that there is: told to by an operator, or by itself after it lost
its data folder.

A link that is turned away because its peer waits asks the peer who it is. Under the incarnation that the catalogue
knows it is handed the founding record, with its admission where it came later. Under another one it is a member that
has lost its folder: the leader of `__cluster` is asked to admit it in the place of the one that it names, which is
refused if somebody else was faster. Any member may do either, as often as it likes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from quorumlog.node.broker.broker import Broker
from quorumlog.node.broker.cluster import Outcome
from quorumlog.node.metadata import reassigning
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID
from quorumlog.node.rpc.founding import descriptor_of, hand_over, identify, identify_through
from quorumlog.node.rpc.links import PeerLink
from quorumlog.proto import client_pb2, internal_pb2
from quorumlog.proto.errors import make_error

log = logging.getLogger(__name__)

ADMIT_SECONDS: Final = 2.0


class Admission:
    """Takes nodes in, on a member.

    Args:
        broker: of this node.
        wake: has the broker pumped soon.
    """

    def __init__(self, broker: Broker, wake: Callable[[], None]) -> None:
        self._broker = broker
        self._wake = wake
        self._admitting: set[bytes] = set()
        """Incarnations that the leader of `__cluster` has been asked to admit, until it answers."""

    async def add(self, request: client_pb2.AddNodeRequest) -> client_pb2.AddNodeResponse:
        """Have the node at a peer address admitted, as an operator wants it."""
        broker = self._broker
        if not broker.cluster.takes_requests:
            return client_pb2.AddNodeResponse(error=broker.cluster.not_leader())
        answer = await identify(request.address, "the node")
        if isinstance(answer, client_pb2.Error):
            return client_pb2.AddNodeResponse(error=answer)
        if answer.cluster_id not in (b"", broker.founding.cluster_id):
            error = make_error(
                client_pb2.INVALID_REQUEST,
                f"node {answer.node_id} at {request.address} belongs to cluster {answer.cluster_id.hex()}",
                hint="start it with an empty data folder",
            )
            return client_pb2.AddNodeResponse(error=error)
        done: asyncio.Future[client_pb2.AddNodeResponse] = asyncio.get_running_loop().create_future()

        def reply(response: client_pb2.AddNodeResponse) -> None:
            if not done.done():
                done.set_result(response)

        broker.members.add_node(descriptor_of(answer), reply, validate_only=request.validate_only)
        self._wake()
        return await done

    async def on_waiting_peer(self, link: PeerLink) -> None:
        """A peer waits: hand it the founding record, or have it admitted."""
        broker = self._broker
        known = broker.catalogue.nodes.get(link.node_id)
        admitted = known.descriptor() if known is not None and known.admitted_at_index else None
        if admitted is None or broker.cluster.has_parted_from(link.node_id):
            refusal = await hand_over(link.channel(), broker.founding, admitted)
            if refusal is None:
                return
            link.on_record_refused(refusal)
        if known is None:
            return  # the catalogue here does not know who the members are
        answer = await identify_through(link.channel())
        if answer is not None and answer.node_id == link.node_id and not answer.cluster_id:
            self._admit(descriptor_of(answer))

    def _admit(self, found: internal_pb2.NodeDescriptor) -> None:
        broker = self._broker
        decision = reassigning.admit(broker.catalogue, found, alive=broker.members.is_alive(found.node_id))
        if not isinstance(decision, internal_pb2.AdmitNode) or found.incarnation in self._admitting:
            return
        if broker.directory.leader_of(CLUSTER_GROUP_ID) is None:
            return  # what is asked now would be done when there is one, and the former folder may be back by then
        self._admitting.add(found.incarnation)

        def on_outcome(outcome: Outcome) -> None:
            self._admitting.discard(found.incarnation)
            if isinstance(outcome, client_pb2.Error):
                log.warning("node %d is not admitted yet: %s", found.node_id, outcome.message)
            else:
                log.warning(
                    "node %d has lost its data folder; it is admitted as incarnation %s in the place of %s",
                    found.node_id,
                    found.incarnation.hex(),
                    decision.replaced_incarnation.hex(),
                )

        broker.cluster.submit(internal_pb2.ClusterCommand(admit_node=decision), ADMIT_SECONDS, on_outcome)
        self._wake()
