"""The values of the catalogue: nodes, topics, partitions, and the groups that a node hosts. All immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quorumlog.proto import internal_pb2

CLUSTER_TOPIC = "__cluster"
CLUSTER_GROUP_ID = 1
"""Group id of `__cluster` itself. It is in no topic of the catalogue: its voters stand in the founding record."""
FIRST_GROUP_ID = 2
GROUPS_TOPIC = "__groups"
GROUPS_PARTITIONS = 16
"""Partitions of `__groups`, recorded when a cluster is founded: a group's partition is murmur2(group) modulo this."""
GROUPS_TOPIC_ID = bytes(15) + b"\x01"
"""Topic id of `__groups`, the same in every cluster: it is born with the cluster and never created again."""
ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Node:
    """A member of the cluster as it last registered. `host` and `rack` may be empty: not given.

    `admitted_at_index` is the index of the entry of `__cluster` that took this incarnation in; 0 for the founders.
    """

    node_id: int
    incarnation: bytes
    client_address: str
    peer_address: str
    host: str
    rack: str
    admitted_at_index: int = 0

    @classmethod
    def of(cls, descriptor: internal_pb2.NodeDescriptor) -> Node:
        """Return the node that `descriptor` describes."""
        return cls(
            node_id=descriptor.node_id,
            incarnation=descriptor.incarnation,
            client_address=descriptor.client_address,
            peer_address=descriptor.peer_address,
            host=descriptor.host,
            rack=descriptor.rack,
            admitted_at_index=descriptor.admitted_at_index,
        )

    def descriptor(self) -> internal_pb2.NodeDescriptor:
        """Return the stored form."""
        return internal_pb2.NodeDescriptor(
            node_id=self.node_id,
            incarnation=self.incarnation,
            client_address=self.client_address,
            peer_address=self.peer_address,
            host=self.host,
            rack=self.rack,
            admitted_at_index=self.admitted_at_index,
        )


@dataclass(frozen=True, slots=True)
class PlacedReplica:
    """A replica on a node: the incarnation of the node that was meant, and the index of the entry that placed it."""

    node_id: int
    incarnation: bytes
    placed_at_index: int


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition and the wish where its replicas shall be.

    `placed` is the wish, the preferred leader first; each change of it raises `placement_version` from 0. `settled`:
    the group's leader has reported that it committed under a configuration that is the wish. Until then `leaving` may
    still be in the group's configuration: they are out of the wish, and keep what they have. `replicas_wanted` is
    larger than the number of replicas while nodes are missing.
    """

    partition: int
    group_id: int
    placed: tuple[PlacedReplica, ...]
    replicas_wanted: int
    placement_version: int = 0
    settled: bool = False
    leaving: tuple[PlacedReplica, ...] = ()

    @property
    def replicas(self) -> tuple[int, ...]:
        """Node ids of the wish, the preferred leader first."""
        return tuple(one.node_id for one in self.placed)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic. The id tells it from an earlier or later one of the same name. `configs` are those set, not defaults."""

    name: str
    topic_id: bytes
    configs: Mapping[str, str]
    partitions: tuple[Partition, ...]
    internal: bool
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class HostedGroup:
    """A partition's Raft group, as the nodes that host it need to know it."""

    group_id: int
    topic: str
    topic_id: bytes
    partition: int
    placed: tuple[PlacedReplica, ...]
    leaving: tuple[PlacedReplica, ...]
    placement_version: int
    settled: bool

    @property
    def replicas(self) -> tuple[int, ...]:
        """Node ids of the wish, the preferred leader first."""
        return tuple(one.node_id for one in self.placed)

    def placed_on(self, node_id: int, incarnation: bytes) -> PlacedReplica | None:
        """The replica that this incarnation of the node shall have; None when it shall have none."""
        for one in self.placed:
            if one.node_id == node_id and one.incarnation == incarnation:
                return one
        return None

    def may_hold(self, node_id: int, incarnation: bytes) -> bool:
        """Whether this incarnation of the node has a replica, or keeps one until the group is settled without it."""
        return any(one.node_id == node_id and one.incarnation == incarnation for one in (*self.placed, *self.leaving))

    @property
    def votes_from_birth(self) -> bool:
        """Whether a replica born now is a voter, because it is the creation that bears it.

        Only the unchanged creation record says so: any later replica is born empty and learns from the group's own log
        whether it votes.
        """
        return self.placement_version == 0


def hosted_group(topic: Topic, partition: Partition) -> HostedGroup:
    """Return the group of one partition of `topic`."""
    return HostedGroup(
        group_id=partition.group_id,
        topic=topic.name,
        topic_id=topic.topic_id,
        partition=partition.partition,
        placed=partition.placed,
        leaving=partition.leaving,
        placement_version=partition.placement_version,
        settled=partition.settled,
    )


def hosted_groups(topic: Topic) -> tuple[HostedGroup, ...]:
    """Return the groups of all partitions of `topic`, by partition."""
    return tuple(hosted_group(topic, partition) for partition in topic.partitions)
