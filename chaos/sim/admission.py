"""Nodes that wait, and members that take them in: what the links between nodes do about it, without the links."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.world import World
from quorumlog.node.broker.broker import Broker
from quorumlog.node.metadata import reassigning
from quorumlog.node.storage.identity import Founder, Founding, FoundingRefused, save_identity
from quorumlog.proto import internal_pb2
from quorumlog.raft import NodeId

KNOCK_SECONDS: Final = 1.0
ADMIT_SECONDS: Final = 5.0


class Admission:
    """Has every member look, now and then, for nodes that wait."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._asked: set[tuple[int, bytes]] = set()
        world.after(KNOCK_SECONDS, self._knock)

    def _knock(self) -> None:
        world = self.world
        world.after(KNOCK_SECONDS, self._knock)
        for waiting in list(world.nodes.values()):
            if waiting.opened is None or waiting.running or waiting.paused:
                continue
            for member in world.nodes.values():
                links = {(member.node_id, waiting.node_id), (waiting.node_id, member.node_id)}
                if member.broker is not None and not member.paused and not links & world.cut:
                    member.enter(partial(self._on_waiting, member.broker, waiting))
                if waiting.broker is not None:
                    break

    def _on_waiting(self, broker: Broker, waiting: SimNode) -> None:
        """Hand the founding record over, or have the node admitted."""
        known = broker.catalogue.nodes.get(waiting.node_id)
        admitted = known.descriptor() if known is not None and known.admitted_at_index else None
        if take(waiting, broker.founding, admitted) or known is None:
            return
        found = waiting.descriptor()
        decision = reassigning.admit(broker.catalogue, found, alive=broker.members.is_alive(found.node_id))
        key = broker.node_id, found.incarnation
        if not isinstance(decision, internal_pb2.AdmitNode) or key in self._asked:
            return
        self._asked.add(key)
        command = internal_pb2.ClusterCommand(admit_node=decision)
        broker.cluster.submit(command, ADMIT_SECONDS, lambda _: self._asked.discard(key))
        # A process that ends forgets that it has asked.
        self.world.after(2 * ADMIT_SECONDS, lambda: self._asked.discard(key))


def take(waiting: SimNode, record: internal_pb2.Founding, admitted: internal_pb2.NodeDescriptor | None) -> bool:
    """Let a node that waits take the founding record, if it names it, or if the cluster has `admitted` it later."""
    assert waiting.opened is not None
    founders = sorted(record.nodes, key=lambda node: node.node_id)
    founding = Founding(
        record.cluster_id,
        tuple(Founder(NodeId(node.node_id), node.incarnation) for node in founders),
        record.SerializeToString(deterministic=True),
    )
    identity = waiting.opened.identity
    try:
        if admitted is None:
            member = identity.founded(founding)
        else:
            founder = Founder(NodeId(admitted.node_id), admitted.incarnation)
            member = identity.admitted(founding, founder, admitted.admitted_at_index)
    except FoundingRefused:
        return False
    save_identity(waiting.files, member)
    waiting.world.tell(f"node {waiting.node_id} is taken in")
    waiting.join(replace(waiting.opened, identity=member))
    return True
