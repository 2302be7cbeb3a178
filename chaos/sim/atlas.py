"""Whose disk has lost something, so that no more is lost than a cluster can bear.

Crashes, pauses and partitions may strike every node at once. What is lost from a disk is another matter: no protocol
brings a record back of which every copy is gone. So of each set of voters no more than a minority may have lost
something and not be whole again (TigerBeetle's simulator calls this the fault atlas).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import NamedTuple

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.storage import SimStorage
from quorumlog.chaos.sim.world import World
from quorumlog.node.errors import EntryDamaged
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import index_of_log_key
from quorumlog.raft import Configuration, LogIndex


class Flip(NamedTuple):
    """A stored entry that is not what was written."""

    node: SimNode
    storage: SimStorage
    key: bytes
    damaged: bytes

    @property
    def is_there(self) -> bool:
        """Whether it is still damaged, and still somebody's."""
        here = self.node.database.storage is self.storage
        return here and self.storage.peek(Family.LOG, self.key) == self.damaged


class Atlas:
    """The map of a world's damage."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hurt: set[int] = set()
        self.flips: list[Flip] = []

    def flip(self, flip: Flip) -> None:
        """Damage an entry."""
        self.flips.append(flip)
        self.hurt_now(flip.node)
        flip.storage.damage(Family.LOG, flip.key, flip.damaged)

    def read_damage(self) -> None:
        """Have somebody meet every damaged entry on a running node, as a reader would, unless it is still in memory."""
        self.flips = [flip for flip in self.flips if flip.is_there]
        for flip in self.flips:
            flip.node.enter(partial(self._read, flip))

    def _read(self, flip: Flip) -> None:
        broker = flip.node.broker
        replica = broker.multi.replicas.get(int.from_bytes(flip.key[1:9], "big")) if broker is not None else None
        index = index_of_log_key(flip.key)
        if replica is None or not replica.raft.first_index <= index <= replica.raft.last_index:
            return
        try:
            replica.log.entries(LogIndex(index), LogIndex(index), 1)
        except EntryDamaged as damage:
            replica.note_damage(damage.index)

    def may_hurt(self, node: SimNode) -> bool:
        """Whether this disk may lose something now."""
        self.look()
        hurt = self.hurt | {node.node_id}
        return all(_is_minority(hurt, voters) for voters in self._voters() if node.node_id in voters)

    def may_consist_of(self, voters: Collection[int]) -> bool:
        """Whether a group may be moved to these nodes now."""
        self.look()
        return _is_minority(self.hurt, voters)

    def _voters(self) -> Iterator[Collection[int]]:
        """Every set of voters that there is, or that is wished for."""
        for configuration in self.configurations():
            yield configuration.voters
            yield configuration.outgoing
        for broker in self.world.brokers().values():
            for topic in broker.catalogue.topics.values():
                for partition in topic.partitions:
                    yield partition.replicas

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
        """Every configuration that any replica goes by, or went by when its process ended."""
        for node in self.world.nodes.values():
            if node.broker is not None:
                for replica in node.broker.multi.replicas.values():
                    yield replica.raft.configuration
            else:
                yield from node.configurations

    def is_quorum(self, nodes: Collection[int]) -> bool:
        """Whether these nodes, without those that are hurt, are a majority of all voters of every group."""
        lacking = (set(self.world.nodes) - set(nodes)) | self.hurt
        return all(_is_minority(lacking, voters) for voters in self._voters())

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
        if any(flip.node is node and flip.is_there for flip in self.flips):
            return False
        return not any(replica.log.damaged for replica in replicas.values())


def _is_minority(hurt: Collection[int], voters: Collection[int]) -> bool:
    return not voters or 2 * sum(voter in hurt for voter in voters) < len(voters)
