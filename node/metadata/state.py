"""What the catalogue of a cluster holds: nodes, topics, wishes, counters. Only commands of `__cluster` change it."""

from __future__ import annotations

from dataclasses import replace

from quorumlog.node.metadata.topics import (
    CLUSTER_GROUP_ID,
    FIRST_GROUP_ID,
    HostedGroup,
    Node,
    Partition,
    Topic,
    hosted_group,
    hosted_groups,
)
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from quorumlog.proto.errors import make_error


class CatalogueState:
    """The catalogue of one cluster, as far as `__cluster` has been applied.

    Invariants: every group id in use is below `next_group_id` and belongs to one partition; replicas, also those that
    leave, are known nodes, though perhaps under an earlier incarnation; `voters` and `draining` are known nodes, and
    from the founding on there is a voter; `catalogue_version` rises with every change of nodes or of topics, but not
    when a group reports that it has settled or when other nodes shall vote.
    """

    def __init__(self) -> None:
        self.founding: internal_pb2.Founding | None = None
        self.nodes: dict[int, Node] = {}
        self.topics: dict[str, Topic] = {}
        self.next_group_id = FIRST_GROUP_ID
        self.next_producer_id = 1
        self.catalogue_version = 0
        self.voters: tuple[int, ...] = ()
        """Who shall vote in `__cluster`, by node id. Every other member learns."""
        self.voters_version = 0
        self.draining: set[int] = set()
        """Nodes on which nothing is placed any more."""
        self._names_by_id: dict[bytes, str] = {}
        self._partitions_by_group: dict[int, tuple[str, int]] = {}

    @property
    def cluster_id(self) -> bytes:
        """The cluster's id (16 bytes); empty until founded."""
        return self.founding.cluster_id if self.founding is not None else b""

    def topic(self, name: str) -> Topic | None:
        """Return the topic of this name, if there is one."""
        return self.topics.get(name)

    def topic_by_id(self, topic_id: bytes) -> Topic | None:
        """Return the topic of this id, if there is one."""
        name = self._names_by_id.get(topic_id)
        return self.topics[name] if name is not None else None

    def group(self, group_id: int) -> HostedGroup | None:
        """Return the group of this id; None when it is gone or was never there (`allotted` tells which)."""
        place = self._partitions_by_group.get(group_id)
        if place is None:
            return None
        name, partition = place
        topic = self.topics[name]
        return hosted_group(topic, topic.partitions[partition])

    def allotted(self, group_id: int) -> bool:
        """Whether this group id has been given out. One that was, and that `group` does not find, has been removed."""
        return CLUSTER_GROUP_ID <= group_id < self.next_group_id

    def assignments_for(self, node_id: int, incarnation: bytes) -> list[HostedGroup]:
        """Return the groups that this node shall host, by group id; none under an incarnation that is not a member."""
        node = self.nodes.get(node_id)
        if node is None or node.incarnation != incarnation:
            return []
        groups = [
            group
            for name in sorted(self.topics)
            for group in hosted_groups(self.topics[name])
            if group.placed_on(node_id, incarnation) is not None
        ]
        return sorted(groups, key=lambda group: group.group_id)

    def partition_of(self, group_id: int) -> tuple[Topic, Partition] | None:
        """Return the topic and the partition that this group is; None when it is gone or was never there."""
        place = self._partitions_by_group.get(group_id)
        if place is None:
            return None
        topic = self.topics[place[0]]
        return topic, topic.partitions[place[1]]

    def held_by(self, node_id: int) -> list[tuple[Topic, Partition]]:
        """Return the partitions whose group may have a replica on this node, under whichever incarnation."""
        return [
            (self.topics[name], partition)
            for name in sorted(self.topics)
            for partition in self.topics[name].partitions
            if any(one.node_id == node_id for one in (*partition.placed, *partition.leaving))
        ]

    def refuse_stranger(self, node_id: int, incarnation: bytes) -> pb.Error | None:
        """Return why a node under this incarnation is no member, or None when it is one."""
        known = self.nodes.get(node_id)
        if known is None:
            return make_error(
                pb.INVALID_REQUEST,
                f"node {node_id} is not a member of cluster {self.cluster_id.hex()} "
                f"(its nodes: {', '.join(map(str, sorted(self.nodes)))})",
                hint="give the node the node_id under which it is known; a new one is added while it waits: "
                "quorumlog cluster add PEER_ADDRESS",
            )
        if known.incarnation != incarnation:
            return make_error(
                pb.INVALID_REQUEST,
                f"node {node_id} comes with incarnation {incarnation.hex()}, but this cluster knows node {node_id} as "
                f"{known.incarnation.hex()}: its data folder was wiped or exchanged",
                hint=f"start node {node_id} with its former data folder, or with an empty one: that has forgotten what "
                "the node promised, so it waits until the cluster has admitted it as a new incarnation",
            )
        return None

    # -- for those who change it

    def set_topic(self, topic: Topic) -> None:
        """Put a topic in the place of the one of its name, or add it."""
        self.topics[topic.name] = topic
        self._names_by_id[topic.topic_id] = topic.name
        for partition in topic.partitions:
            self._partitions_by_group[partition.group_id] = (topic.name, partition.partition)

    def set_partition(self, group_id: int, partition: Partition) -> HostedGroup:
        """Put a partition in the place of the one that is this group, and return the group as it is then."""
        name, number = self._partitions_by_group[group_id]
        topic = self.topics[name]
        topic = replace(topic, partitions=(*topic.partitions[:number], partition, *topic.partitions[number + 1 :]))
        self.topics[name] = topic
        return hosted_group(topic, partition)

    def set_voters(self, voters: tuple[int, ...]) -> None:
        """Let these nodes vote in `__cluster`; sorted."""
        self.voters = voters
        self.voters_version += 1
