"""The stored form of topics: as a snapshot of `__cluster` holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from quorumlog.node.metadata.topics import Partition, PlacedReplica, Topic
from quorumlog.proto import internal_pb2


def stored_topic(topic: Topic) -> internal_pb2.TopicState:
    """Return what a snapshot holds of `topic`."""
    return internal_pb2.TopicState(
        name=topic.name,
        topic_id=topic.topic_id,
        configs=dict(topic.configs),
        partitions=[
            internal_pb2.PartitionState(
                partition=partition.partition,
                group_id=partition.group_id,
                replicas=_stored_replicas(partition.placed),
                placement_version=partition.placement_version,
                settled=partition.settled,
                leaving=_stored_replicas(partition.leaving),
                replicas_wanted=partition.replicas_wanted,
            )
            for partition in topic.partitions
        ],
        internal=topic.internal,
        created_at_ms=topic.created_at_ms,
    )


def loaded_topic(state: internal_pb2.TopicState) -> Topic:
    """Return the topic that `stored_topic` stored."""
    return Topic(
        name=state.name,
        topic_id=state.topic_id,
        configs=sorted_configs(state.configs),
        partitions=tuple(
            Partition(
                partition=partition.partition,
                group_id=partition.group_id,
                placed=_loaded_replicas(partition.replicas),
                replicas_wanted=partition.replicas_wanted,
                placement_version=partition.placement_version,
                settled=partition.settled,
                leaving=_loaded_replicas(partition.leaving),
            )
            for partition in state.partitions
        ),
        internal=state.internal,
        created_at_ms=state.created_at_ms,
    )


def sorted_configs(configs: Mapping[str, str]) -> dict[str, str]:
    """Return `configs` in one order: equal states have equal bytes."""
    return dict(sorted(configs.items()))


def _stored_replicas(replicas: Iterable[PlacedReplica]) -> list[internal_pb2.PlacedReplica]:
    return [
        internal_pb2.PlacedReplica(
            node_id=one.node_id, incarnation=one.incarnation, placed_at_index=one.placed_at_index
        )
        for one in replicas
    ]


def _loaded_replicas(replicas: Iterable[internal_pb2.PlacedReplica]) -> tuple[PlacedReplica, ...]:
    return tuple(PlacedReplica(one.node_id, one.incarnation, one.placed_at_index) for one in replicas)
