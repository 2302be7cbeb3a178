"""Small steps that focused tests share: a founded world, who leads, one batch, one fetch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.topics import create_topic
from quorumlog.chaos.sim.world import Pace, World
from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.replica.replica import Replica
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.batch import encode_columns, header_for, seal

FAST = Pace(tick_seconds=0.02, retention_check_seconds=0.2, produce_timeout_seconds=5.0)


def founded(seed: int = 1, *, pace: Pace = FAST, make: Callable[..., World] = World) -> World:
    """A founded cluster of three with fast ticks."""
    world = make(seed, group_settings=GroupSettings(target_interval_seconds=0.1), pace=pace)
    world.found()
    return world


def with_topic(
    seed: int = 1, partitions: int = 1, configs: dict[str, str] | None = None, **options: Any
) -> tuple[World, bytes]:
    """A founded cluster with a topic `t` whose partitions are led, and the topic's id."""
    world = founded(seed, **options)
    topic_id = create_topic(world, "t", partitions, configs)
    for partition in range(partitions):
        leader(world, partition)
    return world, topic_id


def replica_of(node: SimNode, partition: int = 0, topic: str = "t") -> Replica:
    """A node's replica of a partition."""
    replica = find_replica(node, partition, topic)
    assert replica is not None, f"node {node.node_id} has no replica of {topic}[{partition}]"
    return replica


def find_replica(node: SimNode, partition: int = 0, topic: str = "t") -> Replica | None:
    """A running node's replica of a partition, if it has one."""
    found = node.broker.catalogue.topic(topic) if node.broker is not None else None
    if found is None or node.broker is None:
        return None
    return node.broker.multi.replicas.get(found.partitions[partition].group_id)


def leaders(world: World, partition: int = 0, topic: str = "t") -> list[SimNode]:
    """Running nodes that lead a partition and may decide, newest term first."""
    found = [(node, find_replica(node, partition, topic)) for node in world.nodes.values()]
    leading = [(replica.raft.term, node) for node, replica in found if replica is not None and replica.ready_to_decide]
    return [node for _, node in sorted(leading, key=lambda one: -one[0])]


def leader(world: World, partition: int = 0, topic: str = "t", seconds: float = 20.0) -> SimNode:
    """The leader of a partition, once there is one."""
    world.run_until(lambda: bool(leaders(world, partition, topic)), seconds, f"{topic}[{partition}] has no leader")
    return leaders(world, partition, topic)[0]


def others(world: World, node: SimNode) -> list[SimNode]:
    """All nodes but one."""
    return [other for other in world.nodes.values() if other is not node]


def batch(
    values: list[bytes],
    *,
    producer_id: int = 0,
    epoch: int = 0,
    sequence: int = 0,
    timestamp_ms: int = 1_700_000_000_000,
) -> pb.RecordBatch:
    """A sealed batch."""
    stamps = [timestamp_ms] * len(values)
    header = header_for(
        len(values),
        first_timestamp_ms=timestamp_ms,
        max_timestamp_ms=timestamp_ms,
        compression=pb.NONE,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
    )
    return seal(header, encode_columns(values, None, None, stamps))


def produce(
    node: SimNode, records: pb.RecordBatch, *, partition: int = 0, attempt: int = 0, topic: str = "t"
) -> list[pb.ProduceResult]:
    """Hand a batch to a node; its result will be appended to the list returned."""
    assert node.broker is not None
    results: list[pb.ProduceResult] = []
    request = pb.ProduceRequest(correlation_id=1)
    request.batches.add(topic=topic, partition=partition, attempt=attempt, batch=records)
    node.broker.producing.produce(request, results.append)
    node.pump()
    return results


def acked(world: World, results: list[pb.ProduceResult], seconds: float = 10.0) -> pb.ProduceResult:
    """The result, which must come in time and be no error."""
    result: pb.ProduceResult = answer(world, results, seconds)
    assert not result.HasField("error"), result.error
    return result


def answer(world: World, results: list[Any], seconds: float = 10.0) -> Any:
    """The one answer, once it is there."""
    world.run_until(lambda: bool(results), seconds, "no answer")
    return results[0]


def fetch(
    node: SimNode,
    offset: int,
    *,
    partition: int = 0,
    epoch: int | None = None,
    any_replica: bool = False,
    max_wait_ms: int = 0,
    topic: str = "t",
) -> list[pb.FetchResponse]:
    """Fetch rows from a node; the response will be appended to the list returned."""
    assert node.broker is not None
    responses: list[pb.FetchResponse] = []
    request = pb.FetchRequest(format=pb.ROWS, any_replica=any_replica, max_wait_ms=max_wait_ms)
    request.partitions.add(topic=topic, partition=partition, offset=offset, last_leader_epoch=epoch)
    node.broker.fetching.fetch(request, responses.append)
    node.pump()
    return responses


def fetched(world: World, responses: list[pb.FetchResponse], seconds: float = 10.0) -> pb.FetchedPartition:
    """The one partition of a fetch's response."""
    response = answer(world, responses, seconds)
    assert isinstance(response, pb.FetchResponse)
    return response.partitions[0]


def values_on(world: World, node: SimNode, partition: int = 0, topic: str = "t") -> list[bytes]:
    """Every record that a node serves of a partition."""
    values: list[bytes] = []
    while True:
        part = fetched(world, fetch(node, len(values), partition=partition, any_replica=True, topic=topic))
        assert not part.HasField("error"), part.error
        if not part.rows.records:
            return values
        values.extend(record.value for record in part.rows.records)


def isolate(world: World, node: SimNode) -> None:
    """Cut a node off from the others, both ways."""
    for other in others(world, node):
        world.cut |= {(node.node_id, other.node_id), (other.node_id, node.node_id)}


def restart(world: World, node: SimNode) -> None:
    """Lose a node's process with what was not synced, and start it again."""
    node.crash()
    node.start()
