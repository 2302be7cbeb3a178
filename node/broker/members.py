"""What operators ask of the cluster as a whole: nodes added, drained and removed, partitions moved.

Decided by the leader of `__cluster`. A request is answered once the wish is written down; the groups move by and by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from quorumlog.node.broker.admin import AdminPath
from quorumlog.node.broker.cluster import ClusterGroup, Outcome
from quorumlog.node.broker.liveness import Liveness
from quorumlog.node.metadata import reassigning
from quorumlog.node.metadata.catalogue import Catalogue
from quorumlog.proto import client_pb2, internal_pb2

ResponseT = TypeVar(
    "ResponseT",
    client_pb2.AddNodeResponse,
    client_pb2.RemoveNodeResponse,
    client_pb2.DrainNodeResponse,
    client_pb2.ReassignResponse,
)


class MembersPath:
    """Nodes and placements, as operators wish them.

    Args:
        node_id: of this node, which is alive whatever its peers say.
    """

    def __init__(
        self, *, node_id: int, catalogue: Catalogue, cluster: ClusterGroup, liveness: Liveness, admin: AdminPath
    ) -> None:
        self._node_id = node_id
        self._catalogue = catalogue
        self._cluster = cluster
        self._liveness = liveness
        self._admin = admin

    def add_node(
        self,
        found: internal_pb2.NodeDescriptor,
        reply: Callable[[client_pb2.AddNodeResponse], None],
        *,
        validate_only: bool = False,
    ) -> None:
        """Admit a node that waits, as it has described itself."""
        if not self._cluster.takes_requests:
            reply(client_pb2.AddNodeResponse(error=self._cluster.not_leader()))
            return
        decision = reassigning.admit(self._catalogue, found, alive=self.is_alive(found.node_id))
        if isinstance(decision, client_pb2.Error):
            reply(client_pb2.AddNodeResponse(error=decision))
            return
        if decision is None or validate_only:
            reply(self._added(found))
            return
        self._write(
            internal_pb2.ClusterCommand(admit_node=decision),
            self._added(found),
            lambda: self.add_node(found, reply),
            reply,
        )

    def _added(self, found: internal_pb2.NodeDescriptor) -> client_pb2.AddNodeResponse:
        node = client_pb2.NodeInfo(
            node_id=found.node_id, address=found.client_address, host=found.host, rack=found.rack
        )
        return client_pb2.AddNodeResponse(node=node)

    def is_alive(self, node_id: int) -> bool:
        """Whether a member of this id was heard of lately, under the incarnation that the catalogue knows."""
        return node_id == self._node_id or self._liveness.is_alive(node_id)

    def remove_node(
        self, request: client_pb2.RemoveNodeRequest, reply: Callable[[client_pb2.RemoveNodeResponse], None]
    ) -> None:
        """Take a node out for good."""
        if not self._cluster.takes_requests:
            reply(client_pb2.RemoveNodeResponse(error=self._cluster.not_leader()))
            return
        decision = reassigning.remove(self._catalogue, request.node_id)
        if isinstance(decision, client_pb2.Error):
            reply(client_pb2.RemoveNodeResponse(error=decision))
            return
        response = client_pb2.RemoveNodeResponse()
        if request.validate_only:
            reply(response)
            return
        command = internal_pb2.ClusterCommand(remove_node=decision)
        self._write(command, response, lambda: self.remove_node(request, reply), reply)

    def drain_node(
        self, request: client_pb2.DrainNodeRequest, reply: Callable[[client_pb2.DrainNodeResponse], None]
    ) -> None:
        """Empty a node, or place on it again. The answer says what will be moved."""
        if not self._cluster.takes_requests:
            reply(client_pb2.DrainNodeResponse(error=self._cluster.not_leader()))
            return
        decision = reassigning.drain(
            self._catalogue, request.node_id, end=request.end, unfit=self._admin.unfit_to_copy_to()
        )
        if isinstance(decision, client_pb2.Error):
            reply(client_pb2.DrainNodeResponse(error=decision))
            return
        drain, plan = decision
        response = client_pb2.DrainNodeResponse(changes=plan.changes)
        if request.validate_only:
            reply(response)
            return
        command = internal_pb2.ClusterCommand(drain_node=drain)
        self._write(command, response, lambda: self.drain_node(request, reply), reply)

    def reassign(
        self, request: client_pb2.ReassignRequest, reply: Callable[[client_pb2.ReassignResponse], None]
    ) -> None:
        """Move partitions where they are named, or even everything out."""
        if not self._cluster.takes_requests:
            reply(client_pb2.ReassignResponse(error=self._cluster.not_leader()))
            return
        if request.placements:
            # Whoever names a node may know that it restarts just now.
            plan = reassigning.reassign(self._catalogue, request.placements, self._admin.unfit())
        else:
            plan = reassigning.balance(self._catalogue, self._admin.unfit_to_copy_to()).first(
                request.groups_max or None
            )
        if isinstance(plan, client_pb2.Error):
            reply(client_pb2.ReassignResponse(error=plan))
            return
        response = client_pb2.ReassignResponse(changes=plan.changes)
        if request.validate_only or not plan.groups:
            reply(response)
            return
        self._write(plan.command, response, lambda: self.reassign(request, reply), reply)

    def _write(
        self,
        command: internal_pb2.ClusterCommand,
        done: ResponseT,
        again: Callable[[], None],
        reply: Callable[[ResponseT], None],
    ) -> None:
        """Have `command` applied, then reply `done`. When the catalogue has moved on meanwhile, decide `again`."""

        def on_outcome(outcome: Outcome) -> None:
            if not isinstance(outcome, client_pb2.Error):
                reply(done)
            elif outcome.code == client_pb2.NOT_YET_AVAILABLE:
                again()
            else:
                reply(type(done)(error=outcome))

        self._cluster.propose(command, on_outcome)
