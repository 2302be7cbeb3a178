"""Whose disk has lost something, so that no more is lost than a cluster can bear.

Crashes, pauses and partitions may strike every node at once. What is lost from a disk is another matter: no protocol
brings a record back of which every copy is gone. So of each set of voters no more than a minority may have lost
something and not be whole again (TigerBeetle's simulator calls this the fault atlas).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.world import World
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID
from quorumlog.raft import Configuration


class Atlas:
    """The map of a world's damage."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hurt: set[int] = set()

    def may_hurt(self, node: SimNode) -> bool:
        """Whether this disk may lose something now."""
        self.look()
        hurt = self.hurt | {node.node_id}
        return all(
            2 * sum(voter in hurt for voter in voters) < len(voters)
            for configuration in self.configurations()
            for voters in (configuration.voters, configuration.outgoing)
            if node.node_id in voters
        )

    def hurt_now(self, node: SimNode) -> None:
        """Something is lost from this disk."""
        self.hurt.add(node.node_id)

    def look(self) -> None:
        """Find out who is whole again."""
        for node_id in sorted(self.hurt):
            if self._is_whole(self.world.nodes[node_id]):
                self.hurt.discard(node_id)
                self.world.tell(f"node {node_id} is whole again")

    def configurations(self) -> Iterator[Configuration]:
        """Every configuration that any running replica goes by."""
        for broker in self.world.brokers().values():
            for replica in broker.multi.replicas.values():
                yield replica.raft.configuration

    def is_quorum(self, nodes: Collection[int]) -> bool:
        """Whether these nodes, without those that are hurt, are a majority of all voters of every group."""
        whole = set(nodes) - self.hurt
        return all(
            2 * sum(voter in whole for voter in voters) > len(voters)
            for configuration in self.configurations()
            for voters in (configuration.voters, configuration.outgoing)
            if voters
        )

    def _is_whole(self, node: SimNode) -> bool:
        """Whether everything that is wanted of the node is there, and counts."""
        broker = node.broker
        if broker is None or CLUSTER_GROUP_ID not in broker.multi.replicas:
            return False
        replicas = broker.multi.replicas
        if any(replica.stopped is not None or not replica.counting for replica in replicas.values()):
            return False
        for other in self.world.brokers().values():
            for group_id, replica in other.multi.replicas.items():
                if node.node_id in replica.raft.configuration.replicas and group_id not in replicas:
                    return False
        return not any(replica.log.damaged for replica in replicas.values())
