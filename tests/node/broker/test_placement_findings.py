"""What operators are told of partitions that are not where they shall be, and of nodes that are drained."""

from collections.abc import Collection

from quorumlog.node.broker.placement_findings import placement_findings
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from tests.node.metadata.founded import Cluster, descriptor, good, incarnation

ANEW = b"\xee" * 16


def settled(nodes: int, replicas: int) -> Cluster:
    cluster = Cluster(nodes=nodes)
    cluster.create("orders", partitions=1, replicas=replicas)
    for topic in list(cluster.catalogue.topics.values()):
        for partition in topic.partitions:
            cluster.report(partition)
    return cluster


def told(cluster: Cluster, down: Collection[int] = ()) -> list[pb.Finding]:
    return list(placement_findings(cluster.catalogue, lambda node_id: node_id not in down))


def drain(cluster: Cluster, node_id: int) -> None:
    command = internal_pb2.DrainNode(node_id=node_id, incarnation=incarnation(node_id), draining=True)
    good(cluster.apply(drain_node=command))


def test_nothing_is_told_of_what_is_as_it_should_be_whoever_is_down() -> None:
    assert told(settled(3, 3), down=[2]) == []


def test_a_partition_on_its_way_is_told() -> None:
    cluster = settled(4, 3)
    partition = cluster.catalogue.topics["orders"].partitions[0]
    [spare] = {1, 2, 3, 4} - set(partition.replicas)
    good(cluster.move(partition, [*partition.replicas[:2], spare]))
    (finding,) = told(cluster)
    assert finding.severity == pb.INFO
    assert "orders partition 0" in finding.message
    (stuck,) = told(cluster, down=[spare])
    assert (stuck.severity, stuck.subject) == (pb.WARNING, f"node {spare}")
    assert f"start node {spare}" in stuck.fix


def test_a_drained_node_is_told_until_it_is_empty_and_then_what_to_do_with_it() -> None:
    cluster = settled(3, 3)
    good(cluster.apply(admit_node=internal_pb2.AdmitNode(node=descriptor(4))))
    drain(cluster, 4)
    (empty,) = told(cluster)
    assert (empty.severity, empty.subject) == (pb.INFO, "node 4")
    assert "cluster remove 4" in empty.fix
    drain(cluster, 1)
    busy = next(finding for finding in told(cluster) if finding.subject == "node 1")
    assert busy.message.startswith("being drained; still on it: orders partition 0, __groups partition 0, ")
    assert busy.message.endswith(" and 14 more")


def test_missing_replicas_are_told_with_what_fills_them_up() -> None:
    cluster = settled(3, 3)
    good(cluster.wipe(3, ANEW))
    for topic in list(cluster.catalogue.topics.values()):
        for partition in topic.partitions:
            cluster.report(partition)
    (finding,) = told(cluster, down=[3])
    assert finding.severity == pb.WARNING
    assert "fewer replicas than wanted: orders partition 0" in finding.message


def test_the_loss_of_an_only_replica_is_a_problem() -> None:
    cluster = settled(3, 1)
    holder = cluster.catalogue.topics["orders"].partitions[0].replicas[0]
    good(cluster.wipe(holder, ANEW))
    problem = next(finding for finding in told(cluster) if finding.severity == pb.PROBLEM)
    assert problem.subject == f"node {holder}"
    assert "only replica of orders partition 0" in problem.message
    assert ANEW.hex() in problem.message
