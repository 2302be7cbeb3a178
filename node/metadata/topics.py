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
    """A member of the cluster as it last registered. `host` and `rack` may be empty: not given."""

    node_id: int
    incarnation: bytes
    client_address: str
    peer_address: str
    host: str
    rack: str

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
        )


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition and the wish where its replicas shall be.

    `replicas` are node ids, the preferred leader first. `incarnations` are theirs when the partition was created.
    `committed`: the group's leader has committed for the first time, so its own log says who votes and the placement
    may change; each change raises `placement_version` from 0.
    """

    partition: int
    group_id: int
    replicas: tuple[int, ...]
    incarnations: tuple[bytes, ...]
    placement_version: int = 0
    committed: bool = False


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
    replicas: tuple[int, ...]
    incarnations: tuple[bytes, ...]
    placement_version: int

    def born_voter(self, node_id: int, incarnation: bytes) -> bool:
        """Whether a replica born now on this node votes from birth, because the creation names it.

        Only the unchanged creation record says so, and only for the incarnation named in it: any later replica is born
        empty and learns from the group's own log whether it votes.
        """
        return self.placement_version == 0 and (node_id, incarnation) in zip(
            self.replicas, self.incarnations, strict=True
        )


def hosted_group(topic: Topic, partition: Partition) -> HostedGroup:
    """Return the group of one partition of `topic`."""
    return HostedGroup(
        group_id=partition.group_id,
        topic=topic.name,
        topic_id=topic.topic_id,
        partition=partition.partition,
        replicas=partition.replicas,
        incarnations=partition.incarnations,
        placement_version=partition.placement_version,
    )


def hosted_groups(topic: Topic) -> tuple[HostedGroup, ...]:
    """Return the groups of all partitions of `topic`, by partition."""
    return tuple(hosted_group(topic, partition) for partition in topic.partitions)
