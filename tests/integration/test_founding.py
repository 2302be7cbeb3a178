"""Founding a cluster: once, whatever is killed meanwhile, and never from nodes that belong elsewhere."""

from collections.abc import Mapping

import pytest

from quorumlog.proto import client_pb2 as pb
from tests.integration.cluster import LocalCluster, NodeProcess, eventually
from tests.integration.conftest import MakeCluster
from tests.integration.refusals import error_of


def init(node: NodeProcess, addresses: Mapping[int, str], cluster_id: bytes = b"") -> pb.InitClusterResponse:
    members = [pb.FoundingNode(node_id=number, address=address) for number, address in addresses.items()]
    return node.admin.InitCluster(pb.InitClusterRequest(nodes=members, cluster_id=cluster_id), timeout=30.0)


def refused(node: NodeProcess, addresses: Mapping[int, str], cluster_id: bytes = b"") -> pb.Error:
    return error_of(lambda: init(node, addresses, cluster_id))


def peers_of(cluster: LocalCluster) -> dict[int, str]:
    return {node.node_id: node.peer_address for node in cluster.nodes}


@pytest.fixture
def waiting(make_cluster: MakeCluster) -> LocalCluster:
    """Three nodes that wait."""
    cluster = make_cluster()
    cluster.start()
    for node in cluster.nodes:
        node.until_waiting()
    return cluster


def test_waiting_node_serves_nobody_and_says_what_to_do(waiting: LocalCluster) -> None:
    node = waiting.node(2)
    error = error_of(lambda: node.log.Metadata(pb.MetadataRequest(), timeout=10.0))
    assert error.code == pb.NOT_FOUNDED
    assert error.retriable
    assert "node 2 belongs to no cluster yet" in error.message
    assert "quorumlog cluster init" in error.hint
    status = node.status()
    assert status is not None
    (finding,) = status.findings
    assert (finding.severity, finding.subject) == (pb.INFO, "node 2")
    assert finding.message == "it belongs to no cluster and waits"
    assert "found a cluster with `quorumlog cluster init`, if there is none" in finding.fix


def test_founding_happens_once_and_requests_wait_for_it(waiting: LocalCluster) -> None:
    answer = init(waiting.node(2), peers_of(waiting))
    assert sorted(answer.voters) == [1, 2, 3]
    # At once: until the founding is applied, whoever leads asks to try again instead of deciding from nothing.
    waiting.create_topic("at-once", partitions=3)
    waiting.until_ready()
    for node in waiting.nodes:
        status = node.status()
        assert status is not None
        assert status.cluster_id == answer.cluster_id
        again = refused(node, peers_of(waiting))
        assert again.code == pb.ALREADY_FOUNDED
        assert answer.cluster_id.hex() in again.message


def test_two_calls_at_once_found_one_cluster(waiting: LocalCluster) -> None:
    members = [pb.FoundingNode(node_id=number, address=address) for number, address in peers_of(waiting).items()]
    request = pb.InitClusterRequest(nodes=members)
    calls = [node.admin.InitCluster.future(request, timeout=30.0) for node in waiting.nodes]
    failures = [call.exception() for call in calls]
    founded = {call.result().cluster_id for call, failure in zip(calls, failures, strict=True) if failure is None}
    assert len(founded) == 1
    waiting.until_ready()
    for node in waiting.nodes:
        status = node.status()
        assert status is not None
        assert {status.cluster_id} == founded


def test_founding_cut_off_halfway_completes_by_itself(waiting: LocalCluster) -> None:
    cluster_id = bytes(range(16))
    assert init(waiting.node(1), peers_of(waiting), cluster_id).cluster_id == cluster_id
    for node in waiting.nodes:
        node.kill()
    waiting.start()
    waiting.until_ready()

    def founded(node: NodeProcess) -> bool:
        status = node.status()
        return status is not None and status.cluster_id == cluster_id

    for node in waiting.nodes:
        eventually(f"node {node.node_id} belongs to the cluster", lambda node=node: founded(node))  # type: ignore[misc]


def test_founding_names_what_is_wrong_and_leaves_the_nodes_waiting(waiting: LocalCluster) -> None:
    peers = peers_of(waiting)
    clients = {node.node_id: node.client_address for node in waiting.nodes}
    error = refused(waiting.node(1), clients)
    assert error.code == pb.INVALID_REQUEST
    assert "peer address" in error.message
    assert "not client addresses" in error.hint

    swapped = refused(waiting.node(1), {1: peers[1], 2: peers[3], 3: peers[2]})
    assert swapped.code == pb.INVALID_REQUEST
    assert "where node 2 was expected" in swapped.message

    without = refused(waiting.node(1), {2: peers[2], 3: peers[3]})
    assert without.code == pb.INVALID_REQUEST
    assert "node 1 is asked to found a cluster of the nodes [2, 3]" in without.message
    assert "among them" in without.hint

    odd = refused(waiting.node(1), peers, cluster_id=b"short")
    assert odd.code == pb.INVALID_REQUEST
    assert f"cluster id {b'short'.hex()} is not a UUID" in odd.message

    for node in waiting.nodes:
        status = node.status()
        assert status is not None
        assert status.state == "waiting"


def test_founding_with_a_node_of_another_cluster(waiting: LocalCluster) -> None:
    peers = peers_of(waiting)
    other = init(waiting.node(3), {3: peers[3]}).cluster_id
    error = refused(waiting.node(1), peers)
    assert error.code == pb.ALREADY_FOUNDED
    assert f"node 3 at {peers[3]}" in error.message
    assert other.hex() in error.message
