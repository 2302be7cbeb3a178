"""What the client believes about the cluster: topics, partitions, leaders, nodes. No network here; a belief may be
wrong at any time."""

from dataclasses import dataclass, field

from quorumlog.descriptions import ConfigEntry, PartitionDescription, TopicDescription
from quorumlog.errors import QuorumlogError, from_wire
from quorumlog.proto import client_pb2 as pb


@dataclass(slots=True)
class Topic:
    """One topic as last heard of. `leaders[partition]` is (address, leader epoch), or None where nobody is known to
    lead."""

    name: str
    topic_id: bytes
    leaders: list[tuple[str, int] | None]
    description: TopicDescription
    catalogue_version: int = 0

    @property
    def max_message_bytes(self) -> int | None:
        """The topic's own limit of a batch in bytes; None where it has none of its own."""
        own = self.description.configs.get("max.message.bytes", "")
        return int(own) if own.isdecimal() else None


@dataclass(slots=True)
class MetadataCache:
    """The beliefs. `version` grows with every change, so that others can tell whether to look again."""

    cluster_id: bytes = b""
    topics: dict[str, Topic] = field(default_factory=dict)
    nodes: dict[int, pb.NodeInfo] = field(default_factory=dict)
    cluster_leader: str = ""
    version: int = 0

    def update(self, response: pb.MetadataResponse) -> dict[str, QuorumlogError]:
        """Take over an answer and return the topics it had errors for.

        The node asked may lag behind. So a leader of an older epoch than the one believed in does not replace it, nor
        does another topic of the same name out of an older catalogue: it was deleted since. And a node that cannot tell
        yet whether there is a topic changes nothing.
        """
        self.version += 1
        if response.cluster_id:
            self.cluster_id = response.cluster_id
        if response.nodes:
            self.nodes = {node.node_id: node for node in response.nodes}
        if response.cluster_leader.address:
            self.cluster_leader = response.cluster_leader.address
        failed: dict[str, QuorumlogError] = {}
        for topic in response.topics:
            if topic.HasField("error") and topic.error.code != pb.OK:
                error = failed[topic.name] = from_wire(topic.error)
                if not error.retriable:
                    self.topics.pop(topic.name, None)
            else:
                self._update_topic(topic, response.catalogue_version)
        return failed

    def _update_topic(self, topic: pb.TopicMetadata, catalogue_version: int) -> None:
        known = self.topics.get(topic.name)
        if known is not None and known.topic_id != topic.topic_id:
            if catalogue_version < known.catalogue_version:
                return
            known = None
        count = max((partition.partition for partition in topic.partitions), default=-1) + 1
        leaders: list[tuple[str, int] | None] = [None] * count
        for partition in topic.partitions:
            number = partition.partition
            heard = (partition.leader.address, partition.leader.leader_epoch) if partition.leader.address else None
            believed = known.leaders[number] if known is not None and number < len(known.leaders) else None
            if heard is not None and believed is not None and believed[1] > heard[1]:
                heard = believed
            leaders[number] = heard
        if known is not None:
            catalogue_version = max(catalogue_version, known.catalogue_version)
        self.topics[topic.name] = Topic(topic.name, topic.topic_id, leaders, describe(topic), catalogue_version)

    def leader(self, topic: str, partition: int) -> str | None:
        """Return the address of a partition's leader, None where it is not known."""
        known = self.topics.get(topic)
        if known is None or partition >= len(known.leaders):
            return None
        leader = known.leaders[partition]
        return leader[0] if leader is not None else None

    def replicas(self, topic: str, partition: int) -> list[pb.NodeInfo]:
        """Return the nodes that hold a replica of a partition, as far as their addresses are known."""
        known = self.topics.get(topic)
        if known is None or partition >= len(known.description.partitions):
            return []
        nodes = (self.nodes.get(node_id) for node_id in known.description.partitions[partition].replicas)
        return [node for node in nodes if node is not None and node.address]

    def learn_leader(self, topic: str, partition: int, leader: pb.Leader) -> bool:
        """Take over a leader that an error named; returns whether that is news."""
        known = self.topics.get(topic)
        if known is None or partition >= len(known.leaders) or not leader.address:
            return False
        believed = known.leaders[partition]
        if believed is not None and (
            believed[1] > leader.leader_epoch or believed == (leader.address, leader.leader_epoch)
        ):
            return False
        known.leaders[partition] = (leader.address, leader.leader_epoch)
        self.version += 1
        return True

    def forget_leader(self, topic: str, partition: int, address: str) -> None:
        """Stop believing that `address` leads the partition."""
        known = self.topics.get(topic)
        if known is None or partition >= len(known.leaders):
            return
        believed = known.leaders[partition]
        if believed is not None and believed[0] == address:
            known.leaders[partition] = None
            self.version += 1

    def forget_node(self, address: str) -> None:
        """Stop believing that `address` leads anything: it does not answer."""
        for topic in self.topics.values():
            for partition, leader in enumerate(topic.leaders):
                if leader is not None and leader[0] == address:
                    topic.leaders[partition] = None
        if self.cluster_leader == address:
            self.cluster_leader = ""
        self.version += 1

    def addresses(self) -> list[str]:
        """Return the advertised addresses of all nodes, those believed to be up first."""
        nodes = sorted(self.nodes.values(), key=lambda node: (not node.up, node.node_id))
        return [node.address for node in nodes if node.address]


def describe(topic: pb.TopicMetadata, entries: tuple[pb.ConfigEntry, ...] = ()) -> TopicDescription:
    """Return the user's view of a topic."""
    return TopicDescription(
        name=topic.name,
        topic_id=topic.topic_id,
        partitions=tuple(
            PartitionDescription(
                partition=partition.partition,
                leader=partition.leader.node_id if partition.HasField("leader") else None,
                leader_address=partition.leader.address,
                leader_epoch=partition.leader.leader_epoch,
                replicas=tuple(partition.replicas),
            )
            for partition in sorted(topic.partitions, key=lambda partition: partition.partition)
        ),
        configs=dict(topic.configs),
        config_entries=tuple(ConfigEntry(entry.name, entry.value, entry.is_default, entry.help) for entry in entries),
    )
