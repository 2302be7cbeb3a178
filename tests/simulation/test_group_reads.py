"""What a coordinator says of its groups is true when it says so: one that has been deposed says nothing of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.topics import create_topic
from quorumlog.chaos.sim.world import World
from quorumlog.node.broker.broker import Broker
from quorumlog.node.metadata.topics import GROUPS_PARTITIONS, GROUPS_TOPIC
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.murmur2 import partition_for_key
from tests.simulation.scenes import answer, founded, isolate, leader, leaders, others

GROUP = "g"
PARTITION = partition_for_key(GROUP.encode(), GROUPS_PARTITIONS)

Reply = Callable[[Any], None]
Ask = Callable[[Broker, Reply], None]


def coordinator(world: World) -> SimNode:
    return leader(world, PARTITION, GROUPS_TOPIC)


def ask(node: SimNode, question: Ask) -> list[Any]:
    """Ask a node; its answer will be appended to the list returned."""
    assert node.broker is not None
    answers: list[Any] = []
    question(node.broker, answers.append)
    node.pump()
    return answers


def commit(offset: int) -> Ask:
    request = pb.CommitOffsetsRequest(group=GROUP)
    request.offsets.add(partition=pb.TopicPartition(topic="t", partition=0), offset=offset)
    return lambda broker, reply: broker.groups.commit_offsets(request, reply)


def list_groups(broker: Broker, reply: Reply) -> None:
    broker.groups.list_groups(reply)


def describe(broker: Broker, reply: Reply) -> None:
    broker.groups.describe_group(pb.DescribeGroupRequest(group=GROUP), reply)


def fetch_offsets(broker: Broker, reply: Reply) -> None:
    request = pb.FetchOffsetsRequest(group=GROUP)
    request.partitions.add(topic="t", partition=0)
    broker.groups.fetch_offsets(request, reply)


def committed(world: World) -> World:
    create_topic(world, "t", 1)
    done = answer(world, ask(coordinator(world), commit(3)))
    assert not done.HasField("error"), done.error
    return world


def test_the_coordinator_lists_describes_and_tells_offsets() -> None:
    world = committed(founded())
    node = coordinator(world)
    assert [group.group for group in answer(world, ask(node, list_groups)).groups] == [GROUP]
    assert answer(world, ask(node, describe)).group == GROUP
    assert [entry.offset for entry in answer(world, ask(node, fetch_offsets)).offsets] == [3]
    for other in others(world, node):
        assert not answer(world, ask(other, list_groups)).groups, "each node lists what it coordinates"


@pytest.mark.parametrize("question", [list_groups, describe, fetch_offsets])
def test_a_coordinator_that_is_cut_off_tells_nothing_old(question: Ask) -> None:
    world = committed(founded())
    old = coordinator(world)
    isolate(world, old)
    answers: list[Any] = []
    while old in leaders(world, PARTITION, GROUPS_TOPIC):
        # It believes that it leads, and another one may do so by now.
        answers.append(ask(old, question))
        world.run(0.02)
    assert len(answers) > 3
    world.run(1.0)
    new = coordinator(world)
    assert new is not old
    deleted = answer(
        world, ask(new, lambda broker, reply: broker.groups.delete_group(pb.DeleteGroupRequest(group=GROUP), reply))
    )
    assert not deleted.HasField("error"), deleted.error
    for (told,) in answers:
        assert told.HasField("error") or not getattr(told, "groups", True), f"node {old.node_id}: {told}"
