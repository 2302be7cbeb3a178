"""Requests that meet the metadata group while its leadership is being handed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quorumlog.node.broker.broker import Broker
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID
from quorumlog.proto import client_pb2 as pb
from quorumlog.raft import NodeId
from tests.simulation.scenes import others, with_topic

REASSIGNED = pb.ReassignRequest(placements=[pb.PartitionPlacement(topic="t", partition=0, replicas=[1, 2])])
REQUESTS: dict[str, Callable[[Broker, Callable[[Any], None]], None]] = {
    "reassign": lambda broker, reply: broker.members.reassign(REASSIGNED, reply),
    "create": lambda broker, reply: broker.admin.create_topic(pb.CreateTopicRequest(name="u", partitions=1), reply),
    "delete": lambda broker, reply: broker.admin.delete_topic(pb.DeleteTopicRequest(name="t"), reply),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_they_are_told_to_come_again(name: str) -> None:
    world, _ = with_topic()
    world.run(8.0)  # until it is known where the groups are
    node = next(node for node in world.nodes.values() if node.broker is not None and node.broker.cluster.decides)
    assert node.broker is not None
    raft = node.broker.multi.replicas[CLUSTER_GROUP_ID].raft
    raft.transfer_leadership(NodeId(others(world, node)[0].node_id))
    assert node.broker.cluster.takes_requests
    answers: list[Any] = []
    REQUESTS[name](node.broker, answers.append)
    assert answers[0].error.code == pb.NO_LEADER
    assert answers[0].error.retriable
