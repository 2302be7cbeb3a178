"""An acknowledgement is given after a majority has synced: held back on two of three nodes, none comes."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from quorumlog.proto import client_pb2 as pb
from tests.integration.cluster import LocalCluster, NodeProcess
from tests.integration.conftest import MakeCluster

HELD_SECONDS = 1.5
"""How long the acknowledgement is waited for in vain; many times as long as it takes otherwise."""

TOPIC = "held"


def hold(node: NodeProcess) -> Path:
    path = node.folder / "hold"
    path.touch()
    return path


@pytest.fixture
def held(make_cluster: MakeCluster) -> LocalCluster:
    program = (str(Path(__file__).with_name("held_node.py")),)
    cluster = make_cluster(program=program).up()
    cluster.create_topic(TOPIC)
    return cluster


def produce(node: NodeProcess, value: bytes) -> Any:
    """The future of the answer."""
    request = pb.ProduceRequest(
        batches=[pb.PartitionBatch(topic=TOPIC, rows=pb.Rows(records=[pb.Record(value=value)]))], timeout_ms=30_000
    )
    return node.log.ProduceOnce.future(request, timeout=30.0)


@pytest.mark.parametrize("leader_is_held", [True, False], ids=["leader-and-one-follower", "both-followers"])
def test_no_ack_before_a_majority_has_synced(held: LocalCluster, leader_is_held: bool) -> None:
    leader = held.leader(TOPIC)
    followers = [node for node in held.nodes if node is not leader]
    first: pb.ProduceResponse = produce(leader, b"free").result()
    assert first.results[0].base_offset == 0
    files = [hold(node) for node in ([leader, followers[0]] if leader_is_held else followers)]

    answer = produce(leader, b"held")
    with pytest.raises(grpc.FutureTimeoutError):
        answer.result(timeout=HELD_SECONDS)
    for node in held.nodes:
        replica = node.replica(TOPIC, 0)
        assert replica is not None
        assert replica.high_watermark == 1, f"node {node.node_id} shows a record that is not on a majority's disk"

    files[-1].unlink()  # one of the two is enough for a majority
    response: pb.ProduceResponse = answer.result(timeout=20.0)
    assert not response.results[0].HasField("error"), response.results[0].error
    assert response.results[0].base_offset == 1
    files[0].unlink()
    for node in held.nodes:
        assert [record.value for record in node.read(TOPIC, 0, 2)] == [b"free", b"held"]
