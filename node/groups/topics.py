"""How groups see topics: partitions by topic id, and the directory that the local catalogue fills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2


class TopicPartition(NamedTuple):
    """A partition of one topic, by id (16 bytes) and not by name: a topic created again shares nothing with the old."""

    topic_id: bytes
    partition: int

    @classmethod
    def of(cls, stored: internal_pb2.TopicPartitionId) -> TopicPartition:
        """Return what `stored` names."""
        return cls(stored.topic_id, stored.partition)

    def stored(self) -> internal_pb2.TopicPartitionId:
        """Return the stored form."""
        return internal_pb2.TopicPartitionId(topic_id=self.topic_id, partition=self.partition)


@dataclass(frozen=True, slots=True)
class TopicView:
    """What a group needs to know of a topic."""

    name: str
    topic_id: bytes
    partitions: int


class TopicDirectory(Protocol):
    """The topics that consumers may subscribe to, as far as this node has applied the catalogue."""

    def by_name(self, name: str) -> TopicView | None:
        """Return the topic of this name, if there is one."""
        ...

    def by_id(self, topic_id: bytes) -> TopicView | None:
        """Return the topic of this id, if there is one."""
        ...


def resolve(directory: TopicDirectory, wire: pb.TopicPartition) -> TopicPartition | None:
    """Return the partition that a client means: by id where it gave one, else by name; None for an unknown name."""
    if wire.topic_id:
        return TopicPartition(wire.topic_id, wire.partition)
    topic = directory.by_name(wire.topic)
    return TopicPartition(topic.topic_id, wire.partition) if topic is not None else None


def to_wire(directory: TopicDirectory, partition: TopicPartition) -> pb.TopicPartition:
    """Return the client's form of `partition`; the name is empty for a topic that is gone."""
    topic = directory.by_id(partition.topic_id)
    return pb.TopicPartition(
        topic_id=partition.topic_id,
        topic=topic.name if topic is not None else "",
        partition=partition.partition,
    )
