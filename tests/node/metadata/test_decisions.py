"""What the leader of `__cluster` refuses, and that its errors name the thing and the fix."""

import random

import pytest

from quorumlog.node.metadata import decisions
from quorumlog.node.metadata.placement import PlacementNode
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from tests.node.metadata.founded import NOW_MS, Cluster, bad, descriptor, good, incarnation


def test_more_replicas_than_nodes_names_both_numbers() -> None:
    error = bad(Cluster(nodes=3).decide(name="orders", replicas=5))
    assert error.code == pb.INVALID_REPLICATION
    assert "5 replicas" in error.message
    assert "3 nodes" in error.message
    assert error.hint == "ask for at most 3 replicas"


def test_more_replicas_than_make_sense_are_refused() -> None:
    error = bad(Cluster(nodes=9).decide(name="orders", replicas=8))
    assert error.code == pb.INVALID_REPLICATION
    assert "8 replicas" in error.message


def test_too_many_partitions_name_the_limit() -> None:
    error = bad(Cluster().decide(name="orders", partitions=decisions.PARTITIONS_MAX + 1))
    assert error.code == pb.INVALID_REQUEST
    assert str(decisions.PARTITIONS_MAX) in error.hint


@pytest.mark.parametrize("name", ["", "a/b", "..", "__mine", "x" * 250])
def test_invalid_names_are_refused(name: str) -> None:
    assert bad(Cluster().decide(name=name)).code == pb.INVALID_NAME


def test_a_request_that_leaves_things_open_gets_the_defaults_that_the_cluster_allows() -> None:
    alone = Cluster(nodes=1).create("orders")
    assert [group.replicas for group in alone.born] == [(1,)]
    three = Cluster(nodes=4).create("orders")
    assert [len(group.replicas) for group in three.born] == [3]


def test_unfit_nodes_are_passed_over_where_others_have_room() -> None:
    cluster = Cluster(nodes=3)

    def placed(replicas: int) -> list[list[int]]:
        request = pb.CreateTopicRequest(name="orders", partitions=6, replicas=replicas)
        decision = decisions.create_topic(cluster.catalogue, request, rng=cluster.rng, now_ms=NOW_MS, unfit=[2])
        return [list(placement.replicas) for placement in good(decision).placements]

    assert all(sorted(replicas) == [1, 3] for replicas in placed(2))
    everywhere = placed(3)
    assert all(sorted(replicas) == [1, 2, 3] for replicas in everywhere), "better there than nowhere"
    assert {replicas[0] for replicas in everywhere} == {1, 3}, "but not to lead"


def test_nodes_that_are_drained_take_nothing() -> None:
    cluster = Cluster(nodes=3)
    drain = internal_pb2.DrainNode(node_id=2, incarnation=incarnation(2), draining=True)
    good(cluster.apply(drain_node=drain))
    assert [sorted(group.replicas) for group in cluster.create("orders", partitions=4).born] == [[1, 3]] * 4
    error = bad(cluster.decide(name="clicks", replicas=3))
    assert error.code == pb.INVALID_REPLICATION
    assert "besides the 1 being drained" in error.message


def test_placement_counts_what_the_nodes_have() -> None:
    cluster = Cluster(nodes=3)
    cluster.create("orders", partitions=4, replicas=1)
    before = {node.node_id: node for node in decisions.placement_nodes(cluster.catalogue)}
    assert sum(node.replicas for node in before.values()) == 16 * 3 + 4
    cluster.create("clicks", partitions=5, replicas=1)
    after = [node.replicas for node in decisions.placement_nodes(cluster.catalogue)]
    assert max(after) - min(after) == 0


def test_the_same_seed_decides_the_same() -> None:
    first, second = (Cluster(nodes=5, seed=7).decide(name="orders", partitions=9, replicas=3) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(("nodes", "voters"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)])
def test_the_cluster_has_the_most_odd_voters_that_its_nodes_allow(nodes: int, voters: int) -> None:
    descriptors = [descriptor(node_id) for node_id in range(nodes, 0, -1)]
    record = good(decisions.founding(descriptors, cluster_id=b"", rng=random.Random(1), now_ms=NOW_MS))
    assert len(record.voters) == voters
    assert list(record.voters) == sorted(record.voters)
    assert [node.node_id for node in record.nodes] == list(range(1, nodes + 1))


def test_voters_stand_on_different_hosts_where_they_can() -> None:
    hosts = {1: "a", 2: "a", 3: "a", 4: "b", 5: "c"}
    descriptors = [descriptor(node_id, host) for node_id, host in hosts.items()]
    descriptors.pop(1)
    record = good(decisions.founding(descriptors, cluster_id=b"\x01" * 16, rng=random.Random(3), now_ms=NOW_MS))
    assert record.cluster_id == b"\x01" * 16
    assert sorted(hosts[voter] for voter in record.voters) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("nodes", "cluster_id", "named"),
    [
        ([], b"", "no nodes"),
        ([descriptor(1), descriptor(1)], b"", "node 1"),
        ([descriptor(0)], b"", "node_id 0"),
        ([descriptor(1)], b"short", "73686f7274"),
    ],
    ids=["nobody", "twice", "zero", "cluster id"],
)
def test_a_founding_that_cannot_be_names_why(nodes: list[object], cluster_id: bytes, named: str) -> None:
    refused = decisions.founding(nodes, cluster_id=cluster_id, rng=random.Random(1), now_ms=NOW_MS)  # type: ignore[arg-type]
    assert named in bad(refused).message


def test_a_founding_node_without_incarnation_is_named() -> None:
    stranger = descriptor(4)
    stranger.incarnation = b""
    refused = decisions.founding([stranger], cluster_id=b"", rng=random.Random(1), now_ms=NOW_MS)
    assert "node 4" in bad(refused).message


def test_every_node_can_take_replicas() -> None:
    nodes = decisions.placement_nodes(Cluster(nodes=2).catalogue)
    assert [type(node) for node in nodes] == [PlacementNode, PlacementNode]
    assert [(node.node_id, node.host, node.replicas, node.leaders) for node in nodes] == [
        (1, "host-1", 16, 8),
        (2, "host-2", 16, 8),
    ]
